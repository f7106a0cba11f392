"""What a stretch of training will see on this machine, measured on a few steps.

Input: the config of a trainer. Output: ``StretchPlan``. Does not: write anything.
"""

from __future__ import annotations

import contextlib
import copy
import math
import time
from collections.abc import Callable, Generator
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch

from recon.fuse import SplatHead
from recon.records import Rasterizer
from recon.refining import Updater

from ..camera_network import CameraNetwork
from ..head import HeadNetwork, LearnedSplatHead
from ..matcher import MatcherNetwork
from ..mini import MiniNetwork
from ..mini_predictor import MiniPredictor
from ..precision import to_channels_last
from ..refiner import RefinerConfig, RefinerNetwork
from .camera_batches import CameraBatch
from .camera_trainer import CameraTraining, held_out_batches, source_of
from .camera_trainer import train_step as camera_step
from .camera_trainer import validate as validate_cameras
from .correspondences import PairBatch, PairSource
from .head_trainer import HeadTrainConfig, head_step, held_out_lessons, made_worlds, validate_cut
from .head_trainer import validate as validate_head
from .makers import waiting
from .matcher_trainer import MatcherTraining, pair_batches
from .matcher_trainer import train_step as matcher_step
from .matcher_trainer import validate as validate_matcher
from .real_scenes import HeadExam, depth_on_photos, load_scenes
from .refiner_trainer import Lesson, RefinerTrainConfig, lessons, make_lesson
from .refiner_trainer import take_step as refiner_step
from .refiner_trainer import validate as validate_refiner
from .stretch import Stretch
from .textures import load_textures
from .trainer import Batch, TrainConfig, batches, check_colours, train_step, validate
from .trainer import held_out_batches as held_out_captures
from .worlds import Capture, Worlds

WARM_UP = 6
"""Steps that are not timed: the first compile, and the worlds that wait by then are used up by the next. Where processes make
worlds, as many more as may wait in their queue."""


@dataclass(frozen=True, kw_only=True)
class StretchPlan:
    """What a stretch of training will see on this machine, measured on a few steps."""

    step_s: float
    """Seconds of a step, worlds made beside it."""
    steps: int
    validations: int
    worlds: int
    photos: int
    pixels: int
    """Pixels of all photos."""
    weights_bytes: int
    """The averaged weights in half precision, which travel."""
    checkpoint_bytes: int
    """Weights, average and the optimiser's state, from which the same folder goes on."""


