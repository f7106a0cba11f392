"""Every hit of a splat on a tile has a place of its own, and as many places are made as there are hits.

Tiles of large splats are solved more than once: when they are counted, and when they are handed out. What lies between, rounding to
single precision, once made some counts differ, and gradients were written past the end of their array.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
from raster_scenes import cameras_around

from recon.records import Gaussians, RasterOptions
from render import drawing
from render.rasterizer import load_rasterizer


def large_splats(count: int, seed: int) -> Gaussians:
    g = torch.Generator().manual_seed(seed)
    return Gaussians(
        means=torch.randn(count, 3, generator=g),
        quats=torch.nn.functional.normalize(torch.randn(count, 4, generator=g), dim=1),
        scales=torch.exp(torch.randn(count, 3, generator=g) * 0.8 - 1.0),
        opacities=torch.rand(count, generator=g) * 0.9 + 0.05,
        sh=torch.zeros(count, 1, 3),
    )


@pytest.mark.parametrize("side", [160, 509])
def test_every_hit_has_a_place(monkeypatch: pytest.MonkeyPatch, side: int) -> None:
    views = []
    view = drawing.View

    def recorded(*parts):
        views.append(view(*parts))
        return views[-1]

    monkeypatch.setattr(drawing, "View", recorded)
    monkeypatch.setattr(drawing.forward, "draw", lambda *_: None)  # only places are looked at
    draw, cameras = load_rasterizer("cpu"), cameras_around(2, width=side, height=side)
    large = 0
    for seed in range(30):
        with torch.no_grad():
            draw(large_splats(3000, seed), cameras, RasterOptions(contribution=True))
        for drawn in views:
            assert np.array_equal(np.sort(drawn.hit_slots), np.arange(drawn.slot_count)), seed
            large += len(drawn.hit_slots)
        views.clear()
    assert large > 500_000
