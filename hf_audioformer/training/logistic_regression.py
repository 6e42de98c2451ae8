"""Logistic regression of labels in either form, for any number of classes that do occur."""

import numpy as np

__all__ = ["logistic_regression"]


def logistic_regression(
    vectors: np.ndarray, labels: np.ndarray, num_labels: int, *, inverse_regularization: float, max_iterations: int
) -> tuple[np.ndarray, np.ndarray]:
    """Weights (num_labels, size) and biases (num_labels,); one against the rest for several labels per clip.

    A class that no clip has, or of several labels every clip, gets no weights and the bias of its frequency.

    Args:
        vectors: (clips, size), on scales that may share one penalty.
        labels: Class indices (clips,), or multi-hot (clips, num_labels).
        inverse_regularization: C of scikit-learn's LogisticRegression.
        max_iterations: Of its solver.
    """

    def fit(targets: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        from sklearn.linear_model import LogisticRegression

        fitted = LogisticRegression(C=inverse_regularization, max_iter=max_iterations).fit(vectors, targets)
        return fitted.coef_, fitted.intercept_

    weight, bias = np.zeros((num_labels, vectors.shape[1])), np.zeros(num_labels)
    if labels.ndim == 1:
        present = np.unique(labels)
        if len(present) > 1:
            fitted_weight, fitted_bias = fit(labels)
            if len(present) == 2:  # scikit-learn gives the difference of the two
                fitted_weight, fitted_bias = np.outer([-0.5, 0.5], fitted_weight), fitted_bias * [-0.5, 0.5]
            weight[present], bias[present] = fitted_weight, fitted_bias
        bias[np.setdiff1d(np.arange(num_labels), present)] = bias.min() - 1
        return weight, bias
    for index, column in enumerate(labels.T > 0.5):
        if column.any() and not column.all():
            weight[index], bias[index] = (part[0] for part in fit(column))
        else:
            bias[index] = np.log((column.sum() + 1) / (len(column) - column.sum() + 1))
    return weight, bias
