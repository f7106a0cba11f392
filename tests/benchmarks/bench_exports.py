"""What every splat format costs: bytes, fidelity, seconds, memory; and what somebody else's program makes of the files.

    python tests/benchmarks/bench_exports.py --count 1000000 --degrees 0 1 3
    python tests/benchmarks/bench_exports.py --scene out/fox out/fountain     of SH degree 3: also cut to 1 and 0
    python tests/benchmarks/bench_exports.py --count 500000 --degrees 0 --whole      `recon export` in a process of its own
    python tests/benchmarks/bench_exports.py --scene out/fox --denser 9 --whole --formats mesh
    python tests/benchmarks/bench_exports.py --count 20000 --witness                 needs what witness.py needs
    python tests/benchmarks/bench_exports.py --scene out/fox --witness

Prints the rows of the tables "Exports" in RESULTS.md. PSNR is the lowest of four views, as `recon export` reports it, through our
reader / through gaussforge; seconds to write and read are the processor's (OMP_NUM_THREADS=1 for one thread). `--witness` exits
with 1 when @playcanvas/splat-transform finds another number of Gaussians, other statistics of a column, or draws a picture that is
less than 40 dB from ours; `--whole` when an export takes over 30 s or 2 GB.
"""

from __future__ import annotations

import argparse
import json
import math
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
import witness
from measured import run_measured

from app.scene_files import load_scene, placed_cameras
from recon.editing import scene_middle
from recon.formats.conventions import Y_DOWN
from recon.formats.registry import FORMATS, Format, cut_sh, read_splats, write_splats
from recon.formats.self_check import check_file
from recon.geometry import quats_to_rotations, rgb_to_sh0
from recon.ply import write_ply
from recon.records import Cameras, Gaussians
from render.rasterizer import load_rasterizer

WRITTEN = [e for e in FORMATS.values() if e.write is not None and e.read is not None and e.name != "ply-normals"]
NOT_READ_BY_WITNESS = {"glb", "gltf"}
FLOOR_DB, MOST_SECONDS, MOST_GB = 40.0, 30.0, 2.0
MOST_SHIFT, MOST_SHIFT_SH = 0.1, 0.5
"""Largest shift of a column's mean, median or deviation over its deviation (SPZ stores sizes in steps of 6%, which alone moves
a median by 0.07); of view-dependent colour, which formats squeeze."""


@dataclass(frozen=True)
class Asked:
    """A scene to export."""

    name: str
    gaussians: Gaussians
    cameras: Cameras | None = None
    folder: Path | None = None
    """Where it came from; None for a synthetic one."""


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


