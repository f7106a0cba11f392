"""Train the built-in depth network for a given number of minutes on whatever machine there is.

Input: ``TrainConfig``. Output: a folder with ``mini.safetensors`` (averaged, fp16), a checkpoint and ``log.jsonl``.
Does not: read photos or pictures; worlds are made on the fly and textures come packed.
Usage: python -m models.training.trainer --minutes 50 --out DIR --textures PACK.npz
"""

from __future__ import annotations

import argparse
import contextlib
import copy
import json
import logging
import math
import queue
import threading
import time
from collections.abc import Generator
from dataclasses import dataclass, fields
from pathlib import Path

import numba
import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor

from ..mini import MiniConfig, MiniNetwork, MiniOutput, normalize_photo
from ..precision import autocast_dtype, to_channels_last
from .losses import depth_loss, depth_metrics, target_position
from .worlds import Capture, Worlds, load_textures

__all__ = ["TrainConfig", "main", "train"]

log = logging.getLogger(__name__)
SIZES = ((192, 256), (256, 192), (256, 320), (160, 208))
SIZE_SHARES = (0.4, 0.15, 0.25, 0.2)
"""Height and width of training photos, and how often each is used. Below 160 pixels the planes lie closer together than
features at 1/8 can tell apart."""
HELD_OUT_TEXTURES = 20


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """One stretch of training."""

    out: Path
    """Folder for weights, checkpoint and log; an existing checkpoint there is continued."""
    minutes: float = 50.0
    """Wall time of the whole schedule, from its first stretch on."""
    textures: Path | None = None
    """Texture pack; None trains on generated textures alone."""
    device: str = "cpu"
    """'cpu' or 'cuda'."""
    threads: int = 2
    """Torch threads on a CPU."""
    seed: int = 0
    """Seed of worlds and weights."""
    captures: int = 1
    """Worlds per step."""
    references: int = 2
    """Reference views per world and step."""
    learning_rate: float = 1.0e-3
    """Peak of the cosine schedule (by time)."""
    validate_s: float = 300.0
    """Seconds between validations and checkpoints."""
    validation_worlds: int = 12
    """Held-out worlds per validation."""
    max_steps: int | None = None
    """Stop after this many steps; None stops by time alone."""


@dataclass(frozen=True)
class Batch:
    """B captures of one size with the choice of reference views and neighbours."""

    captures: list[Capture]
    references: np.ndarray
    """``B R`` view indices."""
    neighbours: np.ndarray
    """``B R S`` view indices."""


def make_batch(worlds: Worlds, captures: int, references: int, *, views: int, size: tuple[int, int], neighbours: int) -> Batch:
    """Photograph new worlds and pick reference views and neighbours at random."""
    made = [worlds.capture(views, *size) for _ in range(captures)]
    refs = np.stack([worlds.rng.permutation(views)[: min(references, views)] for _ in made])
    others = np.stack([[worlds.rng.permutation([v for v in range(views) if v != r])[:neighbours] for r in row] for row in refs])
    return Batch(made, refs, others)


def batches(config: TrainConfig, textures: np.ndarray | None, seed: int) -> Generator[Batch, None, None]:
    """Yield random batches made by a background thread."""
    worlds = Worlds(textures, seed)
    ready: queue.Queue[Batch] = queue.Queue(maxsize=3)
    stop = threading.Event()

    def produce() -> None:
        numba.set_num_threads(1)
        while not stop.is_set():
            views = int(worlds.rng.integers(3, 6))
            size = SIZES[int(worlds.rng.choice(len(SIZES), p=SIZE_SHARES))]
            near = max(int(worlds.rng.integers(1, views)), min(2, views - 1))
            batch = make_batch(worlds, config.captures, config.references, views=views, size=size, neighbours=near)
            while not stop.is_set():
                with contextlib.suppress(queue.Full):
                    ready.put(batch, timeout=0.2)
                    break

    threading.Thread(target=produce, daemon=True).start()
    try:
        while True:
            yield ready.get()
    finally:
        stop.set()


