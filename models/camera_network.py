"""The camera network: from photos alone, where each was taken, through which lens, and how far away things are.

Input: photos, in groups of one size, and what is known beforehand. Output: ``CameraAnswer``.
Does not: read photos, or make cameras exact; bundle adjustment does.

    photo -> encoder -> 1/8, 1/16                       what is known of it (zero at first)
    1/16 + where it lies in the photo, camera token, registers <----'
      -> (attention within each photo, attention across all photos) x layers
    camera token, mean of tokens -> rotation, centre, focal lengths, scale of depth, how sure
    tokens + 1/8 -> logarithm of depth at 1/8, how sure

How sure the network is, it learns by watching itself: nothing flows back from there.

No photo is the first one: the same happens to each, attention across photos knows no order, and the world is of the network's own
choosing, so that changing the order of the photos changes the order of the answers and nothing else (Pi3, Wang et al. 2025, section
3.1). Attention alternates as in VGGT (Wang et al. 2025, section 3.2); what is known comes in through layers that start at zero
(YoNoSplat, Ye et al. 2025, section 3.3).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn as nn
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from .layers import GreyTrunk, Residual
from .matcher import Attention, normalize_grey, turns

__all__ = ["STEP", "CameraAnswer", "CameraConfig", "CameraNetwork", "KnownViews", "PhotoTokens", "common_frame", "largest_distance"]

STEP = 16
"""Sides of photos are multiples of this."""
REGISTERS = 3
"""Tokens of a photo beside its camera token that belong to no place in it (Darcet et al. 2024)."""
WAVES = 4
"""Frequencies at which a place in the photo is told, doubling from half a wave over the longest side."""
DETAIL = 64
"""Channels of the layers that make depth at 1/8."""
USUAL_FOCAL, USUAL_DEPTH = 1.1, 2.0
"""What untrained networks say: focal length over the longest side, and depth over the largest distance between cameras."""


@dataclass(frozen=True, kw_only=True)
class CameraConfig:
    """Sizes; kept with the weights."""

    channels: int = 192
    """Of tokens; a multiple of four times the heads."""
    layers: int = 6
    """Pairs of attention within photos and across them."""
    heads: int = 6


@dataclass(frozen=True)
class PhotoTokens:
    """What the encoder found in N photos of one size."""

    tokens: Float[Tensor, "N C h16 w16"]
    detail: Float[Tensor, "N D h8 w8"]


@dataclass(frozen=True)
class KnownViews:
    """What is known beforehand about the photos of B captures, in the order of the groups."""

    K: Float[Tensor, "B V 3 3"]
    """Pixels of the photos that the network sees."""
    has_K: Bool[Tensor, "B V"]
    T_frame_cam: Float[Tensor, "B V 4 4"]
    """As ``common_frame`` gives them."""
    has_place: Bool[Tensor, "B V"]


@dataclass(frozen=True)
class CameraAnswer:
    """Cameras and depth of B captures, photos in the order of the groups; the largest distance between two cameras is near 1."""

    T_world_cam: Float[Tensor, "B V 4 4"]
    log_focal: Float[Tensor, "B V 2"]
    """Logarithms of fx and fy over the longest side."""
    log_spread: Float[Tensor, "B V 3"]
    """Logarithms of the expected errors of rotation (radians), centre, and log focal length."""
    log_depth: tuple[Float[Tensor, "B _ _ _"], ...]
    """Per group, at the middles of 8 x 8 pixels."""
    log_depth_spread: tuple[Float[Tensor, "B _ _ _"], ...]
    """Logarithm of its expected error."""


def largest_distance(centers: Float[Tensor, "B V 3"], among: Bool[Tensor, "B V"] | None = None) -> Float[Tensor, " B"]:
    """Largest distance between two cameras; 0 for fewer than two."""
    apart = (centers[:, :, None] - centers[:, None]).norm(dim=-1)
    if among is not None:
        apart = apart * (among[:, :, None] & among[:, None])
    return apart.flatten(1).amax(dim=1)


def common_frame(T_world_cam: Float[Tensor, "B V 4 4"], known: Bool[Tensor, "B V"]) -> Float[Tensor, "B V 4 4"]:
    """Say where cameras are from the middle of the known ones, turned by their mean rotation, over their largest distance.

    So the answer cannot depend on which world the user has them in, and no camera is preferred (mean by chordal distance, Hartley
    et al. 2013, section 5.3).
    """
    weight = known.to(T_world_cam)[..., None]
    R, center = T_world_cam[..., :3, :3], T_world_cam[..., :3, 3]
    middle = (weight * center).sum(dim=1, keepdim=True) / weight.sum(dim=1, keepdim=True).clamp(min=1.0)
    U, _, Vt = torch.linalg.svd((weight[..., None] * R).sum(dim=1))
    flip = torch.ones_like(U[:, 0])
    flip[:, 2] = torch.det(U @ Vt)
    R_frame_world = ((U * flip[:, None]) @ Vt).transpose(1, 2)[:, None]
    scale = largest_distance(center, known)
    scale = torch.where(scale > 0, scale, torch.ones_like(scale))[:, None, None]
    out = T_world_cam.clone()
    out[..., :3, :3] = R_frame_world @ R
    out[..., :3, 3] = (R_frame_world @ ((center - middle) / scale)[..., None])[..., 0]
    return out


def rotation_of(columns: Float[Tensor, "*B 6"]) -> Float[Tensor, "*B 3 3"]:
    """Rotation whose first two columns come nearest to these (Zhou et al. 2019, section 4.2)."""
    x = F.normalize(columns[..., :3], dim=-1)
    y = columns[..., 3:] - (x * columns[..., 3:]).sum(dim=-1, keepdim=True) * x
    y = F.normalize(y, dim=-1)
    return torch.stack([x, y, torch.linalg.cross(x, y)], dim=-1)


def token_middles(rows: int, columns: int, device: torch.device) -> Float[Tensor, "tokens 2"]:
    """x, y of the middles of tokens, pixels, row-major."""
    y, x = torch.meshgrid(torch.arange(rows, device=device), torch.arange(columns, device=device), indexing="ij")
    return (torch.stack([x, y], dim=-1).flatten(0, 1) + 0.5) * STEP


def place_features(rows: int, columns: int, device: torch.device) -> Float[Tensor, "tokens f"]:
    """Where tokens lie: x and y from the photo's middle over half its longest side, and waves of them."""
    middle = torch.tensor([columns, rows], device=device) * (STEP / 2)
    at = (token_middles(rows, columns, device) - middle) / middle.max()
    phase = at[..., None] * (math.pi / 2 * 2.0 ** torch.arange(WAVES, device=device))
    return torch.cat([at, phase.sin().flatten(1), phase.cos().flatten(1)], dim=1)


