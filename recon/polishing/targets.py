"""The photos at the sizes a polish works at, and which of them to look at next.

Input: posed photos. Output: ``Target`` per view and size, cameras of that size, the next view.
Does not: hold more than a set number of bytes.
"""

from __future__ import annotations

from collections import OrderedDict

import torch
from jaxtyping import Float
from torch import Tensor

from ..posed import PosedViews
from .losses import Target, make_target

TILE = 16
"""Side of the rasteriser's tiles, pixels."""
CACHE_BYTES = 1 << 30
"""How much prepared photo data is kept."""


class Targets:
    """Prepared photos, made when first needed; least recently used ones are dropped.

    Args:
        posed: the photos.
        device: where the rasteriser draws.
    """

    def __init__(self, posed: PosedViews, device: torch.device | str = "cpu", cache_bytes: int = CACHE_BYTES) -> None:
        self.posed = posed
        self.device = device
        self.cache_bytes = cache_bytes
        self._held: OrderedDict[tuple[int, int], Target] = OrderedDict()
        self._bytes = 0

    def size(self, view: int, factor: int) -> tuple[int, int]:
        """(width, height) of a view shrunk ``factor`` times."""
        cameras = self.posed.cameras
        return max(1, round(cameras.width[view] / factor)), max(1, round(cameras.height[view] / factor))

    def at(self, view: int, factor: int) -> Target:
        """The photo shrunk ``factor`` times by averaging; a pixel counts where half of what it averages is valid."""
        key = (view, factor)
        if key in self._held:
            self._held.move_to_end(key)
            return self._held[key]
        image, valid = self.posed.pixels(view)
        width, height = self.size(view, factor)
        weight = valid.float()
        if (height, width) != tuple(weight.shape):
            maps = torch.cat([image * weight[..., None], weight[..., None]], dim=-1).permute(2, 0, 1)[None]
            maps = torch.nn.functional.interpolate(maps, (height, width), mode="area")[0].permute(1, 2, 0)
            image, weight = maps[..., :3] / maps[..., 3:].clamp_min(1e-6), (maps[..., 3] >= 0.5).float()
        target = make_target(image.float().to(self.device), weight.to(self.device))
        self._held[key] = target
        self._bytes += target.nbytes
        while self._bytes > self.cache_bytes and len(self._held) > 1:
            self._bytes -= self._held.popitem(last=False)[1].nbytes
        return target

    def scaled_K(self, K: Float[Tensor, "3 3"], view: int, factor: int) -> Float[Tensor, "3 3"]:
        """Intrinsics of a view shrunk ``factor`` times. Differentiable."""
        width, height = self.size(view, factor)
        cameras = self.posed.cameras
        return K * K.new_tensor([[width / cameras.width[view]], [height / cameras.height[view]], [1.0]])


class ViewPicker:
    """Chooses the view with the most error left to remove: error times the steps since it was last looked at.

    Every view comes round, bad ones more often. Without errors the order is the given one.

    Args:
        views: indices to choose from.
    """

    def __init__(self, views: list[int]) -> None:
        self.views = views
        self.error = dict.fromkeys(views, 1.0)
        self.waited = {v: len(views) - i for i, v in enumerate(views)}
        self._known = False

    def next(self) -> int:
        """The next view; its waiting time starts anew."""
        view = max(self.views, key=lambda v: self.error[v] * self.waited[v])
        for v in self.views:
            self.waited[v] += 1
        self.waited[view] = 0
        return view

    def tell(self, view: int, squared_error: float) -> None:
        """Remember how far a view still is; views never seen take the mean of the others."""
        if not self._known:
            self.error = dict.fromkeys(self.views, squared_error)
            self._known = True
        self.error[view] = 0.5 * self.error[view] + 0.5 * squared_error


class TilePicker:
    """Chooses the tiles of a photo with the most error left.

    Args:
        share: of the tiles to draw, in (0, 1]; 1 draws all.
        seed: of the choice.
    """

    def __init__(self, share: float, seed: int) -> None:
        self.share = share
        self._generator = torch.Generator().manual_seed(seed)
        self._error: dict[int, Tensor] = {}

    def choose(self, view: int, target: Target) -> Tensor | None:
        """Bool ``1 rows cols``: drawn at random with a chance that grows with the error; None draws all.

        All tiles of a view are drawn the first time, and every tile keeps a tenth of the mean chance.
        """
        if self.share >= 1 or view not in self._error:
            return None
        error = self._error[view].flatten().cpu()
        count = max(1, round(self.share * len(error)))
        picked = torch.multinomial(error + 0.1 * error.mean() + 1e-9, count, generator=self._generator)
        chosen = torch.zeros(len(error), dtype=torch.bool)
        chosen[picked] = True
        return chosen.reshape(1, *self._error[view].shape).to(target.image.device)

    @staticmethod
    def pixels(tiles: Tensor, target: Target) -> Tensor:
        """Bool ``H W``: pixels of the chosen tiles."""
        height, width = target.weight.shape
        return tiles[0].repeat_interleave(TILE, 0).repeat_interleave(TILE, 1)[:height, :width]

    def tell(self, view: int, shown: Tensor, target: Target, tiles: Tensor | None) -> None:
        """Remember the error of the tiles that were drawn."""
        if self.share >= 1:
            return
        error = (shown - target.image).square().mean(-1) * target.weight
        height, width = error.shape
        padded = torch.nn.functional.pad(error, (0, -width % TILE, 0, -height % TILE))
        pooled = torch.nn.functional.avg_pool2d(padded[None, None], TILE)[0, 0]
        self._error[view] = pooled if tiles is None else torch.where(tiles[0], pooled, self._error[view])

    def mean_error(self, view: int) -> float:
        """Mean squared error of a view over what is known of its tiles."""
        return float(self._error[view].mean())
