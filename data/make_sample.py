"""Render the sample capture: 16 photos of a still life that exists only in these files, and the true cameras.

    python -m data.make_sample [--out FOLDER] [--rays N] [--width PX] [--only N ...]

Input: nothing. Output: ``sample/*.jpg`` with EXIF and ``sample_cameras.json`` (the truth, for tests).
Does not: need any file made elsewhere. To draw, it needs ``bpy`` (see data/README.md); its cameras can be read without.
"""

from __future__ import annotations

import argparse
import json
import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import ExifTags, Image
from PIL.TiffImagePlugin import IFDRational

from .sample_scene import TARGET, paint_textures
from .sample_still_life import FACING_DEG

WIDTH, HEIGHT = 640, 480
FOCAL_35MM = 28
"""35 mm equivalent, by the diagonal (CIPA DCG-001): 43.27 mm of film stand for the diagonal of the picture."""
FILM_DIAGONAL_MM = math.hypot(36.0, 24.0)
FOCAL_PX = FOCAL_35MM / FILM_DIAGONAL_MM * math.hypot(WIDTH, HEIGHT)
SENSOR_DIAGONAL_MM = 7.5
PHOTOS = 16
ARC_DEG = 32.0
"""From the leftmost to the rightmost place, seen from the table."""
DISTANCE_M, LOOP_HEIGHT_M, LOOP_RISE_M = 1.1, 1.24, 0.08
"""From the middle of the table; the camera's height, and how far it goes above and below."""
RAYS, QUALITY = 48, 92
MAKE, MODEL = "recon", "recon sample camera"


@dataclass(frozen=True)
class Shot:
    """One photo: where it is taken from and how it is exposed."""

    name: str
    T_world_cam: np.ndarray
    """4 4, OpenCV, metres, world z up."""
    gain: float
    """Exposure relative to the first photo."""
    seed: int


def look_at(center_world: np.ndarray, target_world: np.ndarray, roll_deg: float) -> np.ndarray:
    """Aim a camera: ``T_world_cam`` (4 4) with its y axis as far down as the view allows, then rolled."""
    forward = target_world - center_world
    forward = forward / np.linalg.norm(forward)
    right = np.cross(forward, [0.0, 0.0, 1.0])
    right = right / np.linalg.norm(right)
    down = np.cross(forward, right)
    c, s = math.cos(math.radians(roll_deg)), math.sin(math.radians(roll_deg))
    T = np.eye(4)
    T[:3, 0], T[:3, 1], T[:3, 2], T[:3, 3] = c * right + s * down, c * down - s * right, forward, center_world
    return T


def plan_shots() -> list[Shot]:
    """Walk in a flat loop before the table: half a step to the right between photos, back with the camera held higher."""
    rng = np.random.default_rng(3)
    shots = []
    for index in range(PHOTOS):
        around = 2.0 * math.pi * index / PHOTOS
        a = math.radians(FACING_DEG + ARC_DEG / 2 * math.asin(math.sin(around)) / (math.pi / 2))
        height = LOOP_HEIGHT_M - LOOP_RISE_M * math.tanh(2.5 * math.cos(around))
        center = np.array([DISTANCE_M * math.sin(a), -DISTANCE_M * math.cos(a), height]) + rng.normal(0, 0.012, 3)
        T = look_at(center, TARGET + rng.normal(0, 0.015, 3), rng.normal(0, 0.8))
        shots.append(Shot(f"sample_{index + 1:02d}.jpg", T, float(np.exp(rng.normal(0, 0.012))), 100 + index))
    return shots


def intrinsics(width: int = WIDTH, height: int = HEIGHT) -> np.ndarray:
    """``K`` 3 3 in pixels; the corner of the image is (0, 0)."""
    focal = FOCAL_PX * width / WIDTH
    return np.array([[focal, 0.0, width / 2], [0.0, focal, height / 2], [0.0, 0.0, 1.0]])


