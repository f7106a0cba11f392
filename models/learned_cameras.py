"""Cameras by our camera network: photos in, about right and judged by nobody yet.

Input: ``Views``, with what the user or EXIF says of their lenses. Output: ``Prediction``. Does not: adjust cameras to matches;
``recon.cameras.refined`` does.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from recon.alignment import Sim3
from recon.cameras.refined import similarity
from recon.errors import UserError
from recon.progress import Progress
from recon.records import Cameras, Prediction, View, Views

from .camera_network import STEP, CameraAnswer, CameraNetwork, KnownViews, PhotoTokens, common_frame
from .learned_matcher import decode_counted
from .precision import to_channels_last
from .published.stitching import windows

__all__ = ["LearnedCameras"]

TOGETHER, SHARED = 48, 12
"""Photos that are seen at once, and those that such a group has in common with the one before: attention costs their square."""
RIGHT = 0.05
"""Error of depth, relative, up to which it is called right."""


@dataclass(frozen=True)
class Told:
    """The answer for some photos, in the order they were given."""

    T_world_cam: Float[Tensor, "V 4 4"]
    K: Float[Tensor, "V 3 3"]
    """Pixels of the network's size."""
    depth: tuple[Float[Tensor, "_ _"], ...]
    """At the network's size."""
    confidence: tuple[Float[Tensor, "_ _"], ...]


class LearnedCameras:
    """``CameraPredictor`` of our own network.

    Args:
        network: with its weights.
        device: 'cpu' or 'cuda'.
        side: longest side of the photos the network sees, pixels.
    """

    name = "camera-network"
    makes_gaussians = False

    def __init__(self, network: CameraNetwork, device: str = "cpu", *, side: int = 256) -> None:
        self._network, self._device, self._side = to_channels_last(network).to(device).eval(), device, side

    @torch.no_grad()
    def predict_views(self, views: Views, progress: Progress, known: Cameras | None = None) -> Prediction:
        """Find cameras and depth of all photos.

        Args:
            views: photos; more than ``TOGETHER`` are best in the order they were taken.
            known: cameras at the original sizes of which the registered ones are known; with two or more of them the answer is
                in their world.

        Raises:
            UserError: the weights make no sense.
        """
        sizes = [network_size(view.original_width, view.original_height, self._side) for view in views]
        photos = []
        for index, view in enumerate(views):
            progress.update("cameras", 0.5 * index / len(views), f"camera network: photo {index + 1} of {len(views)}")
            photos.append(self._encode(view, sizes[index]))
        groups = windows(len(views), TOGETHER, SHARED)
        parts = []
        for number, group in enumerate(groups):
            progress.update("cameras", 0.5 + 0.5 * number / len(groups), f"camera network: {len(group)} photos together")
            parts.append(self._relate(views, sizes, photos, group, known))
        whole = joined(parts, groups)
        if not all(bool(torch.isfinite(one).all()) for one in (whole.T_world_cam, whole.K, *whole.depth)):
            raise UserError("The camera network returned numbers that are not finite.", "Its weights are damaged; train it again.")
        if known is not None and int(known.registered_mask.sum()) >= 2:
            at = known.registered_mask
            whole = moved(whole, similarity(whole.T_world_cam[at].double(), known.T_world_cam[at].double()))
        progress.update("cameras", 1.0)
        cameras = Cameras(
            T_world_cam=whole.T_world_cam.clone(),
            K=whole.K.clone(),
            width=tuple(width for _, width in sizes),
            height=tuple(height for height, _ in sizes),
            names=tuple(views.names),
        )
        return Prediction(cameras=cameras, depth=whole.depth, confidence=whole.confidence)

    def _encode(self, view: View, size: tuple[int, int]) -> PhotoTokens:
        image, _ = decode_counted(view, size[1], size[0], self._device)
        with self._arithmetic():
            return self._network.encode(image)

    def _arithmetic(self) -> torch.autocast:
        """That of training: photos are small enough for full precision on a CPU, and angles are worth it."""
        return torch.autocast(self._device, torch.bfloat16, enabled=self._device.startswith("cuda"))

    def _relate(
        self,
        views: Views,
        sizes: Sequence[tuple[int, int]],
        photos: Sequence[PhotoTokens],
        group: Sequence[int],
        known: Cameras | None,
    ) -> Told:
        """Ask about some photos together; those of one size are put together first."""
        by_size: dict[tuple[int, int], list[int]] = {}
        for index in group:
            by_size.setdefault(sizes[index], []).append(index)
        order = [index for members in by_size.values() for index in members]
        encoded = [
            (
                torch.cat([photos[i].tokens for i in members])[None],
                torch.cat([photos[i].detail for i in members])[None],
            )
            for members in by_size.values()
        ]
        told = known_of(views.select(order), [sizes[i] for i in order], None if known is None else known.select(order))
        told = KnownViews(**{name: value.to(self._device) for name, value in vars(told).items()})
        with self._arithmetic():
            answer = self._network.relate(encoded, told)
        return in_order(answer, [sizes[i] for i in order], [order.index(i) for i in group])


