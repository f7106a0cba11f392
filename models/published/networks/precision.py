"""Which number format a backbone computes in.

Input: a network or a device, and a dtype. Output: a context, or the network changed in place.
Does not: touch the heads, which stay in float32, or choose the format (``models.precision`` does).
"""

from __future__ import annotations

from contextlib import AbstractContextManager

import torch
from torch import nn


def backbone_precision(device: torch.device, dtype: torch.dtype) -> AbstractContextManager:
    """Compute matrix products in ``dtype`` inside the context; residual streams stay float32."""
    return torch.autocast(device.type, dtype=dtype, enabled=dtype != torch.float32)


def set_backbone_dtype(network: nn.Module, dtype: torch.dtype) -> None:
    """Let the backbone compute in ``dtype`` from now on; its matrices are stored in it, which halves their memory.

    Raises:
        ValueError: the matrices were shortened before and float32 is asked for; load the network again.
    """
    for module in network.get_submodule("backbone").modules():
        if not isinstance(module, nn.Linear) or module.weight.dtype == dtype:
            continue
        if module.weight.dtype != torch.float32:
            raise ValueError(f"set_backbone_dtype: the backbone is stored in {module.weight.dtype}, wanted {dtype}")
        module.weight.data = module.weight.data.to(dtype)
    network.compute_dtype = dtype  # type: ignore[assignment]
