"""YoNoSplat: Pi3's backbone told the intrinsics, with one Gaussian per pixel in each camera's frame.

Input: images in [0, 1] whose sides are multiples of 14, and possibly intrinsics. Output: camera poses and Gaussians.
Does not: render.

    images, K -> ViT-L (per view) + ray code -> 36 blocks (view, all views, ...) -> last two outputs side by side
              -> camera decoder -> poses relative to view 0
              -> twice the grid -> point decoder -> points;  + image code -> Gaussian decoder -> Gaussian channels

Source: Ye et al., YoNoSplat, 2025, section 3.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn

from ..checkpoint.keys import KeyMap
from ..layers.aggregator import SharedAggregator, ViewDecoder
from ..layers.camera_heads import PooledCameraHead, invert_rigid
from ..layers.harmonics import COUNT, real_harmonics
from ..layers.patch_vit import PATCH, PatchEmbed
from ..layers.splats import SplatFields, decode_splats, to_records
from ..layers.transformer import Mlp
from .geometry import Geometry, KnownCameras
from .pi3 import DIM, PixelHead, SharedBackbone, expand_points, pooled_camera_keys, shared_backbone_keys
from .precision import backbone_precision

HEAD_PATCH = 7
"""Side in pixels of a token after the grid was doubled."""
SPLAT_CHANNELS = 11
"""Opacity, 3 scales, 4 quaternion, 3 colours."""


@dataclass(frozen=True, kw_only=True)
class YonoOutput:
    """Raw outputs."""

    T_world_cam: Float[Tensor, "V 4 4"]
    """World is view 0's camera."""
    focal_norm: Float[Tensor, "V 2"]
    """The network's own fx / width and fy / height, >= 0."""
    K_norm: Float[Tensor, "V 3 3"]
    """Intrinsics it was told, or made from its own focal lengths, over (width, height)."""
    points_cam: Float[Tensor, "V H W 3"]
    raw: Float[Tensor, "V H W 11"]
    """The Gaussian head's channels; quaternions are in the camera's frame."""

    def splats(self) -> tuple[Float[Tensor, "N 3"], SplatFields, Float[Tensor, "N 3 3"]]:
        """Return world centres, activated Gaussians in their camera's frame, and that frame's rotation to the world."""
        R, center = self.T_world_cam[:, None, None, :3, :3], self.T_world_cam[:, None, None, :3, 3]
        means = (R @ self.points_cam[..., None]).squeeze(-1) + center
        rotations = R.expand(*self.points_cam.shape, 3).flatten(0, 2)
        return means.flatten(0, 2), decode_splats(self.raw.flatten(0, 2)), rotations