def costs(entry: Format, asked: Asked, *, check: bool) -> str:
    """Write, read and check one file; a row of the table."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"scene{entry.ending}"
        started = time.process_time()
        losses = write_splats(path, asked.gaussians, entry)
        write_s = time.process_time() - started
        started = time.process_time()
        read_splats(path, entry.name)
        read_s = time.process_time() - started
        size, decibels = path.stat().st_size, "-"
        if check:
            done = check_file(path, entry, asked.gaussians, load_rasterizer("cpu"), cameras=asked.cameras, losses=losses)
            other = "-" if done.second_psnr_db is None else f"{done.second_psnr_db:.1f}"
            decibels = f"{done.psnr_db:.1f} / {other}"
    return f"| {asked.name} | {entry.name} | {size / len(asked.gaussians):.1f} | {decibels} | {write_s:.2f} | {read_s:.2f} |"


def denser(folder: Path, times: int, target: Path) -> Path:
    """A result folder in which every Gaussian but those of the far shell is replaced by ``times`` smaller ones inside it."""
    scene, report = load_scene(folder), json.loads((folder / "report.json").read_text())
    shell = report["counts"]["shell_gaussians"]
    body, far = (
        scene.gaussians.select(part) for part in torch.arange(len(scene.gaussians)).split([len(scene.gaussians) - shell, shell])
    )
    generator, R = torch.Generator().manual_seed(0), quats_to_rotations(body.quats)
    parts = []
    for _ in range(times):
        offset = torch.randn(len(body), 3, generator=generator) * body.scales * 0.7
        parts.append(replace(body, means=body.means + (R @ offset[..., None])[..., 0], scales=body.scales * 0.6))
    made = Gaussians.concatenate([*parts, far])
    target.mkdir()
    write_ply(target / "scene.ply", made)
    report["counts"]["gaussians"] = len(made)
    report["photos"]["folder"] = str((folder / report["photos"]["folder"]).resolve())
    (target / "report.json").write_text(json.dumps(report))
    shutil.copy(folder / "cameras.json", target / "cameras.json")
    return target


def told_by_witness(path: Path) -> dict:
    """What splat-transform says of a file: its number of Gaussians and statistics of every column."""
    command = [*witness.find_transform(), "-q", str(path), "--stats", "json", "null"]
    told = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return json.loads(told[told.index("{") :])


def largest_shifts(reference: dict, found: dict) -> tuple[float, float]:
    """Largest shift of mean, median or deviation of any column, in deviations: of all but SH beyond degree 0, and of that.

    Rotations are left out: q and -q are one rotation, and formats choose the sign as they like. The picture shows them.
    """
    wanted, got = reference["stats"][0], found["stats"][0]
    plain, harmonics = 0.0, 0.0
    for index, column in enumerate(wanted["columns"]):
        if column.startswith("rot_") or column not in got["columns"]:
            continue
        other = got["columns"].index(column)
        if got["data"]["nanCount"][other] or got["data"]["infCount"][other]:
            return math.inf, math.inf
        scale = max(wanted["data"]["stdDev"][index], 1e-9)
        differences = [abs(wanted["data"][key][index] - got["data"][key][other]) for key in ("mean", "median", "stdDev")]
        if column.startswith("f_rest_"):
            harmonics = max(harmonics, *(d / scale for d in differences))
        else:
            plain = max(plain, *(d / scale for d in differences))
    return plain, harmonics


def level_view(asked: Asked) -> witness.Viewpoint:
    """The first camera of a scene brought level, or one before a synthetic scene."""
    if asked.folder is not None:
        return witness.scene_view(asked.folder)[1]
    centre, radius = scene_middle(asked.gaussians)
    return witness.Viewpoint(centre - torch.tensor([0.0, 0.0, 3.0 * radius]), centre, 45.0, 480, 360)


def witnessed(entry: Format, asked: Asked, reference: dict) -> tuple[str, bool]:
    """Count, statistics and picture of a file as splat-transform sees it; a row, and whether it agrees."""
    view = level_view(asked)
    ours = load_rasterizer("cpu")(cut_sh(asked.gaussians, entry.max_sh), view.camera()).color[0].clamp(0, 1).numpy()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        path = folder / f"scene{entry.ending}"
        write_splats(path, asked.gaussians, entry, R_file_world=Y_DOWN)  # that program takes every file for y-down
        found = told_by_witness(path)
        theirs = witness.draw_elsewhere(path, view, folder)
    psnr = -10 * math.log10(max(float(np.mean((ours - theirs) ** 2)), 1e-12))
    turned = -10 * math.log10(max(float(np.mean((ours[::-1] - theirs) ** 2)), 1e-12))
    plain, harmonics = largest_shifts(reference, found)
    count = found["numGaussians"]
    row = f"| {asked.name} | {entry.name} | {count:,} of {len(asked.gaussians):,} | {plain:.4f} | {harmonics:.3f} | {psnr:.1f} |"
    agrees = count == len(asked.gaussians) and plain <= MOST_SHIFT and harmonics <= MOST_SHIFT_SH
    return row, agrees and psnr >= FLOOR_DB and psnr > turned


def whole_export(asked: Asked, source: Path, folder: Path, name: str) -> tuple[str, bool]:
    """`recon export` in a process of its own, check and all; a row, and whether it keeps within the limits."""
    kind = ["--format", name] if name in FORMATS else []
    path = folder / (f"scene{FORMATS[name].ending}" if name in FORMATS else {"html": "scene.html", "mesh": "mesh.glb"}[name])
    done = run_measured([sys.executable, "-m", "app.cli", "export", str(source), str(path), "--json", *kind])
    row = f"| {asked.name} | {name} | {done.wall_s:.1f} | {done.processor_s:.1f} | {done.peak_gb:.2f} |"
    return row, done.wall_s <= MOST_SECONDS and done.peak_gb < MOST_GB


def run_whole(asked: Asked, formats: list[str], times: int) -> bool:
    """All exports of one scene, made ``times`` denser; True when all keep within the limits."""
    fine = True
    with tempfile.TemporaryDirectory() as temporary:
        source = asked.folder or Path(temporary) / "given.ply"
        if asked.folder is not None and times > 1:
            source = denser(asked.folder, times, Path(temporary) / "denser")
        if asked.folder is None:
            write_ply(source, asked.gaussians)
        for name in formats:
            line, within = whole_export(asked, source, Path(temporary), name)
            print(line, flush=True)
            fine &= within
    return fine


def run_witness(asked: Asked, entries: list[Format]) -> bool:
    """All files of one scene before the other program; True when it agrees with all."""
    fine = True
    with tempfile.TemporaryDirectory() as temporary:
        write_ply(Path(temporary) / "reference.ply", asked.gaussians)
        reference = told_by_witness(Path(temporary) / "reference.ply")
    for entry in entries:
        if entry.name not in NOT_READ_BY_WITNESS:
            line, agrees = witnessed(entry, asked, reference)
            print(line, flush=True)
            fine &= agrees
    return fine


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scene", type=Path, nargs="*", default=[])
    parser.add_argument("--count", type=int, default=0, help="Gaussians of the synthetic scene")
    degrees = "SH degrees of the synthetic scene, and those that scenes are cut to"
    parser.add_argument("--degrees", type=int, nargs="*", default=[0, 1, 3], help=degrees)
    parser.add_argument("--formats", nargs="*", help="those of the table, and for --whole also html and mesh")
    parser.add_argument("--witness", action="store_true")
    parser.add_argument("--whole", action="store_true")
    parser.add_argument("--denser", type=int, default=1, help="--whole: replace every Gaussian of a scene by so many smaller ones")
    parser.add_argument("--no-check", action="store_true", help="sizes and times only")
    options = parser.parse_args()
    scenes = [Asked(f"{options.count:,} random, SH{d}", synthetic(options.count, d)) for d in options.degrees if options.count]
    for folder in options.scene:
        scene = load_scene(folder)
        own = scene.gaussians.sh_degree
        for degree in [own] if options.whole else [d for d in options.degrees if d <= own]:
            name = f"{folder.name}, {len(scene.gaussians):,}, SH{degree}"
            scenes.append(Asked(name, cut_sh(scene.gaussians, degree), placed_cameras(scene), folder))
    entries = [entry for entry in WRITTEN if options.formats is None or entry.name in options.formats]
    fine = True
    for asked in scenes:
        print(f"\n{asked.name}", flush=True)
        if options.whole:
            more = ["points-ply", "html"] + (["mesh"] if asked.folder else [])
            fine &= run_whole(asked, options.formats or [entry.name for entry in entries] + more, options.denser)
        elif options.witness:
            fine &= run_witness(asked, entries)
        else:
            for entry in entries:
                print(costs(entry, asked, check=not options.no_check), flush=True)
    return int(not fine)


if __name__ == "__main__":
    sys.exit(main())