def plan_stretch(config: TrainConfig, rasterizer: Rasterizer | None = None, steps: int = 8) -> StretchPlan:
    """Measure some steps of the depth network on this machine and foretell a whole stretch; nothing is written.

    Args:
        rasterizer: as the trainer takes it.
        steps: steps to time, after some that warm up and use worlds made meanwhile.
    """
    check_colours(config, rasterizer)
    torch.manual_seed(config.seed)
    torch.set_num_threads(config.threads)
    textures = load_textures(config.textures) if config.textures else None
    network = to_channels_last(MiniNetwork()).to(config.device)
    average, optimizer = copy.deepcopy(network), torch.optim.AdamW(network.parameters(), lr=config.peak_rate)

    def step_of(batch: Batch, step: int) -> None:
        train_step(network, average, optimizer, batch, step, config=config, rasterizer=rasterizer)

    source = batches(config, textures, config.seed + 1)
    step_s, seen = timed(source, step_of, lambda batch: [capture.images for capture in batch.captures], steps, config.maker_count)
    held_out = held_out_captures(textures, 2)
    worlds_s = seconds(lambda: validate(average, held_out, config.device))
    scenes = load_scenes(config.scenes) if config.scenes else []
    photos_s = seconds(lambda: depth_on_photos(MiniPredictor(average, config.device), scenes))
    validation_s = worlds_s / len(held_out) * max(1, config.validation_worlds // 2) + photos_s
    return foretold(config, step_s, seen, steps, config.worlds_per_step, validation_s, network)


def plan_matcher(config: MatcherTraining, steps: int = 8) -> StretchPlan:
    """The same for the matcher."""
    torch.manual_seed(config.seed)
    torch.set_num_threads(config.threads)
    textures = load_textures(config.textures) if config.textures else None
    network = to_channels_last(MatcherNetwork()).to(config.device)
    average, optimizer = copy.deepcopy(network), torch.optim.AdamW(network.parameters(), lr=config.peak_rate)
    others = torch.zeros(0, network.config.place_channels, device=config.device)

    def step_of(batch: PairBatch, step: int) -> None:
        matcher_step(network, average, optimizer, batch, others, step, device=config.device)

    step_s, seen = timed(
        pair_batches(config, textures, config.seed + 1), step_of, lambda batch: [batch.images], steps, config.maker_count
    )
    held_out = [PairSource(textures, 1).make(2, views=3, size=(192, 256))]
    validation_s = seconds(lambda: validate_matcher(average, held_out, config.device)) * max(1, config.validation_worlds // 2)
    return foretold(config, step_s, seen, steps, config.worlds_per_step, validation_s, network)


def plan_cameras(config: CameraTraining, steps: int = 8) -> StretchPlan:
    """The same for the camera network; worlds count as often as they are used."""
    torch.manual_seed(config.seed)
    torch.set_num_threads(config.threads)
    textures = load_textures(config.textures) if config.textures else None
    network = to_channels_last(CameraNetwork()).to(config.device)
    average, optimizer = copy.deepcopy(network), torch.optim.AdamW(network.parameters(), lr=config.peak_rate)
    worlds = []

    def step_of(batch: CameraBatch, step: int) -> None:
        worlds.append(len(batch.images[0]))
        camera_step(network, average, optimizer, batch, step, device=config.device)

    def images(batch: CameraBatch) -> list[np.ndarray]:
        return [one.flatten(0, 1).numpy() for one in batch.images]

    step_s, seen = timed(source_of(config, textures, config.seed + 1), step_of, images, steps, config.maker_count)
    held_out = held_out_batches(config, textures, 1)
    validation_s = seconds(lambda: validate_cameras(average, held_out, config.device)) * config.validation_worlds
    return foretold(config, step_s, seen, steps, round(float(np.mean(worlds[-steps:]))), validation_s, network)


def plan_refiner(config: RefinerTrainConfig, rasterizer: Rasterizer, predictor, head: SplatHead, steps: int = 8) -> StretchPlan:
    """The same for the refiner; worlds count as often as they are used.

    Args:
        rasterizer, predictor, head: as the trainer takes them.
    """
    torch.manual_seed(config.seed)
    torch.set_num_threads(config.threads)
    textures = load_textures(config.textures) if config.textures else None
    network = RefinerNetwork(RefinerConfig(rounds=config.rounds[1], context=config.context))
    average, optimizer = copy.deepcopy(network), torch.optim.AdamW(network.parameters(), lr=config.peak_rate)
    rng = np.random.default_rng(config.seed)
    source = lessons(partial(make_lesson, Worlds(textures, config.seed + 1, cast=config.cast), predictor, head), rng)

    def step_of(item: Lesson, step: int) -> None:
        refiner_step(item, average, optimizer, step, 0.0, network=network, rasterizer=rasterizer, rounds=config.rounds, rng=rng)

    def images(item: Lesson) -> list[np.ndarray]:
        return [torch.stack([item.everything.image(i) for i in range(len(item.everything))]).numpy()]

    step_s, seen = timed(source, step_of, images, steps)
    kept = [next(lessons(partial(make_lesson, Worlds(textures, config.seed + 2), predictor, head), rng))]
    validation_s = seconds(lambda: validate_refiner(average, kept, rasterizer)) * config.validation_worlds
    return foretold(config, step_s, seen, steps, 1, validation_s, network)


def plan_head(
    config: HeadTrainConfig, rasterizer: Rasterizer, predictor, updater: Updater | None = None, steps: int = 8
) -> StretchPlan:
    """The same for the splat head.

    Args:
        rasterizer, predictor, updater: as the trainer takes them.
    """
    torch.manual_seed(config.seed)
    torch.set_num_threads(config.threads)
    textures = load_textures(config.textures) if config.textures else None
    head, device = HeadNetwork().to(config.device), config.device
    average, optimizer = copy.deepcopy(head), torch.optim.AdamW(head.parameters(), lr=config.peak_rate)
    rng = np.random.default_rng(config.seed)

    tools = {"head": head, "rasterizer": rasterizer, "predictor": predictor, "device": device, "updater": updater}

    def step_of(capture: Capture, step: int) -> None:
        head_step(capture, average, optimizer, step, rng=rng, count=config.count, **tools)

    source = made_worlds(config, textures, config.seed + 1)
    step_s, seen = timed(source, step_of, lambda capture: [capture.images], steps, config.maker_count)
    scenes = load_scenes(config.scenes) if config.scenes else []
    kept, exam = held_out_lessons(textures, config.size, 1, predictor), HeadExam(scenes, predictor, rasterizer, device)
    worlds_s = seconds(lambda: validate_head(average, kept, HeadExam([], predictor, rasterizer, device), rasterizer, device))
    if config.count:
        worlds_s += seconds(lambda: validate_cut(average, kept, rasterizer, updater, device))
    validation_s = worlds_s * config.validation_worlds + seconds(lambda: exam.psnr(LearnedSplatHead(average, device)))
    return foretold(config, step_s, seen, steps, 1, validation_s, head)


def seconds(run: Callable[[], Any]) -> float:
    """How long something takes."""
    began = time.perf_counter()
    run()
    return time.perf_counter() - began


def timed(
    source: Generator[Any, None, None],
    step_of: Callable[[Any, int], None],
    images: Callable[[Any], list[np.ndarray]],
    steps: int,
    makers: int = 1,
) -> tuple[float, tuple[int, int]]:
    """Seconds of a step after warming up, and the photos and pixels that the timed steps saw.

    Args:
        makers: processes that make worlds; 1 is a thread.
    """
    photos, pixels, began = 0, 0, 0.0
    warm_up = WARM_UP + (waiting(makers) if makers > 1 else 0)
    with contextlib.closing(source):
        for step, batch in enumerate(source):
            if step == warm_up:
                began = time.perf_counter()
            if step == steps + warm_up:
                break
            if step >= warm_up:
                photos += sum(len(one) for one in images(batch))
                pixels += sum(one[..., 0].size for one in images(batch))
            step_of(batch, step)
        return (time.perf_counter() - began) / steps, (photos, pixels)


def foretold(
    config: Stretch,
    step_s: float,
    seen: tuple[int, int],
    steps: int,
    worlds: int,
    validation_s: float,
    network: torch.nn.Module,
) -> StretchPlan:
    """Stretch what was measured to the minutes asked for."""
    validations = max(1, math.ceil(60 * config.minutes / config.validate_s))
    count = max(0, int((60 * config.minutes - validations * validation_s) / step_s))
    parameters = sum(value.numel() for value in network.state_dict().values())
    return StretchPlan(
        step_s=step_s,
        steps=count,
        validations=validations,
        worlds=count * worlds,
        photos=count * seen[0] // steps,
        pixels=count * seen[1] // steps,
        weights_bytes=2 * parameters,
        checkpoint_bytes=16 * parameters,
    )
