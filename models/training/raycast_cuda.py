"""Ray-cast analytic primitives on a GPU: what ``raycast`` does with a processor's cores, with a thread for every ray.

Input: a ``World`` of primitives, ``Eyes`` that look at it, a texture atlas. Output: colours, exact z-depth and normals.
Does not: know shapes or colours; both ways of casting call the same functions of ``shading``.
"""

from __future__ import annotations

from typing import NamedTuple

import numba as nb
import numpy as np
from jaxtyping import Float, UInt8
from numba import cuda

from .shading import PENUMBRA, Eyes, World, first_hit, geometry_of, lit, mean_lit, ray_of, shade, sky_of, surface_of

__all__ = ["CudaCaster", "can_cast"]

Array = np.ndarray
THREADS = 128
"""Threads of a block; each holds about a hundred registers."""


class Met(NamedTuple):
    """What the rays of all pixels met."""

    seen: Array
    """``V H W`` int64: primitive, -1 for the sky."""
    bright: Array
    """``V H W`` float32: 1 where one place of the light is seen."""
    hits: Array
    """``V H W 6`` float64: place in the texture (2), z-depth, normal (3)."""


@cuda.jit(fastmath=True)
def depth_kernel(world, eyes, cell, depth):
    """One ray through the centre of every cell; 1e30 for the sky."""
    index = cuda.grid(1)
    views, rows, columns = depth.shape
    if index >= views * rows * columns:
        return
    view, row, column = index // (rows * columns), index // columns % rows, index % columns
    T_world_cam, direction = eyes.T_world_cam[view], cuda.local.array(3, nb.float64)
    ray_of(T_world_cam, eyes.K[view], eyes.bend[view], (column + 0.5) * cell, (row + 0.5) * cell, direction)
    x, y, z = T_world_cam[0, 3], T_world_cam[1, 3], T_world_cam[2, 3]
    depth[view, row, column] = first_hit(
        world.primitives[view], world.heights, x, y, z, direction[0], direction[1], direction[2], False
    )[0]


@cuda.jit(fastmath=True)
def surface_kernel(world, eyes, cell, depth, normals):
    """``depth_kernel``, and normals in the camera's frame from the same rays; ``normals`` holds zeros."""
    index = cuda.grid(1)
    views, rows, columns = depth.shape
    if index >= views * rows * columns:
        return
    view, row, column = index // (rows * columns), index // columns % rows, index % columns
    primitives, T_world_cam = world.primitives[view], eyes.T_world_cam[view]
    direction = cuda.local.array(3, nb.float64)
    ray_of(T_world_cam, eyes.K[view], eyes.bend[view], (column + 0.5) * cell, (row + 0.5) * cell, direction)
    x, y, z = T_world_cam[0, 3], T_world_cam[1, 3], T_world_cam[2, 3]
    t, n = first_hit(primitives, world.heights, x, y, z, direction[0], direction[1], direction[2], False)
    depth[view, row, column] = t
    if n >= 0:
        geometry_of(primitives[n], world.heights, T_world_cam, t, direction, normals[view, row, column])


@cuda.jit(fastmath=True)
def meet_kernel(world, eyes, light, shift, met):
    """One ray through every pixel: what it meets, and one to a place of the light from there."""
    index = cuda.grid(1)
    views, rows, columns = met.seen.shape
    if index >= views * rows * columns:
        return
    view, row, column = index // (rows * columns), index // columns % rows, index % columns
    primitives, T_world_cam = world.primitives[view], eyes.T_world_cam[view]
    direction, at = cuda.local.array(3, nb.float64), cuda.local.array(3, nb.float64)
    ray_of(T_world_cam, eyes.K[view], eyes.bend[view], column + shift, row + 1 - shift, direction)
    x, y, z = T_world_cam[0, 3], T_world_cam[1, 3], T_world_cam[2, 3]
    t, n = first_hit(primitives, world.heights, x, y, z, direction[0], direction[1], direction[2], False)
    met.seen[view, row, column] = n
    if n >= 0:
        for i in range(3):
            at[i] = T_world_cam[i, 3] + t * direction[i]
        hit = met.hits[view, row, column]
        hit[2] = t
        hit[0], hit[1] = surface_of(primitives[n], world.heights, at, direction, hit[3:])
        if light[4] >= 0:
            place = (column + 2 * row) % PENUMBRA
            met.bright[view, row, column] = lit(primitives, world.heights, light, at, hit[3:], t, place)


