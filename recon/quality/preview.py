"""A sheet that shows at a glance what came out: photo, rendering, depth.

Input: Gaussians, some posed photos, a rasteriser. Output: an 8-bit picture.
Does not: write files.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from ..posed import PosedViews
from ..records import Gaussians, Rasterizer

TURBO = np.array(
    [
        [48, 18, 59],
        [70, 107, 227],
        [40, 187, 236],
        [49, 242, 153],
        [162, 252, 60],
        [237, 208, 58],
        [251, 128, 34],
        [210, 49, 5],
        [122, 4, 3],
    ]
)
"""Nine stops of the Turbo colour map (Mikhailov, Google AI blog 2019), interpolated linearly."""


def colorize_depth(depth: Float[Tensor, "H W"], alpha: Float[Tensor, "H W"]) -> np.ndarray:
    """Near is red, far is blue, empty is black; inverse depth between its 2% and 98% quantiles."""
    inverse = torch.where(depth > 0, 1.0 / depth.clamp_min(1e-8), torch.zeros_like(depth))
    shown = inverse[alpha > 0.3]
    if len(shown) == 0:
        return np.zeros((*depth.shape, 3), np.uint8)
    low, high = torch.quantile(shown[:: max(1, len(shown) // 100_000)], torch.tensor([0.02, 0.98])).tolist()
    t = ((inverse - low) / max(high - low, 1e-12)).clamp(0, 1).numpy() * (len(TURBO) - 1)
    picture = np.stack([np.interp(t, np.arange(len(TURBO)), TURBO[:, c]) for c in range(3)], axis=-1)
    return (picture * (alpha > 0.3).numpy()[..., None]).astype(np.uint8)


def preview_sheet(gaussians: Gaussians, posed: PosedViews, indices: Sequence[int], rasterizer: Rasterizer) -> np.ndarray:
    """Stack rows of photo | rendering | depth; returns uint8 ``H W 3``."""
    rows = []
    for i in indices:
        with torch.no_grad():
            rendering = rasterizer(gaussians, posed.cameras.select([i]))
        image = (posed.image(i).clamp(0, 1) * 255).round().byte().numpy()
        drawn = (rendering.color[0].clamp(0, 1) * 255).round().byte().numpy()
        rows.append(np.concatenate([image, drawn, colorize_depth(rendering.depth[0], rendering.alpha[0])], axis=1))
    width = max(row.shape[1] for row in rows)
    padded = [np.pad(row, ((0, 0), (0, width - row.shape[1]), (0, 0))) for row in rows]
    return np.concatenate(padded, axis=0)
