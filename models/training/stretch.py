"""What every stretch of training does: keep time and schedule, validate, save, go on where an earlier one stopped.

Input: a network, batches, and a step. Output: a folder with averaged weights (fp16), a checkpoint, ``log.jsonl`` and its
``curves.svg``.
Does not: know what a network learns.
"""

from __future__ import annotations

import argparse
import contextlib
import copy
import json
import logging
import math
import os
import queue
import threading
import time
from collections.abc import Callable, Generator
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, ClassVar, Literal, TypeVar

import numba
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from .curves import draw_curves
from .makers import made_by_processes

__all__ = [
    "Stretch",
    "begin_with",
    "export_weights",
    "go_last",
    "made_ahead",
    "made_in_background",
    "read_weights",
    "run_stretch",
    "stretch_parser",
    "update",
]

log = logging.getLogger(__name__)
T = TypeVar("T")
NICE = 10
LONG_MEMORY = 0.998
"""Share of the moving average that stays at each step."""


@dataclass(frozen=True, kw_only=True)
class Stretch:
    """What every stretch of training has."""

    out: Path
    """Folder for weights, checkpoint and log; an existing checkpoint there is continued."""
    minutes: float = 50.0
    """Wall time of the whole schedule, from its first stretch on."""
    textures: Path | None = None
    """Texture pack; None trains on generated textures alone."""
    device: str = "cpu"
    """'cpu' or 'cuda'."""
    threads: int = 1
    """Torch threads on a CPU; another one makes worlds."""
    start: Path | None = None
    """Weights to begin with, as an earlier stretch left them; None begins with random ones."""
    seed: int = 0
    """Seed of worlds and weights."""
    learning_rate: float | None = None
    """Peak of the cosine schedule (by time); None takes what is usual for the network."""
    validate_s: float = 300.0
    """Seconds between validations and checkpoints."""
    validation_worlds: int = 12
    """Held-out worlds per validation."""
    max_steps: int | None = None
    """Stop after this many steps; None stops by time alone."""
    makers: int | None = None
    """Processes that make worlds; None takes a thread on a CPU, all cores but two with CUDA."""
    cast: Literal["cpu", "cuda"] = "cpu"
    """Where the rays of worlds are cast; a seed draws the same worlds either way. 'cuda' takes from the GPU what steps could use:
    for when steps wait for worlds."""

    usual_rate: ClassVar[float] = 1.0e-3
    """Learning rate of this network where none is given."""

    @property
    def peak_rate(self) -> float:
        """Learning rate at the peak of the schedule."""
        return self.usual_rate if self.learning_rate is None else self.learning_rate

    @property
    def on_cuda(self) -> bool:
        """Whether steps are taken on a GPU."""
        return self.device.startswith("cuda")

    @property
    def maker_count(self) -> int:
        """Processes that make worlds; 1 is a thread of this one."""
        return self.makers or (max(1, (os.cpu_count() or 1) - 2) if self.on_cuda else 1)


