"""Captures to learn cameras from: worlds with exact cameras, kept for a while and used in ever other parts.

Input: worlds. Output: ``CameraBatch`` records. Does not: render; ``worlds`` does.

Casting a world takes longer than learning from it, so a photo is used several times: each time among others of its capture, cut to
another shape, and with something else known about it.
"""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Callable, Generator
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from jaxtyping import Bool, Float, UInt8
from torch import Tensor

from ..camera_network import STEP, KnownViews, common_frame
from .camera_losses import TrueViews
from .correspondences import varied
from .makers import APART
from .stretch import made_in_background
from .worlds import WorldConfig, Worlds

__all__ = ["CAMERA_WORLDS", "CameraBatch", "Shots", "batch_of", "camera_batches", "shoot"]

Array = np.ndarray
CAMERA_WORLDS = WorldConfig(
    camera_noise_px=0.0, distortion_px=0.0, roll=0.12, distance=0.2, stride=1.2, off_centre=0.03, stretch=0.03, cells=()
)
"""Cameras without errors, rolled, from unequal distances; pixels not quite square, principal points near the middle."""
SHAPES = ((4, 3), (3, 4), (3, 2), (2, 3), (16, 9), (1, 1))
SHAPE_SHARES = (0.35, 0.2, 0.15, 0.1, 0.1, 0.1)
"""Width to height of photos, and how often."""
MIXED_SHARE = 0.25
"""Captures in which some photos have another shape, as when the camera was held upright."""
NOTHING_KNOWN = 0.5
"""Share of the batches in which nothing is known beforehand."""
ROUGHLY_KNOWN = 0.03
"""Standard deviation of the error of known focal lengths, relative, in half of the batches that know any: EXIF errs as much."""


@dataclass(frozen=True)
class Shots:
    """Square photos of one world."""

    images: UInt8[Array, "V S S 3"]
    K: Float[Array, "V 3 3"]
    T_world_cam: Float[Array, "V 4 4"]
    depth: Float[Array, "V s s"]
    """At the middles of 8 x 8 pixels."""


@dataclass(frozen=True)
class CameraBatch:
    """B captures of V photos in groups of one size."""

    images: tuple[UInt8[Tensor, "B _ _ _ 3"], ...]
    truth: TrueViews
    known: KnownViews | None

    def on(self, device: str) -> tuple[list[Float[Tensor, "B _ 3 _ _"]], TrueViews, KnownViews | None]:
        """Photos as the network takes them, what is true, and what is known, on a device."""

        def moved(value: Tensor) -> Tensor:
            return value.to(device, non_blocking=True)

        images = [moved(one).permute(0, 1, 4, 2, 3).float() / 255 for one in self.images]
        truth = TrueViews(
            K=moved(self.truth.K),
            T_world_cam=moved(self.truth.T_world_cam),
            sizes=self.truth.sizes,
            depth=tuple(moved(one) for one in self.truth.depth),
        )
        known = None if self.known is None else KnownViews(**{name: moved(value) for name, value in vars(self.known).items()})
        return images, truth, known


def shoot(worlds: Worlds, views: int, side: int) -> Shots:
    """Make a world and photograph it in other light for every photo."""
    capture = worlds.capture(views, side, side)
    images = varied(capture.images, worlds.rng)
    return Shots((images * 255).round().astype(np.uint8), capture.K, capture.T_world_cam, capture.depth[8])


def sides_of(shape: tuple[int, int], side: int) -> tuple[int, int]:
    """Height and width of photos of a shape whose longest side is ``side``, in whole tokens."""
    longest = max(shape)
    width, height = (max(STEP * 2, round(part * side / longest / STEP) * STEP) for part in shape)
    return height, width


