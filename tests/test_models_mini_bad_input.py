"""The shipped depth network where there is little or too much to see: nothing in common, huge ranges, tiny and huge photos."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import OrderedDict
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch
from PIL import Image
from test_models_mini import look_cameras

from models.mini import normalize_photo
from models.mini_predictor import MiniPredictor, at_most
from models.registry import load_predictor
from models.wide_range import WIDEST, bands, last_plane, search_in_bands
from recon.cameras.result import SfmResult
from recon.config import PipelineConfig
from recon.neighbours import choose_neighbours
from recon.pipeline import look_at_photos, place_photos
from recon.posed import PosedViews
from recon.progress import Progress
from recon.records import Prediction
from recon.run_records import Ledger

import helpers

NEAR, FAR = 1.0, 8.0
WALL_Z = 3.0
BASELINE = 0.4
TEN_THOUSAND = 10_000.0
SQUARE_GB = 5.0
"""Most memory that two photos may take of which one is 8,000 pixels square; they took 3.2."""
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


@pytest.mark.parametrize("place", [0.02, 0.25, 0.5, 0.75, 0.98])
def test_a_depth_range_of_one_to_ten_thousand_is_resolved_everywhere(predictor, place):
    """The wall lies anywhere between near and far, counted in powers of ten; planes of one sweep miss it in the farther half."""
    near = WALL_Z / TEN_THOUSAND**place
    result = predict(predictor, wall_views([(96, 72)] * 3), ((1, 2), (0, 2), (1, 0)), near, TEN_THOUSAND * near)
    for i in range(3):
        assert median_error(result, i) < 0.02
        wrong = (result.depth[i] / WALL_Z - 1).abs() > 0.1
        assert float((wrong & (result.confidence[i] > 0.5)).float().mean()) < 0.01, "what is wrong is not believed"
        assert float(result.confidence[i].mean()) > 0.15, "photos without overlap are at 0.02 to 0.06"


def test_walls_near_and_far_in_one_photo_keep_their_depths(predictor):
    """What lies beyond the range around the near wall keeps its band's answer; too far for any parallax, it is not believed."""
    posed, scale = wall_views([(96, 72)] * 3), 500.0

    def read(i: int):
        image, valid = posed.read(i)
        image = image.clone()
        image[:36] = far[:36]  # so far away that nothing moves
        return image, valid

    far = wall_views([(96, 72)]).image(0).flip(0)
    both = replace(posed, read=read)
    result = predict(predictor, both, ((1, 2), (0, 2), (1, 0)), WALL_Z / 10, scale * WALL_Z)
    depth = result.depth[1]
    assert float((depth[24:] / WALL_Z - 1).abs().median()) < 0.02
    assert float(depth[:12].median()) > 5 * WALL_Z
    assert float((result.confidence[1][:12] > 0.5).float().mean()) < 0.02


@pytest.mark.parametrize("ratio", [8.0, 60.0, WIDEST])
def test_an_ordinary_range_is_swept_once(predictor, ratio, monkeypatch):
    swept = []
    real = MiniPredictor._estimate
    monkeypatch.setattr(MiniPredictor, "_estimate", lambda self, *given: swept.append(given[-1].tolist()) or real(self, *given))
    predict(predictor, wall_views([(96, 72)] * 2), ((1,), (0,)), 1.0, ratio)
    assert swept == [[1.0, ratio]] * 2


@pytest.mark.parametrize("ratio", [WIDEST * 1.01, 1_000.0, 10_000.0, 1e6])
def test_bands_cover_a_range_and_no_depth_lies_at_the_ends_of_all(ratio):
    made = bands(0.5, 0.5 * ratio)
    assert made[0][0] == 0.5
    assert made[-1][1] == 0.5 * ratio
    assert all(far <= 16 * 1.5 * near * (1 + 1e-9) for near, far in made)
    for first, (near, _) in pairwise(made):
        assert first[0] < 1.1 * near < last_plane(*first, 64) < first[1]


