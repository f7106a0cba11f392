"""`recon train`: train a network of ours from procedural scenes.

Input: the trainer's config. Output: a folder with weights, a checkpoint to go on from, and a log.
Does not: train; ``models.training`` does, and runs without this room on a bare machine.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Collection
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
import tyro

from models.registry import DepthPredictor, load_predictor, load_splat_head, load_updater
from models.training.camera_trainer import CameraTraining, train_cameras
from models.training.head_trainer import HeadTrainConfig, train_head
from models.training.matcher_trainer import MatcherTraining, train_matcher
from models.training.plan import StretchPlan, plan_cameras, plan_head, plan_matcher, plan_refiner, plan_stretch
from models.training.real_scenes import load_scenes
from models.training.refiner_trainer import RefinerTrainConfig, train_refiner
from models.training.stretch import Stretch, go_last
from models.training.trainer import TrainConfig
from models.training.trainer import train as run_training
from recon.errors import UserError
from recon.fuse import SplatHead
from recon.records import Rasterizer
from recon.refining import Updater
from render.rasterizer import load_rasterizer

from .console import Quiet, format_bytes, say
from .worlds import check_cast, chosen_ingredients


@dataclass(frozen=True, kw_only=True)
class TrainArguments:
    """Train a network from scenes made on the fly. Stops after the given minutes; the same folder continues where it stopped."""

    model: Annotated[Literal["mini", "head", "refiner", "matcher", "cameras"], tyro.conf.Positional]
    """Which network: 'mini' estimates depth, 'head' makes Gaussians of depth from any source, 'refiner' corrects Gaussians by what
    photos say, 'matcher' finds what photos have in common, 'cameras' finds where they were taken."""
    config: TrainConfig
    plan: Quiet = False
    """Time some steps on this machine, say what a stretch of these minutes will see, and train nothing."""


def train(arguments: TrainArguments) -> int:
    """Run the command."""
    given = arguments.config
    chosen_ingredients(given.without)
    check_cast(given.cast)
    check_device(given.device)
    check_scenes(given.scenes)
    for name in ("makers", "captures", "threads"):
        if (number := getattr(given, name)) is not None and number < 1:
            raise UserError(f"--{name} {number} is too few.", "Give 1 or more, or leave it out.")
    if given.learning_rate is not None and not 0 < given.learning_rate < 1:
        raise UserError(
            f"--learning-rate {given.learning_rate:g} teaches nothing.", "Leave it out: each network has its usual one."
        )
    if not 0 <= given.colours < math.inf:
        raise UserError(f"--colours {given.colours:g} is no weight.", "Give 0 or more; 10 is a tenth of the depth loss's pull.")
    if not 0 <= given.count < math.inf:
        raise UserError(f"--count {given.count:g} is no weight.", "Give 0 or more; 30 pulls about as much as the colours do.")
    if arguments.model == "mini" and given.count:
        raise UserError("--count belongs to 'head': the depth network cuts nothing.", "Leave it out.")
    if arguments.plan:
        plan = plan_of(arguments.model, given)
        say(f"In {given.minutes:g} minutes here: about {plan.steps:,} steps of {plan.step_s:.2f} s, {plan.validations} validations")
        say(f"They see {plan.worlds:,} worlds, {plan.photos:,} photos, {plan.pixels / 1e6:,.0f} million pixels")
        say(f"Weights of {format_bytes(plan.weights_bytes)}, a checkpoint of {format_bytes(plan.checkpoint_bytes)}")
        return 0
    go_last(given.device)
    logging.getLogger().setLevel(logging.INFO)  # the trainer tells how it goes through its log
    try:
        say(f"Weights: {run_stretch_of(arguments.model, given)}")
    except ValueError as error:
        if given.start is None:
            raise
        raise UserError(str(error), f"Give the {arguments.model}.safetensors of an earlier stretch to --start.") from error
    return 0


def check_device(device: str) -> None:
    """Whether there is such a device here.

    Raises:
        UserError: there is not.
    """
    if device not in ("cpu", "cuda"):
        raise UserError(f"--device {device} is not known.", "Give cpu or cuda.")
    if device == "cuda" and not torch.cuda.is_available():
        raise UserError("--device cuda: there is no CUDA GPU here that this torch can use.", "Leave it out to train on the CPU.")


def check_scenes(pack: Path | None) -> None:
    """Whether a pack of real scenes can be read.

    Raises:
        UserError: it cannot.
    """
    if pack is None:
        return
    try:
        load_scenes(pack)
    except ValueError as error:
        raise UserError(f"{error}.", "Make one: python -m data.pack_training TEXTURES OUT --scenes DIR ...") from error


def plan_of(model: str, given: TrainConfig) -> StretchPlan:
    """Foretell a stretch of a network."""
    if model == "mini":
        return plan_stretch(given, color_tool(given))
    if model == "head":
        return plan_head(head_config(given), *head_tools(given))
    if model == "refiner":
        return plan_refiner(refiner_config(given), *refiner_tools())
    return plan_matcher(matcher_config(given)) if model == "matcher" else plan_cameras(camera_config(given))


def run_stretch_of(model: str, given: TrainConfig) -> Path:
    """Train a network; returns its weights."""
    if model == "mini":
        return run_training(given, color_tool(given))
    if model == "head":
        return train_head(head_config(given), *head_tools(given))
    if model == "refiner":
        return train_refiner(refiner_config(given), *refiner_tools())
    return train_matcher(matcher_config(given)) if model == "matcher" else train_cameras(camera_config(given))


def matcher_config(given: TrainConfig) -> MatcherTraining:
    """The same choices for the matcher."""
    return MatcherTraining(**shared_choices(given, "a step of the matcher sees pairs of photos of two scenes"))


def color_tool(given: TrainConfig) -> Rasterizer | None:
    """What draws colours, where they are asked for.

    Raises:
        UserError: this device has none.
    """
    return load_rasterizer(given.device) if given.colours > 0 else None


def head_config(given: TrainConfig) -> HeadTrainConfig:
    """The same for the head."""
    choices = shared_choices(given, "a step of the head sees one world", but=("scenes", "count"))
    return HeadTrainConfig(**choices, scenes=given.scenes, count=given.count)


def head_tools(given: TrainConfig) -> tuple[Rasterizer, DepthPredictor, Updater | None]:
    """What gives the head depth, draws what it makes of it and, where the cut is learnt, refines it."""
    updater = load_updater(given.device) if given.count else None
    return load_rasterizer(given.device), load_predictor("mini", device=given.device), updater


def refiner_config(given: TrainConfig) -> RefinerTrainConfig:
    """The same for the refiner, whose steps draw with the rasteriser of the CPU.

    Raises:
        UserError: another device was asked for.
    """
    if given.device != "cpu":
        raise UserError(f"--device {given.device}: the refiner is trained on the CPU.", "Leave it out.")
    if given.makers is not None:
        raise UserError(f"--makers {given.makers}: worlds for the refiner are made in its own process.", "Leave it out.")
    return RefinerTrainConfig(**shared_choices(given, "a step of the refiner sees one world"))


def refiner_tools() -> tuple[Rasterizer, DepthPredictor, SplatHead]:
    """What makes the scenes that the refiner learns from, and draws them."""
    return load_rasterizer("cpu"), load_predictor("mini"), load_splat_head()


def camera_config(given: TrainConfig) -> CameraTraining:
    """The same choices for the camera network."""
    return CameraTraining(**shared_choices(given, "a step of the camera network sees a number of photos that suits the machine"))


def shared_choices(given: TrainConfig, instead: str, *, but: Collection[str] = ()) -> dict[str, Any]:
    """Choices that mean something to every network.

    Args:
        given: all choices.
        instead: what holds in the place of those that belong to the depth network alone.
        but: those of them that this network has, too.

    Raises:
        UserError: such a choice was made.
    """
    usual = {field.name: field.default for field in fields(TrainConfig)}
    owners_of = {"scenes": "'mini' and 'head'", "count": "'head'"}
    for name in ("captures", "references", "without", "normals", "colours", "scenes", "count"):
        if name not in but and getattr(given, name) != usual[name]:
            owners = owners_of.get(name, "'mini'")
            raise UserError(f"--{name} belongs to {owners}: {instead}.", "Leave it out.")
    return {field.name: getattr(given, field.name) for field in fields(Stretch)}
