"""`recon train`: train a network of ours from procedural scenes.

Input: the trainer's config. Output: a folder with weights, a checkpoint to go on from, and a log.
Does not: train; ``models.training`` does, and runs without this room on a bare machine.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Annotated, Literal

import tyro

from models.training.trainer import TrainConfig
from models.training.trainer import train as run_training

from .console import say


@dataclass(frozen=True, kw_only=True)
class TrainArguments:
    """Train a network from scenes made on the fly. Stops after the given minutes; the same folder continues where it stopped."""

    model: Annotated[Literal["mini"], tyro.conf.Positional]
    """Which network."""
    config: TrainConfig


def train(arguments: TrainArguments) -> int:
    """Run the command."""
    logging.getLogger().setLevel(logging.INFO)  # the trainer tells how it goes through its log
    say(f"Weights: {run_training(arguments.config)}")
    return 0
