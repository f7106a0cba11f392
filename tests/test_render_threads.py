"""The same picture and gradients on any number of threads, from any number of callers, time after time."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numba
import pytest
import torch
from raster_scenes import FIELDS, cameras_around, random_scene

from recon.records import Gaussians, RasterOptions
from render.kernels import jit
from render.rasterizer import load_rasterizer

OPTIONS = RasterOptions(background=(0.1, 0.2, 0.3), median_depth=True, normals=True, contribution=True)
# More Gaussians than a part of the projection and than a part of the bins holds.
MANY = random_scene(20_000, sh_degree=1, seed=4)
VIEWS = cameras_around(2, width=160, height=90)


def everything(gaussians: Gaussians, cameras) -> list[torch.Tensor]:
    """Every picture and every gradient."""
    leaves = {field: getattr(gaussians, field).clone().requires_grad_() for field in FIELDS}
    T_world_cam = cameras.T_world_cam.clone().requires_grad_()
    views = type(cameras)(T_world_cam=T_world_cam, K=cameras.K, width=cameras.width, height=cameras.height)
    drawn = load_rasterizer("cpu")(Gaussians(**leaves), views, OPTIONS)
    (drawn.color.square().sum() + drawn.depth.sum() + drawn.alpha.sum()).backward()
    pictures = [drawn.color, drawn.alpha, drawn.depth, drawn.median_depth, drawn.normals, drawn.contribution]
    return [*(picture.detach() for picture in pictures), *(leaf.grad for leaf in leaves.values()), T_world_cam.grad]


def assert_equal(first: list[torch.Tensor], second: list[torch.Tensor]) -> None:
    for i, (a, b) in enumerate(zip(first, second, strict=True)):
        assert torch.equal(a, b), i


def test_same_bits_every_time() -> None:
    assert_equal(everything(MANY, VIEWS), everything(MANY, VIEWS))


@pytest.mark.skipif(numba.config.NUMBA_NUM_THREADS < 2, reason="one thread only")
def test_same_bits_on_one_thread_and_on_many() -> None:
    many = everything(MANY, VIEWS)
    before = numba.get_num_threads()
    numba.set_num_threads(1)
    try:
        one = everything(MANY, VIEWS)
    finally:
        numba.set_num_threads(before)
    assert_equal(one, many)


def test_eight_threads_draw_at_once() -> None:
    scenes = [random_scene(3000, sh_degree=i % 4, seed=i) for i in range(8)]
    views = cameras_around(1, width=96, height=64)
    alone = [everything(scene, views) for scene in scenes]
    with ThreadPoolExecutor(8) as pool:
        for _ in range(3):
            together = list(pool.map(lambda scene: everything(scene, views), scenes))
            for a, b in zip(alone, together, strict=True):
                assert_equal(a, b)


def test_threading_layer_is_one_that_threads_may_share() -> None:
    assert jit.prepare() in ("tbb", "omp", "workqueue")


def test_a_layer_that_cannot_be_shared_takes_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jit, "_thread_safe", False)
    inside, most = [0], [0]

    def enter(_: int) -> None:
        with jit.guard():
            inside[0] += 1
            most[0] = max(most[0], inside[0])
            load_rasterizer("cpu")(random_scene(50), cameras_around(1))
            inside[0] -= 1

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(enter, range(8)))
    assert most[0] == 1