def network_size(width: int, height: int, side: int) -> tuple[int, int]:
    """Height and width in whole tokens that stretch a photo least, the longest between three quarters of ``side`` and ``side``."""
    longest = max(width, height)
    best, least = (STEP, STEP), math.inf
    for long_side in range(side // STEP * STEP, side * 3 // 4, -STEP):
        found = tuple(max(2 * STEP, round(extent * long_side / longest / STEP) * STEP) for extent in (height, width))
        stretch = abs(math.log(found[1] / found[0] * height / width))
        if stretch < least - 0.01:
            best, least = (found[0], found[1]), stretch
    return best


def known_of(views: Views, sizes: Sequence[tuple[int, int]], known: Cameras | None) -> KnownViews:
    """What is known of photos: lenses by the user or else by EXIF, and places."""
    count = len(views)
    K, has_K = torch.eye(3).repeat(count, 1, 1), torch.zeros(count, dtype=torch.bool)
    for index, (view, (height, width)) in enumerate(zip(views, sizes, strict=True)):
        lens = view.intrinsics
        if lens is None and view.focal_px is not None:
            lens = (view.focal_px, view.focal_px, view.original_width / 2, view.original_height / 2)
        if lens is not None:
            across, down = width / view.original_width, height / view.original_height
            fx, fy, cx, cy = lens[:4]
            K[index] = torch.tensor([[fx * across, 0, cx * across], [0, fy * down, cy * down], [0, 0, 1]])
            has_K[index] = True
    T_world_cam, has_place = torch.eye(4).repeat(count, 1, 1), torch.zeros(count, dtype=torch.bool)
    if known is not None:
        has_place = known.registered_mask.clone()
        T_world_cam = known.T_world_cam.double()
    frame = common_frame(T_world_cam[None], has_place[None]).float()
    return KnownViews(K=K[None], has_K=has_K[None], T_frame_cam=frame, has_place=has_place[None])


def in_order(answer: CameraAnswer, sizes: Sequence[tuple[int, int]], order: Sequence[int]) -> Told:
    """An answer in plain numbers, on the CPU, photos taken in ``order``.

    Args:
        sizes: height and width of each photo as the network had them.
    """
    K, depth, confidence = [], [], []
    groups = zip(answer.log_depth, answer.log_depth_spread, strict=True)
    maps = [pair for z, spread in groups for pair in zip(z[0], spread[0], strict=True)]
    for (height, width), focal, (z, spread) in zip(sizes, answer.log_focal[0].float().cpu().tolist(), maps, strict=True):
        fx, fy = (math.exp(min(max(value, -3.0), 3.0)) * max(height, width) for value in focal)
        K.append(torch.tensor([[fx, 0, width / 2], [0, fy, height / 2], [0, 0, 1]]))
        both = F.interpolate(torch.stack([z, spread])[None].float(), size=(height, width), mode="bilinear")[0].cpu()
        depth.append(both[0].clamp(-8.0, 8.0).exp())
        confidence.append(1 - (-RIGHT * (-both[1].clamp(-6.0, 3.0)).exp()).exp())
    return Told(
        T_world_cam=answer.T_world_cam[0].float().cpu()[list(order)],
        K=torch.stack(K)[list(order)],
        depth=tuple(depth[i] for i in order),
        confidence=tuple(confidence[i] for i in order),
    )


def moved(told: Told, move: Sim3) -> Told:
    """Cameras and depth in another world."""
    T_world_cam = told.T_world_cam.double()
    out = T_world_cam.clone()
    out[:, :3, :3] = move.R_b_a @ T_world_cam[:, :3, :3]
    out[:, :3, 3] = move.apply(T_world_cam[:, :3, 3])
    depth = tuple(one * move.scale for one in told.depth)
    return Told(out.float(), told.K, depth, told.confidence)


def joined(parts: Sequence[Told], groups: Sequence[Sequence[int]]) -> Told:
    """Bring groups of photos into the world of the first by the cameras they share, and keep each photo once."""
    whole, seen = parts[0], list(groups[0])
    for part, group in zip(parts[1:], groups[1:], strict=True):
        shared = [view for view in group if view in seen]
        here, there = [group.index(view) for view in shared], [seen.index(view) for view in shared]
        part = moved(part, similarity(part.T_world_cam[here].double(), whole.T_world_cam[there].double()))
        fresh = [k for k, view in enumerate(group) if view not in seen]
        whole = Told(
            torch.cat([whole.T_world_cam, part.T_world_cam[fresh]]),
            torch.cat([whole.K, part.K[fresh]]),
            (*whole.depth, *(part.depth[k] for k in fresh)),
            (*whole.confidence, *(part.confidence[k] for k in fresh)),
        )
        seen += [group[k] for k in fresh]
    return whole
