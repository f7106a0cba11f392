"""The built-in depth network: posed photos in, z-depth and calibrated confidence out, one reference view at a time.

Input: features of a view and of its neighbours, cameras, a depth range. Output: depth at half the image size, confidence.
Does not: choose neighbours or depth ranges, read photos (``mini_predictor`` does), or make Gaussians (``head`` does).

    photo -> FeaturePyramid (once per view, cached)
      coarse, 1/8:  64 inverse-depth planes -> group-wise correlation with each neighbour -> learned visibility per neighbour
                    -> weighted mean -> VolumeUNet -> expectation around the best plane -> convex x2
      fine,   1/4:  16 hypotheses, a quarter plane apart, around it -> the same -> expectation -> convex x2
      out,    1/2:  inverse depth, and a confidence read from the shape of both distributions

Hypotheses are counted in coarse planes: index 0 is the far end of the depth range, ``planes - 1`` the near end, linear in
inverse depth. Source: coarse-to-fine cost volumes as in CasMVSNet (Gu et al. 2020); per-neighbour visibility from the pairwise
volume as in PatchmatchNet (Wang et al. 2021, section 3.3).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn as nn
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from .correlation import Sweep, relative_geometry, sweep_correlation
from .layers import FeaturePyramid, VolumeUNet, conv_block, convex_upsample

__all__ = ["MiniConfig", "MiniNetwork", "MiniOutput", "normalize_photo"]


@dataclass(frozen=True, kw_only=True)
class MiniConfig:
    """Sizes of the network; stored with its weights."""

    planes: int = 64
    """Inverse-depth planes of the coarse sweep."""
    fine_planes: int = 16
    """Hypotheses of the fine stage."""
    fine_step: float = 0.25
    """Distance of fine hypotheses in coarse planes."""
    channels: int = 32
    """Channels of the features that are correlated."""
    groups: int = 8
    """Channel groups of the correlation."""


@dataclass(frozen=True)
class MiniOutput:
    """What the network says about B reference views; positions are counted in coarse planes."""

    logits: Float[Tensor, "B D h8 w8"]
    """Coarse matching logits."""
    coarse: Float[Tensor, "B h8 w8"]
    """Coarse position at 1/8."""
    guess: Float[Tensor, "B h4 w4"]
    """Coarse position after convex up-sampling: the centre of the fine hypotheses."""
    fine_logits: Float[Tensor, "B D2 h4 w4"]
    """Fine matching logits."""
    fine: Float[Tensor, "B h4 w4"]
    """Fine position at 1/4."""
    position: Float[Tensor, "B h2 w2"]
    """Final position at 1/2."""
    confidence_logit: Float[Tensor, "B h2 w2"]
    """Logit of the probability that ``position`` is within half a coarse plane of the truth."""


def normalize_photo(image: Float[Tensor, "B H W 3"], valid: Bool[Tensor, "B H W"] | None = None) -> Float[Tensor, "B 3 H W"]:
    """Remove each photo's own mean and contrast, so that exposure and white balance matter less.

    Args:
        image: photos in [0, 1].
        valid: pixels that come from the photo; the others become 0. None means all.
    """
    weight = torch.ones_like(image[..., :1]) if valid is None else valid[..., None].to(image.dtype)
    count = weight.sum(dim=(1, 2), keepdim=True).clamp_min(2.0)
    mean = (image * weight).sum(dim=(1, 2), keepdim=True) / count
    variance = ((image - mean) ** 2 * weight).sum(dim=(1, 2), keepdim=True) / (count - 1)
    normal = (image - mean) / variance.sqrt().clamp_min(0.02) * weight
    return normal.permute(0, 3, 1, 2).contiguous(memory_format=torch.channels_last)


def windowed_expectation(logits: Float[Tensor, "B D h w"], reach: int) -> tuple[Tensor, Tensor]:
    """Mean index within ``reach`` of the most likely one, and the probability mass there.

    A mean over all hypotheses would put the depth of a two-peaked distribution where no surface is.
    """
    probability = logits.float().softmax(dim=1)
    best = probability.argmax(dim=1, keepdim=True)
    index = torch.arange(logits.shape[1], device=logits.device, dtype=torch.float32)[None, :, None, None]
    window = probability * ((index - best).abs() <= reach)
    mass = window.sum(dim=1)
    return (window * index).sum(dim=1) / mass.clamp_min(1e-6), mass


class SweepStage(nn.Module):
    """One sweep: correlate, weigh neighbours, regularise."""

    def __init__(self, config: MiniConfig, guide_channels: int, *, stride: tuple[int, int, int], extra: int) -> None:
        super().__init__()
        self.groups = config.groups
        context = 16 - config.groups - 2 - extra
        self.visibility = nn.Sequential(nn.Conv3d(config.groups, 8, 1), nn.ReLU(inplace=True), nn.Conv3d(8, 1, 1))
        self.context = nn.Conv2d(guide_channels, context, 1)
        self.unet = VolumeUNet(16, (32, 48), stride)

    def forward(self, ref, src, sweep: Sweep, guide, extra: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor]:
        """Return logits ``B D h w``, how many neighbours see each pixel at best ``B h w``, and the best agreement ``B h w``."""
        correlation, inside = sweep_correlation(ref, src, sweep, self.groups)
        context = self.context(guide).permute(0, 2, 3, 1)[:, None]
        correlation, inside = correlation.to(context.dtype), inside.to(context.dtype)
        pairs = correlation.flatten(0, 1).permute(0, 4, 1, 2, 3)
        seen = self.visibility(pairs)[:, 0].view(inside.shape)
        weight = torch.sigmoid(seen.masked_fill(inside == 0, -8.0).amax(dim=2, keepdim=True)) * inside
        total = weight.sum(dim=1)
        mean = (correlation * (weight / (total + 1e-2)[:, None])[..., None]).sum(dim=1)
        best = correlation.detach().mean(dim=-1).amax(dim=1)
        parts = [mean, total[..., None], best[..., None], context.expand(-1, mean.shape[1], -1, -1, -1)]
        if extra is not None:
            parts.append(extra[..., None].to(context.dtype))
        volume = torch.cat(parts, dim=-1).permute(0, 4, 1, 2, 3)
        return self.unet(volume), total.amax(dim=1).float(), best.amax(dim=1).float()


class MiniNetwork(nn.Module):
    """The whole depth network. See the module docstring for its data flow."""

    def __init__(self, config: MiniConfig | None = None) -> None:
        super().__init__()
        self.config = config = config or MiniConfig()
        w2, w4, w8, _ = FeaturePyramid.widths
        self.pyramid = FeaturePyramid(config.channels)
        self.coarse_stage = SweepStage(config, w8, stride=(2, 2, 2), extra=0)
        self.fine_stage = SweepStage(config, w4, stride=(1, 2, 2), extra=1)
        self.upsample8 = nn.Sequential(conv_block(w8 + 3, 64), nn.Conv2d(64, 36, 1))
        self.upsample4 = nn.Sequential(conv_block(w4 + 4 * w2 + 3, 64), nn.Conv2d(64, 36, 1))
        self.confidence = nn.Sequential(conv_block(w4 + 8, 32), conv_block(32, 16), nn.Conv2d(16, 4, 1))

    def encode(self, photo: Float[Tensor, "B 3 H W"]) -> dict[str, Tensor]:
        """Features of normalised photos; sizes are multiples of 8. Correlated features come out channels last, float32."""
        features = self.pyramid(photo)
        for name in ("match8", "match4"):
            features[name] = features[name].permute(0, 2, 3, 1).float().contiguous()
        return features

    def forward(
        self,
        ref: dict[str, Tensor],
        src8: Float[Tensor, "B S h8 w8 C"],
        src4: Float[Tensor, "B S h4 w4 C"],
        cameras: tuple[Tensor, Tensor, Tensor, Tensor],
        depth_range: Float[Tensor, "B 2"],
        extent: Float[Tensor, "B S 2"] | None = None,
    ) -> MiniOutput:
        """Estimate depth of B reference views, each with S neighbours.

        Args:
            ref: what ``encode`` returned for the reference views.
            src8, src4: ``match8`` and ``match4`` of their neighbours.
            cameras: K_ref ``B 3 3``, T_world_ref ``B 4 4``, K_src ``B S 3 3``, T_world_src ``B S 4 4``; K in full-size pixels.
            depth_range: near and far z-depth of each reference view, world units.
            extent: width and height in full-size pixels of each neighbour's photo within its padded features; None means all.
        """
        config = self.config
        far_inverse = 1.0 / depth_range[:, 1]
        step = (1.0 / depth_range[:, 0] - far_inverse) / (config.planes - 1)
        planes = torch.arange(config.planes, device=step.device, dtype=torch.float32)
        offsets = far_inverse[:, None] + step[:, None] * planes
        guide8, guide4 = ref["guide8"], ref["guide4"]

        zeros = torch.zeros(ref["match8"].shape[:3], device=step.device)
        sweep = Sweep(*_geometry(cameras, 8), zeros, offsets, None if extent is None else extent / 8)
        logits, count8, best8 = self.coarse_stage(ref["match8"], src8, sweep, guide8)
        coarse, mass8 = windowed_expectation(logits, reach=3)
        hints = torch.stack([coarse / config.planes, mass8, count8], dim=1).detach()
        guess = convex_upsample(coarse, self.upsample8(torch.cat([guide8, hints.to(guide8.dtype)], dim=1)))

        shifts = (torch.arange(config.fine_planes, device=step.device) - (config.fine_planes - 1) / 2) * config.fine_step
        center = guess.detach()
        base = far_inverse[:, None, None] + step[:, None, None] * center
        prior = _sample_prior(logits.detach(), center, shifts)
        sweep = Sweep(*_geometry(cameras, 4), base, step[:, None] * shifts, None if extent is None else extent / 4)
        fine_logits, count4, best4 = self.fine_stage(ref["match4"], src4, sweep, guide4, prior)
        index, mass4 = windowed_expectation(fine_logits, reach=3)
        fine = center + (index - (config.fine_planes - 1) / 2) * config.fine_step
        detail = F.pixel_unshuffle(ref["guide2"], 2)
        hints = torch.stack([fine / config.planes, mass4, fine - center], dim=1).detach().to(guide4.dtype)
        position = convex_upsample(fine, self.upsample4(torch.cat([guide4, detail, hints], dim=1)))

        up = [F.interpolate(t[:, None].float(), size=fine.shape[-2:], mode="nearest")[:, 0] for t in (mass8, count8, best8)]
        spread = F.max_pool2d(fine[:, None], 3, 1, 1)[:, 0] + F.max_pool2d(-fine[:, None], 3, 1, 1)[:, 0]
        evidence = torch.stack([*up, mass4, count4, best4, spread.clamp(max=8.0), (fine - center).abs()], dim=1).detach()
        confidence = self.confidence(torch.cat([guide4, evidence.to(guide4.dtype)], dim=1)).float().mean(dim=1)
        confidence = confidence.repeat_interleave(2, dim=1).repeat_interleave(2, dim=2)
        return MiniOutput(logits.float(), coarse, guess, fine_logits.float(), fine, position, confidence)

    def depth(self, position: Float[Tensor, "B h w"], depth_range: Float[Tensor, "B 2"]) -> Float[Tensor, "B h w"]:
        """Turn positions in planes into z-depth, world units."""
        far_inverse = 1.0 / depth_range[:, 1, None, None]
        step = (1.0 / depth_range[:, 0, None, None] - far_inverse) / (self.config.planes - 1)
        return 1.0 / (far_inverse + step * position).clamp_min(far_inverse * 0.5)


def _geometry(cameras: tuple[Tensor, Tensor, Tensor, Tensor], factor: int) -> tuple[Tensor, Tensor]:
    """Two-view geometry in pixels of feature maps that are ``factor`` times smaller."""
    K_ref, T_world_ref, K_src, T_world_src = cameras
    shrink = K_ref.new_tensor([1.0 / factor, 1.0 / factor, 1.0])[:, None]
    return relative_geometry(K_ref * shrink, T_world_ref, K_src * shrink, T_world_src)


def _sample_prior(logits: Tensor, center: Tensor, shifts: Tensor) -> Tensor:
    """Coarse log-probability, read at each fine hypothesis by linear interpolation along depth: ``B D2 h4 w4``."""
    log_probability = logits.float().log_softmax(dim=1).clamp_min(-10.0)
    log_probability = log_probability.repeat_interleave(2, dim=2).repeat_interleave(2, dim=3)
    at = (center[:, None] + shifts[None, :, None, None]).clamp(0, logits.shape[1] - 1 - 1e-3)
    low = at.floor()
    low_value = log_probability.gather(1, low.long())
    high_value = log_probability.gather(1, low.long() + 1)
    return (low_value + (high_value - low_value) * (at - low)) * 0.2
