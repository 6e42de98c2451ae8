"""How far a waveform is from the one it should be."""

import torch
from torch import Tensor

__all__ = ["si_sdr_db"]


def si_sdr_db(estimate: Tensor, reference: Tensor) -> float:
    """Scale-invariant signal-to-distortion ratio in dB; higher is nearer, whatever the level of the estimate.

    Both are floating point (samples,); what is longer is cut. NaN if either is silent.

    Source: Le Roux et al., SDR - half-baked or well done?, arXiv 1811.02508, equation 3 (of means that are removed).
    """
    samples = min(len(estimate), len(reference))
    estimate, reference = (wave[:samples].double() - wave[:samples].double().mean() for wave in (estimate, reference))
    if not estimate.any() or not reference.any():
        return float("nan")
    target = (estimate @ reference) / (reference @ reference) * reference
    return float(10 * torch.log10((target @ target) / ((estimate - target) @ (estimate - target))))