def stretch_parser(description: str | None, record: type[Stretch]) -> argparse.ArgumentParser:
    """Make the command line that every trainer has on a bare machine; ``record`` says what is usual."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder for weights, checkpoint and log")
    parser.add_argument("--minutes", type=float, default=record.minutes)
    parser.add_argument("--textures", type=Path, default=None, help="textures.npz made by data/pack_training.py")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--threads", type=int, default=record.threads)
    parser.add_argument("--start", type=Path, default=None, help="weights to begin with")
    parser.add_argument("--learning-rate", type=float, default=None, help=f"at its peak; {record.usual_rate:g} is usual")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--max-steps", type=int, default=None)
    parser.add_argument("--makers", type=int, default=None, help="processes that make worlds")
    parser.add_argument("--cast", choices=("cpu", "cuda"), default="cpu", help="where the rays of worlds are cast")
    return parser


def go_last(device: str) -> None:
    """On a CPU let everything else go first: a stretch takes hours there, beside other work."""
    if device == "cpu" and hasattr(os, "nice") and os.nice(0) < NICE:
        os.nice(NICE - os.nice(0))


def made_in_background(begin: Callable[[int], Callable[[], T]], makers: int, *, apart: bool = False) -> Generator[T, None, None]:
    """Yield what a thread of this process makes, or several processes.

    Args:
        begin: called with the number of a maker, returns what is then called again and again; can be pickled.
        apart: never a thread of this process: for steps that draw on the CPU, where numba's plainest way of threading ends a
            program in which a thread casts rays while another draws.
    """
    return made_by_processes(begin, makers) if apart or makers > 1 else made_ahead(begin(0))


def made_ahead(make: Callable[[], T]) -> Generator[T, None, None]:
    """Yield what ``make`` returns, called again and again by a background thread; what it raises is raised here."""
    ready: queue.Queue[T | Exception] = queue.Queue(maxsize=3)
    stop = threading.Event()

    def produce() -> None:
        numba.set_num_threads(1)
        while not stop.is_set():
            try:
                made: T | Exception = make()
            except Exception as error:
                made = error
            while not stop.is_set():
                with contextlib.suppress(queue.Full):
                    ready.put(made, timeout=0.2)
                    break

    threading.Thread(target=produce, daemon=True).start()
    try:
        while True:
            made = ready.get()
            if isinstance(made, Exception):
                raise made
            yield made
    finally:
        stop.set()


def run_stretch(
    config: Stretch,
    name: str,
    network: torch.nn.Module,
    *,
    source: Callable[[int], Generator[Any, None, None]],
    step_of: Callable[[Any, torch.nn.Module, Any, int, float], dict[str, float]],
    validate: Callable[[torch.nn.Module], dict[str, float]],
    warm_up: int,
) -> Path:
    """Run one time-boxed stretch and return the path of the averaged fp16 weights.

    Args:
        name: of the network, and so of its files.
        source: (step to begin with) -> batches without end.
        step_of: (batch, moving average, optimiser, step, share of the time gone) -> numbers for the log, after one update.
        validate: (moving average) -> numbers for the log.
        warm_up: steps over which the learning rate rises, also after a restart.
    """
    average = copy.deepcopy(network)
    optimizer = torch.optim.AdamW(network.parameters(), lr=config.peak_rate, weight_decay=0.01, betas=(0.9, 0.98))
    path = config.out / f"{name}.safetensors"
    step, spent_s = resume(path.with_suffix(".checkpoint.pt"), network, average, optimizer)
    began, last_check, restart = time.perf_counter() - spent_s, time.perf_counter(), step
    with (config.out / "log.jsonl").open("a") as journal, contextlib.closing(source(step)) as made:
        for batch in made:
            elapsed = (time.perf_counter() - began) / (60 * config.minutes)
            minutes = round(elapsed * config.minutes, 2)
            finished = elapsed >= 1 or (config.max_steps is not None and step >= config.max_steps)
            if finished or time.perf_counter() - last_check > config.validate_s:
                write(journal, {"step": step, "minutes": minutes, "validation": validate(average)})
                save(path, network, average, optimizer, step, time.perf_counter() - began)
                draw_curves(config.out / "log.jsonl")
                last_check = time.perf_counter()
            if finished:
                return path
            warm = min(1.0, (step - restart + 1) / warm_up)
            for group in optimizer.param_groups:
                group["lr"] = config.peak_rate * warm * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * min(elapsed, 1.0))))
            parts = step_of(batch, average, optimizer, step, elapsed)
            step += 1
            if step % 50 == 0:
                write(journal, {"step": step, "minutes": minutes, **parts})
    raise AssertionError("the source of batches is endless")


def update(
    network: torch.nn.Module, average: torch.nn.Module, optimizer, loss: Tensor, step: int, *, memory: float = LONG_MEMORY
) -> float:
    """Step down the gradient, cut to length 1, and let the moving average follow; returns the gradient's length before the cut.

    Where the gradient is not finite nothing is learnt: weights stay, and batch statistics, which the same numbers went through,
    return to those of the average.

    Args:
        memory: share of the average that stays at each step, once it is filled.
    """
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    norm = torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
    sound = bool(torch.isfinite(norm))
    if sound:
        optimizer.step()
    decay = min(memory, (step + 1) / (step + 10))
    with torch.no_grad():
        torch._foreach_lerp_(list(average.parameters()), list(network.parameters()), 1 - decay)
        for kept, fresh in zip(average.buffers(), network.buffers(), strict=True):
            if sound:
                kept.copy_(torch.where(torch.isfinite(fresh), fresh, kept))
            fresh.copy_(kept)
    return float(norm)


def write(journal, record: dict) -> None:
    """Add a line to the log."""
    journal.write(json.dumps(record) + "\n")
    journal.flush()
    log.info("%s", record)


def save(path: Path, network: torch.nn.Module, average: torch.nn.Module, optimizer, step: int, spent_s: float) -> None:
    """Keep everything to go on from in ``NAME.checkpoint.pt``, and the averaged weights in half precision beside it.

    Args:
        path: NAME.safetensors, file of the weights; its metadata holds the network's sizes.
        average: has its sizes as a record ``config``.
    """
    state = {
        "network": network.state_dict(),
        "average": average.state_dict(),
        "optimizer": optimizer.state_dict(),
        "step": step,
        "spent_s": spent_s,
    }
    checkpoint = path.with_suffix(".checkpoint.pt")
    torch.save(state, checkpoint.with_suffix(".tmp"))
    checkpoint.with_suffix(".tmp").replace(checkpoint)
    export_weights(average, path)


def export_weights(network: torch.nn.Module, path: Path) -> Path:
    """Write weights in half precision, with the network's sizes from its record ``config``."""
    weights = {
        n: v.half().contiguous() if v.is_floating_point() else v.clone()
        for n, v in network.state_dict().items()
        if not n.endswith("num_batches_tracked")
    }
    config: Any = network.config
    save_file(weights, path, metadata={f.name: str(getattr(config, f.name)) for f in fields(config)})
    return path


def read_weights(path: Path) -> dict[str, Tensor]:
    """Exported weights in single precision.

    Raises:
        ValueError: the file holds none.
    """
    try:
        return {name: value.float() if value.is_floating_point() else value for name, value in load_file(path).items()}
    except (OSError, SafetensorError) as error:
        raise ValueError(f"{path} does not hold weights of this network: {error}") from error


def begin_with(path: Path, network: torch.nn.Module) -> None:
    """Load exported weights; the optimiser starts anew, with its short warm-up.

    Raises:
        ValueError: the file does not fit the network.
    """
    try:
        found = network.load_state_dict(read_weights(path), strict=False)
    except RuntimeError as error:
        raise ValueError(f"{path} does not hold weights of this network: {error}") from error
    missing = [name for name in found.missing_keys if not name.endswith("num_batches_tracked")]
    if missing or found.unexpected_keys:
        raise ValueError(f"{path} does not hold weights of this network: {(missing + found.unexpected_keys)[:3]} ...")


def resume(path: Path, network: torch.nn.Module, average: torch.nn.Module, optimizer) -> tuple[int, float]:
    """Continue an earlier stretch if its checkpoint exists; return its step and the seconds it has spent."""
    if not path.exists():
        return 0, 0.0
    state = torch.load(path, map_location="cpu", weights_only=True)
    network.load_state_dict(state["network"])
    average.load_state_dict(state["average"])
    optimizer.load_state_dict(state["optimizer"])
    return int(state["step"]), float(state["spent_s"])
