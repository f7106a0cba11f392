"""Depth Anything 3, SMALL and BASE: depth, rays and cameras, with or without known cameras.

Input: images in [0, 1] whose sides are multiples of 14, and possibly cameras. Output: depth, confidence, pose codes, rays.
Does not: align its world to given cameras (``models.published.doors`` does).

    images -> ViT blocks 0-3 (per view) -> camera token in the class slot -> blocks 4-11 (per view, all views, ...)
           -> four taps -> dense head: depth, and rays on a second fusion chain
           -> class slot of the last tap -> camera head

Source: Lin et al., Depth Anything 3, 2025, section 3.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn

from ..checkpoint.keys import KeyMap, dense_head_keys
from ..layers.camera_heads import CameraEncoder, DirectCameraHead, decode_pose, invert_rigid
from ..layers.dense_head import DenseConfig, DenseHead, FusionChain, add_uv, in_chunks
from ..layers.patch_vit import PATCH, PatchVit, PatchVitConfig, normalise
from ..layers.rope import grid_positions, rotation
from ..layers.transformer import BlockConfig, all_views, per_view
from .geometry import Geometry, KnownCameras
from .precision import backbone_precision

ALTERNATE_FROM = 4
"""First block with q/k norm and rotation; from here even blocks see one view and odd ones all."""
TAPS = (5, 7, 9, 11)
"""Blocks whose output, joined with the block before, feeds the heads."""
LEAST_TRANSLATION_UNIT = 0.1
"""Least distance by which known translations are divided."""


@dataclass(frozen=True, kw_only=True)
class Da3Config:
    """Size of the network."""

    dim: int
    heads: int
    features: int
    widths: tuple[int, int, int, int]

    @property
    def vit(self) -> PatchVitConfig:
        plain = BlockConfig(dim=self.dim, heads=self.heads)
        mixed = BlockConfig(dim=self.dim, heads=self.heads, qk_norm=True)
        return PatchVitConfig(blocks=(plain,) * ALTERNATE_FROM + (mixed,) * 8, antialias=False, final_norm_eps=1e-5)


DA3_SMALL = Da3Config(dim=384, heads=6, features=64, widths=(48, 96, 192, 384))
DA3_BASE = Da3Config(dim=768, heads=12, features=128, widths=(96, 192, 384, 768))


@dataclass(frozen=True, kw_only=True)
class Da3Output:
    """Raw outputs, views in input order."""

    pose_code: Float[Tensor, "V 9"]
    """Camera to world: translation, quaternion xyzw, fields of view."""
    depth: Float[Tensor, "V H W"]
    depth_conf: Float[Tensor, "V H W"]
    """1 + exp, so > 1."""
    ray: Float[Tensor, "V h w 6"] | None
    """Direction and origin at 8 times the patch grid, when asked for."""
    ray_conf: Float[Tensor, "V h w"] | None


def choose_reference(class_tokens: Float[Tensor, "V C"], strategy: str) -> int:
    """Choose the view whose camera token marks it as the reference.

    Args:
        strategy: "first", "middle", or "saddle_balanced": the view nearest the middle in similarity to the others, norm and
            spread of its class token, each scaled to [0, 1] over the views.
    """
    views = class_tokens.shape[0]
    if views < 3 or strategy == "first":
        return 0
    if strategy == "middle":
        return views // 2
    if strategy != "saddle_balanced":
        raise ValueError(f"choose_reference: wanted first, middle or saddle_balanced, got {strategy!r}")
    tokens = class_tokens.float()
    unit = F.normalize(tokens, dim=-1)
    similarity = ((unit @ unit.T).sum(dim=1) - 1.0) / (views - 1)
    measures = torch.stack((similarity, tokens.norm(dim=-1), unit.var(dim=-1)))
    low, high = measures.amin(dim=1, keepdim=True), measures.amax(dim=1, keepdim=True)
    return int(((measures - low) / (high - low + 1e-8) - 0.5).abs().sum(dim=0).argmin())


class AlternatingVit(PatchVit):
    """A patch encoder whose later blocks alternate between one view and all views."""

    def __init__(self, config: PatchVitConfig) -> None:
        super().__init__(config)
        self.camera_token = nn.Parameter(torch.empty(1, 2, config.blocks[0].dim))

    def taps(
        self, images: Float[Tensor, "V 3 H W"], known: Float[Tensor, "V C"] | None, strategy: str
    ) -> tuple[list[Float[Tensor, "V P D"]], Float[Tensor, "V D"]]:
        """Encode normalised images.

        Args:
            known: one token per view made from known cameras; None uses the learned reference and other tokens.
            strategy: how the reference view is chosen when no cameras are known.

        Returns:
            Patch tokens of the four taps, and the camera feature of each view, in input order.
        """
        views, _, height, width = images.shape
        positions = grid_positions(height // PATCH, width // PATCH, 1).to(images.device)
        head_dim = self.config.blocks[0].dim // self.config.blocks[0].heads
        local_turn, global_turn = rotation(positions, head_dim), rotation(positions.clamp(max=1), head_dim)
        tokens, order = self.embed(images), torch.arange(views, device=images.device)
        taken, local = [], tokens
        camera = tokens[:, 0]
        for index, block in enumerate(self.blocks):
            if index == ALTERNATE_FROM - 1 and known is None:
                first = choose_reference(tokens[:, 0], strategy)
                order = torch.cat((order[first : first + 1], order[order != first]))
                tokens = tokens[order]
            if index == ALTERNATE_FROM:
                mark = self._learned_tokens(views) if known is None else known
                tokens = torch.cat((mark[:, None].to(tokens.dtype), tokens[:, 1:]), dim=1)
            if index < ALTERNATE_FROM:
                tokens = per_view(block, tokens, None)
            elif index % 2 == 0:
                tokens = local = per_view(block, tokens, local_turn)
            else:
                tokens = all_views(block, tokens, global_turn)
            if index in TAPS:
                back = order.argsort()
                taken.append(torch.cat((local[:, 1:], self.norm(tokens[:, 1:])), dim=-1)[back])
                camera = torch.cat((local[:, 0], tokens[:, 0]), dim=-1)[back]
        return taken, camera

    def _learned_tokens(self, views: int) -> Float[Tensor, "V C"]:
        return torch.cat((self.camera_token[0, :1], self.camera_token[0, 1:].expand(views - 1, -1)))


class ChannelNorm(nn.LayerNorm):
    """Layer norm over the channels of a map."""

    def forward(self, input: Float[Tensor, "V C H W"]) -> Float[Tensor, "V C H W"]:
        return super().forward(input.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class DualHead(DenseHead):
    """A dense head for depth with a second fusion chain, over the same pyramid, for rays."""

    def __init__(self, config: DenseConfig) -> None:
        super().__init__(config)
        full, half = config.features, config.features // 2
        self.ray_fusion = FusionChain(full, relu_skip=config.relu_skip)
        sides = [(full, half), (half, full), (full, half), (half, full), (full, half)]
        self.ray_output1 = nn.Sequential(*(nn.Conv2d(i, o, 3, padding=1) for i, o in sides))
        self.ray_output2 = nn.Sequential(
            nn.Conv2d(half, config.hidden, 3, padding=1), nn.Identity(), ChannelNorm(config.hidden), nn.Identity(), nn.ReLU(),
            nn.Conv2d(config.hidden, 7, 1),
        )  # fmt: skip

    def rays(self, taps: list[Tensor], size: tuple[int, int]) -> Float[Tensor, "V 7 h w"]:
        """Compute direction, origin and confidence logit at 8 times the patch grid."""
        aspect = size[1] / size[0]
        levels = self.pyramid(taps, (size[0] // PATCH, size[1] // PATCH), aspect)
        return self.ray_output2(add_uv(self.ray_output1(self.ray_fusion(levels)), aspect))


class DepthAnything3(nn.Module):
    """Backbone, dense head, camera head and camera encoder."""

    def __init__(self, config: Da3Config) -> None:
        super().__init__()
        self.config = config
        self.compute_dtype = torch.float32
        self.backbone = AlternatingVit(config.vit)
        dense = DenseConfig(dim_in=2 * config.dim, features=config.features, widths=config.widths, channels=2, relu_skip=False)
        self.head = DualHead(dense)
        self.cam_dec = DirectCameraHead(2 * config.dim)
        self.cam_enc = CameraEncoder(config.dim)

    def forward(
        self,
        images: Float[Tensor, "V 3 H W"],
        known: KnownCameras | None = None,
        *,
        rays: bool = False,
        strategy: str = "saddle_balanced",
        head_chunk: int = 8,
    ) -> Da3Output:
        """Predict depth and cameras of normalised images.

        Args:
            images: ImageNet-normalised.
            known: cameras to condition on, in any world; made relative to view 0 and scaled here.
            rays: also compute the ray maps.
            strategy: see ``choose_reference``.
            head_chunk: views the dense head takes at a time.
        """
        size = (images.shape[2], images.shape[3])
        tokens = None
        if known is not None:
            tokens = self.cam_enc(relative_and_scaled(known[0]), known[1], *size)
        with backbone_precision(images.device, self.compute_dtype):
            taps, camera = self.backbone.taps(images, tokens, strategy)
        taps = [tap.float() for tap in taps]
        raw = in_chunks(lambda some: self.head(some, size), taps, head_chunk)
        ray = in_chunks(lambda some: self.head.rays(some, size), taps, head_chunk).permute(0, 2, 3, 1) if rays else None
        return Da3Output(
            pose_code=self.cam_dec(camera.float()),
            depth=raw[:, 0].exp(),
            depth_conf=1.0 + raw[:, 1].exp(),
            ray=None if ray is None else ray[..., :6],
            ray_conf=None if ray is None else 1.0 + ray[..., 6].exp(),
        )

    def geometry(
        self,
        images: Float[Tensor, "V 3 H W"],
        known: KnownCameras | None = None,
        *,
        valid: Bool[Tensor, "V H W"] | None = None,
        head_chunk: int = 8,
    ) -> Geometry:
        """Predict from images in [0, 1] in our conventions; the world is whatever the network says."""
        out = self(normalise(images), known, head_chunk=head_chunk)
        T_world_cam, K = decode_pose(out.pose_code, images.shape[2], images.shape[3], tangent_floor=1e-6)
        return Geometry(T_world_cam=T_world_cam, K=K, depth=out.depth, confidence=1.0 - 1.0 / out.depth_conf)


def relative_and_scaled(T_cam_world: Float[Tensor, "V 4 4"]) -> Float[Tensor, "V 4 4"]:
    """Move the world to view 0 and divide translations by the lower median of the distances to it, at least 0.1."""
    relative = T_cam_world @ invert_rigid(T_cam_world[:1])
    distances = invert_rigid(relative)[:, :3, 3].norm(dim=-1)
    unit = distances.median().clamp_min(LEAST_TRANSLATION_UNIT)
    scaled = relative.clone()
    scaled[:, :3, 3] = relative[:, :3, 3] / unit
    return scaled


def da3_keys() -> KeyMap:
    """Map the published names. The ray branch's norm is one module stored under level 0; only level 3's stack is used."""
    head = "model.head."
    rules = [
        ("model.backbone.pretrained.", "backbone."),
        *dense_head_keys(head, "head."),
        *((f"{head}scratch.refinenet{k + 1}_aux.", f"head.ray_fusion.stages.{k}.") for k in range(4)),
        (f"{head}scratch.output_conv1_aux.3.", "head.ray_output1."),
        (f"{head}scratch.output_conv2_aux.3.", "head.ray_output2."),
        ("model.cam_dec.fc_fov.0.", "cam_dec.fc_fov."),
        ("model.cam_dec.", "cam_dec."),
        ("model.cam_enc.", "cam_enc."),
    ]
    aux = f"{head}scratch.output_conv"
    coarse = {f"{aux}{n}_aux.{k}.": "ray maps of the coarser levels are not offered" for n in (1, 2) for k in range(3)}
    shared = {f"{aux}2_aux.3.2.{leaf}": f"{aux}2_aux.0.2.{leaf}" for leaf in ("weight", "bias")}
    return KeyMap(prefixes=tuple(rules), unused=coarse, copies=shared)
