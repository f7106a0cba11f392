"""Photos together with the pinhole cameras that took them: what every stage after camera finding works on.

Input: views, cameras and a way to read undistorted pixels. Output: ``PosedViews``.
Does not: find cameras, undistort (``recon.lens`` does), or hold pixels beyond a small cache.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from .records import Cameras

Pixels = tuple[Float[Tensor, "H W 3"], Bool[Tensor, "H W"]]
"""Undistorted photo in [0, 1] and the mask of pixels that come from the photo."""


@dataclass(frozen=True, kw_only=True)
class PosedViews:
    """Registered input photos with pinhole cameras at the working size, in one common world frame."""

    names: tuple[str, ...]
    """Photo names, one per view."""
    cameras: Cameras
    """Pinhole (no distortion), at the working size; every view is registered."""
    read: Callable[[int], Pixels]
    """Index -> undistorted pixels and their validity, decoded at each call."""
    points_world: Float[Tensor, "M 3"] | None = None
    """Sparse points from structure from motion, if any."""
    visibility: Bool[Tensor, "V M"] | None = None
    """Which view observed which sparse point."""
    cache_bytes: int = 1 << 29
    """How much decoded pixel data may be kept."""
    _cache: OrderedDict[int, Pixels] = field(default_factory=OrderedDict, repr=False, compare=False)

    def __len__(self) -> int:
        return len(self.names)

    def pixels(self, index: int) -> Pixels:
        """Undistorted photo ``H W 3`` in [0, 1] and validity ``H W`` of view ``index``; least recently used ones are dropped."""
        if index in self._cache:
            self._cache.move_to_end(index)
            return self._cache[index]
        image, valid = self.read(index)
        self._cache[index] = (image, valid)
        while len(self._cache) > 1 and sum(i.nbytes + v.nbytes for i, v in self._cache.values()) > self.cache_bytes:
            self._cache.popitem(last=False)
        return image, valid

    def image(self, index: int) -> Float[Tensor, "H W 3"]:
        return self.pixels(index)[0]

    def select(self, indices: Sequence[int]) -> PosedViews:
        """Keep the views at ``indices``, in that order."""
        picked = [int(i) for i in indices]
        return PosedViews(
            names=tuple(self.names[i] for i in picked),
            cameras=self.cameras.select(picked),
            read=lambda i: self.pixels(picked[i]),
            points_world=self.points_world,
            visibility=None if self.visibility is None else self.visibility[torch.as_tensor(picked)],
            cache_bytes=self.cache_bytes,
        )
