"""Train the matcher for a given number of minutes on whatever machine there is.

Input: ``MatcherTraining``. Output: a folder with ``matcher.safetensors`` (averaged, fp16), a checkpoint and ``log.jsonl``.
Does not: read photos; worlds are made on the fly and textures come packed.
Usage: python -m models.training.matcher_trainer --minutes 80 --out DIR --textures PACK.npz
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Generator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..matcher import CELL, MatcherNetwork, PhotoFeatures, normalize_grey
from ..precision import to_channels_last
from .correspondences import PairBatch, PairSource
from .makers import APART
from .matcher_losses import cell_loss, fine_loss, match_metrics, place_loss
from .stretch import Stretch, begin_with, go_last, made_in_background, run_stretch, stretch_parser, update
from .textures import load_textures

__all__ = ["MatcherTraining", "main", "train_matcher"]

log = logging.getLogger(__name__)
SIZES = ((96, 128), (128, 96), (160, 208), (208, 160), (256, 320))
SIZE_SHARES = (0.5, 0.15, 0.2, 0.1, 0.05)
"""Height and width of training photos, and how often each is used: many small ones, for training is limited by steps."""
HELD_OUT_TEXTURES = 20
MOST_PAIRS = 6
"""Pairs per step, or two for every world where that is more; others are left out."""
REMEMBERED = 64
"""Descriptors of earlier photos that those of a step are told apart from."""


@dataclass(frozen=True, kw_only=True)
class MatcherTraining(Stretch):
    """One stretch of training of the matcher."""

    worlds: int | None = None
    """Worlds and collages per step; None takes 3 on a CPU, 16 with CUDA."""
    views: int = 2
    """Photos per world."""

    @property
    def worlds_per_step(self) -> int:
        """Worlds and collages of a step, on this device."""
        return self.worlds or (16 if self.on_cuda else 3)


def pair_batches(config: MatcherTraining, textures: np.ndarray | None, seed: int) -> Generator[PairBatch, None, None]:
    """Yield random batches made in the background."""
    return made_in_background(partial(pair_maker, config, textures, seed), config.maker_count)


def pair_maker(config: MatcherTraining, textures: np.ndarray | None, seed: int, number: int) -> Callable[[], PairBatch]:
    """What makes one batch after the other, others for every number."""
    source = PairSource(textures, seed + APART * number, cast=config.cast)

    def make() -> PairBatch:
        while True:
            size = SIZES[int(source.rng.choice(len(SIZES), p=SIZE_SHARES))]
            batch = source.make(config.worlds_per_step, views=config.views, size=size)
            if len(batch.pairs):
                return batch

    return make


@dataclass(frozen=True)
class Placed:
    """A batch on its device, with the photos of each pair encoded."""

    first: PhotoFeatures
    second: PhotoFeatures
    photos: PhotoFeatures
    pairs: Tensor
    world: Tensor
    query_px: Tensor
    target_px: Tensor
    state: Tensor
    size: tuple[int, int]


def encode_batch(network: MatcherNetwork, batch: PairBatch, device: str) -> Placed:
    """Encode every photo once, and hand each pair its two."""

    def moved(values: np.ndarray) -> Tensor:
        return torch.from_numpy(values).to(device)

    images = moved(batch.images).float().permute(0, 3, 1, 2)
    photos = network.encode(normalize_grey(images).contiguous(memory_format=torch.channels_last))
    most = max(MOST_PAIRS, 2 * (int(batch.world.max()) + 1))
    pairs = moved(batch.pairs)[:most]
    return Placed(
        first=photos.of(pairs[:, 0]),
        second=photos.of(pairs[:, 1]),
        photos=photos,
        pairs=pairs,
        world=moved(batch.world),
        query_px=moved(batch.query_px)[:most],
        target_px=moved(batch.target_px)[:most],
        state=moved(batch.state)[:most],
        size=(images.shape[2] // CELL, images.shape[3] // CELL),
    )


@torch.no_grad()
def validate(network: Any, held_out: list[PairBatch], device: str) -> dict[str, float]:
    """Average metrics over held-out worlds."""
    network.eval()
    totals: dict[str, list[float]] = {}
    for batch in held_out:
        placed = encode_batch(network, batch, device)
        matches = network.match(placed.first, placed.second)
        found = match_metrics(matches, placed.target_px, placed.state, placed.size)
        _, away = fine_loss(network, placed.first, placed.second, placed.query_px, placed.target_px, placed.state)
        alike = placed.photos.place @ placed.photos.place.T
        same = placed.world[:, None] == placed.world[None]
        found |= {
            "fine_median_px": float(away.median()) if len(away) else 0.0,
            "within_a_pixel": float((away < 1).float().mean()) if len(away) else 0.0,
            "place_margin": float(alike[same & (alike < 0.999)].mean() - alike[~same].mean()) if bool((~same).any()) else 0.0,
        }
        for name, value in found.items():
            totals.setdefault(name, []).append(value)
    return {name: round(float(np.mean(values)), 4) for name, values in totals.items()}


def train_step(
    network: MatcherNetwork, average: torch.nn.Module, optimizer, batch: PairBatch, others: Tensor, step: int, *, device: str
) -> tuple[dict[str, float], Tensor]:
    """One update of the network and of its moving average; also returns the photos' descriptors."""
    network.train()
    with torch.autocast(device, torch.bfloat16, enabled=device.startswith("cuda")):  # at these sizes a CPU gains nothing by it
        placed = encode_batch(network, batch, device)
        matches = network.match(placed.first, placed.second)
        chosen, told = cell_loss(matches, placed.target_px, placed.state, placed.size)
        fine, away = fine_loss(network, placed.first, placed.second, placed.query_px, placed.target_px, placed.state)
        place = place_loss(placed.photos.place, placed.pairs, placed.world, others)
    loss = chosen + 0.5 * told + 0.5 * fine + 0.1 * place
    norm = update(network, average, optimizer, loss, step)
    parts = {"chosen": chosen, "told": told, "fine": fine, "place": place, "loss": loss}
    record = {name: round(float(value.detach()), 4) for name, value in parts.items()}
    record |= {"gradient_norm": round(norm, 3), "fine_median_px": round(float(away.median()), 3) if len(away) else 0.0}
    return record, placed.photos.place.detach().float()


