"""Run the built-in depth network over posed photos.

Input: posed photos, neighbours and depth ranges chosen outside. Output: ``Prediction`` at half the working size.
Does not: choose neighbours or ranges, or load weights (``registry`` does).

Every photo is encoded once; its features are dropped as soon as no later view needs them, so that memory follows the
working set and not the number of photos. Photos beyond ``LARGEST`` pixels are matched smaller, so that one photo's share is
bounded.
"""

from __future__ import annotations

import math
from collections import Counter, OrderedDict
from collections.abc import Sequence
from dataclasses import replace
from functools import partial

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from recon.posed import PosedViews
from recon.progress import Progress
from recon.records import Prediction

from .mini import MiniNetwork, normalize_photo
from .precision import autocast_dtype, to_channels_last
from .wide_range import WIDEST, search_in_bands

__all__ = ["MiniPredictor"]

MATCHING = ("match8", "match4")
LARGEST = 8_000_000
"""Pixels of a photo beyond which it is matched at this size and its depth enlarged."""


class MiniPredictor:
    """``DepthPredictor`` around a trained ``MiniNetwork``.

    Args:
        network: the network; it is put in evaluation mode.
        device: 'cpu' or 'cuda'.
    """

    name = "mini"

    def __init__(self, network: MiniNetwork, device: str = "cpu") -> None:
        self.network = to_channels_last(network).to(device).eval()
        self.device = device

    @torch.inference_mode()
    def __call__(
        self,
        posed: PosedViews,
        neighbours: tuple[tuple[int, ...], ...],
        depth_range: Float[Tensor, "V 2"],
        progress: Progress,
    ) -> Prediction:
        """Estimate depth and confidence of every view.

        Args:
            neighbours: per view the views to match it with, best first; a view without any gets mid-range depth and no confidence.
            depth_range: near and far z-depth per view, world units, 0 < near < far; beyond 1:200 it is searched in bands, which
                takes several times as long.

        Raises:
            ValueError: ranges or neighbours do not fit the views.
        """
        check_request(posed, neighbours, depth_range)
        halves = [half_size(w, h) for w, h in zip(posed.cameras.width, posed.cameras.height, strict=True)]
        cameras = posed.cameras.resized([w for w, _ in halves], [h for _, h in halves])
        posed = at_most(posed, LARGEST)
        sizes = list(zip(posed.cameras.width, posed.cameras.height, strict=True))
        uses = Counter(j for chosen in neighbours for j in chosen) + Counter(range(len(posed)))
        cache: dict[int, dict[str, Tensor]] = {}
        depth, confidence = [], []
        for i, chosen in enumerate(neighbours):
            progress.update("depth", i / len(posed), f"photo {i + 1} of {len(posed)}")
            for j in (i, *chosen):
                if j not in cache:
                    cache[j] = self._encode(*posed.pixels(j))
            z, p = self._search(posed, cache, i, chosen, depth_range[i])
            depth.append(1.0 / crop_to_photo(1.0 / z, sizes[i], halves[i]))
            valid = F.interpolate(posed.pixels(i)[1][None, None].float(), size=halves[i][::-1], mode="area")[0, 0]
            confidence.append(crop_to_photo(p, sizes[i], halves[i]).clamp(0, 1) * (valid > 0.99))
            for j in (i, *chosen):
                uses[j] -= 1
                if uses[j] == 0:
                    del cache[j]
        progress.update("depth", 1.0)
        return Prediction(cameras=cameras, depth=tuple(depth), confidence=tuple(confidence))

    def _encode(self, image: Float[Tensor, "H W 3"], valid: Bool[Tensor, "H W"]) -> dict[str, Tensor]:
        """Features of one photo, padded to multiples of 8; kept in half the bytes."""
        photo = normalize_photo(image[None].to(self.device), valid[None].to(self.device))
        pad = (0, -photo.shape[3] % 8, 0, -photo.shape[2] % 8)
        photo = F.pad(photo, pad, mode="replicate").contiguous(memory_format=torch.channels_last)
        dtype = autocast_dtype(self.device)
        with torch.autocast(self.device, dtype or torch.bfloat16, enabled=dtype is not None):
            features = self.network.encode(photo)
        return {name: value.half() if name in MATCHING else value for name, value in features.items()}

    def _search(
        self, posed: PosedViews, cache: dict[int, dict[str, Tensor]], index: int, chosen: Sequence[int], depth_range: Tensor
    ) -> tuple[Float[Tensor, "h2 w2"], Float[Tensor, "h2 w2"]]:
        """z-depth and confidence of one view; a range that is too wide for the planes takes several sweeps."""
        near, far = (float(z) for z in depth_range)
        if not chosen or far <= WIDEST * near:
            return self._estimate(posed, cache, index, chosen, depth_range)
        sweep = partial(self._estimate, posed, cache, index, chosen)
        return search_in_bands(sweep, near, far, self.network.config.planes)

    def _estimate(
        self, posed: PosedViews, cache: dict[int, dict[str, Tensor]], index: int, chosen: Sequence[int], depth_range: Tensor
    ) -> tuple[Float[Tensor, "h2 w2"], Float[Tensor, "h2 w2"]]:
        """z-depth and confidence of one view on the padded half-size grid."""
        own = {name: value.float() if name in MATCHING else value for name, value in cache[index].items()}
        ranges = depth_range[None].float().to(self.device)
        if not chosen:
            shape = own["guide2"].shape[-2:]
            middle = 2.0 / (1.0 / ranges).sum()
            return middle.expand(shape).cpu().clone(), torch.zeros(shape)
        cameras, at = posed.cameras.to(self.device), torch.as_tensor(list(chosen), device=self.device)
        extent = torch.tensor([[posed.cameras.width[j], posed.cameras.height[j]] for j in chosen], dtype=torch.float32)[None]
        dtype = autocast_dtype(self.device)
        with torch.autocast(self.device, dtype or torch.bfloat16, enabled=dtype is not None):
            output = self.network(
                own,
                *(stack_padded([cache[j][name] for j in chosen]) for name in MATCHING),
                (cameras.K[index][None], cameras.T_world_cam[index][None], cameras.K[at][None], cameras.T_world_cam[at][None]),
                ranges,
                extent=extent.to(self.device),
            )
        z = self.network.depth(output.position, ranges)[0]
        return z.cpu(), output.confidence_logit[0].sigmoid().cpu()