def test_surfaces_are_found_by_bands_and_then_closely():
    """A sweep that knows the truth up to half of its planes' distance, and answers its far end for what lies beyond."""
    truth = torch.tensor([[1.0, 1.1, 1.3, 3.0]]).expand(50, 4)
    asked = []

    def sweep(ends):
        near, far = ends.tolist()
        asked.append((near, far))
        step = (1 / near - 1 / far) / 63
        position = (((1 / truth - 1 / far) / step).round().clamp(0, 63)) * step + 1 / far
        return 1 / position, torch.where(truth >= near, 0.9, 0.1)

    depth, confidence = search_in_bands(sweep, 0.001, 10.0, 64)
    assert asked[-1] == pytest.approx((0.5, 6.0), rel=0.05)
    assert len(asked) == len(bands(0.001, 10.0)) + 1
    assert float((depth / truth - 1).abs().max()) < 0.5 * 3.0 * 2 / 63
    assert float(confidence.min()) == pytest.approx(0.9)


def test_where_nothing_is_found_in_any_band_nothing_is_believed():
    depth, confidence = search_in_bands(lambda ends: (ends.mean().expand(4, 4), torch.full((4, 4), 0.1)), 1.0, 1e4, 64)
    assert bool(((depth >= 1.0) & (depth <= 1e4)).all())
    assert float(confidence.max()) < 0.11


