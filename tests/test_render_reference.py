"""Projection and SH against gsplat's own torch reference, which runs on the CPU."""

from __future__ import annotations

import importlib
import warnings

import pytest
import torch
from raster_scenes import adversarial_scenes, cameras_around, random_scene

from recon.records import Gaussians, RasterOptions
from render import twin

# The reference is float32 where it builds its SH bases; its projection is run in float64.
TOLERANCE = 1e-6


@pytest.fixture(scope="module")
def reference():
    """``gsplat.cuda._torch_impl``, without building or loading gsplat's extension."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return importlib.import_module("gsplat.cuda._torch_impl")


def double(gaussians: Gaussians) -> Gaussians:
    return Gaussians(**{name: getattr(gaussians, name).double() for name in ("means", "quats", "scales", "opacities", "sh")})


SCENES = {"random": random_scene(500, seed=21), **adversarial_scenes()}


@pytest.mark.parametrize("name", list(SCENES))
def test_projection_agrees_with_gsplat(reference, name: str) -> None:
    gaussians = double(SCENES[name])
    cameras = cameras_around(3)
    covariances, _ = reference._quat_scale_to_covar_preci(gaussians.quats, gaussians.scales, True, False)
    T_cam_world, K = cameras.T_cam_world.double(), cameras.K.double()
    cameras = type(cameras)(T_world_cam=torch.linalg.inv(T_cam_world), K=K, width=50, height=37)
    _, means_px, depths, conics, compensations = reference._fully_fused_projection(
        gaussians.means, covariances, T_cam_world, K, 50, 37, calc_compensations=True
    )
    for view in range(3):
        ours = twin.project(gaussians, cameras, view, RasterOptions())
        assert torch.allclose(ours.means_px, means_px[view, ours.ids], rtol=TOLERANCE, atol=TOLERANCE)
        assert torch.allclose(ours.depths, depths[view, ours.ids], rtol=TOLERANCE, atol=TOLERANCE)
        assert torch.allclose(ours.conics, conics[view, ours.ids], rtol=1e-5, atol=1e-6)
        smooth = twin.project(gaussians, cameras, view, RasterOptions(antialiased=True))
        expected = gaussians.opacities[smooth.ids] * compensations[view, smooth.ids]
        # The reference takes the determinant by subtraction, which loses a needle's digits: 1e-4 absolute.
        assert torch.allclose(smooth.opacities, expected, atol=1e-4)


@pytest.mark.parametrize("count", [1, 4, 9, 16])
def test_sh_agrees_with_gsplat(reference, count: int) -> None:
    g = torch.Generator().manual_seed(count)
    directions = torch.nn.functional.normalize(torch.randn(1000, 3, generator=g, dtype=torch.float64), dim=1)
    assert torch.allclose(twin.sh_basis(count, directions), reference._eval_sh_bases_fast(count, directions), atol=1e-7)
