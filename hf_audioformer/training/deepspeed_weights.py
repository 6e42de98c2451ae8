"""The weights that DeepSpeed updates, of which the network itself holds copies in 16 bits."""

from collections.abc import Mapping

import torch

__all__ = ["updated_weights"]


def updated_weights(model: torch.nn.Module, gathered: Mapping[str, torch.Tensor] | None) -> dict[str, torch.Tensor]:
    """What was gathered of a model under DeepSpeed (ZeRO 1 to 3), in float32, as the optimizer holds it.

    All processes must call it; only the first one gets the whole of it.
    """
    from deepspeed.utils import safe_get_full_fp32_param

    weights = dict(gathered or {})
    for name, parameter in model.named_parameters():
        updated = safe_get_full_fp32_param(parameter) if parameter.requires_grad else None
        if updated is not None:
            weights[name] = updated.detach().cpu().clone()
    return {name: weight.float() if weight.is_floating_point() else weight for name, weight in weights.items()}
