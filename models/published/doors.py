"""Published networks as predictors of ours: photos or posed photos in, ``Prediction`` out.

Input: a loaded network, photos with or without cameras. Output: cameras, depth, confidence and possibly Gaussians in our
conventions, each view at the size its photo had on the canvas. Does not: download, or fuse.

Two questions are answered. ``predict_views``: where were the cameras, how deep is every pixel (the network's own world and
unit). Calling the predictor with posed photos: how deep is every pixel in the world of the given cameras.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import cast

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn

from recon.errors import UserError
from recon.formats.conventions import moved_gaussians
from recon.posed import PosedViews
from recon.progress import Progress
from recon.records import Cameras, Gaussians, Prediction, Views

from .canvas import Canvas, lay_out, resize_photo
from .networks.geometry import Geometry, KnownCameras
from .networks.precision import set_backbone_dtype
from .planner import OVERLAP, Plan, fastest_dtype, free_bytes, make_plan
from .scaling import match_unit
from .stitching import between, join, windows
from .zoo import GeometryNetwork, Network, find_network, load_network

__all__ = ["PublishedPredictor", "load_published"]


def load_published(
    network: str,
    path: Path,
    device: str = "cpu",
    *,
    name: str | None = None,
    dtype: torch.dtype | None = None,
    bytes_free: int | None = None,
) -> PublishedPredictor:
    """Load a published network from a checkpoint file.

    Args:
        network: one of ``zoo.NETWORKS``.
        path: safetensors or torch file with the published names.
        device: 'cpu' or 'cuda'.
        name: what to call the predictor; None calls it like the network.
        dtype: number format of the backbone; None takes the fastest of the device.
        bytes_free: memory to plan with; None asks the device.

    Raises:
        UserError: the name is unknown, or the file is missing, damaged or of another network.
    """
    chosen = dtype or fastest_dtype(device)
    filled = load_network(network, Path(path), device, dtype=chosen)
    about = find_network(network)
    return PublishedPredictor(filled, about, device, name=name or network, dtype=chosen, bytes_free=bytes_free)


class PublishedPredictor:
    """A published network behind our doors.

    Args:
        network: filled, in evaluation mode, on ``device``.
        about: its entry of the zoo.
        name: what the command line calls it.
    """

    def __init__(
        self,
        network: nn.Module,
        about: Network,
        device: str = "cpu",
        *,
        name: str = "",
        dtype: torch.dtype | None = None,
        bytes_free: int | None = None,
    ) -> None:
        self.name, self.makes_gaussians = name or about.title, about.makes_gaussians
        self.network = cast(GeometryNetwork, network)
        self.about, self.device, self.dtype, self.bytes_free = about, torch.device(device), dtype, bytes_free

    @torch.no_grad()
    def __call__(
        self,
        posed: PosedViews,
        neighbours: tuple[tuple[int, ...], ...],
        depth_range: Float[Tensor, "V 2"],
        progress: Progress,
    ) -> Prediction:
        """Estimate depth in the world of the given cameras.

        A network that can be told cameras is; the unit of any network is then matched to the sparse points each view sees,
        else to the distances between the cameras, else to the depth range. Gaussians of a network that makes them follow by
        the similarity that takes its lifted pixels to those of the given cameras.

        Args:
            neighbours: not needed; every view of a group sees all others.
            depth_range: near and far z-depth per view, world units.
        """
        sizes = list(zip(posed.cameras.width, posed.cameras.height, strict=True))
        plan, canvas = self._plan(sizes)
        cameras = _at_contents(posed.cameras, canvas)
        K_canvas = torch.stack([canvas.shift_intrinsics(K, i, onto=True) for i, K in enumerate(cameras.K)])
        known = (posed.cameras.T_cam_world, K_canvas) if self.about.uses_cameras else None

        def pixels(index: int) -> tuple[Float[Tensor, "H W 3"], Bool[Tensor, "H W"]]:
            image, valid = posed.pixels(index)
            return _fill_invalid(image, valid), valid

        splats: list[Gaussians] = []
        depth: list[Tensor | None] = [None] * len(posed)
        confidence: list[Tensor | None] = [None] * len(posed)
        for group, part in self._groups(len(posed), pixels, canvas, plan, known, progress, stage="depth"):
            maps = [canvas.cut(part.depth[k], view) for k, view in enumerate(group)]
            units = match_unit(maps, part.T_world_cam, posed, cameras, group, depth_range)
            for k, view in enumerate(group):
                if depth[view] is None:
                    valid = _shrink_mask(posed.pixels(view)[1], canvas.contents[view])
                    depth[view] = units[k] * maps[k]
                    confidence[view] = canvas.cut(part.confidence[k], view) * valid
            if part.gaussians is not None:
                given = replace(
                    part,
                    T_world_cam=posed.cameras.T_world_cam[group].float(),
                    K=K_canvas[group].float(),
                    depth=part.depth * units[:, None, None],
                )
                everyone = range(len(group))
                splats.append(moved_gaussians(part.gaussians, between(part, everyone, given, everyone)))
        return Prediction(
            cameras=cameras,
            depth=cast(tuple, tuple(depth)),
            confidence=cast(tuple, tuple(confidence)),
            gaussians=Gaussians.concatenate(splats) if splats else None,
        )

    @torch.no_grad()
    def predict_views(self, views: Views, progress: Progress) -> Prediction:
        """Predict cameras and depth from photos alone, in a world and unit of the network's choosing.

        The cameras returned are at the photos' sizes on the canvas; ``cameras.resized`` takes them to any other, each axis
        with its own factor.
        """
        sizes = [(view.original_width, view.original_height) for view in views]
        plan, canvas = self._plan(sizes)

        def pixels(index: int) -> tuple[Float[Tensor, "H W 3"], Bool[Tensor, "H W"]]:
            image = views.items[index].load_at(*canvas.contents[index])
            return image, torch.ones(image.shape[:2], dtype=torch.bool)

        groups, parts = [], []
        for group, part in self._groups(len(views), pixels, canvas, plan, None, progress, stage="cameras"):
            groups.append(group)
            parts.append(part)
        whole = join(parts, groups)
        cameras = Cameras(
            T_world_cam=whole.T_world_cam,
            K=torch.stack([canvas.shift_intrinsics(K, i, onto=False) for i, K in enumerate(whole.K)]),
            width=tuple(w for w, _ in canvas.contents),
            height=tuple(h for _, h in canvas.contents),
            names=tuple(views.names),
        )
        return Prediction(
            cameras=cameras,
            depth=tuple(canvas.cut(maps, i) for i, maps in enumerate(whole.depth)),
            confidence=tuple(canvas.cut(maps, i) for i, maps in enumerate(whole.confidence)),
            gaussians=whole.gaussians,
        )

    def _plan(self, sizes: Sequence[tuple[int, int]]) -> tuple[Plan, Canvas]:
        """Plan the run; the weights are in memory already and count as free."""
        held = sum(p.nbytes for p in cast(nn.Module, self.network).parameters())
        free = self.bytes_free if self.bytes_free is not None else _free_beside(self.device, held)
        plan = make_plan(self.about, sizes, self.device, bytes_free=free, dtype=self.dtype)
        return plan, lay_out(sizes, plan.long_side)

    def _groups(
        self,
        views: int,
        pixels: Callable[[int], tuple[Tensor, Tensor]],
        canvas: Canvas,
        plan: Plan,
        known: KnownCameras | None,
        progress: Progress,
        *,
        stage: str,
    ):
        """Run the network on one group of views after the other; yields view numbers and their geometry, on the CPU."""
        set_backbone_dtype(cast(nn.Module, self.network), plan.dtype)
        groups = windows(views, plan.group, OVERLAP)
        for number, group in enumerate(groups):
            progress.update(stage, number / len(groups), f"{self.about.title}: views {group[0] + 1} to {group[-1] + 1} of {views}")
            loaded = [pixels(view) for view in group]
            images, covered = [], []
            for view, (image, valid) in zip(group, loaded, strict=True):
                images.append(canvas.place(resize_photo(image, *canvas.contents[view], long_side=plan.long_side), view))
                placed = torch.zeros(canvas.height, canvas.width, dtype=torch.bool)
                placed[canvas.covered(view)] = _shrink_mask(valid, canvas.contents[view]).flatten()
                covered.append(placed)
            told = None if known is None else (known[0][group].to(self.device).float(), known[1][group].to(self.device).float())
            part = self.network.geometry(
                torch.stack(images).to(self.device), told, valid=torch.stack(covered).to(self.device), head_chunk=plan.head_chunk
            )
            if not bool(torch.isfinite(part.depth).all() & torch.isfinite(part.T_world_cam).all()):
                raise UserError(
                    f"{self.about.title} returned numbers that are not finite.",
                    "The weights are damaged or not of this network; check them with `recon weights verify`.",
                )
            yield group, _on_cpu(part)
        progress.update(stage, 1.0)


def _at_contents(cameras: Cameras, canvas: Canvas) -> Cameras:
    """Scale cameras to the photos' sizes on the canvas."""
    return cameras.resized([w for w, _ in canvas.contents], [h for _, h in canvas.contents])


def _free_beside(device: torch.device, held: int) -> int:
    return free_bytes(device) + held


def _fill_invalid(image: Float[Tensor, "H W 3"], valid: Bool[Tensor, "H W"]) -> Float[Tensor, "H W 3"]:
    """Give pixels that are no photo (corners left by undistortion) the photo's mean colour."""
    if bool(valid.all()) or not bool(valid.any()):
        return image
    return torch.where(valid[..., None], image, image[valid].mean(dim=0))


def _shrink_mask(valid: Bool[Tensor, "H W"], size: tuple[int, int]) -> Bool[Tensor, "h w"]:
    """Resize a mask; a pixel is valid when all it covers is."""
    if tuple(valid.shape) == (size[1], size[0]):
        return valid
    return F.interpolate(valid[None, None].float(), (size[1], size[0]), mode="bilinear", antialias=True)[0, 0] > 0.99


def _on_cpu(part: Geometry) -> Geometry:
    return Geometry(
        T_world_cam=part.T_world_cam.cpu(),
        K=part.K.cpu(),
        depth=part.depth.cpu(),
        confidence=part.confidence.cpu(),
        gaussians=None if part.gaussians is None else part.gaussians.to("cpu"),
    )
