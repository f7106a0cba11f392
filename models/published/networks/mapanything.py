"""MapAnything from images alone: rays, distances, cameras and a metric scale of all views in one pass.

Input: images in [0, 1] whose sides are multiples of 14. Output: per view a ray and a distance for every pixel, its confidence,
a mask, and the camera; all in metres. Does not: take known depth, rays or poses (their encoders are not read).

    images -> ViT-g, 24 blocks (per view) -> norm -> 16 blocks (all views with a scale token, one view, ...)
           -> four maps -> dense head -> ray, distance, confidence, mask
           -> last map -> camera head;  scale token -> scale

Source: Keetha et al., MapAnything: Universal Feed-Forward Metric 3D Reconstruction, 2025, section 3.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn

from ..checkpoint.keys import KeyMap
from ..layers.camera_heads import PooledQuaternionHead
from ..layers.dense_head import DenseConfig, DenseHead, in_chunks
from ..layers.patch_vit import PATCH, PatchVit, PatchVitConfig, normalise
from ..layers.transformer import Block, BlockConfig, per_view
from .focal import fit_focal
from .geometry import Geometry, KnownCameras
from .precision import backbone_precision

DIM = 1536
TAPS = (7, 11)
"""Sharing blocks whose outputs feed the dense head beside the encoder's and the last one."""
LEAST_SCALE = 1e-8


@dataclass(frozen=True, kw_only=True)
class MapAnythingOutput:
    """Raw outputs; lengths are metric."""

    T_world_cam: Float[Tensor, "V 4 4"]
    quaternion: Float[Tensor, "V 4"]
    """Rotation of ``T_world_cam``, unit, scalar last."""
    scale: Float[Tensor, ""]
    """Metres per unit of the network."""
    rays_cam: Float[Tensor, "V H W 3"]
    """Unit directions."""
    range: Float[Tensor, "V H W"]
    """Distance along the ray."""
    conf: Float[Tensor, "V H W"]
    """1 + exp, so > 1."""
    mask_logit: Float[Tensor, "V H W"]
    """Positive where the pixel has a definite depth."""

    @property
    def points_cam(self) -> Float[Tensor, "V H W 3"]:
        return self.rays_cam * self.range[..., None]

    @property
    def points_world(self) -> Float[Tensor, "V H W 3"]:
        R, center = self.T_world_cam[:, None, None, :3, :3], self.T_world_cam[:, None, None, :3, 3]
        return (R @ self.points_cam[..., None]).squeeze(-1) + center


class Sharing(nn.Module):
    """Blocks over the tokens of all views: even ones across all with a scale token, odd ones within each view."""

    view_pos_table: Tensor

    def __init__(self, config: BlockConfig, depth: int) -> None:
        super().__init__()
        self.register_buffer("view_pos_table", torch.empty(1, config.dim))
        self.blocks = nn.ModuleList(Block(config) for _ in range(depth))
        self.norm = nn.LayerNorm(config.dim, eps=1e-6)

    def forward(
        self, tokens: Float[Tensor, "V P C"], scale_token: Float[Tensor, " C"]
    ) -> tuple[list[Float[Tensor, "V P C"]], Float[Tensor, " C"]]:
        """Return the normed tokens after the blocks in ``TAPS`` and after the last, and the normed scale token."""
        tokens = torch.cat((tokens[:1] + self.view_pos_table[0], tokens[1:]))
        shape, taken = tokens.shape[:2], []
        for index, block in enumerate(self.blocks):
            if index % 2 == 0:
                joined = block(torch.cat((tokens.flatten(0, 1), scale_token[None]))[None])[0]
                tokens, scale_token = joined[:-1].unflatten(0, shape), joined[-1]
            else:
                tokens = per_view(block, tokens, None)
            if index in TAPS:
                taken.append(self.norm(tokens))
        return [*taken, self.norm(tokens)], self.norm(scale_token)


