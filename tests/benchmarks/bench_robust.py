"""What the depth network loses on made worlds when a photo is exposed otherwise, or when little is known of the depth range.

    python tests/benchmarks/bench_robust.py --worlds 8

Each row changes one thing in the same worlds: the first photo of each a stop brighter or darker (in linear light, clipped) or its
white balance off (red and blue by a quarter); the range that is searched 1:10,000, with the photo's own range at its near end, in
the middle or at its far end. Worlds are those of training with textures of their own seed, so photos differ in exposure already.
Shares are of all pixels but the sky.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import numpy as np
import torch

from models.mini_predictor import MiniPredictor
from models.registry import load_predictor
from models.training.head_trainer import capture_to_posed
from models.training.worlds import Capture, Worlds
from recon.progress import Progress

VIEWS, HEIGHT, WIDTH = 3, 192, 256
SEED = 870_001
WIDE = 10_000.0


def exposed(image: np.ndarray, gain: tuple[float, float, float]) -> np.ndarray:
    """A photo in sRGB with the light of each channel times a gain; what gets too bright is clipped."""
    linear = np.where(image <= 0.04045, image / 12.92, ((image + 0.055) / 1.055) ** 2.4)
    linear = np.clip(linear * np.array(gain), 0, 1)
    return np.where(linear <= 0.0031308, linear * 12.92, 1.055 * linear ** (1 / 2.4) - 0.055).astype(np.float32)


def first_photo(gain: tuple[float, float, float]) -> Callable[[Capture], Capture]:
    """Change the first photo's exposure."""

    def change(capture: Capture) -> Capture:
        return replace(capture, images=np.concatenate([exposed(capture.images[:1], gain), capture.images[1:]]))

    return change


def wide_range(place: float) -> Callable[[Capture], Capture]:
    """Search 1:10,000; the range that was right lies at its near end (0) or its far end (1)."""

    def change(capture: Capture) -> Capture:
        near, far = capture.depth_range.T
        low = near * (far / near / WIDE) ** place
        return replace(capture, depth_range=np.stack([low, low * WIDE], axis=1).astype(np.float32))

    return change


ROWS: dict[str, Callable[[Capture], Capture]] = {
    "as they are": lambda capture: capture,
    "a stop brighter": first_photo((2.0, 2.0, 2.0)),
    "a stop darker": first_photo((0.5, 0.5, 0.5)),
    "white balance off": first_photo((1.25, 1.0, 0.75)),
    "1:10,000, surfaces near": wide_range(0.0),
    "1:10,000, in the middle": wide_range(0.5),
    "1:10,000, surfaces far": wide_range(1.0),
}


def errors(predictor: MiniPredictor, capture: Capture) -> tuple[torch.Tensor, torch.Tensor]:
    """Relative error and confidence at every solid pixel."""
    others = tuple(tuple(j for j in range(VIEWS) if j != i) for i in range(VIEWS))
    ranges = torch.from_numpy(capture.depth_range).float()
    found = predictor(capture_to_posed(capture, range(VIEWS)), others, ranges, Progress())
    truth = torch.from_numpy(capture.depth[2])
    solid = truth < 1e20
    return (torch.stack(list(found.depth)) / truth - 1).abs()[solid], torch.stack(list(found.confidence))[solid]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--worlds", type=int, default=8)
    options = parser.parse_args()
    predictor, worlds = load_predictor("mini"), Worlds(None, SEED)
    assert isinstance(predictor, MiniPredictor)
    captures = [worlds.capture(VIEWS, HEIGHT, WIDTH) for _ in range(options.worlds)]
    print("| photos | median error | within 1% | within 5% | confident (> 0.5) | of these within 5% |\n" + "|---" * 6 + "|")
    for name, change in ROWS.items():
        found = [errors(predictor, change(capture)) for capture in captures]
        error, confidence = torch.cat([one for one, _ in found]), torch.cat([one for _, one in found])
        sure = confidence > 0.5
        shares = [(error < 0.01), (error < 0.05), sure, (error < 0.05)[sure]]
        print(
            f"| {name} | {100 * float(error.median()):.2f}% | "
            + " | ".join(f"{100 * float(s.float().mean()):.1f}%" for s in shares)
            + " |",
            flush=True,
        )


if __name__ == "__main__":
    main()