def ray_features(K: Float[Tensor, "B v 3 3"], rows: int, columns: int) -> Float[Tensor, "B v tokens 6"]:
    """The direction in which a camera of known lens sees each token, and products of it."""
    px = token_middles(rows, columns, K.device)
    ray = (px - K[..., None, :2, 2]) / torch.stack([K[..., 0, 0], K[..., 1, 1]], dim=-1)[..., None, :]
    x, y = ray.unbind(-1)
    return torch.stack([x, y, x * x, x * y, y * y, torch.ones_like(x)], dim=-1)


class CameraEncoder(GreyTrunk):
    """Tokens at 1/16 and detail at 1/8."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.tokens, self.detail = nn.Conv2d(self.widths[3], channels, 1), nn.Conv2d(self.widths[2], DETAIL, 1)

    def forward(self, images: Float[Tensor, "N 3 H W"]) -> PhotoTokens:
        grey = normalize_grey(images).contiguous(memory_format=torch.channels_last)
        _, _, x8, x16 = self.levels(grey)
        return PhotoTokens(self.tokens(x16), self.detail(x8))


class DepthHead(nn.Module):
    """Logarithms of depth and of its expected error at 1/8, from tokens and detail."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.enter = nn.Conv2d(channels, DETAIL, 1)
        self.merge = Residual(DETAIL)
        self.leave, self.spread = nn.Conv2d(DETAIL, 1, 1), nn.Conv2d(DETAIL, 1, 1)
        for layer in (self.leave, self.spread):
            nn.init.normal_(layer.weight, std=0.01)
            assert layer.bias is not None
            nn.init.zeros_(layer.bias)

    def forward(self, tokens: Float[Tensor, "N C h w"], detail: Float[Tensor, "N D h8 w8"]) -> Float[Tensor, "N 2 h8 w8"]:
        x = F.interpolate(self.enter(tokens), size=detail.shape[-2:], mode="bilinear") + detail
        x = self.merge(torch.relu(x))
        return torch.cat([self.leave(x), self.spread(x.detach()) - 1], dim=1)


