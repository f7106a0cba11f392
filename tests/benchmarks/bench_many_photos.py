"""Time from many photos to cameras, as it grows with their number: 15, 30, 60 and 120 photos of one made world.

No real set at hand has more than 32 photos, so these are photographs of a procedural world (640x480, one lens), whose true cameras
are known: time is what counts here, and scores only say that the cameras are right. Textures are photographs where they are found
(RECON_EVAL_DATA, else ../shared).

    python tests/benchmarks/bench_many_photos.py --counts 15 30 60 120
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT)]
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # as the command line does: waiting threads must not take a core
HEIGHT, WIDTH = 480, 640


def textures() -> np.ndarray | None:
    """Photographs for surfaces; None where there are none."""
    from data.pack_textures import pack_textures
    from models.training.textures import load_textures

    folder = Path(os.environ.get("RECON_EVAL_DATA", ROOT.parent / "shared")) / "textures"
    if not folder.is_dir():
        return None
    with tempfile.TemporaryDirectory() as name:
        pack_textures(folder, Path(name) / "textures.npz")
        return load_textures(Path(name) / "textures.npz")


def photograph_world(count: int, seed: int, folder: Path, style: str):
    """Write photos of one world, taken in one style, and return their true cameras."""
    import torch
    from PIL import Image

    from models.training.worlds import WorldConfig, Worlds
    from recon.records import Cameras

    worlds = Worlds(textures(), seed, WorldConfig(camera_noise_px=0.0, simple=0.0))
    while (capture := worlds.capture(count, HEIGHT, WIDTH)).style != style:
        pass
    for i, image in enumerate(capture.images):
        Image.fromarray((image * 255).round().astype(np.uint8)).save(folder / f"{i:03d}.png")
    T_world_cam, K = torch.from_numpy(capture.T_world_cam).double(), torch.from_numpy(capture.K).double()
    return Cameras(T_world_cam=T_world_cam, K=K, width=(WIDTH,) * count, height=(HEIGHT,) * count)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--counts", nargs="+", type=int, default=[15, 30, 60, 120])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--style", default="orbit", help="how the camera is carried: orbit, forward, walk, wide")
    options = parser.parse_args()
    from recon.cameras.auto import find_cameras
    from recon.cameras.scoring import score_cameras
    from recon.photos import open_photos
    from recon.progress import Progress

    print("| photos | placed | AUC@5 | seconds | a photo | tried |\n" + "|---" * 6 + "|")
    for count in options.counts:
        with tempfile.TemporaryDirectory() as name:
            truth = photograph_world(count, options.seed, Path(name), options.style)
            views = open_photos(Path(name), long_side=640).views
            started = time.perf_counter()
            found = find_cameras(views, progress=Progress(), seed=0)
            seconds = time.perf_counter() - started
            score = score_cameras(found.cameras, truth).plain()
            tried = ", ".join(one["tried"] for one in found.attempts)
            placed = int(found.cameras.registered_mask.sum())
            row = f"| {count} | {placed} | {100 * score['auc5']:.1f} | {seconds:.0f} | {seconds / count:.2f} | {tried} |"
            print(row, flush=True)


if __name__ == "__main__":
    main()