@pytest.mark.parametrize("size", [(64, 48), (48, 64), (8_000, 64), (64, 8_000)])
def test_tiny_and_huge_photos_among_others(predictor, size):
    posed = wall_views([size, (96, 72), (96, 72)])
    result = predict(predictor, posed, ((1, 2), (0, 2), (1, 0)))
    assert tuple(result.depth[0].shape) == (size[1] // 2, size[0] // 2)
    for depth, confidence in zip(result.depth, result.confidence, strict=True):
        assert bool(((depth >= NEAR / BEYOND) & (depth <= BEYOND * FAR)).all())
        assert 0.0 <= float(confidence.min()) <= float(confidence.max()) <= 1.0
    assert median_error(result, 1) < 0.1, "a photo of another size spoils nothing"


def test_photos_of_too_many_pixels_are_matched_smaller(predictor, monkeypatch):
    """Their depth has the size and the cameras that any photo's has."""
    posed = wall_views([(192, 144), (96, 72), (96, 72)])
    assert at_most(posed, 192 * 144) is posed
    whole = predict(predictor, posed, ((1, 2), (0, 2), (1, 0)))
    monkeypatch.setattr("models.mini_predictor.LARGEST", 128 * 96)
    smaller = predict(predictor, posed, ((1, 2), (0, 2), (1, 0)))
    assert [tuple(one.shape) for one in smaller.depth] == [tuple(one.shape) for one in whole.depth]
    assert torch.equal(smaller.cameras.K, whole.cameras.K)
    assert not torch.equal(smaller.depth[0], whole.depth[0])
    assert median_error(smaller, 0) < 0.1
    reduced = at_most(posed, 128 * 96)
    assert (reduced.cameras.width, reduced.cameras.height) == ((128, 96, 96), (96, 72, 72))
    assert tuple(reduced.image(0).shape) == (96, 128, 3)
    assert torch.equal(reduced.image(1), posed.image(1))
    assert float(reduced.cameras.K[0, 0, 0]) == pytest.approx(float(posed.cameras.K[0, 0, 0]) * 2 / 3)


SQUARE = """
import resource
import torch
from test_models_mini_bad_input import median_error, predict, wall_views
from models.registry import load_predictor
posed = wall_views([(8_000, 8_000), (2_000, 2_000)])
result = predict(load_predictor("mini"), posed, ((1,), (0,)))
assert tuple(result.depth[0].shape) == (4_000, 4_000)
assert all(bool(torch.isfinite(one).all()) for one in (*result.depth, *result.confidence))
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6)
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="counts peak memory in kilobytes")
def test_a_square_of_eight_thousand_pixels_takes_bounded_memory():
    """In a process of its own, whose peak counts nothing else. The photo itself is 0.8 GB; at its size volumes would be 5 GB."""
    paths = [str(helpers.REPOSITORY), str(helpers.REPOSITORY / "tests")]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}
    found = subprocess.run([sys.executable, "-c", SQUARE], capture_output=True, text=True, env=environment, timeout=900)
    assert found.returncode == 0, found.stderr
    assert float(found.stdout.split()[-1]) < SQUARE_GB


@pytest.mark.parametrize("gain", [(2.0, 2.0, 2.0), (0.5, 0.5, 0.5), (1.25, 1.0, 0.75)])
def test_depth_hardly_changes_with_a_photo_s_exposure_and_white_balance(predictor, gain):
    """The photo in the middle a stop brighter or darker, in linear light, or with red and blue a quarter off."""
    posed = wall_views([(96, 72)] * 3)

    def shown(light: tuple[float, float, float]) -> Prediction:
        def read(i: int):
            image, valid = posed.read(i)
            image = 0.1 + 0.8 * image  # a stop brighter, a fifth is clipped
            return (((image**2.2) * torch.tensor(light)).clamp(0, 1) ** (1 / 2.2) if i == 1 else image), valid

        return predict(predictor, replace(posed, read=read, _cache=OrderedDict()), ((1, 2), (0, 2), (0, 1)))

    changed, plain = shown(gain), shown((1.0, 1.0, 1.0))
    for i in range(3):
        within = [float(((one.depth[i] / WALL_Z - 1).abs() < 0.01).float().mean()) for one in (changed, plain)]
        assert within[1] > 0.5
        assert within[0] > within[1] - 0.03
        assert float(changed.confidence[i].mean()) > 0.95 * float(plain.confidence[i].mean())


def test_gain_and_offset_of_each_channel_are_gone_before_the_network_looks():
    image = torch.rand(1, 20, 30, 3, generator=torch.Generator().manual_seed(2))
    valid = torch.rand(1, 20, 30, generator=torch.Generator().manual_seed(3)) > 0.2
    changed = image * torch.tensor([0.5, 0.7, 0.9]) + torch.tensor([0.05, 0.0, 0.1])
    changed = torch.where(valid[..., None], changed, torch.rand(3))  # what is not of the photo has no say
    assert torch.allclose(normalize_photo(changed, valid), normalize_photo(image, valid), atol=1e-4)


def test_a_photo_without_a_camera_is_named_and_spoils_nothing(predictor, tmp_path):
    """The camera of the photo in the middle was not found: the network never sees it, and the others match each other."""
    posed = wall_views([(96, 72)] * 4)
    for i in range(4):
        picture = (posed.image(i).numpy() * 255).astype(np.uint8) if i != 1 else np.full((72, 96, 3), 128, np.uint8)
        Image.fromarray(picture).save(tmp_path / f"{i}.png")
    registered = torch.tensor([True, False, True, True])
    cameras = replace(
        posed.cameras,
        registered=registered,
        T_world_cam=torch.where(registered[:, None, None], posed.cameras.T_world_cam, torch.eye(4, dtype=torch.float64)),
    )
    solved = SfmResult(
        cameras=cameras,
        points_world=torch.zeros(0, 3, dtype=torch.float64),
        points_rgb=torch.zeros(0, 3, dtype=torch.uint8),
        visibility=torch.zeros(4, 0, dtype=torch.bool),
        reprojection_error_px=0.0,
        per_view_points=torch.zeros(4, dtype=torch.int64),
    )
    ledger, config = Ledger(), PipelineConfig(resume=False)
    found = look_at_photos([tmp_path / f"{i}.png" for i in range(4)], config, ledger, Progress())
    inputs = place_photos(found, solved, config, ledger).inputs
    assert inputs.names == ("0.png", "2.png", "3.png")
    assert any("1 of 4 photos could not be placed: 1.png" in warning for warning in ledger.warnings)
    chosen = choose_neighbours(inputs, count=4)
    assert all(chosen)
    result = predict(predictor, inputs, chosen)
    assert max(median_error(result, i) for i in range(3)) < 0.05
