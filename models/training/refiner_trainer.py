"""Train the refiner on procedural worlds: scenes as the built-in networks leave them, errors of photos in, better scenes out.

Input: ``RefinerTrainConfig``, a rasteriser, a depth network and a splat head (passed in). Output: ``refiner.safetensors``, a
checkpoint and ``log.jsonl``. Does not: train the networks that made the scenes.

Each step takes a world from a pool, goes a few rounds over its input photos, draws views that were held out after each, and follows
their error back through all rounds. What drawing says about a Gaussian is taken as given; nothing flows back through it.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from recon.errors import CannotReconstruct
from recon.fuse import FuseConfig, SplatHead, fuse
from recon.fusing.recolor import recolor
from recon.polishing.targets import Targets
from recon.posed import PosedViews
from recon.progress import Progress
from recon.records import Gaussians, Rasterizer, RasterOptions
from recon.refining import COLUMNS, apply_update, gather_feedback, pixel_spacing, refine, with_degree

from ..refiner import GROUPS, LearnedUpdater, RefinerConfig, RefinerNetwork
from .head_trainer import capture_to_posed, predict_capture, shuffled
from .losses import color_loss
from .stretch import Stretch, begin_with, run_stretch, update
from .textures import load_textures
from .trainer import HELD_OUT_TEXTURES
from .worlds import Worlds

__all__ = ["RefinerTrainConfig", "train_refiner"]

SIZES = ((128, 160), (144, 192), (192, 256))
INPUT_VIEWS = (4, 8)
TARGET_VIEWS = 3
SHARES = (0.012, 0.07)
"""Gaussians over pixels of all input photos, drawn evenly in logarithms."""
POOL, USES = 48, 6
"""Scenes held, and how often each is used on average."""
COARSE, SOME, SHEEN = 0.5, 0.25, 0.4
"""Shares of steps whose first rounds see photos shrunk to half, whose rounds see another half of the photos each, and whose colours
are of SH degree 1."""
LATER = 0.85
"""Weight of a round in the loss over that of the next."""


@dataclass(frozen=True, kw_only=True)
class RefinerTrainConfig(Stretch):
    """One stretch of training the refiner."""

    threads: int = 1
    rounds: tuple[int, int] = (3, 8)
    """Fewest and most rounds of a step."""
    context: int = 16
    """Numbers that Gaussians near each other share."""
    validation_worlds: int = 8

    usual_rate: ClassVar[float] = 2.0e-3


@dataclass(frozen=True)
class Lesson:
    """A scene to refine."""

    gaussians: Gaussians
    inputs: PosedViews
    everything: PosedViews
    """Input photos, then held-out ones."""
    targets: Targets


def make_lesson(worlds: Worlds, predictor, head: SplatHead) -> Lesson | None:
    """Photograph a world and reconstruct it as the product does; None when its photos share nothing."""
    rng = worlds.rng
    views = int(rng.integers(INPUT_VIEWS[0], INPUT_VIEWS[1] + 1))
    size = SIZES[int(rng.integers(len(SIZES)))]
    capture = shuffled(worlds.capture(views + TARGET_VIEWS, *size), rng)
    inputs, everything = capture_to_posed(capture, range(views)), capture_to_posed(capture, range(views + TARGET_VIEWS))
    with torch.no_grad():
        prediction = predict_capture(capture, inputs, predictor, rng)
        share = float(np.exp(rng.uniform(*np.log(SHARES))))
        config = FuseConfig(max_gaussians=max(500, int(share * views * size[0] * size[1])), shell=300, recolor_steps=0)
        try:
            fused = fuse(inputs, prediction, head, config, Progress())
        except CannotReconstruct:
            return None
    return Lesson(fused.gaussians, inputs, everything, Targets(inputs))


def lessons(make: Callable[[], Lesson | None], rng: np.random.Generator) -> Generator[Lesson, None, None]:
    """Draw from a pool whose scenes are replaced one by one."""
    pool: list[Lesson] = []
    while True:
        if len(pool) < POOL // 4 or rng.random() < 1 / USES:
            made = make()
            if made is None:
                continue
            if len(pool) < POOL:
                pool.append(made)
            else:
                pool[int(rng.integers(POOL))] = made
        yield pool[int(rng.integers(len(pool)))]


def measure_typical(items: list[Lesson], rasterizer: Rasterizer) -> Tensor:
    """Median strength of each kind of slope over the Gaussians of some scenes: what the network takes as 1."""
    slopes = []
    for item in items:
        feedback = gather_feedback(with_degree(item.gaussians, 1), item.targets, rasterizer)
        slopes.append(feedback.slope[feedback.weight > 1].abs())
    middle = torch.cat(slopes).median(0).values
    typical = torch.ones(COLUMNS)
    for a, b in GROUPS:
        typical[a:b] = middle[a:b].mean().clamp_min(1e-6)
    return typical


def view_loss(gaussians: Gaussians, item: Lesson, shown: list[int], rasterizer: Rasterizer) -> Tensor:
    """Colour loss of some views; the root of the squared error counts like the rest, as PSNR does."""
    drawn = rasterizer(gaussians, item.everything.cameras.select(shown), RasterOptions()).color
    photos = torch.stack([item.everything.image(i) for i in shown]).to(drawn.dtype)
    root = ((drawn - photos) ** 2).mean(dim=(1, 2, 3)).add(1e-6).sqrt().mean()
    return color_loss(drawn, photos) + root


def take_step(
    item: Lesson,
    average: RefinerNetwork,
    optimizer,
    step: int,
    share: float,
    *,
    network: RefinerNetwork,
    rasterizer: Rasterizer,
    rounds: tuple[int, int],
    rng: np.random.Generator,
) -> dict[str, float]:
    """Go some rounds over one scene and update the network."""
    gaussians, state = with_degree(item.gaussians, 1) if rng.random() < SHEEN else item.gaussians, None
    spacing = pixel_spacing(gaussians, item.targets)
    count = len(item.inputs)
    total, weights, losses = torch.zeros(()), 0.0, []
    many = int(rng.integers(rounds[0], rounds[1] + 1))
    coarse = int(rng.integers(0, many // 2 + 1)) if rng.random() < COARSE else 0
    some = rng.random() < SOME
    for number in range(many):
        views = sorted(int(i) for i in rng.permutation(count)[: -(-count // 2)]) if some else None
        factor = 2 if number < coarse else 1
        feedback = gather_feedback(gaussians.detach(), item.targets, rasterizer, views=views, factor=factor)
        change, state = network(gaussians.detach(), spacing, feedback, state)
        gaussians = apply_update(gaussians, change)
        held_out = rng.permutation(TARGET_VIEWS)[:2] + count
        shown = [int(rng.integers(count)), *(int(i) for i in held_out)]
        loss = view_loss(gaussians, item, shown, rasterizer)
        weight = LATER ** (many - 1 - number)
        total, weights = total + weight * loss, weights + weight
        losses.append(float(loss.detach()))
    norm = update(network, average, optimizer, total / weights, step)
    return {"loss": losses[-1], "first": losses[0], "gradient": norm}


def psnr_of(gaussians: Gaussians, item: Lesson, rasterizer: Rasterizer) -> float:
    """PSNR of the held-out views."""
    shown = list(range(len(item.inputs), len(item.everything)))
    with torch.no_grad():
        drawn = rasterizer(gaussians, item.everything.cameras.select(shown), RasterOptions()).color.clamp(0, 1)
    photos = torch.stack([item.everything.image(i) for i in shown])
    return float((-10 * torch.log10(((drawn - photos) ** 2).mean(dim=(1, 2, 3)) + 1e-8)).mean())


def validate(average: RefinerNetwork, items: list[Lesson], rasterizer: Rasterizer) -> dict[str, float]:
    """PSNR of held-out views of held-out worlds: as fused, after colour matching, after this network."""
    updater = LearnedUpdater(average)
    before, matched, after, sheen = [], [], [], []
    for item in items:
        before.append(psnr_of(item.gaussians, item, rasterizer))
        colored = recolor(item.gaussians, item.inputs, rasterizer, steps=4, progress=Progress())
        matched.append(psnr_of(colored, item, rasterizer))
        done, _ = refine(item.gaussians, item.targets, rasterizer, updater, rounds=updater.rounds, progress=Progress())
        after.append(psnr_of(done, item, rasterizer))
        done, _ = refine(
            with_degree(item.gaussians, 1), item.targets, rasterizer, updater, rounds=updater.rounds, progress=Progress()
        )
        sheen.append(psnr_of(done, item, rasterizer))
    average.train()
    means = {"fused": before, "colours_matched": matched, "refined": after, "refined_sh1": sheen}
    return {name: round(float(np.mean(values)), 3) for name, values in means.items()}


def train_refiner(config: RefinerTrainConfig, rasterizer: Rasterizer, predictor, head: SplatHead) -> Path:
    """Train for the given time and return the path of the averaged fp16 weights.

    Args:
        rasterizer: differentiable in the Gaussians.
        predictor: depth network that half of the scenes take their depth from; None uses spoilt truth alone.
        head: what gives them their appearance before refinement.
    """
    torch.manual_seed(config.seed)
    torch.set_num_threads(config.threads)
    config.out.mkdir(parents=True, exist_ok=True)
    textures = load_textures(config.textures) if config.textures else None
    train = None if textures is None else textures[HELD_OUT_TEXTURES:]
    held = None if textures is None else textures[:HELD_OUT_TEXTURES]
    worlds, judged = Worlds(train, config.seed + 700_000, cast=config.cast), Worlds(held, 990_001)
    network = RefinerNetwork(RefinerConfig(rounds=config.rounds[1], context=config.context))
    kept: list[Lesson] = []
    while len(kept) < config.validation_worlds:
        made = make_lesson(judged, predictor, head)
        if made is not None:
            kept.append(made)
    network.typical.copy_(measure_typical(kept, rasterizer))
    if config.start is not None:
        begin_with(config.start, network)
    rng = np.random.default_rng(config.seed)

    def source(step: int) -> Generator[Any, None, None]:
        return lessons(partial(make_lesson, worlds, predictor, head), rng)

    return run_stretch(
        config,
        "refiner",
        network,
        source=source,
        step_of=partial(take_step, network=network, rasterizer=rasterizer, rounds=config.rounds, rng=rng),
        validate=lambda average: validate(average, kept, rasterizer),
        warm_up=50,
    )
