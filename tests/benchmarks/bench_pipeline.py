"""Held-out quality of the whole path on real photo sets, beside its own baselines in the same run.

For each set: cameras once (structure from motion), then the same fusing and colour matching with depth from the trained
network, from the same network with random weights, and from the plane sweep without a network.

    python tests/benchmarks/bench_pipeline.py --out /tmp/bench_pipeline
    python tests/benchmarks/bench_pipeline.py --timing fox --photos 12

Photo sets are found through RECON_EVAL_DATA, else ../shared. Pictures are written to --out only.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # as the command line does: waiting threads must not take a core
SETS = ("fox", "fountain_p11", "llff_fern", "monstree", "redkitchen")
SOURCES = ("mini", "random", "plane-sweep")


def data_root() -> Path:
    """Folder of the photo sets."""
    base = Path(os.environ.get("RECON_EVAL_DATA", ROOT.parent / "shared"))
    root = base / "data" if (base / "data").is_dir() else base
    if not root.is_dir():
        raise SystemExit(f"no photo sets at {root}; set RECON_EVAL_DATA")
    return root


def score_set(name: str, options: argparse.Namespace) -> list[dict]:
    """Score one set with each depth source on the same cameras."""
    from dataclasses import replace

    from PIL import Image

    from app.run import build_tools
    from recon.config import Holdout, PipelineConfig
    from recon.fuse import FuseConfig
    from recon.pipeline import Ledger, make_gaussians, predict_depth, prepare_capture
    from recon.progress import Progress
    from recon.quality.preview import preview_sheet
    from recon.quality.score import score_views, summarize

    config = PipelineConfig(holdout=Holdout(every=options.holdout), fuse=FuseConfig(max_gaussians=options.max_gaussians))
    tools, progress, ledger = build_tools(), Progress(), Ledger()
    rasterizer = tools.load_rasterizer("cpu")
    capture, _ = prepare_capture(data_root() / name / "images", config, tools, "cpu", ledger, progress)
    rows = []
    for source in options.depth:
        model = "mini" if source == "random" else source
        seeded = tools
        if source == "random":

            def load_random(name, **options):
                return tools.load_predictor(name, **options, random_seed=0)

            seeded = replace(tools, load_predictor=load_random)
        run_ledger = Ledger()
        chosen = replace(config, model=model, weights=options.weights if source == "mini" else None)
        prediction = predict_depth(capture.inputs, chosen, seeded, "cpu", run_ledger, progress)
        fused = make_gaussians(capture.inputs, prediction, config, tools, rasterizer, "cpu", run_ledger, progress)
        scores = score_views(fused, capture.held_out, capture.lost_held_out, rasterizer)
        quality = summarize(scores)
        quality.pop("per_view")
        rows.append(
            {
                "set": name,
                "depth": source,
                **quality,
                "gaussians": len(fused.gaussians),
                "photos": len(capture.inputs),
                "seconds": {**ledger.seconds, **run_ledger.seconds},
            }
        )
        shown = list(range(0, len(capture.held_out), max(1, len(capture.held_out) // 3)))[:3]
        sheet = preview_sheet(fused.gaussians, capture.held_out, shown, rasterizer)
        Image.fromarray(sheet).save(options.out / f"{name}-{source}.png")
        print(format_row(rows[-1]), flush=True)
    return rows


def format_row(row: dict) -> str:
    """One line of the table."""
    seconds = row["seconds"]
    return (
        f"| {row['set']} | {row['depth']} | {row['photos']} | {row['n_scored']} | {row['psnr_mean']:.2f} | {row['ssim_mean']:.3f} "
        f"| {row['coverage']:.3f} | {row['surface_coverage']:.3f} | {row['gaussians']:,} "
        f"| {seconds['cameras']:.1f} + {seconds['depth']:.1f} + {seconds['gaussians']:.1f} |"
    )


def time_run(name: str, photos: int) -> dict:
    """Time the command line from photos to scene.ply in a fresh process, evenly spread photos of one set."""
    files = sorted((data_root() / name / "images").glob("*.jpg"))
    picked = [files[round(i * (len(files) - 1) / (photos - 1))] for i in range(photos)]
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "app.cli", "run", *map(str, picked), "-o", f"{folder}/out", "--quiet", "--no-resume"]
        started = time.perf_counter()
        subprocess.run(command, check=True, cwd=ROOT)
        seconds = time.perf_counter() - started
        report = json.loads(Path(folder, "out", "report.json").read_text())
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    return {"set": name, "photos": photos, "seconds": seconds, "stages": report["seconds"], "peak_gb": peak / 1e9}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sets", nargs="+", default=list(SETS))
    parser.add_argument("--depth", nargs="+", default=list(SOURCES), choices=SOURCES)
    parser.add_argument("--holdout", type=int, default=4)
    parser.add_argument("--max-gaussians", type=int)
    parser.add_argument("--weights", type=Path, help="weights of mini from a file instead of the shipped ones")
    parser.add_argument("--out", type=Path, default=Path(tempfile.gettempdir()) / "bench_pipeline")
    parser.add_argument("--timing", help="time the command line on this set instead")
    parser.add_argument("--photos", type=int, default=12)
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    if options.timing:
        print(json.dumps(time_run(options.timing, options.photos), indent=1))
        return
    print("| set | depth | photos | scored | PSNR | SSIM | coverage | surface | Gaussians | seconds cameras + depth + Gaussians |")
    print("|---|---|---|---|---|---|---|---|---|---|", flush=True)
    rows = []
    for name in options.sets:
        rows += score_set(name, options)
        (options.out / "results.json").write_text(json.dumps(rows, indent=1))
    for source in options.depth:
        mine = [row for row in rows if row["depth"] == source]
        mean = {key: sum(row[key] for row in mine) / len(mine) for key in ("psnr_mean", "ssim_mean", "coverage")}
        print(f"mean {source}: PSNR {mean['psnr_mean']:.2f}, SSIM {mean['ssim_mean']:.3f}, coverage {mean['coverage']:.3f}")


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))
    main()