def batch_of(shots: list[Shots], views: int, rng: np.random.Generator, *, plain: bool = False) -> CameraBatch:
    """Take photos of every capture, cut them to one or two shapes, and choose what is known.

    Args:
        shots: captures of one size.
        views: photos of each.
        plain: photos as they come, four to three, nothing known.
    """
    side, chosen = shots[0].images.shape[1], [pick(len(one.images), views, rng, plain=plain) for one in shots]
    shape = SHAPES[0] if plain else SHAPES[int(rng.choice(len(SHAPES), p=SHAPE_SHARES))]
    counts, shapes = [views], [shape]
    if not plain and shape[0] != shape[1] and rng.random() < MIXED_SHARE:
        upright = int(rng.integers(1, views))
        counts, shapes = [views - upright, upright], [shape, (shape[1], shape[0])]
    images, depth, K, sizes, start = [], [], [], [], 0
    for count, one in zip(counts, shapes, strict=True):
        height, width = sides_of(one, side)
        at = [row[start : start + count] for row in chosen]
        top, left = (8 * ((side - extent) // 16) for extent in (height, width))
        cut = (slice(top, top + height), slice(left, left + width))
        coarse = (slice(top // 8, (top + height) // 8), slice(left // 8, (left + width) // 8))
        images.append(torch.from_numpy(np.stack([s.images[i][:, *cut] for s, i in zip(shots, at, strict=True)])))
        depth.append(torch.from_numpy(np.stack([s.depth[i][:, *coarse] for s, i in zip(shots, at, strict=True)])).float())
        K.append(torch.from_numpy(np.stack([s.K[i] for s, i in zip(shots, at, strict=True)])).float())
        K[-1][..., 0, 2] -= left
        K[-1][..., 1, 2] -= top
        sizes.append((count, height, width))
        start += count
    T_world_cam = torch.from_numpy(np.stack([s.T_world_cam[i] for s, i in zip(shots, chosen, strict=True)])).float()
    truth = TrueViews(K=torch.cat(K, dim=1), T_world_cam=T_world_cam, sizes=tuple(sizes), depth=tuple(depth))
    known = None if plain or rng.random() < NOTHING_KNOWN else told(truth, rng)
    return CameraBatch(tuple(images), truth, known)


def pick(there: int, views: int, rng: np.random.Generator, *, plain: bool) -> Array:
    """Numbers of some photos: evenly spread as they come, or of a stretch of the way, in any order."""
    if plain:
        return np.linspace(0, there - 1, views).round().astype(int)
    span = int(rng.integers(views, there + 1))
    start = int(rng.integers(0, there - span + 1))
    return start + rng.permutation(span)[:views]


def told(truth: TrueViews, rng: np.random.Generator) -> KnownViews:
    """A random part of what is true: lenses, exactly or roughly, of some photos, and places of some."""
    shape = truth.K.shape[:2]
    has_K: Bool[Array, "B V"] = rng.random(shape) < rng.choice((0.0, 0.5, 1.0), p=(0.2, 0.3, 0.5))
    has_place: Bool[Array, "B V"] = rng.random(shape) < rng.choice((0.0, 0.5, 1.0), p=(0.6, 0.3, 0.1))
    K = truth.K.clone()
    if rng.random() < 0.5:
        K[..., [0, 1], [0, 1]] *= torch.from_numpy(np.exp(rng.normal(0, ROUGHLY_KNOWN, (*shape, 1)))).float()
    known = torch.from_numpy(has_place)
    return KnownViews(K=K, has_K=torch.from_numpy(has_K), T_frame_cam=common_frame(truth.T_world_cam, known), has_place=known)


def world_maker(textures: np.ndarray | None, seed: int, views: int, side: int, cast: str, number: int) -> Callable[[], Shots]:
    """What makes one world after the other, others for every number."""
    worlds = Worlds(textures, seed + APART * number, CAMERA_WORLDS, cast=cast)
    return lambda: shoot(worlds, views, side)


def camera_batches(
    textures: np.ndarray | None,
    seed: int,
    *,
    photos: int,
    views: int,
    side: int,
    makers: int,
    uses: int,
    kept: int,
    cast: str = "cpu",
) -> Generator[CameraBatch, None, None]:
    """Yield random batches from worlds made in the background.

    Args:
        photos: in a batch, about.
        views: photos of a world, of which two or more are in a batch.
        side: longest side of photos, pixels.
        makers: processes that make worlds; one is a thread of this process instead.
        uses: how often a world is used, on average.
        kept: worlds to choose from, once so many were made.
        cast: 'cpu' or 'cuda', where rays are cast.
    """
    rng = np.random.default_rng(seed)
    begin = partial(world_maker, textures, seed, views, side, cast)
    pool: deque[Shots] = deque(maxlen=kept)
    due = 0.0
    with contextlib.closing(made_in_background(begin, makers)) as made:
        for one in made:
            pool.append(one)
            due += uses
            while True:
                some = int(rng.integers(2, min(views, photos) + 1))
                worlds = max(1, photos // some)
                if worlds > due or worlds > uses * len(pool):
                    break
                due -= worlds
                drawn = rng.choice(len(pool), worlds, replace=worlds > len(pool))
                yield batch_of([pool[int(i)] for i in drawn], some, rng)
