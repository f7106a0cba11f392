"""Train the camera network for a given number of minutes on whatever machine there is.

Input: ``CameraTraining``. Output: a folder with ``cameras.safetensors`` (averaged, fp16), a checkpoint and ``log.jsonl``.
Does not: read photos; worlds are made on the fly and textures come packed.
Usage: python -m models.training.camera_trainer --minutes 20 --out DIR --textures PACK.npz --device cuda
"""

from __future__ import annotations

import logging
from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch

from ..camera_network import CameraNetwork
from ..precision import to_channels_last
from .camera_batches import CAMERA_WORLDS, CameraBatch, batch_of, camera_batches, shoot
from .camera_losses import camera_loss, camera_metrics
from .stretch import Stretch, begin_with, go_last, read_weights, run_stretch, stretch_parser, update
from .textures import load_textures
from .worlds import Worlds

__all__ = ["CameraTraining", "held_out_batches", "main", "source_of", "train_cameras", "train_step", "validate"]

log = logging.getLogger(__name__)
HELD_OUT_TEXTURES = 20
SEEN_TOGETHER = 6
"""Photos of a held-out world."""
TRUNK = ("encode.stem.", "encode.down")
"""Names of weights that the matcher's encoder has too."""


@dataclass(frozen=True, kw_only=True)
class CameraTraining(Stretch):
    """One stretch of training of the camera network."""

    photos: int | None = None
    """In a step, about; None takes 12 on a CPU, 96 with CUDA."""
    side: int | None = None
    """Longest side of photos, pixels, a multiple of 32; None takes 128 on a CPU, 256 with CUDA."""
    views: int = 8
    """Photos of a world; a step sees two or more of them."""
    uses: int | None = None
    """How often a world is used, in different parts; None takes 8 on a CPU, 32 with CUDA, where making them takes longest."""
    kept: int = 512
    """Worlds that are kept to choose from."""
    usual_rate: ClassVar[float] = 4.0e-4
    """Less than other networks take: attention over many photos bears less."""

    def sized(self) -> dict[str, int]:
        """What a batch is made of, on this device."""
        cuda = self.on_cuda
        return {
            "photos": self.photos or (96 if cuda else 12),
            "side": self.side or (256 if cuda else 128),
            "makers": self.maker_count,
            "views": self.views,
            "uses": self.uses or (32 if cuda else 8),
            "kept": self.kept,
        }


def source_of(config: CameraTraining, textures: np.ndarray | None, seed: int) -> Generator[CameraBatch, None, None]:
    """Batches as the config wants them."""
    return camera_batches(textures, seed, cast=config.cast, **config.sized())


def held_out_batches(config: CameraTraining, textures: np.ndarray | None, count: int) -> list[CameraBatch]:
    """Captures of worlds that training never sees, one each, nothing known."""
    worlds, side = Worlds(textures, 990_003, CAMERA_WORLDS), config.sized()["side"]
    return [batch_of([shoot(worlds, SEEN_TOGETHER, side)], SEEN_TOGETHER, worlds.rng, plain=True) for _ in range(count)]


def begin_with_any(path: Path, network: CameraNetwork) -> None:
    """Load weights of an earlier stretch, or of the matcher, whose encoder is built alike and is all that is taken.

    Raises:
        ValueError: the file holds neither.
    """
    weights = read_weights(path)
    if "matchable.weight" not in weights:
        return begin_with(path, network)
    found = {name: value for name, value in weights.items() if name.startswith(TRUNK)}
    lacking = [name for name in network.state_dict() if name.startswith(TRUNK) and name not in found]
    if any(not name.endswith("num_batches_tracked") for name in lacking):
        raise ValueError(f"{path} holds weights of a matcher with another encoder: {lacking[:3]} ...")
    network.load_state_dict(found, strict=False)
    log.info("began with the encoder of the matcher in %s", path)


@torch.no_grad()
def validate(network: Any, held_out: list[CameraBatch], device: str) -> dict[str, float]:
    """Average metrics over held-out worlds."""
    network.eval()
    found = []
    for batch in held_out:
        images, truth, _ = batch.on(device)
        found.append(camera_metrics(network(images), truth))
    return {name: round(float(np.mean([one[name] for one in found])), 4) for name in found[0]}


def train_step(
    network: CameraNetwork, average: torch.nn.Module, optimizer, batch: CameraBatch, step: int, *, device: str
) -> dict[str, float]:
    """One update of the network and of its moving average."""
    network.train()
    images, truth, known = batch.on(device)
    with torch.autocast(device, torch.bfloat16, enabled=device.startswith("cuda")):  # at these sizes a CPU gains nothing by it
        answer = network(images, known)
    loss, parts = camera_loss(answer, truth)
    norm = update(network, average, optimizer, loss, step)
    record = {name: round(float(value.detach()), 4) for name, value in {**parts, "loss": loss}.items()}
    return record | {"gradient_norm": round(norm, 3)}


def train_cameras(config: CameraTraining) -> Path:
    """Run one time-boxed stretch and return the path of the averaged fp16 weights.

    Raises:
        ValueError: a size cannot be, or the weights to begin with are not of this network.
    """
    sized = config.sized()
    if config.views < 2 or sized["photos"] < 2 or sized["side"] % 32:
        raise ValueError(f"cameras: wanted two photos of a world or more and a side in whole 32 pixels, got {sized}")
    torch.manual_seed(config.seed)
    torch.set_num_threads(config.threads)
    config.out.mkdir(parents=True, exist_ok=True)
    textures = load_textures(config.textures) if config.textures else None
    seen, unseen = (None, None) if textures is None else (textures[HELD_OUT_TEXTURES:], textures[:HELD_OUT_TEXTURES])
    network = to_channels_last(CameraNetwork()).to(config.device)
    if config.start is not None:
        begin_with_any(config.start, network)
    held_out = held_out_batches(config, unseen, config.validation_worlds)

    def step_of(batch: CameraBatch, average: torch.nn.Module, optimizer: Any, step: int, _: float) -> dict[str, float]:
        return train_step(network, average, optimizer, batch, step, device=config.device)

    return run_stretch(
        config,
        "cameras",
        network,
        source=lambda step: source_of(config, seen, config.seed + 1000 * (step + 1)),
        step_of=step_of,
        validate=lambda average: validate(average, held_out, config.device),
        warm_up=300,
    )


def main(argv: list[str] | None = None) -> int:
    """Parse the command line and train."""
    parser = stretch_parser(__doc__, CameraTraining)
    for name in ("photos", "side", "views", "uses"):
        parser.add_argument(f"--{name}", type=int, default=getattr(CameraTraining, name))
    given = parser.parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    go_last(given.device)
    train_cameras(CameraTraining(**vars(given)))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