class YonoBackbone(SharedBackbone):
    """The shared backbone with a focal head and a code of the rays' directions."""

    def __init__(self) -> None:
        super().__init__()
        self.intrinsic_head = Mlp(DIM, DIM, 2)
        self.ray_embed = PatchEmbed(COUNT, DIM, PATCH, norm=True)

    def forward(
        self, images: Float[Tensor, "V 3 H W"], K_norm: Float[Tensor, "V 3 3"] | None
    ) -> tuple[Float[Tensor, "V P C"], Float[Tensor, "V 2"], Float[Tensor, "V 3 3"]]:
        """Return tokens (registers first), the network's own focal lengths, and the intrinsics it used."""
        height, width = images.shape[2:]
        class_token, patches = self.encode(images)
        focal = self.intrinsic_head(class_token).relu().float()
        if K_norm is None:
            K_norm = centred_intrinsics(focal)
        code = self.ray_embed(real_harmonics(ray_directions(K_norm, height, width)).permute(0, 3, 1, 2))
        return self.aggregator(patches + code, (height // PATCH, width // PATCH)), focal, K_norm


class YonoSplat(nn.Module):
    """Backbone, three decoders and three heads."""

    def __init__(self) -> None:
        super().__init__()
        self.compute_dtype = torch.float32
        self.backbone = YonoBackbone()
        self.rgb_embed = PatchEmbed(3, 2 * DIM, HEAD_PATCH, norm=True)
        self.point_decoder = ViewDecoder(2 * DIM, DIM, DIM)
        self.gaussian_decoder = ViewDecoder(2 * DIM, DIM, DIM)
        self.camera_decoder = ViewDecoder(2 * DIM, DIM, 512)
        self.point_head = PixelHead(DIM, 3, HEAD_PATCH)
        self.gaussian_head = PixelHead(DIM, SPLAT_CHANNELS, HEAD_PATCH)
        self.camera_head = PooledCameraHead(512)

    def forward(self, images: Float[Tensor, "V 3 H W"], K_norm: Float[Tensor, "V 3 3"] | None = None) -> YonoOutput:
        """Predict poses and Gaussians.

        Args:
            K_norm: intrinsics over (width, height); None uses the network's own focal lengths.
        """
        specials = SharedAggregator.SPECIALS
        grid = (images.shape[2] // PATCH, images.shape[3] // PATCH)
        fine = (2 * grid[0], 2 * grid[1])
        with backbone_precision(images.device, self.compute_dtype):
            tokens, focal, K_used = self.backbone(images, K_norm)
            camera = self.camera_decoder(tokens, grid, specials)[:, specials:].float()
            tokens = double_grid(tokens, grid, specials)
            point = self.point_decoder(tokens, fine, specials)[:, specials:].float()
            seen = torch.cat((tokens[:, :specials], tokens[:, specials:] + self.rgb_embed(images)), dim=1)
            gaussian = self.gaussian_decoder(seen, fine, specials)[:, specials:].float()
        T_world_cam = self.camera_head(camera)
        return YonoOutput(
            T_world_cam=invert_rigid(T_world_cam[:1]) @ T_world_cam,
            focal_norm=focal,
            K_norm=K_used,
            points_cam=expand_points(self.point_head(point, fine)),
            raw=self.gaussian_head(gaussian, fine),
        )

    def geometry(
        self,
        images: Float[Tensor, "V 3 H W"],
        known: KnownCameras | None = None,
        *,
        valid: Bool[Tensor, "V H W"] | None = None,
        head_chunk: int = 8,
    ) -> Geometry:
        """Predict in our conventions.

        Args:
            known: T_cam_world (not used by this network) and K in pixels, which it is told.
        """
        height, width = images.shape[2:]
        size = images.new_tensor([width, height, 1.0])[:, None]
        out = self(images, None if known is None else known[1] / size)
        gaussians = to_records(*out.splats())
        return Geometry(
            T_world_cam=out.T_world_cam,
            K=out.K_norm * size,
            depth=out.points_cam[..., 2],
            confidence=out.raw[..., 0].sigmoid(),
            gaussians=gaussians if valid is None else gaussians.select(valid.flatten()),
        )


def centred_intrinsics(focal_norm: Float[Tensor, "V 2"]) -> Float[Tensor, "V 3 3"]:
    """Build normalised intrinsics with the principal point at the centre; focal lengths are kept above 0.1."""
    K = focal_norm.new_zeros(len(focal_norm), 3, 3)
    K[:, 0, 0], K[:, 1, 1] = focal_norm.clamp_min(0.1).unbind(1)
    K[:, 0, 2] = K[:, 1, 2] = 0.5
    K[:, 2, 2] = 1.0
    return K


def ray_directions(K_norm: Float[Tensor, "V 3 3"], height: int, width: int) -> Float[Tensor, "V H W 3"]:
    """Compute unit directions through the pixel centres, camera frame."""
    x = (torch.arange(width, device=K_norm.device, dtype=K_norm.dtype) + 0.5) / width
    y = (torch.arange(height, device=K_norm.device, dtype=K_norm.dtype) + 0.5) / height
    v, u = torch.meshgrid(y, x, indexing="ij")
    pixels = torch.stack((u, v, torch.ones_like(u)), dim=-1)
    return F.normalize(torch.einsum("vij,hwj->vhwi", torch.linalg.inv(K_norm), pixels), dim=-1)


def double_grid(tokens: Float[Tensor, "V P C"], grid: tuple[int, int], specials: int) -> Float[Tensor, "V Q C"]:
    """Resize the patch grid to twice its size bilinearly; special tokens stay."""
    maps = tokens[:, specials:].transpose(1, 2).unflatten(2, grid)
    finer = F.interpolate(maps, scale_factor=2.0, mode="bilinear", align_corners=False)
    return torch.cat((tokens[:, :specials], finer.flatten(2).transpose(1, 2)), dim=1)


def yonosplat_keys() -> KeyMap:
    """Map the published names."""
    parts = ("point_decoder.", "gaussian_decoder.", "camera_decoder.", "point_head.", "gaussian_head.", "rgb_embed.")
    return KeyMap(
        prefixes=(
            *shared_backbone_keys("encoder.backbone."),
            ("encoder.backbone.intrinsic_head.", "backbone.intrinsic_head."),
            ("encoder.backbone.intrinsics_embed_layer.", "backbone.ray_embed."),
            *pooled_camera_keys("encoder.camera_head."),
            *((f"encoder.{part}", part) for part in parts),
        ),
        unused={
            "losses.": "training only",
            "decoder.": "the rasteriser's own buffers",
            "encoder.backbone.encoder.mask_token": "training only",
        },
    )