def expose(radiance: np.ndarray, shot: Shot, *, noise: bool = True) -> np.ndarray:
    """Turn light into a uint8 sRGB picture as a small camera would: vignette, gain, noise, soft shoulder, sRGB curve."""
    height, width, _ = radiance.shape
    x, y = np.meshgrid((np.arange(width) + 0.5) / width - 0.5, ((np.arange(height) + 0.5) / height - 0.5) * height / width)
    cos2 = 1.0 / (1.0 + (x**2 + y**2) * (WIDTH / FOCAL_PX) ** 2)
    light = radiance * (0.7 + 0.3 * cos2**2)[..., None] * shot.gain * 0.65
    if noise:
        rng = np.random.default_rng(shot.seed)
        light = light + rng.standard_normal(light.shape) * np.sqrt(1.0e-4 * np.maximum(light, 0.0) + 1.5e-6)
    light = np.maximum(light, 0.0)
    knee = 0.3
    light = np.where(light > knee, knee + (1 - knee) * (1 - np.exp(-(light - knee) / (1 - knee))), light)
    encoded = np.where(light > 0.0031308, 1.055 * np.maximum(light, 1e-9) ** (1 / 2.4) - 0.055, 12.92 * light)
    return np.rint(255 * np.clip(encoded, 0.0, 1.0)).astype(np.uint8)


def exif(shot: Shot) -> Image.Exif:
    """Describe the camera that never was: maker, model, focal length, exposure."""
    tags = ExifTags.Base
    made = Image.Exif()
    made[tags.Make], made[tags.Model], made[tags.Software], made[tags.Orientation] = MAKE, MODEL, "data/make_sample.py", 1
    details = made.get_ifd(ExifTags.IFD.Exif)
    details[tags.FocalLength] = IFDRational(round(1000 * FOCAL_35MM * SENSOR_DIAGONAL_MM / FILM_DIAGONAL_MM), 1000)
    details[tags.FocalLengthIn35mmFilm] = FOCAL_35MM
    details[tags.ExposureTime] = IFDRational(round(1e6 * shot.gain / 60), 1000000)
    details[tags.FNumber] = IFDRational(28, 10)
    details[tags.ISOSpeedRatings] = 200
    return made


def cameras_record(shots: list[Shot]) -> dict:
    """Write the truth in the product's cameras.json schema."""
    frames = [
        {
            "name": shot.name,
            "width": WIDTH,
            "height": HEIGHT,
            "K": intrinsics().tolist(),
            "distortion": [0.0, 0.0, 0.0, 0.0],
            "T_world_cam": shot.T_world_cam.tolist(),
            "registered": True,
            "holdout": False,
        }
        for shot in shots
    ]
    return {"format": 1, "frames": frames}


def main() -> None:
    """Render everything."""
    from . import sample_cycles  # needs bpy, which nothing else does

    parser = argparse.ArgumentParser(description="Render the sample capture.")
    here = Path(__file__).resolve().parent
    parser.add_argument("--out", type=Path, default=here, help="folder that gets sample/ and sample_cameras.json")
    parser.add_argument("--rays", type=int, default=RAYS, help="most rays per pixel")
    parser.add_argument("--threads", type=int, default=0, help="0: one for each core")
    parser.add_argument(
        "--width", type=int, default=WIDTH, help="width of the photos in pixels; the truth is always written for 640"
    )
    parser.add_argument("--only", type=int, nargs="*", help="numbers of the photos to render, from 1")
    arguments = parser.parse_args()
    (arguments.out / "sample").mkdir(parents=True, exist_ok=True)
    width, height = arguments.width, round(arguments.width * HEIGHT / WIDTH)
    sample_cycles.build(paint_textures(), rays=arguments.rays, threads=arguments.threads)
    shots = plan_shots()
    for index, shot in enumerate(shots, start=1):
        if arguments.only and index not in arguments.only:
            continue
        radiance = sample_cycles.render(shot.T_world_cam, FOCAL_PX * width / WIDTH, (width, height), shot.seed)
        path = arguments.out / "sample" / shot.name
        Image.fromarray(expose(radiance, shot)).save(path, quality=QUALITY, subsampling=1, optimize=True, exif=exif(shot))
        print(f"{path}  {path.stat().st_size / 1024:.0f} KiB")
    (arguments.out / "sample_cameras.json").write_text(json.dumps(cameras_record(shots), indent=1) + "\n")


if __name__ == "__main__":
    main()