class MapBackbone(nn.Module):
    """Patch encoder, norm and sharing."""

    def __init__(self) -> None:
        super().__init__()
        config = BlockConfig(dim=DIM, heads=DIM // 64, gated=True)
        self.patch_vit = PatchVit(PatchVitConfig(blocks=(config,) * 24, antialias=False, final_norm=False))
        self.fusion_norm = nn.LayerNorm(DIM, eps=1e-6)
        self.sharing = Sharing(config, 16)
        self.scale_token = nn.Parameter(torch.empty(DIM))

    def forward(self, images: Float[Tensor, "V 3 H W"]) -> tuple[list[Float[Tensor, "V P C"]], Float[Tensor, " C"]]:
        """Return the patch tokens of four depths and the scale token, from normalised images."""
        encoded = self.patch_vit(images)
        patches = self.fusion_norm(encoded[:, 1:])
        shared, scale = self.sharing(torch.cat((patches, encoded[:, :1]), dim=1), self.scale_token)
        return [patches, *(tokens[:, :-1] for tokens in shared)], scale


class ScaleHead(nn.Module):
    """Read a positive number off a token."""

    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__()
        self.proj = nn.Linear(dim, hidden)
        self.mlp = nn.Sequential(nn.Linear(hidden, hidden), nn.ReLU(), nn.Linear(hidden, hidden), nn.ReLU())
        self.output_proj = nn.Linear(hidden, 1)

    def forward(self, token: Float[Tensor, " C"]) -> Float[Tensor, ""]:
        return self.output_proj(self.mlp(self.proj(token)))[0].exp().clamp_min(LEAST_SCALE)


class MapAnything(nn.Module):
    """Backbone, dense head, camera head and scale head."""

    def __init__(self) -> None:
        super().__init__()
        self.compute_dtype = torch.float32
        self.backbone = MapBackbone()
        self.dense_head = DenseHead(
            DenseConfig(
                dim_in=DIM, features=256, widths=(96, 192, 384, 768), channels=6, hidden=128, relu_skip=False, uv=False,
                norm=False, crop=True,
            )
        )  # fmt: skip
        self.camera_head = PooledQuaternionHead(DIM, 4 * PATCH**2)
        self.scale_head = ScaleHead(DIM, PATCH**2)

    def forward(self, images: Float[Tensor, "V 3 H W"], *, head_chunk: int = 8) -> MapAnythingOutput:
        """Predict rays, distances, cameras and scale of normalised images.

        Args:
            head_chunk: views the dense head takes at a time.
        """
        size = (images.shape[2], images.shape[3])
        with backbone_precision(images.device, self.compute_dtype):
            taps, token = self.backbone(images)
        taps = [tap.float() for tap in taps]
        raw = in_chunks(lambda some: self.dense_head(some, size), taps, head_chunk)
        T_world_cam, quaternion = self.camera_head(taps[-1], (size[0] // PATCH, size[1] // PATCH))
        scale = self.scale_head(token.float())
        T_world_cam[:, :3, 3] *= scale
        return MapAnythingOutput(
            T_world_cam=T_world_cam,
            quaternion=quaternion,
            scale=scale,
            rays_cam=F.normalize(raw[:, :3], dim=1).permute(0, 2, 3, 1),
            range=raw[:, 3].exp() * scale,
            conf=1.0 + raw[:, 4].exp(),
            mask_logit=raw[:, 5],
        )

    def geometry(
        self,
        images: Float[Tensor, "V 3 H W"],
        known: KnownCameras | None = None,
        *,
        valid: Bool[Tensor, "V H W"] | None = None,
        head_chunk: int = 8,
    ) -> Geometry:
        """Predict from images in [0, 1] in our conventions; one focal length per view is fitted to its rays."""
        out = self(normalise(images), head_chunk=head_chunk)
        confidence = (1.0 - 1.0 / out.conf) * (out.mask_logit > 0)
        if valid is not None:
            confidence = confidence * valid
        trust = torch.ones_like(confidence) if valid is None else valid.to(confidence)
        points = out.points_cam
        return Geometry(T_world_cam=out.T_world_cam, K=fit_focal(points, trust), depth=points[..., 2], confidence=confidence)


def mapanything_keys() -> KeyMap:
    """Map the published names. Parts of the dense head are in the file under several names."""
    trunk, regressor = "dpt_feature_head.", "dpt_regressor_head."
    rules = [
        ("scale_token", "backbone.scale_token"),
        ("encoder.model.", "backbone.patch_vit."),
        ("fusion_norm_layer.", "backbone.fusion_norm."),
        ("info_sharing.view_pos_table", "backbone.sharing.view_pos_table"),
        ("info_sharing.self_attention_blocks.", "backbone.sharing.blocks."),
        ("info_sharing.norm.", "backbone.sharing.norm."),
        *((f"{trunk}input_process.{k}.0.0.", f"dense_head.pyramid.projects.{k}.") for k in range(4)),
        *((f"{trunk}input_process.{k}.0.1.", f"dense_head.pyramid.resize_layers.{k}.") for k in (0, 1, 3)),
        *((f"{trunk}scratch.layer{k + 1}_rn.", f"dense_head.pyramid.levels.{k}.") for k in range(4)),
        *((f"{trunk}scratch.refinenet{k + 1}.", f"dense_head.fusion.stages.{k}.") for k in range(4)),
        (f"{regressor}conv1.", "dense_head.output1."),
        (f"{regressor}conv2.", "dense_head.output2."),
        ("pose_head.proj.", "camera_head.proj."),
        ("pose_head.more_mlps.", "camera_head.mlp."),
        ("pose_head.fc_", "camera_head.fc_"),
        *(
            (f"pose_head.res_conv.{block}.res_conv{layer + 1}.", f"camera_head.residual.{block}.{layer}.")
            for block in range(2)
            for layer in range(3)
        ),
        ("scale_head.proj.", "scale_head.proj."),
        *((f"scale_head.mlp.{k}.0.", f"scale_head.mlp.{2 * k}.") for k in range(2)),
        ("scale_head.output_proj.", "scale_head.output_proj."),
    ]
    again = "the same tensor under a second name"
    unused = {
        "ray_dirs_encoder.": "known rays are not taken",
        "depth_encoder.": "known depth is not taken",
        "depth_scale_encoder.": "known depth is not taken",
        "cam_rot_encoder.": "known poses are not taken",
        "cam_trans_encoder.": "known poses are not taken",
        "cam_trans_scale_encoder.": "known poses are not taken",
        "dense_head.": again,
        f"{trunk}scratch.layer_rn.": again,
        **{f"{trunk}input_process.{k}.1.": again for k in range(4)},
    }
    return KeyMap(prefixes=tuple(rules), unused=unused, copies=_stored_once())


def _stored_once() -> dict[str, str]:
    """List, for each tensor of the dense head, the name under which a file that stores it once keeps it: the first of all."""
    both = ("weight", "bias")
    ends = [f"scratch.refinenet{k + 1}.out_conv.{leaf}" for k in range(4) for leaf in both]
    ends += [
        f"scratch.refinenet{k + 1}.resConfUnit{unit}.conv{conv}.{leaf}"
        for k in range(4) for unit in (1, 2) for conv in (1, 2) for leaf in both
        if (k, unit) != (3, 1)
    ]  # fmt: skip
    ends += [f"input_process.{k}.0.0.{leaf}" for k in range(4) for leaf in both]
    ends += [f"input_process.{k}.0.1.{leaf}" for k in (0, 1, 3) for leaf in both]
    stored = {f"dpt_feature_head.{end}": f"dense_head.0.{end}" for end in ends}
    stored |= {f"dpt_feature_head.scratch.layer{k + 1}_rn.weight": f"dense_head.0.input_process.{k}.1.weight" for k in range(4)}
    regressor = [f"conv1.{leaf}" for leaf in both] + [f"conv2.{k}.{leaf}" for k in (0, 2) for leaf in both]
    return stored | {f"dpt_regressor_head.{end}": f"dense_head.1.{end}" for end in regressor}
