"""Meshes of real photo sets: how far the photos' own sparse points lie from the surface, and what others say of the files.

    python tests/benchmarks/bench_mesh.py --work /tmp/bench_mesh
    python tests/benchmarks/bench_mesh.py --work /tmp/bench_mesh --sets fox --pictures

Every set is reconstructed by `recon run` (once; what lies in --work is used again) and exported by `recon export SCENE mesh.glb`
in a process of its own. The distance is from each point of structure from motion, which the mesh is not made of, to the nearest
place on the surface; the size of a scene is the diagonal of the box between the 5% and 95% quantiles of these points.
Sets with measured cameras (poses.json, metres) also give the distance in centimetres: our cameras are fitted to them.
Photo sets are found through RECON_EVAL_DATA, else ../shared. Pictures go to --work only.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path

import numpy as np
import torch
from gltf_validation import CannotValidate, validate
from measured import run_measured

ROOT = Path(__file__).resolve().parents[2]
SETS = ("fountain_p11", "castle_p30", "monstree", "fox")
FLOOR, GOAL = 0.01, 0.004
LEAST_METRIC = 0.9
"""Share of the cameras that must be placed for centimetres to be told."""


def data_root() -> Path:
    """Folder of the photo sets."""
    base = Path(os.environ.get("RECON_EVAL_DATA", ROOT.parent / "shared"))
    root = base / "data" if (base / "data").is_dir() else base
    if not root.is_dir():
        raise SystemExit(f"no photo sets at {root}; set RECON_EVAL_DATA")
    return root


def reconstruct(name: str, options: argparse.Namespace) -> Path:
    """The result folder of a set."""
    out = options.work / name
    if not (out / "scene.ply").is_file():
        limits = ["--long-side", str(options.long_side), "--max-gaussians", str(options.max_gaussians), "--no-video", "--quiet"]
        run_measured(
            [sys.executable, "-m", "app.cli", "run", str(data_root() / name / "images"), "-o", str(out), "--no-resume", *limits]
        )
    return out


def metres_per_unit(name: str, out: Path) -> float | None:
    """Scale between our cameras and measured ones; None where there are none."""
    from app.scene_files import read_cameras
    from recon.alignment import sim3_align

    file = data_root() / name / "poses.json"
    poses = json.loads(file.read_text()) if file.is_file() else {}
    if poses.get("kind") != "ground_truth":
        return None
    ours = read_cameras(out / "cameras.json")
    place = {Path(camera).name: index for index, camera in enumerate(ours.names or ()) if ours.registered_mask[index]}
    shared = [frame for frame in poses["frames"] if frame["file"] in place]
    if len(shared) < LEAST_METRIC * len(poses["frames"]):
        return None
    measured = torch.tensor([[row[3] for row in frame["c2w"][:3]] for frame in shared], dtype=torch.float64)
    return sim3_align(ours.centers_world[[place[frame["file"]] for frame in shared]], measured).scale


def sparse_points(name: str, out: Path) -> np.ndarray:
    """Points of structure from motion in the world of the result, M 3."""
    from recon.cameras.camera_files import load_cameras
    from recon.photos import open_photos

    views = open_photos(data_root() / name / "images", long_side=640).views
    return load_cameras(out / "colmap", views).points_world.double().numpy()


def load_mesh(file: Path):
    """A mesh as trimesh reads it, turned into our world frame."""
    from recon.formats.conventions import Y_UP
    from recon.meshing.mesh_files import read_mesh

    return read_mesh(file, R_file_world=Y_UP.double().numpy())


def measure(name: str, options: argparse.Namespace) -> dict:
    """Export one mesh and measure it."""
    from recon.meshing.tsdf import Rays

    out = reconstruct(name, options)
    file = out / "mesh.glb"
    command = [sys.executable, "-m", "app.cli", "export", str(out), str(file), "--json"]
    photos = ["--photos", str(data_root() / name / "images")]
    exported = run_measured([*command, *photos, *options.export])
    mesh, points = load_mesh(file), sparse_points(name, out)
    lower, upper = np.quantile(points, [0.05, 0.95], axis=0)
    size = float(np.linalg.norm(upper - lower))
    distance = Rays(mesh).distances(points)
    try:
        issues = validate(file)["issues"]
    except CannotValidate as error:
        print(f"not validated: {error}", file=sys.stderr)
        issues = None
    metres = metres_per_unit(name, out)
    told = json.loads(exported.told)
    return {
        "set": name,
        "points": len(points),
        "median": float(np.median(distance)) / size,
        "quantile_90": float(np.quantile(distance, 0.9)) / size,
        "median_cm": None if metres is None else float(np.median(distance)) * metres * 100,
        "mesh_over_scene": float(np.linalg.norm(np.ptp(mesh.vertices, axis=0))) / size,
        "faces": len(mesh.faces),
        "covered": told["covered"],
        "voxel": told["voxel"] / size,
        "validator_errors": None if issues is None else issues["numErrors"],
        "validator_warnings": None if issues is None else issues["numWarnings"],
        "seconds": exported.wall_s,
        "processor_seconds": exported.processor_s,
        "peak_gb": exported.peak_gb,
    }


def format_row(row: dict) -> str:
    """One line of the table."""
    metric = "–" if row["median_cm"] is None else f"{row['median_cm']:.1f}"
    said = "not run" if row["validator_errors"] is None else f"{row['validator_errors']} / {row['validator_warnings']}"
    return (
        f"| {row['set']} | {row['points']:,} | {100 * row['median']:.2f} | {100 * row['quantile_90']:.2f} | {metric} "
        f"| {row['faces']:,} | {100 * row['voxel']:.2f} | {100 * row['covered']:.0f} | {said} "
        f"| {row['seconds']:.0f} ({row['processor_seconds']:.0f}) | {row['peak_gb']:.2f} |"
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sets", nargs="+", default=list(SETS))
    parser.add_argument("--work", type=Path, required=True, help="folder for results, pictures and meshes")
    parser.add_argument("--long-side", type=int, default=640)
    parser.add_argument("--max-gaussians", type=int, default=60_000)
    parser.add_argument("--pictures", action="store_true", help="draw every mesh from three of its cameras into --work")
    parser.add_argument("--export", nargs=argparse.REMAINDER, default=[], help="all that follows goes to `recon export`")
    options = parser.parse_args()
    print("| set | points | median % | 90% % | cm | triangles | voxel % | covered % | errors / warnings | s | GB |")
    print("|---|---|---|---|---|---|---|---|---|---|---|", flush=True)
    rows = []
    for name in options.sets:
        rows.append(measure(name, options))
        print(format_row(rows[-1]), flush=True)
        if options.pictures:
            from mesh_pictures import draw_sheet

            draw_sheet(options.work / name, options.work / f"{name}.png")
    (options.work / "mesh.json").write_text(json.dumps(rows, indent=1))
    return int(any(row["median"] > FLOOR or row["validator_errors"] for row in rows))


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))
    sys.exit(main())