class CameraNetwork(nn.Module):
    """The whole network.

    Args:
        config: its sizes.
    """

    def __init__(self, config: CameraConfig | None = None) -> None:
        super().__init__()
        self.config = config or CameraConfig()
        c, heads = self.config.channels, self.config.heads
        self.encode = CameraEncoder(c)
        self.special = nn.Parameter(0.02 * torch.randn(1 + REGISTERS, c))
        self.where = nn.Linear(2 + 4 * WAVES, c)
        self.known_rays, self.known_lens, self.known_place = (nn.Linear(n, c, bias=False) for n in (6, 5, 13))
        for layer in (self.known_rays, self.known_lens, self.known_place):
            nn.init.zeros_(layer.weight)
        self.within = nn.ModuleList(Attention(c, heads) for _ in range(self.config.layers))
        self.across = nn.ModuleList(Attention(c, heads) for _ in range(self.config.layers))
        self.norm = nn.LayerNorm(c)
        self.camera = nn.Sequential(nn.Linear(2 * c, c), nn.GELU(), nn.Linear(c, 12))
        self.spread = nn.Sequential(nn.Linear(2 * c, c // 4), nn.GELU(), nn.Linear(c // 4, 3))
        self.depth = DepthHead(c)
        usual = [1.0, 0, 0, 0, 1, 0, 0, 0, 0, math.log(USUAL_FOCAL), math.log(USUAL_FOCAL), math.log(USUAL_DEPTH)]
        last = self.camera[2]
        assert isinstance(last, nn.Linear)
        with torch.no_grad():
            last.weight.mul_(0.3)
            last.bias.copy_(torch.tensor(usual))

    def forward(self, groups: Sequence[Float[Tensor, "B _ 3 _ _"]], known: KnownViews | None = None) -> CameraAnswer:
        """Find the cameras of B captures.

        Args:
            groups: photos in [0, 1], those of one size together; sides are multiples of ``STEP`` pixels.
            known: what is known, views in the order of the groups; None is nothing.
        """
        encoded = []
        for images in groups:
            one = self.encode(images.flatten(0, 1))
            encoded.append((one.tokens.unflatten(0, images.shape[:2]), one.detail.unflatten(0, images.shape[:2])))
        return self.relate(encoded, known)

    def relate(self, groups: Sequence[tuple[Tensor, Tensor]], known: KnownViews | None = None) -> CameraAnswer:
        """Find cameras from what the encoder found: per group tokens ``B v C h w`` and detail ``B v D h8 w8``."""
        first = 1 + REGISTERS
        sizes = [(tokens.shape[3], tokens.shape[4]) for tokens, _ in groups]
        counts = [tokens.shape[1] for tokens, _ in groups]
        parts = [self._enter(tokens, known, sum(counts[:i])) for i, (tokens, _) in enumerate(groups)]
        turn = [self._turns(*size, parts[0].device) for size in sizes]
        together = tuple(torch.cat([t[k].repeat(v, 1) for t, v in zip(turn, counts, strict=True)]) for k in (0, 1))
        for within, across in zip(self.within, self.across, strict=True):
            parts = [within(x.flatten(0, 1), x.flatten(0, 1), t).view_as(x) for x, t in zip(parts, turn, strict=True)]
            joined = torch.cat([x.flatten(1, 2) for x in parts], dim=1)
            joined = across(joined, joined, (together[0], together[1]))
            pieces = joined.split([x.shape[1] * x.shape[2] for x in parts], dim=1)
            parts = [piece.view_as(x) for piece, x in zip(pieces, parts, strict=True)]
        parts = [self.norm(x) for x in parts]
        looked = torch.cat([torch.cat([x[:, :, 0], x[:, :, first:].mean(dim=2)], dim=-1) for x in parts], dim=1)
        with torch.autocast(looked.device.type, enabled=False):  # half precision is a tenth of a degree
            said, spread = self.camera(looked.float()), self.spread(looked.detach().float()) - 1
        maps = [
            self.depth(x[:, :, first:].transpose(2, 3).unflatten(3, size).flatten(0, 1), detail.flatten(0, 1)).float()
            for x, size, (_, detail) in zip(parts, sizes, groups, strict=True)
        ]
        maps = [one.unflatten(0, (said.shape[0], count)) for one, count in zip(maps, counts, strict=True)]
        offsets = said[..., 11].split(counts, dim=1)
        return CameraAnswer(
            T_world_cam=placed(rotation_of(said[..., :6]), said[..., 6:9]),
            log_focal=said[..., 9:11],
            log_spread=spread,
            log_depth=tuple(one[:, :, 0] + offset[..., None, None] for one, offset in zip(maps, offsets, strict=True)),
            log_depth_spread=tuple(one[:, :, 1] for one in maps),
        )

    def _enter(self, tokens: Float[Tensor, "B v C h w"], known: KnownViews | None, start: int) -> Float[Tensor, "B v s C"]:
        """Camera token, registers and tokens of a group's photos, with where they lie and what is known."""
        batch, count, _, rows, columns = tokens.shape
        x = tokens.float().flatten(3).transpose(2, 3) + self.where(place_features(rows, columns, tokens.device))
        special = self.special.expand(batch, count, -1, -1)
        if known is not None:
            told = slice(start, start + count)
            K, T_frame_cam = known.K[:, told].float(), known.T_frame_cam[:, told].float()
            has_K, has_place = (flag[:, told].to(x)[..., None] for flag in (known.has_K, known.has_place))
            x = x + self.known_rays(ray_features(K, rows, columns)) * has_K[..., None]
            size = K.new_tensor([columns, rows]) * STEP
            focal, center = torch.stack([K[..., 0, 0], K[..., 1, 1]], dim=-1), K[..., :2, 2]
            lens = torch.cat(
                [(focal / size.max()).log(), (center - size / 2) / size.max(), torch.ones_like(focal[..., :1])], dim=-1
            )
            place = torch.cat([T_frame_cam[..., :3, :].flatten(-2), torch.ones_like(focal[..., :1])], dim=-1)
            camera = self.known_lens(lens) * has_K + self.known_place(place) * has_place
            special = torch.cat([special[:, :, :1] + camera[:, :, None], special[:, :, 1:]], dim=2)
        return torch.cat([special.to(x), x], dim=2)

    def _turns(self, rows: int, columns: int, device: torch.device) -> tuple[Tensor, Tensor]:
        """Rotary positions of a photo's tokens; those that lie nowhere are not turned."""
        cos, sin = turns(rows, columns, self.config.channels // self.config.heads, device)
        nowhere = cos.new_ones(1 + REGISTERS, cos.shape[1])
        return torch.cat([nowhere, cos]), torch.cat([0 * nowhere, sin])


def placed(R_world_cam: Float[Tensor, "*B 3 3"], center: Float[Tensor, "*B 3"]) -> Float[Tensor, "*B 4 4"]:
    """Rigid transforms from rotations and centres."""
    top = torch.cat([R_world_cam, center[..., None]], dim=-1)
    return torch.cat([top, top.new_tensor([0.0, 0.0, 0.0, 1.0]).expand(*top.shape[:-2], 1, 4)], dim=-2)
