"""Which arithmetic is fastest on this machine, decided in one place.

Does not: change what a network computes beyond rounding.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TypeVar

import torch
from torch import nn

__all__ = ["autocast_dtype", "to_channels_last"]

Module = TypeVar("Module", bound=nn.Module)


@lru_cache
def autocast_dtype(device: str) -> torch.dtype | None:
    """bfloat16 where the hardware multiplies it natively (CUDA, AMX or AVX-512 BF16); None for plain float32.

    On CPUs without it, oneDNN emulates bfloat16 and is slower than float32.
    """
    if device.startswith("cuda"):
        return torch.bfloat16
    native = (
        getattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)()
        or getattr(torch.cpu, "_is_amx_tile_supported", lambda: False)()
    )
    return torch.bfloat16 if native else None


def to_channels_last(module: Module) -> Module:
    """Lay convolution weights out channels last, in place: several times faster on CPUs for small channel counts."""
    for parameter in module.parameters():
        if parameter.ndim == 4:
            parameter.data = parameter.data.to(memory_format=torch.channels_last)
        elif parameter.ndim == 5:
            parameter.data = parameter.data.to(memory_format=torch.channels_last_3d)
    return module
