"""Which number format a backbone computes in.

Input: a network or a device, and a dtype. Output: a context, or the network changed in place.
Does not: touch the heads, which stay in float32, or choose the format (``models.precision`` does).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager

import torch
from torch import nn


def backbone_precision(device: torch.device, dtype: torch.dtype) -> AbstractContextManager:
    """Compute matrix products in ``dtype`` inside the context; residual streams stay float32."""
    return torch.autocast(device.type, dtype=dtype, enabled=dtype != torch.float32)


def backbone_matrices(network: nn.Module) -> Iterator[tuple[str, nn.Linear]]:
    """List the linear layers of the backbone with their names: what is multiplied and stored in a shorter format."""
    for name, module in network.named_modules():
        if name.startswith("backbone.") and isinstance(module, nn.Linear):
            yield name, module


def set_backbone_dtype(network: nn.Module, dtype: torch.dtype) -> None:
    """Let the backbone compute in ``dtype`` from now on; its matrices are stored in it, which halves their memory.

    Raises:
        ValueError: the matrices were shortened before and float32 is asked for; load the network again.
    """
    for _, module in backbone_matrices(network):
        if module.weight.dtype == dtype:
            continue
        if module.weight.dtype != torch.float32:
            raise ValueError(f"set_backbone_dtype: the backbone is stored in {module.weight.dtype}, wanted {dtype}")
        module.weight.data = module.weight.data.to(dtype)
    network.compute_dtype = dtype  # type: ignore[assignment]
