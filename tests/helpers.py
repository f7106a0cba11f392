"""Small things several test files use: where data is, what the machine has, and scenes made of numbers."""

from __future__ import annotations

import os
import shutil
from functools import cache
from pathlib import Path

import numpy as np
from beartype import BeartypeConf, beartype

REPOSITORY = Path(__file__).resolve().parent.parent

check_types = beartype(conf=BeartypeConf(is_pep484_tower=True))
"""Checks annotations while tests run; an int is a float, as in PEP 484."""


def find_dataset(name: str) -> Path | None:
    """Find a real photo set under RECON_EVAL_DATA (the folder itself or its `data`), else ../shared/data; None when absent."""
    given = os.environ.get("RECON_EVAL_DATA")
    root = Path(given) if given else REPOSITORY.parent / "shared"
    for folder in (root / name, root / "data" / name):
        if folder.is_dir():
            return folder
    return None


@cache
def cuda_missing() -> str:
    """Say why CUDA tests cannot run; empty when they can."""
    import torch

    return "" if torch.cuda.is_available() else "no CUDA device"


@cache
def find_browser() -> str | None:
    """Find a Chromium to drive: RECON_BROWSER, else one on PATH."""
    given = os.environ.get("RECON_BROWSER")
    names = [given] if given else ["chromium", "chromium-browser", "google-chrome", "google-chrome-stable"]
    return next((found for name in names if (found := shutil.which(name))), None)


def browser_missing() -> str:
    """Say why browser tests cannot run; empty when they can."""
    return "" if find_browser() else "no Chromium: install `chromium` or set RECON_BROWSER"


def write_noise_photos(folder: Path, count: int, *, width: int = 64, height: int = 48, seed: int = 0) -> list[Path]:
    """Write ``count`` different JPEG files of smooth noise; they decode, but show nothing that could be matched."""
    from PIL import Image

    folder.mkdir(parents=True, exist_ok=True)
    generator = np.random.default_rng(seed)
    paths = []
    for index in range(count):
        coarse = generator.integers(0, 255, size=(6, 8, 3), dtype=np.uint8)
        paths.append(folder / f"photo_{index:03d}.jpg")
        Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC).save(paths[-1], quality=85)
    return paths
