"""The CUDA kernels that need no toolkit: their source compiled for the CPU and run block by block, thread by thread, against the
twin. A GPU is only needed to know that a GPU does the same."""

from __future__ import annotations

import ctypes
import math
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from raster_scenes import cameras_around, random_scene
from test_render_twin import BACKGROUND, assert_same_gradients, assert_same_pictures, clear_pixels, draw_both, gradients

from recon.records import RasterOptions
from render import nvrtc, rasterizer
from render.constants import TILE
from render.rasterizer import CheckedRasterizer, load_rasterizer

PROLOGUE = """
#include <math.h>
#define __global__
struct Index { int x, y, z; };
static Index blockIdx, threadIdx;
static void atomicAdd(float* place, float value) { *place += value; }
"""
EPILOGUE = """
#define RUN(KERNEL, TYPES, NAMES)                                                                  \\
    extern "C" void run_##KERNEL TYPES {                                                           \\
        for (blockIdx.x = 0; blockIdx.x < tiles; blockIdx.x++)                                     \\
            for (threadIdx.y = 0; threadIdx.y < TILE; threadIdx.y++)                               \\
                for (threadIdx.x = 0; threadIdx.x < TILE; threadIdx.x++) KERNEL NAMES;             \\
    }
RUN(draw, (int tiles, const int* a, const int* b, const float* c, int d, int e, int f, float* g, float* h, int* i, float* j),
    (a, b, c, d, e, f, g, h, i, j))
RUN(gather, (int tiles, const int* a, const int* b, const float* c, int d, int e, int f, const float* g, const int* h,
    const float* i, float* j), (a, b, c, d, e, f, g, h, i, j))
"""


@pytest.fixture(scope="module")
def on_the_cpu(tmp_path_factory: pytest.TempPathFactory):
    """Replace the launch by the same source, compiled by a C++ compiler."""
    compiler = shutil.which("g++") or shutil.which("clang++")
    if compiler is None:
        pytest.skip("no C++ compiler to run the CUDA source on the CPU")
    folder: Path = tmp_path_factory.mktemp("kernels")
    (folder / "kernels.cpp").write_text(PROLOGUE + nvrtc.source() + EPILOGUE)
    library_path = folder / "kernels.so"
    subprocess.run([compiler, "-O2", "-shared", "-fPIC", "-o", str(library_path), str(folder / "kernels.cpp")], check=True)
    library = ctypes.CDLL(str(library_path))

    def launch(name: str, tiles: int, arguments: list) -> None:
        passed = [ctypes.c_void_p(a.data_ptr()) if isinstance(a, torch.Tensor) else ctypes.c_int(a) for a in arguments]
        getattr(library, f"run_{name}")(ctypes.c_int(tiles), *passed)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(nvrtc, "launch", launch)
        yield CheckedRasterizer("nvrtc", None, nvrtc.rasterize)


@pytest.mark.parametrize("antialiased", [False, True])
def test_kernel_source_draws_as_the_twin(on_the_cpu, antialiased: bool) -> None:
    gaussians, cameras = random_scene(300), cameras_around(2)
    tiles = torch.rand(2, 3, 4, generator=torch.Generator().manual_seed(1)) < 0.8
    options = RasterOptions(
        background=BACKGROUND, antialiased=antialiased, median_depth=True, normals=True, contribution=True, tiles=tiles
    )
    drawn = on_the_cpu(gaussians, cameras, options)
    _, slow = draw_both(gaussians, cameras, options)
    assert_same_pictures(drawn, slow, clear_pixels(gaussians, cameras, options))
    assert torch.allclose(drawn.contribution.double(), slow.contribution, rtol=1e-3, atol=2e-2)


def test_kernel_source_has_the_twins_gradients(on_the_cpu, monkeypatch: pytest.MonkeyPatch) -> None:
    gaussians, cameras = random_scene(300, seed=11), cameras_around(2)
    options = RasterOptions(background=BACKGROUND)
    clear = clear_pixels(gaussians, cameras, options)
    slow = gradients("torch", torch.float64, gaussians, cameras, options, clear)
    monkeypatch.setitem(gradients.__globals__, "load_rasterizer", lambda name: on_the_cpu)
    fast = gradients("nvrtc", torch.float32, gaussians, cameras, options, clear)
    assert_same_gradients(fast, slow, gaussians)


def test_tiles_hold_every_splat_that_reaches_them() -> None:
    packed = torch.zeros(2, nvrtc.SPLAT)
    packed[0, :6] = torch.tensor([8.0, 8.0, 1.0, 0.0, 1.0, 0.9])
    packed[1, :6] = torch.tensor([16.0, 40.0, 0.05, 0.0, 0.05, 0.9])
    starts, hits = nvrtc.bin_tiles(packed, 40, 50, None)
    runs = [hits[starts[t] : starts[t + 1]].tolist() for t in range(len(starts) - 1)]
    assert len(runs) == math.ceil(40 / TILE) * math.ceil(50 / TILE)
    assert runs[0] == [0]
    assert [t for t, run in enumerate(runs) if 1 in run] == [3, 4, 6, 7, 9, 10]


@pytest.mark.requires_cuda
def test_gpu_draws_as_the_cpu() -> None:
    assert not nvrtc.why_unavailable()
    gaussians, cameras = random_scene(2000), cameras_around(2, width=200, height=150)
    options = RasterOptions(background=BACKGROUND, median_depth=True, normals=True)
    ours = load_rasterizer("cpu")(gaussians, cameras, options)
    theirs = nvrtc.rasterize(gaussians.to("cuda"), replace(cameras).to("cuda"), options)
    error = (ours.color - theirs.color.cpu()).square().mean().item()
    assert -10 * math.log10(max(error, 1e-12)) >= 60.0
    assert rasterizer.load_rasterizer("cuda").name == "cuda"
