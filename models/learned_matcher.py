"""Matches by the matcher network: photos in, verified by nobody yet.

Input: ``Views``. Output: ``Matches``. Does not: find cameras; COLMAP does, from these matches as from its own.

Every cell of a photo has one anchor, the corner in it, and all pairs of the photo use the same anchors. So tracks through many
photos form, which positions measured anew for every pair would not give.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from recon.cameras.matches import Matches, Tell
from recon.progress import Progress
from recon.records import View, Views

from .matcher import CELL, MatcherNetwork, PhotoFeatures, normalize_grey

__all__ = ["LearnedMatcher", "decode_counted"]

STEP = 16
"""Sides of photos are multiples of this."""
RETURN_PX = 1.5
"""Farthest that a place followed into the other photo and back may end from where it began."""
SNAP_PX = 1.0
"""A place this near to an anchor is the anchor."""
MASK_MARGIN_PX = 4
"""Places this near to a masked pixel are left out: they stem from the mask's outline."""
FEWEST = 12
"""Matches below which a pair is left out: chance alone gives as many."""


@dataclass(frozen=True)
class Encoded:
    """One photo at the network's size."""

    features: PhotoFeatures
    anchors: Float[Tensor, "cells 2"]
    """x, y of a corner in every cell, pixels of the network's size."""
    counted: Bool[Tensor, "H W"]
    """False at and near pixels that the user masked."""
    columns: int
    scale: tuple[float, float]
    """(sx, sy) that take its pixels to those of the original photo."""


class LearnedMatcher:
    """``Matcher`` of our own network.

    Args:
        network: with its weights.
        device: 'cpu' or 'cuda'.
        side: longest side of the photos the network sees, pixels.
        exhaustive_up_to: so many photos are matched all against all; of more, each with its most similar ones and with the next in
            name order.
        partners: how many are the most similar ones.
        least: confidence from which a match counts.
    """

    def __init__(
        self,
        network: MatcherNetwork,
        device: str = "cpu",
        *,
        side: int = 640,
        exhaustive_up_to: int = 16,
        partners: int = 8,
        least: float = 0.1,
    ) -> None:
        self._network, self._device = network.to(device).eval(), device
        self._side, self._exhaustive_up_to, self._partners, self._least = side, exhaustive_up_to, partners, least

    @torch.inference_mode()
    def __call__(self, views: Views, progress: Progress, tell: Tell) -> Matches:
        photos = []
        for index, view in enumerate(views):
            progress.check()
            tell(0.2 * index / len(views), "features")
            photos.append(self._encode(view))
        pairs = self.choose_pairs(photos)
        found = []
        for index, (first, second) in enumerate(pairs):
            progress.check()
            tell(0.2 + 0.8 * index / len(pairs), "matching photos")
            px = self.match(photos[first], photos[second]).numpy().astype(np.float64)
            if len(px) >= FEWEST:
                found.append(Matches(pairs=np.array([[first, second]]), counts=np.array([len(px)]), px=px))
        return Matches.join(found)

    def choose_pairs(self, photos: list[Encoded]) -> list[tuple[int, int]]:
        """All pairs of few photos; of many, each with those that look like it and with the next two."""
        count = len(photos)
        if count <= self._exhaustive_up_to:
            return [(i, j) for i in range(count) for j in range(i + 1, count)]
        place = torch.cat([one.features.place for one in photos])
        alike = (place @ place.T).fill_diagonal_(-2.0)
        pairs = {(i, j) for i in range(count) for j in (i + 1, i + 2) if j < count}
        for i, row in enumerate(alike.topk(min(self._partners, count - 1), dim=1).indices.tolist()):
            pairs |= {(min(i, j), max(i, j)) for j in row}
        return sorted(pairs)

    def _encode(self, view: View) -> Encoded:
        sides = (view.original_width, view.original_height)
        width, height = (max(STEP * 4, round(side * self._side / max(sides) / STEP) * STEP) for side in sides)
        image, mask = decode_counted(view, width, height, self._device)
        counted = torch.ones(height, width, dtype=torch.bool, device=self._device)
        if mask is not None:
            counted = F.max_pool2d((~mask).float()[None, None], 2 * MASK_MARGIN_PX + 1, 1, MASK_MARGIN_PX)[0, 0] == 0
        grey = normalize_grey(image)
        return Encoded(
            features=self._network.encode(grey.contiguous(memory_format=torch.channels_last)),
            anchors=corners(grey, counted),
            counted=counted,
            columns=width // CELL,
            scale=(view.original_width / width, view.original_height / height),
        )

    def match(self, first: Encoded, second: Encoded) -> Float[Tensor, "M 4"]:
        """Matches of two photos: x, y in the first and x, y in the second, pixels of the original sizes."""
        confidence = self._network.match(first.features, second.features).confidence()[0]
        best, column = confidence.max(dim=1)
        mutual = confidence.max(dim=0).indices[column] == torch.arange(len(best), device=best.device)
        rows = torch.nonzero(mutual & (best > self._least))[:, 0]
        columns = column[rows]
        there = self._follow(first, second, rows, columns)
        back = self._follow(second, first, columns, rows)
        joined = torch.cat([torch.cat([there[0], there[1]], dim=1), torch.cat([back[1], back[0]], dim=1)])
        joined = torch.unique(joined.mul(8).round(), dim=0) / 8
        return (joined * joined.new_tensor([*first.scale, *second.scale])).cpu()

    def _follow(self, first: Encoded, second: Encoded, rows: Tensor, columns: Tensor) -> tuple[Tensor, Tensor]:
        """Refine matches of cells: the anchor of the first photo's cell, and where the second photo shows it."""
        one = torch.zeros_like(rows)
        start = first.anchors[rows]
        _, px = self._network.locate(first.features.fine, second.features.fine, one, start, middles(columns, second.columns))
        _, again = self._network.locate(second.features.fine, first.features.fine, one, px, middles(rows, first.columns))
        there = near_anchor(px, second)
        kept = (again - start).norm(dim=1) < RETURN_PX
        kept &= allowed(start, first) & allowed(there, second)
        return start[kept], there[kept]


