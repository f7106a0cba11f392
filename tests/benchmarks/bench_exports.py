"""What every splat format costs: bytes, fidelity, seconds; and whether somebody else's program draws the same picture.

    python tests/benchmarks/bench_exports.py --count 1000000 --degrees 0 1 3
    python tests/benchmarks/bench_exports.py --scene out/fox out/fountain
    python tests/benchmarks/bench_exports.py --count 20000 --witness     # needs what tests/benchmarks/witness.py needs

Prints the rows of the table "Exports" in RESULTS.md. PSNR is the lowest of four views, as `recon export` reports it.
"""

from __future__ import annotations

import argparse
import json
import math
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
import witness

from app.scene_files import load_scene, placed_cameras
from recon.editing import scene_middle
from recon.formats.conventions import Y_DOWN
from recon.formats.registry import FORMATS, Format, cut_sh, read_splats, write_splats
from recon.formats.self_check import check_file
from recon.geometry import rgb_to_sh0
from recon.records import Cameras, Gaussians
from render.rasterizer import load_rasterizer

WRITTEN = [entry for entry in FORMATS.values() if entry.write is not None and entry.read is not None]
NOT_READ_BY_WITNESS = {"glb", "gltf"}


def synthetic(count: int, degree: int) -> Gaussians:
    """Random flat discs over a ball; SH beyond degree 0 is noise, the hardest case for any packing."""
    generator = torch.Generator().manual_seed(count + degree)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator)

    size = 2.0 * count ** (-1 / 3)
    colour = rgb_to_sh0(torch.rand(count, 1, 3, generator=generator) * 0.9 + 0.05)
    return Gaussians(
        means=normal(count, 3),
        quats=torch.nn.functional.normalize(normal(count, 4), dim=1),
        scales=torch.exp(normal(count, 3) * 0.4) * torch.tensor([size, size, size / 5]),
        opacities=torch.sigmoid(normal(count) * 1.5),
        sh=torch.cat([colour, normal(count, (degree + 1) ** 2 - 1, 3) * 0.08], dim=1),
    )


def row(entry: Format, name: str, gaussians: Gaussians, cameras: Cameras | None, *, check: bool) -> str:
    """Write, read and check one file; a row of the table."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"scene{entry.extensions[0] if entry.extensions else '.spz'}"
        started = time.perf_counter()
        losses = write_splats(path, gaussians, entry)
        write_s = time.perf_counter() - started
        started = time.perf_counter()
        read_splats(path, entry.name)
        read_s = time.perf_counter() - started
        size, decibels = path.stat().st_size, "-"
        if check:
            done = check_file(path, entry, gaussians, load_rasterizer("cpu"), cameras=cameras, losses=losses)
            other = "-" if done.second_psnr_db is None else f"{done.second_psnr_db:.1f}"
            decibels = f"{done.psnr_db:.1f} / {other}"
    return f"| {name} | {entry.name} | {size / len(gaussians):.1f} | {decibels} | {write_s:.2f} | {read_s:.2f} |"


def witnessed(entry: Format, gaussians: Gaussians) -> str:
    """Count and picture of a file as splat-transform sees it, against our own drawing of the scene."""
    centre, radius = scene_middle(gaussians)
    view = witness.Viewpoint(centre - torch.tensor([0.0, 0.0, 3.0 * radius]), centre, 45.0, 480, 360)
    ours = load_rasterizer("cpu")(cut_sh(gaussians, entry.max_sh), view.camera()).color[0].clamp(0, 1).numpy()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        path = folder / f"scene{entry.extensions[0] if entry.extensions else '.spz'}"
        write_splats(path, gaussians, entry, R_file_world=Y_DOWN)  # that program takes every file for y-down
        command = [*witness.find_transform(), str(path), "--info", "json", "null", "-q"]
        told = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        count = json.loads(told[told.index("{") :])["numGaussians"]
        theirs = witness.draw_elsewhere(path, view, folder)
    psnr = -10 * math.log10(max(float(np.mean((ours - theirs) ** 2)), 1e-12))
    return f"| {entry.name} | {count:,} of {len(gaussians):,} | {psnr:.1f} |"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scene", type=Path, nargs="*", default=[])
    parser.add_argument("--count", type=int, default=0, help="Gaussians of the synthetic scene")
    parser.add_argument("--degrees", type=int, nargs="*", default=[0, 1, 3])
    parser.add_argument("--formats", nargs="*", default=[entry.name for entry in WRITTEN])
    parser.add_argument("--witness", action="store_true")
    parser.add_argument("--no-check", action="store_true", help="sizes and times only")
    asked = parser.parse_args()
    scenes = [(f"{asked.count:,} random, SH{d}", synthetic(asked.count, d), None) for d in asked.degrees if asked.count]
    for folder in asked.scene:
        scene = load_scene(folder)
        scenes.append((f"{folder.name}, SH{scene.gaussians.sh_degree}", scene.gaussians, placed_cameras(scene)))
    for name, gaussians, cameras in scenes:
        print(f"\n{name}", flush=True)
        for entry in WRITTEN:
            if entry.name not in asked.formats or (asked.witness and entry.name in NOT_READ_BY_WITNESS):
                continue
            line = witnessed(entry, gaussians) if asked.witness else row(entry, name, gaussians, cameras, check=not asked.no_check)
            print(line, flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
