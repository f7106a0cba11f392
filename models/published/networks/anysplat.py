"""AnySplat: VGGT's backbone with a Gaussian head; Gaussians of all views merged in voxels.

Input: images in [0, 1] whose sides are multiples of 14. Output: cameras, depth and Gaussians in one world.
Does not: render. The network was trained over a white background.

    images -> VGGT backbone -> camera head, depth head -> points_world
                            -> Gaussian head (+ a convolution of the image) -> 83 channels and a confidence per pixel
                            -> average per voxel -> activate

Source: Jiang et al., AnySplat: Feed-forward 3D Gaussian Splatting from Unconstrained Views, 2025, section 3.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from ..checkpoint.keys import KeyMap, dense_head_keys
from ..layers.aggregator import PairedAggregator
from ..layers.camera_heads import IterativeCameraHead, decode_pose, invert_rigid
from ..layers.dense_head import DenseHead, in_chunks
from ..layers.splats import SplatFields, decode_splats, to_records
from ..layers.voxels import merge_voxels
from .geometry import Geometry, KnownCameras
from .precision import backbone_precision
from .vggt import DIM, VggtBackbone, backbone_keys, camera_head_keys, dense_config

TANGENT_OFFSET = 1e-3
"""Added to the tangents of half the fields of view."""
SPLAT_CHANNELS = 83
"""Opacity, 3 scales, 4 quaternion, 75 SH; one more channel is the voxel confidence."""
VOXEL_SIZE = 0.002
"""Side of a voxel in the network's unit."""


@dataclass(frozen=True, kw_only=True)
class AnySplatOutput:
    """Raw outputs."""

    pose_codes: Float[Tensor, "I V 9"]
    """World to camera, one per refinement round."""
    T_world_cam: Float[Tensor, "V 4 4"]
    K: Float[Tensor, "V 3 3"]
    """Pixels."""
    depth: Float[Tensor, "V H W"]
    depth_conf: Float[Tensor, "V H W"]
    points_world: Float[Tensor, "V H W 3"]
    """Depth lifted with pixel centres at integers, as the network was trained."""
    raw: Float[Tensor, "V 84 H W"]
    """The Gaussian head's channels."""

    def splats(
        self, voxel_size: float | None, valid: Bool[Tensor, "V H W"] | None = None
    ) -> tuple[Float[Tensor, "N 3"], SplatFields]:
        """Return centres and activated Gaussians, merged per voxel (raw channels are averaged) unless the size is None.

        Args:
            valid: pixels to use; None uses all.
        """
        points = self.points_world.flatten(0, 2)
        raw = self.raw.permute(0, 2, 3, 1).flatten(0, 2)
        if valid is not None:
            points, raw = points[valid.flatten()], raw[valid.flatten()]
        if voxel_size is None:
            return points, decode_splats(raw[:, :SPLAT_CHANNELS])
        merged = merge_voxels(points, raw[:, :SPLAT_CHANNELS], raw[:, SPLAT_CHANNELS], voxel_size)
        return merged.points_world, decode_splats(merged.features)


class SplatHead(DenseHead):
    """A dense head that also sees the image through one large convolution."""

    def __init__(self) -> None:
        super().__init__(dense_config(SPLAT_CHANNELS + 1, hidden=128))
        self.input_merger = nn.Sequential(nn.Conv2d(3, 128, 7, padding=3), nn.ReLU())

    def forward(self, taps: Sequence[Tensor], size: tuple[int, int], extra: Float[Tensor, "V 3 H W"] | None = None) -> Tensor:
        """Compute the channels; ``extra`` is the image in [0, 1]."""
        return super().forward(taps, size, None if extra is None else self.input_merger(extra))


class AnySplat(nn.Module):
    """VGGT's backbone, camera head and depth head, and the Gaussian head."""

    def __init__(self) -> None:
        super().__init__()
        self.compute_dtype = torch.float32
        self.backbone = VggtBackbone()
        self.camera_head = IterativeCameraHead(2 * DIM)
        self.depth_head = DenseHead(dense_config(2))
        self.splat_head = SplatHead()

    def forward(self, images: Float[Tensor, "V 3 H W"], *, head_chunk: int = 8) -> AnySplatOutput:
        """Predict cameras, depth and raw Gaussians.

        Args:
            head_chunk: views a dense head takes at a time.
        """
        size = (images.shape[2], images.shape[3])
        with backbone_precision(images.device, self.compute_dtype):
            taps = self.backbone(images)
        pose_codes = self.camera_head(taps[-1][:, 0].float())
        taps = [tap[:, PairedAggregator.SPECIALS :].float() for tap in taps]
        raw_depth = in_chunks(lambda some: self.depth_head(some, size), taps, head_chunk)
        raw = in_chunks(lambda some, image: self.splat_head(some, size, image), taps, head_chunk, images)
        T_cam_world, K = decode_pose(pose_codes[-1], *size, tangent_offset=TANGENT_OFFSET)
        T_world_cam, depth = invert_rigid(T_cam_world), raw_depth[:, 0].exp()
        return AnySplatOutput(
            pose_codes=pose_codes,
            T_world_cam=T_world_cam,
            K=K,
            depth=depth,
            depth_conf=1.0 + raw_depth[:, 1].exp(),
            points_world=lift_integer_pixels(depth, T_world_cam, K),
            raw=raw,
        )

    def geometry(
        self,
        images: Float[Tensor, "V 3 H W"],
        known: KnownCameras | None = None,
        *,
        valid: Bool[Tensor, "V H W"] | None = None,
        head_chunk: int = 8,
    ) -> Geometry:
        """Predict in our conventions, Gaussians merged at the published voxel size."""
        out = self(images, head_chunk=head_chunk)
        return Geometry(
            T_world_cam=out.T_world_cam,
            K=out.K,
            depth=out.depth,
            confidence=1.0 - 1.0 / out.depth_conf,
            gaussians=to_records(*out.splats(VOXEL_SIZE, valid)),
        )


def lift_integer_pixels(
    depth: Float[Tensor, "V H W"], T_world_cam: Float[Tensor, "V 4 4"], K: Float[Tensor, "V 3 3"]
) -> Float[Tensor, "V H W 3"]:
    """Lift depth to world points with pixel centres at integers, where this network differs from our convention."""
    height, width = depth.shape[1:]
    u = torch.arange(width, device=depth.device, dtype=depth.dtype)
    v = torch.arange(height, device=depth.device, dtype=depth.dtype)[:, None]
    fx, fy, cx, cy = (K[:, i, j, None, None] for i, j in ((0, 0), (1, 1), (0, 2), (1, 2)))
    points_cam = torch.stack(((u - cx) * depth / fx, (v - cy) * depth / fy, depth), dim=-1)
    R, center = T_world_cam[:, None, None, :3, :3], T_world_cam[:, None, None, :3, 3]
    return (R @ points_cam[..., None]).squeeze(-1) + center


def anysplat_keys() -> KeyMap:
    """Map the published names."""
    distilled = "the teacher of training; a file may carry it"
    return KeyMap(
        prefixes=(
            *backbone_keys("encoder.aggregator.", "backbone."),
            *camera_head_keys("encoder.camera_head.", "camera_head."),
            *dense_head_keys("encoder.depth_head.", "depth_head."),
            *dense_head_keys("encoder.gaussian_param_head.", "splat_head."),
            ("encoder.gaussian_param_head.input_merger.", "splat_head.input_merger."),
        ),
        unused={
            "encoder.aggregator.patch_embed.mask_token": "training only",
            **{f"encoder.distill_{part}.": distilled for part in ("aggregator", "camera_head", "depth_head")},
        },
    )
