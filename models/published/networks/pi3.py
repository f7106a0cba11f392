"""Pi3: cameras, local points and confidence of all views, none of which is the reference.

Input: images in [0, 1] whose sides are multiples of 14. Output: camera poses, points in each camera, confidence logits.
Does not: predict intrinsics; ``geometry`` fits the focal length to the local points.

    images -> ViT-L (per view) -> 36 blocks (view, all views, ...) -> last two outputs side by side
           -> three decoders of 5 blocks per view -> points, confidence, camera

Source: Wang et al., Pi3: Permutation-Equivariant Visual Geometry Learning, 2025, section 3.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn

from ..checkpoint.keys import KeyMap
from ..layers.aggregator import SharedAggregator, ViewDecoder
from ..layers.camera_heads import PooledCameraHead
from ..layers.patch_vit import PATCH, PatchVit, vit_large
from ..layers.transformer import BlockConfig
from .focal import fit_focal
from .geometry import Geometry, KnownCameras
from .precision import backbone_precision

DIM = 1024
DEPTH = 36


@dataclass(frozen=True, kw_only=True)
class Pi3Output:
    """Raw outputs."""

    T_world_cam: Float[Tensor, "V 4 4"]
    points_cam: Float[Tensor, "V H W 3"]
    """Points in each view's camera frame."""
    conf_logit: Float[Tensor, "V H W"]

    @property
    def points_world(self) -> Float[Tensor, "V H W 3"]:
        R, center = self.T_world_cam[:, None, None, :3, :3], self.T_world_cam[:, None, None, :3, 3]
        return (R @ self.points_cam[..., None]).squeeze(-1) + center


class SharedBackbone(nn.Module):
    """Patch encoder and aggregator without a reference view; the image statistics are part of the checkpoint."""

    image_mean: Tensor
    image_std: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("image_mean", torch.empty(1, 3, 1, 1))
        self.register_buffer("image_std", torch.empty(1, 3, 1, 1))
        self.patch_vit = PatchVit(vit_large())
        self.aggregator = SharedAggregator(BlockConfig(dim=DIM, heads=16, qk_norm=True), DEPTH)

    def encode(self, images: Float[Tensor, "V 3 H W"]) -> tuple[Float[Tensor, "V C"], Float[Tensor, "V P C"]]:
        """Return the class token and the patch tokens of each view, from images in [0, 1]."""
        encoded = self.patch_vit((images - self.image_mean) / self.image_std)
        return encoded[:, 0], encoded[:, 1 + self.patch_vit.config.registers :]


class PixelHead(nn.Module):
    """A linear layer whose outputs are the pixels of a patch."""

    def __init__(self, dim: int, channels: int, patch: int) -> None:
        super().__init__()
        self.patch = patch
        self.proj = nn.Linear(dim, channels * patch * patch)

    def forward(self, patches: Float[Tensor, "V P C"], grid: tuple[int, int]) -> Float[Tensor, "V H W O"]:
        maps = self.proj(patches).transpose(1, 2).unflatten(2, grid)
        return F.pixel_shuffle(maps, self.patch).permute(0, 2, 3, 1)


def expand_points(raw: Float[Tensor, "V H W 3"]) -> Float[Tensor, "V H W 3"]:
    """Turn (x/z, y/z, log z) into points."""
    z = raw[..., 2:].exp()
    return torch.cat((raw[..., :2] * z, z), dim=-1)


class Pi3(nn.Module):
    """Backbone, three decoders and three heads."""

    def __init__(self) -> None:
        super().__init__()
        self.compute_dtype = torch.float32
        self.backbone = SharedBackbone()
        self.point_decoder = ViewDecoder(2 * DIM, DIM, DIM)
        self.conf_decoder = ViewDecoder(2 * DIM, DIM, DIM)
        self.camera_decoder = ViewDecoder(2 * DIM, DIM, 512)
        self.point_head = PixelHead(DIM, 3, PATCH)
        self.conf_head = PixelHead(DIM, 1, PATCH)
        self.camera_head = PooledCameraHead(512)

    def forward(self, images: Float[Tensor, "V 3 H W"]) -> Pi3Output:
        """Predict poses, points and confidence."""
        grid, specials = (images.shape[2] // PATCH, images.shape[3] // PATCH), SharedAggregator.SPECIALS
        with backbone_precision(images.device, self.compute_dtype):
            tokens = self.backbone.aggregator(self.backbone.encode(images)[1], grid)
            point, conf, camera = (
                decoder(tokens, grid, specials)[:, specials:].float()
                for decoder in (self.point_decoder, self.conf_decoder, self.camera_decoder)
            )
        return Pi3Output(
            T_world_cam=self.camera_head(camera),
            points_cam=expand_points(self.point_head(point, grid)),
            conf_logit=self.conf_head(conf, grid)[..., 0],
        )

    def geometry(
        self,
        images: Float[Tensor, "V 3 H W"],
        known: KnownCameras | None = None,
        *,
        valid: Bool[Tensor, "V H W"] | None = None,
        head_chunk: int = 8,
    ) -> Geometry:
        """Predict in our conventions; one focal length per view is fitted to its points."""
        out = self(images)
        confidence = out.conf_logit.sigmoid()
        if valid is not None:
            confidence = confidence * valid
        return Geometry(
            T_world_cam=out.T_world_cam,
            K=fit_focal(out.points_cam, confidence),
            depth=out.points_cam[..., 2],
            confidence=confidence,
        )


def shared_backbone_keys(published: str) -> tuple[tuple[str, str], ...]:
    """List the rules for the backbone without a reference view."""
    return (
        (f"{published}image_", "backbone.image_"),
        (f"{published}register_token", "backbone.aggregator.register_token"),
        (f"{published}encoder.", "backbone.patch_vit."),
        (f"{published}decoder.", "backbone.aggregator.blocks."),
    )


def pooled_camera_keys(published: str) -> tuple[tuple[str, str], ...]:
    """List the rules for the camera head that averages patches."""
    rules = [(f"{published}fc_", "camera_head.fc_"), (f"{published}more_mlps.", "camera_head.mlp.")]
    for block in range(2):
        for layer in range(3):
            rules.append((f"{published}res_conv.{block}.res_conv{layer + 1}.", f"camera_head.residual.{block}.layers.{layer}."))
    return tuple(rules)


def pi3_keys() -> KeyMap:
    """Map the published names."""
    parts = ("point_decoder.", "conf_decoder.", "camera_decoder.", "point_head.", "conf_head.")
    return KeyMap(
        prefixes=(*shared_backbone_keys(""), *pooled_camera_keys("camera_head."), *((part, part) for part in parts)),
        unused={"encoder.mask_token": "training only"},
    )