def check_request(posed: PosedViews, neighbours: Sequence[Sequence[int]], depth_range: Float[Tensor, "V 2"]) -> None:
    """Refuse neighbours and ranges that do not fit the views.

    Raises:
        ValueError: says what was given and what was wanted.
    """
    views = len(posed)
    if len(neighbours) != views or tuple(depth_range.shape) != (views, 2):
        raise ValueError(
            f"depth: wanted neighbours and a (near, far) pair for each of {views} views, "
            f"got {len(neighbours)} and shape {tuple(depth_range.shape)}"
        )
    if any(j == i or not 0 <= j < views for i, chosen in enumerate(neighbours) for j in chosen):
        raise ValueError(f"depth: a view's neighbours are other views, numbered 0 to {views - 1}")
    if not bool(
        torch.isfinite(depth_range).all() and (depth_range[:, 0] > 0).all() and (depth_range[:, 1] > depth_range[:, 0]).all()
    ):
        raise ValueError("depth: wanted 0 < near < far for every view")


def at_most(posed: PosedViews, pixels: int) -> PosedViews:
    """The same views, photos of more pixels than this made smaller; the very same when there are none."""
    sizes = list(zip(posed.cameras.width, posed.cameras.height, strict=True))
    factors = [min(1.0, math.sqrt(pixels / (width * height))) for width, height in sizes]
    if min(factors) == 1.0:
        return posed
    smaller = [(max(1, int(w * f)), max(1, int(h * f))) for (w, h), f in zip(sizes, factors, strict=True)]

    def read(index: int) -> tuple[Tensor, Tensor]:
        image, valid = posed.pixels(index)
        if smaller[index] == sizes[index]:
            return image, valid
        size = smaller[index][::-1]
        seen = F.interpolate(valid[None, None].float(), size=size, mode="area")[0, 0] > 0.99
        return F.interpolate(image.permute(2, 0, 1)[None], size=size, mode="area")[0].permute(1, 2, 0).contiguous(), seen

    cameras = posed.cameras.resized([w for w, _ in smaller], [h for _, h in smaller])
    return replace(posed, cameras=cameras, read=read, _cache=OrderedDict())


def half_size(width: int, height: int) -> tuple[int, int]:
    """Size of the depth map of a photo."""
    return (width + 1) // 2, (height + 1) // 2


def crop_to_photo(padded: Float[Tensor, "h w"], size: tuple[int, int], half: tuple[int, int]) -> Float[Tensor, "h2 w2"]:
    """Read a half-size map, whose grid covers padding, on the grid that divides the photo alone evenly."""
    width, height = half
    if size == (2 * width, 2 * height):
        return padded[:height, :width].contiguous()
    y = (torch.arange(height) + 0.5) * (size[1] / 2 / height)
    x = (torch.arange(width) + 0.5) * (size[0] / 2 / width)
    gy, gx = torch.meshgrid(y / padded.shape[0] * 2 - 1, x / padded.shape[1] * 2 - 1, indexing="ij")
    grid = torch.stack([gx, gy], dim=-1)[None]
    return F.grid_sample(padded[None, None], grid, padding_mode="border", align_corners=False)[0, 0]


def stack_padded(maps: Sequence[Float[Tensor, "1 _ _ _"]]) -> Float[Tensor, "1 S _ _ _"]:
    """Put feature maps of several sizes into one tensor; what is added is never read (see ``extent``)."""
    height, width = max(m.shape[1] for m in maps), max(m.shape[2] for m in maps)
    return torch.stack([F.pad(m.float(), (0, 0, 0, width - m.shape[2], 0, height - m.shape[1])) for m in maps], dim=1)
