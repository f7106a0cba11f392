"""Moving the world moves Gaussians, SH and cameras together and leaves every picture as it was."""

from __future__ import annotations

import math

import pytest
import torch
from splat_scenes import cloud

from recon.formats.conventions import (
    CONVENTIONS,
    UP_AXES,
    Y_UP,
    Similarity,
    moved_cameras,
    moved_gaussians,
    moved_points,
    rotation_between,
    up_rotation,
)
from recon.formats.self_check import cameras_around
from recon.geometry import quats_to_rotations
from recon.harmonics import rotate_sh, sh_basis
from recon.records import RasterOptions
from render.rasterizer import load_rasterizer


def some_rotation(seed: int = 3) -> torch.Tensor:
    return quats_to_rotations(torch.randn(1, 4, generator=torch.Generator().manual_seed(seed), dtype=torch.float64))[0].float()


def directions(count: int = 200) -> torch.Tensor:
    d = torch.randn(count, 3, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    return d / d.norm(dim=1, keepdim=True)


def test_sh_basis_is_orthonormal() -> None:
    """Integrated over a dense even sampling of the sphere, products of basis functions are 1 or 0."""
    count = 40_000
    index = torch.arange(count, dtype=torch.float64)
    z = 1 - (2 * index + 1) / count
    angle = index * math.pi * (3 - math.sqrt(5))
    sphere = torch.stack([(1 - z * z).sqrt() * angle.cos(), (1 - z * z).sqrt() * angle.sin(), z], dim=1)
    values = sh_basis(sphere, 3)
    gram = values.T @ values * (4 * math.pi / count)
    assert torch.allclose(gram, torch.eye(16, dtype=torch.float64), atol=1e-3)  # the sampling's own error


@pytest.mark.parametrize("degree", [0, 1, 2, 3])
def test_turned_sh_shows_the_same_colour_from_the_turned_direction(degree: int) -> None:
    sh = torch.randn(20, (degree + 1) ** 2, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    R = some_rotation()
    d = directions()
    before = torch.einsum("mk,nkc->mnc", sh_basis(d, degree), sh)
    after = torch.einsum("mk,nkc->mnc", sh_basis(d @ R.double().T, degree), rotate_sh(sh, R))
    assert torch.allclose(before, after, atol=1e-5)  # R itself is float32


def test_sh_rotations_follow_one_another() -> None:
    sh = torch.randn(4, 16, 3, generator=torch.Generator().manual_seed(1))
    first, second = some_rotation(1), some_rotation(2)
    assert torch.allclose(rotate_sh(rotate_sh(sh, first), second), rotate_sh(sh, second @ first), atol=1e-4)


def test_similarities_compose_and_invert() -> None:
    points = torch.randn(10, 3, generator=torch.Generator().manual_seed(0))
    a = Similarity(R_new_old=some_rotation(1), scale=2.5, shift=torch.tensor([1.0, -2.0, 0.5]))
    b = Similarity(R_new_old=some_rotation(2), scale=0.3, shift=torch.tensor([0.0, 4.0, 1.0]))
    assert torch.allclose(moved_points(moved_points(points, a), b), moved_points(points, b.after(a)), atol=1e-5)
    assert torch.allclose(moved_points(moved_points(points, a), a.inverse()), points, atol=1e-5)


def test_a_moved_world_renders_the_same() -> None:
    scene = cloud(count=300, degree=3)
    cameras = cameras_around(scene, views=2, side_px=96)
    move = Similarity(R_new_old=some_rotation(), scale=1.7, shift=torch.tensor([3.0, -1.0, 2.0]))
    rasterizer = load_rasterizer("cpu")
    still = rasterizer(scene, cameras, RasterOptions()).color
    moved = rasterizer(moved_gaussians(scene, move), moved_cameras(cameras, move), RasterOptions()).color
    apart = (still - moved).abs()  # float32 means, quats and SH, summed over many Gaussians
    assert float(apart.mean()) < 1e-4
    assert float(apart.max()) < 2 / 255  # rounding takes a Gaussian over the least alpha that is drawn, 1/255
    assert float(still.std()) > 0.05


@pytest.mark.parametrize("name", CONVENTIONS)
def test_conventions_are_proper_rotations_with_the_right_up(name: str) -> None:
    R = CONVENTIONS[name]
    assert torch.allclose(R @ R.T, torch.eye(3))
    assert torch.linalg.det(R) > 0
    up = (R @ torch.tensor([0.0, -1.0, 0.0])).tolist()
    assert up == {"opencv": [0, -1, 0], "opengl": [0, 1, 0], "blender": [0, 0, 1]}[name]


@pytest.mark.parametrize("up", UP_AXES)
def test_up_can_be_any_axis(up: str) -> None:
    R = up_rotation(up, Y_UP)
    assert torch.allclose(R @ R.T, torch.eye(3), atol=1e-6)
    assert torch.linalg.det(R) > 0
    got = R @ torch.tensor([0.0, -1.0, 0.0])
    assert float(got["xyz".index(up[-1])]) == pytest.approx(-1.0 if up.startswith("-") else 1.0, abs=1e-6)


def test_smallest_rotation_between_directions() -> None:
    for start, end in zip(directions(20).float(), directions(40)[20:].float(), strict=True):
        R = rotation_between(start, end)
        assert torch.allclose(R @ start, end, atol=1e-5)
        assert torch.allclose(R @ R.T, torch.eye(3), atol=1e-5)
