"""The matcher: which places of two photos show the same thing, learnt from procedural worlds.

Input: pairs of grey photos. Output: scores between all 8 x 8 cells of both, how sure a cell is to have a partner, and positions to
a fraction of a pixel. Does not: choose pairs, or verify anything; geometry does.

    photo -> encoder -> 1/2, 1/8, 1/16
    1/16 of both photos -> (self-attention, cross-attention) x layers -> context
    1/8 + context -> descriptors of cells -> scores -> matches of cells (dual softmax)
    1/2 -> correlation within a window around the matched cell -> position

The coarse-to-fine plan follows LoFTR (Sun et al. 2021, sections 3.2 to 3.4); that a cell says for itself whether it can be matched
follows LightGlue (Lindenberger et al. 2023, section 3.2). Attention works at 1/16, where it costs a sixteenth of what it would
cost at 1/8.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn as nn
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from .layers import GreyTrunk, conv_block

__all__ = ["CELL", "Attention", "MatcherConfig", "MatcherNetwork", "PhotoFeatures", "normalize_grey", "turns"]

CELL = 8
"""Pixels of a cell's side."""
GREY = (0.299, 0.587, 0.114)
"""Weights of red, green and blue (ITU-R BT.601)."""


@dataclass(frozen=True, kw_only=True)
class MatcherConfig:
    """Sizes; kept with the weights."""

    channels: int = 128
    """Of tokens and cell descriptors."""
    fine_channels: int = 32
    layers: int = 4
    """Pairs of self- and cross-attention."""
    heads: int = 4
    reach: int = 4
    """Fine features on each side of the matched cell's middle: a window of 2 reach + 1."""
    place_channels: int = 128
    """Of the descriptor of a whole photo."""


@dataclass(frozen=True)
class PhotoFeatures:
    """What the encoder found in B photos."""

    fine: Float[Tensor, "B F h2 w2"]
    cells: Float[Tensor, "B C h8 w8"]
    tokens: Float[Tensor, "B C h16 w16"]
    place: Float[Tensor, "B P"]
    """Unit vectors; photos of one place have a large inner product."""

    def of(self, index: Int[Tensor, " N"]) -> PhotoFeatures:
        """Those of some photos, in that order."""
        return PhotoFeatures(self.fine[index], self.cells[index], self.tokens[index], self.place[index])


@dataclass(frozen=True)
class CellMatches:
    """Scores of N pairs of photos."""

    scores: Float[Tensor, "N first second"]
    """Logits: rows are cells of the first photo, row-major."""
    sure: tuple[Float[Tensor, "N first"], Float[Tensor, "N second"]]
    """Logits of a cell having a partner at all."""

    def confidence(self) -> Float[Tensor, "N first second"]:
        """Probability of every match: chosen from both sides, by cells that have a partner."""
        both = self.scores.log_softmax(dim=2) + self.scores.log_softmax(dim=1)
        return (both + F.logsigmoid(self.sure[0])[:, :, None] + F.logsigmoid(self.sure[1])[:, None, :]).exp()


