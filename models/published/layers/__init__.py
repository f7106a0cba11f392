"""Building blocks shared by every published network: tokens, attention, dense heads, camera heads, Gaussians."""

from __future__ import annotations
