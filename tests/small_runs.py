"""Runs over a few small photos of the sample: the photos, their true cameras, options that make a run short."""

from __future__ import annotations

import json
from pathlib import Path

from PIL import Image

import helpers

WIDTH, HEIGHT = 256, 192
QUICK = ("--no-video", "--long-side", "128", "--max-gaussians", "1500", "--device", "cpu")
NEIGHBOURS = ("sample_04.jpg", "sample_05.jpg", "sample_06.jpg")


def shrink(source: Path, target: Path, *, width: int = WIDTH, quality: int = 92) -> Path:
    with Image.open(source) as image:
        small = image.resize((width, width * image.height // image.width), Image.Resampling.LANCZOS)
        small.save(target, quality=quality, exif=image.getexif())
    return target


def true_cameras(target: Path, names: tuple[str, ...] = NEIGHBOURS) -> Path:
    """Write the true cameras of some photos of the sample."""
    record = json.loads((helpers.REPOSITORY / "data" / "sample_cameras.json").read_text())
    record["frames"] = [frame for frame in record["frames"] if frame["name"] in names]
    assert len(record["frames"]) == len(names)
    target.write_text(json.dumps(record))
    return target