def normalize_grey(images: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B 1 H W"]:
    """Grey with mean 0 and deviation 1 in every photo, so that exposure and white balance do not matter."""
    grey = (images * images.new_tensor(GREY)[:, None, None]).sum(dim=1, keepdim=True)
    return (grey - grey.mean(dim=(2, 3), keepdim=True)) / (grey.std(dim=(2, 3), keepdim=True) + 0.02)


class MatchEncoder(GreyTrunk):
    """Features at 1/2, 1/8 and 1/16; each photo is encoded once, however many pairs it is in."""

    def __init__(self, config: MatcherConfig) -> None:
        super().__init__()
        w2, w4, w8, w16 = self.widths
        self.tokens = nn.Conv2d(w16, config.channels, 1)
        self.cells = nn.Conv2d(w8, config.channels, 1)
        self.lateral8, self.lateral4 = nn.Conv2d(w8, w4, 1), nn.Conv2d(w4, w2, 1)
        self.merge4, self.merge2 = conv_block(w4, w4), conv_block(w2, w2)
        self.fine = nn.Conv2d(w2, config.fine_channels, 1)
        self.place = nn.Sequential(nn.BatchNorm1d(w16, momentum=0.05), nn.Linear(w16, config.place_channels))

    def forward(self, grey: Float[Tensor, "B 1 H W"]) -> PhotoFeatures:
        x2, x4, x8, x16 = self.levels(grey)
        y4 = self.merge4(x4 + F.interpolate(self.lateral8(x8), size=x4.shape[-2:]))
        y2 = self.merge2(x2 + F.interpolate(self.lateral4(y4), size=x2.shape[-2:]))
        pooled = x16.float().clamp(min=1e-4).pow(3.0).mean(dim=(2, 3)).pow(1 / 3)  # GeM, Radenovic et al. 2018
        return PhotoFeatures(self.fine(y2), self.cells(x8), self.tokens(x16), F.normalize(self.place(pooled), dim=1))


def turns(height: int, width: int, channels: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Cosines and sines of rotary positions, ``tokens channels / 2`` each: half of the channels for x, half for y.

    Source: RoFormer, Su et al. 2021, section 3.2, in two dimensions.
    """
    count = channels // 4
    speed = math.pi * torch.logspace(0.0, -1.7, count, device=device)
    y, x = torch.meshgrid(torch.arange(height, device=device), torch.arange(width, device=device), indexing="ij")
    angle = torch.cat([x.reshape(-1, 1) * speed, y.reshape(-1, 1) * speed], dim=1)
    return angle.cos(), angle.sin()


def turned(x: Float[Tensor, "B heads tokens c"], cos: Tensor, sin: Tensor) -> Float[Tensor, "B heads tokens c"]:
    """Rotate pairs of channels by their token's position."""
    a, b = x.chunk(2, dim=-1)
    return torch.cat([a * cos - b * sin, a * sin + b * cos], dim=-1)


class Attention(nn.Module):
    """Attention with its own little network, in the pre-norm form.

    Args:
        channels: of the tokens.
        heads: parts they are split into.
    """

    def __init__(self, channels: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm, self.norm_source, self.norm_after = nn.LayerNorm(channels), nn.LayerNorm(channels), nn.LayerNorm(channels)
        self.query, self.key_value = nn.Linear(channels, channels), nn.Linear(channels, 2 * channels)
        self.out = nn.Linear(channels, channels)
        self.after = nn.Sequential(nn.Linear(channels, 2 * channels), nn.GELU(), nn.Linear(2 * channels, channels))

    def forward(
        self, x: Float[Tensor, "B t c"], source: Float[Tensor, "B s c"], turn: tuple[Tensor, Tensor] | None = None
    ) -> Float[Tensor, "B t c"]:
        """Tokens of ``x`` gather from ``source``; with ``turn`` they know where they are relative to each other."""
        query = self._split(self.query(self.norm(x)))
        key, value = (self._split(one) for one in self.key_value(self.norm_source(source)).chunk(2, dim=-1))
        if turn is not None:
            query, key = turned(query, *turn), turned(key, *turn)
        gathered = F.scaled_dot_product_attention(query, key, value)
        x = x + self.out(gathered.transpose(1, 2).flatten(2))
        return x + self.after(self.norm_after(x))

    def _split(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (self.heads, -1)).transpose(1, 2)


class MatcherNetwork(nn.Module):
    """The whole network.

    Args:
        config: its sizes.
    """

    def __init__(self, config: MatcherConfig | None = None) -> None:
        super().__init__()
        self.config = config or MatcherConfig()
        c = self.config.channels
        self.encode = MatchEncoder(self.config)
        self.within = nn.ModuleList(Attention(c, self.config.heads) for _ in range(self.config.layers))
        self.across = nn.ModuleList(Attention(c, self.config.heads) for _ in range(self.config.layers))
        last = nn.Linear(c, c)
        nn.init.zeros_(last.weight)  # cells are told apart by their looks first, by what is around them when that helps
        self.context = nn.Sequential(nn.LayerNorm(c), last)
        self.merge = conv_block(c, c)
        self.describe = nn.Conv2d(c, c, 1)
        self.matchable = nn.Conv2d(c, 1, 1)
        self.sharpness = nn.Parameter(torch.tensor(math.log(20.0)))
        self.fine_sharpness = nn.Parameter(torch.tensor(math.log(20.0)))

    def relate(
        self, first: Float[Tensor, "N C h w"], second: Float[Tensor, "N C k l"]
    ) -> tuple[Float[Tensor, "N C h w"], Float[Tensor, "N C k l"]]:
        """Let the tokens of two photos look around, and at each other."""
        sizes = (first.shape[-2:], second.shape[-2:])
        a, b = first.flatten(2).transpose(1, 2), second.flatten(2).transpose(1, 2)
        each = self.config.channels // self.config.heads
        turn_a, turn_b = (turns(size[0], size[1], each, first.device) for size in sizes)
        for within, across in zip(self.within, self.across, strict=True):
            a, b = within(a, a, turn_a), within(b, b, turn_b)
            a, b = across(a, b), across(b, a)
        return self.context(a).transpose(1, 2).unflatten(2, sizes[0]), self.context(b).transpose(1, 2).unflatten(2, sizes[1])

    def match(self, first: PhotoFeatures, second: PhotoFeatures) -> CellMatches:
        """Score all cells of N photos against all cells of N others."""
        described, sure = [], []
        for photos, context in zip((first, second), self.relate(first.tokens, second.tokens), strict=True):
            cells = self.merge(photos.cells + F.interpolate(context, size=photos.cells.shape[-2:], mode="bilinear"))
            described.append(F.normalize(self.describe(cells).flatten(2), dim=1))
            sure.append(self.matchable(cells).flatten(1))
        with torch.autocast(described[0].device.type, enabled=False):  # half precision cannot tell near cosines apart
            scores = self.sharpness.exp() * described[0].float().transpose(1, 2) @ described[1].float()
        return CellMatches(scores, (sure[0], sure[1]))

    def locate(
        self,
        first: Float[Tensor, "N F h w"],
        second: Float[Tensor, "N F k l"],
        pair: Int[Tensor, " M"],
        query_px: Float[Tensor, "M 2"],
        guess_px: Float[Tensor, "M 2"],
    ) -> tuple[Float[Tensor, "M side side"], Float[Tensor, "M 2"]]:
        """Find where in the second photo each query of the first lies, within a window around a guess.

        Args:
            first: fine features of the first photos.
            second: those of the second ones.
            pair: which of the N pairs a query belongs to.
            query_px: x, y in the first photo, pixels of the encoded image, centres at +0.5.
            guess_px: middle of the window in the second photo.

        Returns:
            Logits of the window, whose middle is the feature nearest to the guess, and the expected x, y in pixels.
        """
        reach = self.config.reach
        steps = 2.0 * torch.arange(-reach, reach + 1, device=guess_px.device)
        offsets = torch.stack(torch.meshgrid(steps, steps, indexing="xy"), dim=-1)
        middle = window_middle(guess_px)
        described = F.normalize(sampled(first.float(), pair, query_px[:, None]), dim=-1)
        window = F.normalize(sampled(second.float(), pair, (middle[:, None, None] + offsets).flatten(1, 2)), dim=-1)
        with torch.autocast(described.device.type, enabled=False):
            logits = self.fine_sharpness.exp() * (window @ described.transpose(1, 2)).squeeze(-1)
            expected = logits.softmax(dim=1) @ offsets.flatten(0, 1)
        return logits.unflatten(1, offsets.shape[:2]), middle + expected


def window_middle(px: Float[Tensor, "M 2"]) -> Float[Tensor, "M 2"]:
    """The middle of the feature a place lies in: feature i at 1/2 stands for pixels 2 i and 2 i + 1."""
    return (px / 2).floor() * 2 + 1


def sampled(features: Float[Tensor, "N F h w"], which: Int[Tensor, " M"], px: Float[Tensor, "M K 2"]) -> Float[Tensor, "M K F"]:
    """Features at positions given in pixels of the photo, twice those of the features; outside counts as the border."""
    height, width = features.shape[-2:]
    size = px.new_tensor([width, height])
    at = (px / 2 - 0.5).clamp(min=0.0).minimum(size - 1)
    low = at.floor().long().minimum((size - 2).long()).clamp(min=0)
    part = at - low
    flat = features.permute(0, 2, 3, 1).reshape(-1, features.shape[1])
    base = (which[:, None] * height + low[..., 1]) * width + low[..., 0]
    x, y = part[..., :1], part[..., 1:]
    top = flat[base] * (1 - x) + flat[base + 1] * x
    bottom = flat[base + width] * (1 - x) + flat[base + width + 1] * x
    return top * (1 - y) + bottom * y