def decode_counted(view: View, width: int, height: int, device: str) -> tuple[Float[Tensor, "1 3 H W"], Bool[Tensor, "H W"] | None]:
    """A photo at some size, what the user masked in the mean colour of the rest, and what counts; None when all of it does."""
    pixels = torch.from_numpy(np.ascontiguousarray(view.decode(width, height))).to(device)
    image = pixels.permute(2, 0, 1)[None].float() / 255
    mask = view.counted(width, height)
    if mask is None:
        return image, None
    counted = mask.to(device)
    inside = image[0][:, counted]
    image[0][:, ~counted] = (inside.mean(dim=1) if inside.numel() else image.new_zeros(3))[:, None]
    return image, counted


def allowed(px: Float[Tensor, "M 2"], photo: Encoded) -> Bool[Tensor, " M"]:
    """Whether places are in the photo and away from what is masked."""
    height, width = photo.counted.shape
    x, y = px.floor().long().unbind(1)
    inside = (x >= 0) & (x < width) & (y >= 0) & (y < height)
    return inside & photo.counted[y.clamp(0, height - 1), x.clamp(0, width - 1)]


def middles(cells: Tensor, columns: int) -> Float[Tensor, "M 2"]:
    """Middles of cells in pixels."""
    return torch.stack([cells % columns, cells // columns], dim=1) * float(CELL) + CELL / 2


def cell_of(px: Float[Tensor, "M 2"], photo: Encoded) -> Tensor:
    """The cell each place lies in."""
    rows = len(photo.anchors) // photo.columns
    x = (px[:, 0] / CELL).floor().long().clamp(0, photo.columns - 1)
    y = (px[:, 1] / CELL).floor().long().clamp(0, rows - 1)
    return y * photo.columns + x


def near_anchor(px: Float[Tensor, "M 2"], photo: Encoded) -> Float[Tensor, "M 2"]:
    """The nearest anchor of the cells around each place where one is near, else the place itself."""
    steps = torch.tensor([[i, j] for i in (-1, 0, 1) for j in (-1, 0, 1)], device=px.device) * float(CELL)
    candidates = torch.stack([photo.anchors[cell_of(px + step, photo)] for step in steps], dim=1)
    apart = (candidates - px[:, None]).norm(dim=2)
    nearest = apart.min(dim=1)
    chosen = candidates.gather(1, nearest.indices[:, None, None].expand(-1, 1, 2))[:, 0]
    return torch.where((nearest.values < SNAP_PX)[:, None], chosen, px)


def corners(grey: Float[Tensor, "1 1 H W"], counted: Bool[Tensor, "H W"]) -> Float[Tensor, "cells 2"]:
    """The strongest corner of every 8 x 8 cell, to a fraction of a pixel, row-major; among pixels that count where there are any.

    Strength is the smaller eigenvalue of the structure tensor (Shi and Tomasi, "Good features to track", 1994); the fraction comes
    from a parabola through it and its neighbours.
    """
    gx = F.pad(grey[..., 2:] - grey[..., :-2], (1, 1, 0, 0))
    gy = F.pad(grey[..., 2:, :] - grey[..., :-2, :], (0, 0, 1, 1))
    tensor = F.avg_pool2d(F.avg_pool2d(torch.cat([gx * gx, gx * gy, gy * gy], dim=1), 3, 1, 1), 3, 1, 1)
    xx, xy, yy = tensor[0]
    strength = (xx + yy) / 2 - ((xx - yy).square() / 4 + xy.square()).sqrt()
    height, width = strength.shape
    cells = (
        torch.where(counted, strength, -1.0)
        .reshape(height // CELL, CELL, width // CELL, CELL)
        .permute(0, 2, 1, 3)
        .reshape(-1, CELL * CELL)
    )
    index = cells.argmax(dim=1)
    cell = torch.arange(len(index), device=grey.device)
    x = (cell % (width // CELL)) * CELL + index % CELL
    y = (cell // (width // CELL)) * CELL + index // CELL
    inner = (x > 0) & (x < width - 1) & (y > 0) & (y < height - 1)
    cx, cy = x.clamp(1, width - 2), y.clamp(1, height - 2)
    dx = peak(strength[cy, cx - 1], strength[cy, cx], strength[cy, cx + 1])
    dy = peak(strength[cy - 1, cx], strength[cy, cx], strength[cy + 1, cx])
    still = torch.zeros_like(dx)
    return torch.stack([x + 0.5 + torch.where(inner, dx, still), y + 0.5 + torch.where(inner, dy, still)], dim=1)


def peak(before: Tensor, middle: Tensor, after: Tensor) -> Tensor:
    """Where the parabola through three values has its top, half a step at most from the middle."""
    bend = before - 2 * middle + after
    top = torch.where(bend < -1e-12, 0.5 * (before - after) / bend.clamp(max=-1e-12), torch.zeros_like(bend))
    return top.clamp(-0.5, 0.5)
