"""Which number format a backbone computes in.

Input: a device and a dtype. Output: a context. Does not: touch the heads, which stay in float32.
"""

from __future__ import annotations

from contextlib import AbstractContextManager

import torch


def backbone_precision(device: torch.device, dtype: torch.dtype) -> AbstractContextManager:
    """Compute matrix products in ``dtype`` inside the context; residual streams stay float32."""
    return torch.autocast(device.type, dtype=dtype, enabled=dtype != torch.float32)