@cuda.jit(fastmath=True)
def paint_kernel(world, eyes, atlas, sky, light, shift, share, met, image):
    """Add the colours of what was met."""
    index = cuda.grid(1)
    views, rows, columns = met.seen.shape
    if index >= views * rows * columns:
        return
    view, row, column = index // (rows * columns), index // columns % rows, index % columns
    K, n = eyes.K[view], met.seen[view, row, column]
    direction, color = cuda.local.array(3, nb.float64), cuda.local.array(3, nb.float64)
    ray_of(eyes.T_world_cam[view], K, eyes.bend[view], column + shift, row + 1 - shift, direction)
    if n < 0:
        sky_of(atlas, sky, direction, K[0, 0], color)
    else:
        share_lit = mean_lit(met.bright[view, row], met.seen[view, row], column) if light[4] >= 0 else 1.0
        shade(world.primitives[view, n], atlas, light, share_lit, met.hits[view, row, column], direction, K[0, 0], color)
    for c in range(3):
        image[view, row, column, c] += color[c] * share


class CudaCaster:
    """Casts rays on a GPU.

    Args:
        atlas: mip levels of the textures, as ``mip_atlas`` makes them; they are copied to the GPU once.

    Raises:
        RuntimeError: there is no GPU, or no libnvvm to compile for it.
    """

    def __init__(self, atlas: tuple[UInt8[Array, "T _ _ 3"], ...]) -> None:
        if not can_cast():
            raise RuntimeError(
                "rays cannot be cast on CUDA: Numba finds no NVIDIA GPU, or no libnvvm, which comes with the CUDA toolkit; "
                "set CUDA_HOME to where it is, or cast on the CPU"
            )
        self.atlas = tuple(cuda.to_device(level) for level in atlas)

    def depth(self, world: World, eyes: Eyes, height: int, width: int, cell: int) -> Float[Array, "V h w"]:
        """As ``raycast.cast_depth``."""
        depth = cuda.device_array((len(eyes.K), height // cell, width // cell), np.float32)
        depth_kernel[blocks(depth.size), THREADS](World(*on_device(world)), Eyes(*on_device(eyes)), cell, depth)
        return depth.copy_to_host()

    def surfaces(
        self, world: World, eyes: Eyes, height: int, width: int, cell: int
    ) -> tuple[Float[Array, "V h w"], Float[Array, "V h w 3"]]:
        """As ``raycast.cast_surfaces``."""
        shape = (len(eyes.K), height // cell, width // cell)
        depth, normals = cuda.device_array(shape, np.float32), cuda.to_device(np.zeros((*shape, 3), np.float32))
        there, here = World(*on_device(world)), Eyes(*on_device(eyes))
        surface_kernel[blocks(depth.size), THREADS](there, here, cell, depth, normals)
        return depth.copy_to_host(), normals.copy_to_host()

    def colors(
        self, world: World, sky: Float[Array, " 8"], light: Float[Array, " 5"], eyes: Eyes, height: int, width: int, samples: int
    ) -> Float[Array, "V H W 3"]:
        """As ``raycast.cast_colors``."""
        shape = (len(eyes.K), height, width)
        pixels = height * width * len(eyes.K)
        there, here = World(*on_device(world)), Eyes(*on_device(eyes))
        light, sky = on_device((light, sky))
        met = Met(
            cuda.device_array(shape, np.int64), cuda.device_array(shape, np.float32), cuda.device_array((*shape, 6), np.float64)
        )
        image = cuda.to_device(np.zeros((*shape, 3), np.float32))
        for sample in range(samples):
            shift = (sample + 0.5) / samples
            meet_kernel[blocks(pixels), THREADS](there, here, light, shift, met)
            paint_kernel[blocks(pixels), THREADS](there, here, self.atlas, sky, light, shift, 1.0 / samples, met, image)
        return image.copy_to_host()


def can_cast() -> bool:
    """Whether there is a GPU, and what compiles for it."""
    return bool(cuda.is_available())


def on_device(arrays: tuple[Array, ...]) -> list[Array]:
    """Copies on the GPU."""
    return [cuda.to_device(np.ascontiguousarray(array)) for array in arrays]


def blocks(threads: int) -> int:
    """Blocks that hold so many threads."""
    return -(-threads // THREADS)
