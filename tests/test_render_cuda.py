"""CUDA: said why not where it cannot run; agrees with the CPU where it can."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from numba.core import event
from raster_scenes import FIELDS, cameras_around, random_scene, with_changes

from recon.errors import UserError
from recon.records import Gaussians, RasterOptions
from render import cuda, nvrtc
from render.rasterizer import describe, describe_backends, load_rasterizer, warm

FLOOR_DB = 60.0


def test_backends_are_described() -> None:
    names = [backend.name for backend in describe_backends()]
    assert names == ["cuda", "cpu", "torch"]
    used = next(backend for backend in describe_backends() if backend.usable)
    assert describe().startswith(f"{used.name}: {used.reason}")
    assert load_rasterizer("auto").name == used.name
    assert "threads" in describe_backends()[1].reason


def test_without_a_gpu_cuda_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    cuda.why_unavailable.cache_clear()
    nvrtc.why_unavailable.cache_clear()
    try:
        with pytest.raises(UserError, match="no CUDA device"):
            load_rasterizer("cuda")
        assert load_rasterizer("auto").name == "cpu"
        assert "not cuda: no CUDA device" in describe()
    finally:
        cuda.why_unavailable.cache_clear()
        nvrtc.why_unavailable.cache_clear()


def test_warm_leaves_nothing_to_compile() -> None:
    warm()
    with event.install_recorder("numba:compile") as compiled:
        assert warm() > 0.0
        leaf = random_scene(20).means.requires_grad_()
        scene = with_changes(random_scene(20), means=leaf)
        load_rasterizer("cpu")(scene, cameras_around(2), RasterOptions(background=(1.0, 0.0, 0.0))).depth.sum().backward()
    assert not compiled.buffer


def test_what_gsplat_lacks_is_refused_by_name() -> None:
    gaussians, cameras = random_scene(3), cameras_around(1)
    with pytest.raises(ValueError, match=r"options\.median_depth"):
        cuda.rasterize(gaussians, cameras, RasterOptions(median_depth=True))
    with pytest.raises(ValueError, match=r"cameras\.K"):
        cuda.rasterize(gaussians, replace(cameras, K=cameras.K.clone().requires_grad_()), RasterOptions())


@pytest.mark.requires_cuda
@pytest.mark.parametrize("antialiased", [False, True])
def test_cuda_draws_as_the_cpu(antialiased: bool) -> None:
    gaussians, cameras = random_scene(2000), cameras_around(2, width=200, height=150)
    tiles = torch.rand(2, 10, 13, generator=torch.Generator().manual_seed(0)) < 0.7
    options = RasterOptions(background=(0.2, 0.4, 0.6), antialiased=antialiased, normals=True, contribution=True, tiles=tiles)
    ours = load_rasterizer("cpu")(gaussians, cameras, options)
    theirs = load_rasterizer("cuda")(gaussians.to("cuda"), cameras.to("cuda"), replace(options, tiles=tiles.to("cuda")))
    for name in ("color", "alpha", "normals"):
        error = (getattr(ours, name) - getattr(theirs, name).cpu()).square().mean().item()
        assert -10 * math.log10(max(error, 1e-12)) >= FLOOR_DB, name
    assert torch.allclose(ours.contribution, theirs.contribution.cpu(), rtol=1e-2, atol=0.1)


@pytest.mark.requires_cuda
def test_cuda_gradients_are_those_of_the_cpu() -> None:
    found = {}
    for device in ("cpu", "cuda"):
        gaussians, cameras = random_scene(2000).to(device), cameras_around(2, width=200, height=150).to(device)
        leaves = {field: getattr(gaussians, field).clone().requires_grad_() for field in FIELDS}
        T_world_cam = cameras.T_world_cam.clone().requires_grad_()
        drawn = load_rasterizer(device)(Gaussians(**leaves), replace(cameras, T_world_cam=T_world_cam))
        (drawn.color.square().sum() + drawn.depth.sum()).backward()
        found[device] = {**{field: leaf.grad.cpu() for field, leaf in leaves.items()}, "T_world_cam": T_world_cam.grad.cpu()}
    for name, exact in found["cpu"].items():
        assert (found["cuda"][name] - exact).abs().max() <= 2e-2 * exact.abs().max(), name
