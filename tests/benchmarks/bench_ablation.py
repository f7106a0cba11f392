"""What each ingredient of the procedural worlds is worth to the depth network: short stretches without it, from the same weights.

Every stretch has the same minutes, one thread and the same seed, and begins with the same weights (``--start``: the first model of
ours, whose worlds were plainer). Rows of ``all`` show how much luck is in a
row. Held-out worlds keep every ingredient; real photos are judged at the points of structure from motion. Takes about
(number of rows / --beside) x --minutes; run nothing else beside it.

    python tests/benchmarks/bench_ablation.py --start first.safetensors --textures textures.npz --work /tmp/ablation
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parent))
from bench_model import DEVICE, capture_of, errors_at_points

from app.run import build_tools
from models.training.ingredients import INGREDIENTS
from recon.config import PipelineConfig
from recon.pipeline import predict_depth
from recon.progress import Progress
from recon.run_records import Ledger

ROWS: dict[str, tuple[str, ...]] = {
    "all": (),
    "all, other seed": (),
    "all, third seed": (),
    "kinds of worlds": ("court", "terrain", "table"),
    "drones, turns, rolls, crops": ("drone", "turn", "roll", "distance", "off_centre"),
    "shapes, holes, reliefs": ("cones", "tori", "superquadrics", "wires", "cuts", "reliefs"),
    "movers, shadows, blur, distortion": ("movers", "shadows", "motion_blur", "defocus", "distortion_px"),
    "camera noise": ("camera_noise_px",),
    "all of photography": ("photographic",),
    "plain worlds": ("simple",),
    "everything": INGREDIENTS,
    "nothing, and normals in the loss": (),
}
"""What is left out in each row."""
SEEDS = {"all, other seed": 1, "all, third seed": 2}
"""Of rows that differ by nothing else."""
NORMALS = 0.3
"""Weight of the loss on normals in the row that has it."""
SETS = ("eyeful_kitchen", "redkitchen", "llff_fern")


def train(options: argparse.Namespace, row: str) -> dict:
    """Run one stretch, unless it is there, and return its last validation."""
    folder = options.work / row.replace(" ", "-").replace(",", "")
    log = folder / "log.jsonl"
    if not (folder / "done").exists():
        command = [
            sys.executable, "-m", "models.training.trainer", "--out", str(folder), "--minutes", str(options.minutes),
            "--threads", "1", "--start", str(options.start), "--textures", str(options.textures), "--learning-rate", "0.0005",
            "--seed", str(SEEDS.get(row, 0)), "--without", ",".join(ROWS[row]),
            "--normals", str(NORMALS if "normals" in row else 0),
        ]  # fmt: skip
        subprocess.run(command, check=True, capture_output=True)
        (folder / "done").touch()
    last = [json.loads(line) for line in log.read_text().splitlines() if "validation" in line][-1]
    return {"steps": last["step"], "weights": str(folder / "mini.safetensors"), **last["validation"]}


def on_photos(options: argparse.Namespace, weights: str) -> list[float]:
    """Share of points of structure from motion that depth is within 1% of, for each set."""
    tools, shares = build_tools(), []
    for name in options.sets:
        capture = capture_of(name, tools, options)
        config = PipelineConfig(model="mini", weights=Path(weights))
        prediction = predict_depth(capture.inputs, config, tools, DEVICE, Ledger(), Progress())
        shares.append(float((errors_at_points(capture, prediction)[0] < 1).float().mean()))
    return shares


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, default=Path("/tmp/bench_ablation"))
    parser.add_argument("--start", type=Path, required=True)
    parser.add_argument("--textures", type=Path, required=True)
    parser.add_argument("--minutes", type=float, default=7.0)
    parser.add_argument("--beside", type=int, default=2, help="stretches at a time, a thread each")
    parser.add_argument("--rows", nargs="+", default=list(ROWS))
    parser.add_argument("--sets", nargs="+", default=list(SETS))
    parser.add_argument("--photos", type=int, default=16)
    options = parser.parse_args()
    options.work.mkdir(parents=True, exist_ok=True)
    with ThreadPoolExecutor(options.beside) as pool:
        results = list(pool.map(partial(train, options), options.rows))
    print("| left out | steps | within a plane | within 1% | confident | calibration error | photos within 1%, mean | "
          + " | ".join(options.sets) + " |")  # fmt: skip
    print("|---" * (7 + len(options.sets)) + "|", flush=True)
    for row, result in zip(options.rows, results, strict=True):
        shares = on_photos(options, result["weights"])
        worlds = [f"{100 * result[name]:.1f}%" for name in ("within_plane", "within_1%", "confident")]
        photos = [f"{100 * share:.1f}%" for share in (np.mean(shares), *shares)]
        cells = (row, str(result["steps"]), *worlds, f"{result['calibration_error']:.3f}", *photos)
        print(f"| {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
