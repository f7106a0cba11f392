"""What bundle adjustment makes of a network's cameras: reference cameras, disturbed as a network errs, before and after.

    python tests/benchmarks/bench_adjusted_cameras.py --sets fox fountain_p11 --photos 12 --degrees 3 --shift 0.05 --focal 1.1

Every camera is turned about a random axis, moved by a share of the mean distance from the middle of all cameras, and given one
focal length that is off by a factor. No published weights are needed; how a real network errs differs, of course.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from dataclasses import replace
from pathlib import Path

import torch
from bench_cameras import data_root, reference_cameras

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from recon.cameras.auto import ADJUSTED, CameraCandidate, cameras_of
from recon.cameras.result import SfmResult
from recon.cameras.scoring import evenly_spread, score_cameras
from recon.photos import open_photos
from recon.progress import Progress
from recon.records import Cameras


def disturbed(cameras: Cameras, degrees: float, shift: float, focal: float, seed: int) -> Cameras:
    """Turn, move and zoom every camera."""
    generator = torch.Generator().manual_seed(seed)
    count = len(cameras)
    axis = torch.nn.functional.normalize(torch.randn(count, 3, generator=generator, dtype=torch.float64), dim=1)
    x, y, z = (torch.deg2rad(torch.tensor(degrees)) * axis).unbind(1)
    zero = torch.zeros_like(x)
    cross = torch.stack([torch.stack(row, -1) for row in ((zero, -z, y), (z, zero, -x), (-y, x, zero))], 1)
    T, K = cameras.T_world_cam.double().clone(), cameras.K.double().clone()
    centers = T[:, :3, 3].clone()
    size = float((centers - centers.mean(0)).norm(dim=1).mean())
    way = torch.nn.functional.normalize(torch.randn(count, 3, generator=generator, dtype=torch.float64), dim=1)
    T[:, :3, :3] = T[:, :3, :3] @ torch.linalg.matrix_exp(cross)
    T[:, :3, 3] = centers + shift * size * way
    K[:, [0, 1], [0, 1]] *= focal
    return replace(cameras, T_world_cam=T, K=K, distortion=torch.zeros(count, 4, dtype=torch.float64))


def measure(name: str, choice: argparse.Namespace) -> dict:
    """Scores of one set before and after."""
    folder = data_root() / name
    views = open_photos(folder / "images", long_side=640).views
    reference = reference_cameras(folder, views)
    if reference is None:
        raise SystemExit(f"{name} has no reference cameras.")
    rows = torch.nonzero(reference.registered_mask)[:, 0].tolist()
    if choice.photos:
        rows = evenly_spread(rows, choice.photos)
    views, reference = views.select(rows), reference.select(rows)
    cameras = disturbed(reference, choice.degrees, choice.shift, choice.focal, choice.seed)
    guess = SfmResult(
        cameras=cameras,
        points_world=torch.zeros(0, 3, dtype=torch.float64),
        points_rgb=torch.zeros(0, 3, dtype=torch.uint8),
        visibility=torch.zeros(len(rows), 0, dtype=torch.bool),
        reprojection_error_px=0.0,
        per_view_points=torch.zeros(len(rows), dtype=torch.long),
    )
    started = time.perf_counter()
    result = cameras_of(CameraCandidate(name="disturbed", find=lambda *_: guess), views, progress=Progress(), seed=choice.seed)
    seconds = time.perf_counter() - started
    chosen = any(one.get("chosen") and one["tried"].endswith(ADJUSTED) for one in result.attempts)
    before, after = score_cameras(cameras, reference).plain(), score_cameras(result.cameras, reference).plain()
    return {"set": name, "photos": len(rows), "adjusted": chosen, "seconds": seconds, "before": before, "after": after}


def main() -> None:
    """Print a line per set."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sets", nargs="+", default=["fox", "fountain_p11", "castle_p30", "llff_fern"])
    parser.add_argument("--photos", type=int, default=12, help="evenly spread photos; 0 takes all")
    parser.add_argument("--degrees", type=float, default=3.0)
    parser.add_argument("--shift", type=float, default=0.05)
    parser.add_argument("--focal", type=float, default=1.1)
    parser.add_argument("--seed", type=int, default=0)
    choice = parser.parse_args()
    for name in choice.sets:
        print(json.dumps(measure(name, choice)), flush=True)


if __name__ == "__main__":
    main()