def run_network(network: MiniNetwork, batch: Batch, device: str) -> tuple[MiniOutput, dict[int, Tensor], Tensor]:
    """Encode every photo once, then estimate every chosen reference view."""

    def stack(name: str) -> Tensor:
        return torch.from_numpy(np.stack([getattr(c, name) for c in batch.captures])).to(device).float()

    images, K, T_world_cam, ranges = stack("images"), stack("K"), stack("T_world_cam"), stack("depth_range")
    count, views = images.shape[:2]
    rows = torch.arange(count)[:, None] * views
    refs = (rows + torch.from_numpy(batch.references)).flatten().to(device)
    sources = (rows[..., None] + torch.from_numpy(batch.neighbours)).flatten(0, 1).to(device)
    K, T_world_cam = K.flatten(0, 1), T_world_cam.flatten(0, 1)
    dtype = autocast_dtype(device)
    with torch.autocast(device, dtype or torch.bfloat16, enabled=dtype is not None):
        features = network.encode(normalize_photo(images.flatten(0, 1)))
        output = network(
            {name: value[refs] for name, value in features.items()},
            features["match8"][sources],
            features["match4"][sources],
            (K[refs], T_world_cam[refs], K[sources], T_world_cam[sources]),
            ranges.flatten(0, 1)[refs],
        )
    depth = {
        cell: torch.from_numpy(np.stack([c.depth[cell] for c in batch.captures])).to(device).flatten(0, 1)[refs]
        for cell in (2, 4, 8)
    }
    return output, depth, ranges.flatten(0, 1)[refs]


@torch.no_grad()
def validate(network: MiniNetwork, held_out: list[Batch], device: str) -> dict[str, float]:
    """Average metrics over held-out worlds."""
    network.eval()
    totals: dict[str, list[float]] = {}
    for batch in held_out:
        output, depth, depth_range = run_network(network, batch, device)
        target = target_position(depth, depth_range, network.config.planes)
        predicted = network.depth(output.position, depth_range)
        for name, value in depth_metrics(output, depth[2], predicted, target).items():
            totals.setdefault(name, []).append(value)
    return {name: float(np.mean(values)) for name, values in totals.items()}


def held_out_batches(textures: np.ndarray | None, count: int) -> list[Batch]:
    """Pairs of worlds of fixed seeds and textures that training never sees; of two sizes."""
    worlds = Worlds(textures, seed=990_001)
    sizes = ((192, 256), (256, 320))
    return [make_batch(worlds, 2, 2, views=5, size=sizes[i % 2], neighbours=4) for i in range(count)]


def train(config: TrainConfig) -> Path:
    """Run one time-boxed stretch and return the path of the averaged fp16 weights."""
    torch.manual_seed(config.seed)
    torch.set_num_threads(config.threads)
    config.out.mkdir(parents=True, exist_ok=True)
    textures = load_textures(config.textures) if config.textures else None
    seen, unseen = (None, None) if textures is None else (textures[HELD_OUT_TEXTURES:], textures[:HELD_OUT_TEXTURES])
    network = to_channels_last(MiniNetwork()).to(config.device)
    average = copy.deepcopy(network)
    optimizer = torch.optim.AdamW(network.parameters(), lr=config.learning_rate, weight_decay=0.01, betas=(0.9, 0.98))
    step, spent_s = _resume(config.out / "checkpoint.pt", network, average, optimizer)
    held_out = held_out_batches(unseen, max(1, config.validation_worlds // 2))
    began, last_check, restart = time.perf_counter() - spent_s, time.perf_counter(), step
    source = batches(config, seen, config.seed + 1000 * (step + 1))
    with (config.out / "log.jsonl").open("a") as journal, contextlib.closing(source):
        for batch in source:
            elapsed = (time.perf_counter() - began) / (60 * config.minutes)
            finished = elapsed >= 1 or (config.max_steps is not None and step >= config.max_steps)
            if finished or time.perf_counter() - last_check > config.validate_s:
                record = {
                    "step": step,
                    "minutes": round(elapsed * config.minutes, 2),
                    "validation": validate(average, held_out, config.device),
                }
                _write(journal, record)
                _save(config.out, network, average, optimizer, step, time.perf_counter() - began)
                last_check = time.perf_counter()
            if finished:
                return config.out / "mini.safetensors"
            warm = min(1.0, (step - restart + 1) / 100)
            for group in optimizer.param_groups:
                group["lr"] = config.learning_rate * warm * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * min(elapsed, 1.0))))
            parts = _step(network, average, optimizer, batch, step, freeze_norms=elapsed > 0.75, device=config.device)
            step += 1
            if step % 50 == 0:
                _write(journal, {"step": step, "minutes": round(elapsed * config.minutes, 2), **parts})
    raise AssertionError("the source of batches is endless")


