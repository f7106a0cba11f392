"""The shipped depth network where there is little or too much to see: nothing in common, huge ranges, tiny and huge photos."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from test_models_mini import look_cameras

from models.registry import load_predictor
from recon.neighbours import choose_neighbours
from recon.posed import PosedViews
from recon.progress import Progress
from recon.records import Prediction

NEAR, FAR = 1.0, 8.0
WALL_Z = 3.0
BASELINE = 0.4
BEYOND = 2.01
"""Factor by which depth may leave the range that was searched."""


@pytest.fixture(scope="module")
def predictor():
    return load_predictor("mini")


def wall_views(sizes: list[tuple[int, int]], turned: tuple[int, ...] = ()) -> PosedViews:
    """Views of a wall of smooth noise at ``WALL_Z``; turned ones look the other way, at another wall."""
    cameras = look_cameras(sizes)
    T_world_cam = cameras.T_world_cam.clone()
    T_world_cam[:, 0, 3] *= BASELINE / 0.2
    for i in turned:
        T_world_cam[i, :3, :3] = torch.diag(torch.tensor([-1.0, 1.0, -1.0], dtype=torch.float64))
    walls = torch.rand(2, 3, 40, 40, generator=torch.Generator().manual_seed(5))

    def read(i: int):
        width, height = sizes[i]
        x = (torch.arange(width) + 0.5 - width / 2) / 60 * WALL_Z + float(T_world_cam[i, 0, 3])
        y = (torch.arange(height) + 0.5 - height / 2) / 60 * WALL_Z
        places = torch.stack(torch.meshgrid(x, y, indexing="xy"), dim=-1)[None] / 3
        wall = walls[int(i in turned)][None]
        image = torch.nn.functional.grid_sample(wall, places, padding_mode="reflection", align_corners=False)[0]
        return image.permute(1, 2, 0), torch.ones(height, width, dtype=torch.bool)

    names = tuple(f"{i}.png" for i in range(len(sizes)))
    return PosedViews(names=names, cameras=replace(cameras, T_world_cam=T_world_cam), read=read)


def predict(predictor, posed: PosedViews, neighbours, near: float = NEAR, far: float = FAR) -> Prediction:
    return predictor(posed, neighbours, torch.tensor([[near, far]]).repeat(len(posed), 1), Progress())


def median_error(prediction: Prediction, view: int) -> float:
    return float((prediction.depth[view] / WALL_Z - 1).abs().median())


def test_views_without_overlap_are_not_believed(predictor):
    apart = wall_views([(96, 72)] * 2, turned=(1,))
    assert choose_neighbours(apart, count=4) == ((), ())
    alone = predict(predictor, apart, ((), ()))
    together = predict(predictor, wall_views([(96, 72)] * 2), ((1,), (0,)))
    forced = predict(predictor, apart, ((1,), (0,)))
    assert median_error(together, 0) < 0.05
    for i in range(2):
        assert float(alone.confidence[i].max()) == 0.0
        for prediction in (alone, forced):
            assert bool(((prediction.depth[i] >= NEAR / BEYOND) & (prediction.depth[i] <= BEYOND * FAR)).all())
        assert float(forced.confidence[i].mean()) < 0.2 * float(together.confidence[i].mean())


def test_a_single_view_gets_depth_that_nobody_believes(predictor):
    result = predict(predictor, wall_views([(96, 72)]), ((),))
    assert bool(torch.isfinite(result.depth[0]).all())
    assert float(result.confidence[0].max()) == 0.0


@pytest.mark.parametrize(("near", "far"), [(WALL_Z / 2, 5_000 * WALL_Z), (WALL_Z / 5_000, 2 * WALL_Z)])
def test_a_depth_range_of_one_to_ten_thousand_is_searched(predictor, near, far):
    result = predict(predictor, wall_views([(96, 72)] * 3), ((1, 2), (0, 2), (1, 0)), near, far)
    for depth, confidence in zip(result.depth, result.confidence, strict=True):
        assert bool(torch.isfinite(depth).all())
        assert bool(((depth >= near / BEYOND) & (depth <= BEYOND * far)).all())
        assert bool(torch.isfinite(confidence).all())


@pytest.mark.parametrize("size", [(64, 48), (48, 64), (8_000, 64), (64, 8_000)])
def test_tiny_and_huge_photos_among_others(predictor, size):
    posed = wall_views([size, (96, 72), (96, 72)])
    result = predict(predictor, posed, ((1, 2), (0, 2), (1, 0)))
    assert tuple(result.depth[0].shape) == (size[1] // 2, size[0] // 2)
    for depth, confidence in zip(result.depth, result.confidence, strict=True):
        assert bool(((depth >= NEAR / BEYOND) & (depth <= BEYOND * FAR)).all())
        assert 0.0 <= float(confidence.min()) <= float(confidence.max()) <= 1.0
    assert median_error(result, 1) < 0.1, "a photo of another size spoils nothing"