def train_matcher(config: MatcherTraining) -> Path:
    """Run one time-boxed stretch and return the path of the averaged fp16 weights."""
    torch.manual_seed(config.seed)
    torch.set_num_threads(config.threads)
    config.out.mkdir(parents=True, exist_ok=True)
    textures = load_textures(config.textures) if config.textures else None
    seen, unseen = (None, None) if textures is None else (textures[HELD_OUT_TEXTURES:], textures[:HELD_OUT_TEXTURES])
    network = to_channels_last(MatcherNetwork()).to(config.device)
    if config.start is not None:
        begin_with(config.start, network)
    unseen_pairs = PairSource(unseen, 990_002)
    held_out = [
        unseen_pairs.make(2, views=3, size=((192, 256), (256, 320))[index % 2])
        for index in range(max(1, config.validation_worlds // 2))
    ]
    remembered = [torch.zeros(0, network.config.place_channels, device=config.device)]

    def step_of(batch: PairBatch, average: torch.nn.Module, optimizer: Any, step: int, _: float) -> dict[str, float]:
        parts, place = train_step(network, average, optimizer, batch, remembered[0], step, device=config.device)
        remembered[0] = torch.cat([remembered[0], place])[-REMEMBERED:]
        return parts

    return run_stretch(
        config,
        "matcher",
        network,
        source=lambda step: pair_batches(config, seen, config.seed + 1000 * (step + 1)),
        step_of=step_of,
        validate=lambda average: validate(average, held_out, config.device),
        warm_up=200,
    )


def main(argv: list[str] | None = None) -> int:
    """Parse the command line and train."""
    parser = stretch_parser(__doc__, MatcherTraining)
    given = parser.parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    go_last(given.device)
    train_matcher(MatcherTraining(**vars(given)))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