def _step(
    network: MiniNetwork, average: MiniNetwork, optimizer, batch: Batch, step: int, *, freeze_norms: bool, device: str
) -> dict[str, float]:
    """One update of the network and of its moving average."""
    network.train()
    if freeze_norms:  # the last quarter sees the statistics that inference will use
        for module in network.modules():
            if isinstance(module, torch.nn.BatchNorm2d | torch.nn.BatchNorm3d):
                module.eval()
    output, depth, depth_range = run_network(network, batch, device)
    loss, parts = depth_loss(output, target_position(depth, depth_range, network.config.planes), network.config)
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    norm = torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
    if bool(torch.isfinite(norm)):
        optimizer.step()
    decay = min(0.998, (step + 1) / (step + 10))
    with torch.no_grad():
        torch._foreach_lerp_(list(average.parameters()), list(network.parameters()), 1 - decay)
        for kept, fresh in zip(average.buffers(), network.buffers(), strict=True):
            kept.copy_(fresh)
    return {"loss": float(loss.detach()), "gradient_norm": float(norm), **parts}


def _write(journal, record: dict) -> None:
    journal.write(json.dumps(record) + "\n")
    journal.flush()
    log.info("%s", record)


def _save(out: Path, network: MiniNetwork, average: MiniNetwork, optimizer, step: int, spent_s: float) -> None:
    state = {
        "network": network.state_dict(),
        "average": average.state_dict(),
        "optimizer": optimizer.state_dict(),
        "step": step,
        "spent_s": spent_s,
    }
    torch.save(state, out / "checkpoint.tmp")
    (out / "checkpoint.tmp").replace(out / "checkpoint.pt")
    weights = {
        n: v.half().contiguous() if v.is_floating_point() else v.clone()
        for n, v in average.state_dict().items()
        if not n.endswith("num_batches_tracked")
    }
    config = {f.name: str(getattr(average.config, f.name)) for f in fields(MiniConfig)}
    save_file(weights, out / "mini.safetensors", metadata=config)


def _resume(path: Path, network: MiniNetwork, average: MiniNetwork, optimizer) -> tuple[int, float]:
    """Continue an earlier stretch if its checkpoint exists; return its step and the seconds it has spent."""
    if not path.exists():
        return 0, 0.0
    state = torch.load(path, map_location="cpu", weights_only=True)
    network.load_state_dict(state["network"])
    average.load_state_dict(state["average"])
    optimizer.load_state_dict(state["optimizer"])
    return int(state["step"]), float(state["spent_s"])


def main(argv: list[str] | None = None) -> int:
    """Parse the command line and train."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder for weights, checkpoint and log")
    parser.add_argument("--minutes", type=float, default=TrainConfig.minutes)
    parser.add_argument("--textures", type=Path, default=None, help="pack made by data/pack_textures.py")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--threads", type=int, default=TrainConfig.threads)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--max-steps", type=int, default=None)
    given = parser.parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    train(TrainConfig(**vars(given)))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
