"""Bad input is refused with the argument's name, what was given and what was wanted."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from raster_scenes import cameras_around, random_scene, with_changes

from recon.records import Gaussians, RasterOptions
from render.rasterizer import load_rasterizer

GOOD, VIEWS = random_scene(5), cameras_around(2)


def test_good_input_passes() -> None:
    assert load_rasterizer("cpu")(GOOD, VIEWS).color.shape == (2, 37, 50, 3)


def test_unknown_device() -> None:
    with pytest.raises(ValueError, match=r"device: wanted one of .*'tpu'"):
        load_rasterizer("tpu")


@pytest.mark.parametrize("field", ["means", "quats", "scales", "opacities", "sh"])
def test_wrong_dtype_names_the_tensor(field: str) -> None:
    broken = with_changes(GOOD, **{field: getattr(GOOD, field).half()})
    with pytest.raises(ValueError, match=rf"gaussians\.{field}: wanted float32 or float64, got torch\.float16"):
        load_rasterizer("cpu")(broken, VIEWS)


def test_wrong_device_names_the_tensor() -> None:
    with pytest.raises(ValueError, match=r"gaussians\.means: wanted device cpu, got meta"):
        load_rasterizer("cpu")(GOOD.to("meta"), VIEWS)
    with pytest.raises(ValueError, match=r"cameras\.T_world_cam: wanted device cpu, got meta"):
        load_rasterizer("cpu")(GOOD, VIEWS.to("meta"))


def test_wrong_shape_is_refused_by_the_record() -> None:
    with pytest.raises(Exception, match="scales"):
        Gaussians(means=GOOD.means, quats=GOOD.quats, scales=GOOD.scales[:, :2], opacities=GOOD.opacities, sh=GOOD.sh)


def broken_cameras():
    K, T_world_cam = VIEWS.K, VIEWS.T_world_cam
    no_focal, negative, skewed, bottom = K.clone(), K.clone(), K.clone(), K.clone()
    no_focal[1, 0, 0], negative[0, 1, 1], skewed[0, 0, 1], bottom[0, 2, 0] = 0.0, -3.0, 2.0, 1.0
    singular, mirrored, infinite, projective = (T_world_cam.clone() for _ in range(4))
    singular[0, :3, 0] = 0.0
    mirrored[0, :3, 0] *= -1.0
    infinite[1, 0, 3] = float("inf")
    projective[0, 3, 0] = 0.5
    lens = torch.tensor([[0.1, 0.0, 0.0, 0.0]]).repeat(2, 1)
    return {
        r"cameras\.K: wanted focal lengths > 0 px, got 0": replace(VIEWS, K=no_focal),
        r"cameras\.K: wanted focal lengths > 0 px, got -3": replace(VIEWS, K=negative),
        r"cameras\.K: .*got skew": replace(VIEWS, K=skewed),
        r"cameras\.K: .*another bottom row": replace(VIEWS, K=bottom),
        r"cameras\.T_world_cam: wanted rotations, got R R\^T off the identity": replace(VIEWS, T_world_cam=singular),
        r"cameras\.T_world_cam: wanted rotations, got a reflection": replace(VIEWS, T_world_cam=mirrored),
        r"cameras\.T_world_cam: wanted finite numbers": replace(VIEWS, T_world_cam=infinite),
        r"cameras\.T_world_cam: wanted a bottom row": replace(VIEWS, T_world_cam=projective),
        r"cameras: one call draws one picture size": replace(VIEWS, width=(50, 60)),
        r"cameras: wanted sides up to 16384 px, got \(1000000, 37\)": replace(VIEWS, width=1_000_000),
        r"cameras\.distortion: wanted pinhole cameras": replace(VIEWS, distortion=lens),
        r"cameras: wanted at least one, got none": VIEWS.select([]),
    }


@pytest.mark.parametrize("message", list(broken_cameras()))
@pytest.mark.parametrize("device", ["cpu", "torch"])
def test_degenerate_cameras(message: str, device: str) -> None:
    with pytest.raises(ValueError, match=message):
        load_rasterizer(device)(GOOD, broken_cameras()[message])


BROKEN_OPTIONS = {
    r"options\.background: wanted finite": {"background": (0.0, float("nan"), 0.0)},
    r"options\.near, options\.far: wanted 0 < near < far": {"near": 2.0, "far": 1.0},
    r"options\.near, options\.far: .* got 0": {"near": 0.0},
    r"options\.sh_degree: wanted 0 to 3 or None, got 4": {"sh_degree": 4},
    r"options\.tiles: wanted shape \(2, 3, 4\)": {"tiles": torch.ones(2, 4, 3, dtype=torch.bool)},
    r"options\.tiles: wanted bool": {"tiles": torch.ones(2, 3, 4)},
}


@pytest.mark.parametrize("message", list(BROKEN_OPTIONS))
def test_options_that_make_no_sense(message: str) -> None:
    with pytest.raises(ValueError, match=message):
        load_rasterizer("cpu")(GOOD, VIEWS, RasterOptions(**BROKEN_OPTIONS[message]))


def test_absurd_but_finite_numbers_do_not_poison_the_picture() -> None:
    far = with_changes(GOOD, means=GOOD.means * 1e30, scales=GOOD.scales * 1e25)
    both = Gaussians.concatenate([random_scene(50), far])
    drawn = load_rasterizer("cpu")(both, VIEWS)
    assert torch.isfinite(drawn.color).all()
    assert torch.isfinite(drawn.depth).all()
