"""What the built-in model makes of real photos, beside what it replaces, on the same cameras.

Cameras are found once per set and kept in --work, so that only the networks are judged: at most 16 evenly spread photos,
`--holdout 4`, no polish. A variant is a depth source and what follows it:

    first       the first shipped depth weights, colours matched (the skeleton's model); needs --first FILE
    matched     the shipped depth network, colours matched
    shipped     the shipped depth network and refinement: what `recon run` does
    sh0         the same with colours of SH degree 0
    sweep       the classical plane sweep, colours matched; sweep-refined: the same, refined
    random      the depth network with random weights, refined
    1-view, 2-views   every photo matched with one or two neighbours instead of four
    coarse      without the finer stage of the cost volume
    32-planes   with half of the depth planes
    rule        refinement by its rule, before training
    noise       cameras turned by 0.2 degrees and moved by 0.2% of the distance at random

    git show f94df19:weights/mini.safetensors > first.safetensors
    python tests/benchmarks/bench_model.py --work /tmp/model --first first.safetensors
    python tests/benchmarks/bench_model.py --work /tmp/model --first first.safetensors --counts 20000 50000 200000
    python tests/benchmarks/bench_model.py --work /tmp/model --first first.safetensors --variants first shipped --polish 10
    python tests/benchmarks/bench_model.py --work /tmp/model --points
    python tests/benchmarks/bench_model.py --time 4 8 16 32 64

Photo sets are found through RECON_EVAL_DATA, else ../shared. Cameras, depth and results are kept in --work and printed as tables.
What is kept is named by what it was made from: the photos, the weights (that of --first too) and, as stages of a run that resume
are, the code and the libraries. After an edit everything is made again; compare weights and code in one go, or on the same commit.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import pickle
import resource
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "benchmarks")]
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # as the command line does: waiting threads must not take a core

import numpy as np  # noqa: E402
import torch  # noqa: E402
from bench_pipeline import data_root  # noqa: E402

from app.identity import digest_of, identify  # noqa: E402
from app.run import build_tools  # noqa: E402
from models.mini import MiniNetwork, MiniOutput  # noqa: E402
from models.mini_predictor import MiniPredictor  # noqa: E402
from recon.config import Holdout, PipelineConfig  # noqa: E402
from recon.depth_range import choose_depth_range  # noqa: E402
from recon.fuse import FuseConfig  # noqa: E402
from recon.neighbours import choose_neighbours  # noqa: E402
from recon.pipeline import find_cameras, look_at_photos, make_gaussians, place_photos, polish_gaussians, predict_depth  # noqa: E402
from recon.posed import PosedViews  # noqa: E402
from recon.progress import Progress  # noqa: E402
from recon.quality.score import score_views, summarize  # noqa: E402
from recon.records import Prediction  # noqa: E402
from recon.resume.digests import key_of  # noqa: E402
from recon.resume.keys import stage_keys  # noqa: E402
from recon.run_records import Capture, Ledger, Tools  # noqa: E402

SETS = (
    "fox", "castle_p30", "lund_door", "canyon_drone", "eyeful_kitchen",
    "fountain_p11", "mother_child", "redkitchen", "monstree", "llff_fern",
)  # fmt: skip
"""The ten sets that polishing is judged on."""
VARIANTS = ("first", "matched", "shipped", "sweep")
DEVICE = "cpu"


def spread(paths: list[Path], most: int) -> list[Path]:
    """Evenly spread photos, first and last included."""
    return paths if len(paths) <= most else [paths[round(i * (len(paths) - 1) / (most - 1))] for i in range(most)]


def photos_of(name: str, options: argparse.Namespace) -> list[Path]:
    """The photos of a set that are used."""
    folder = data_root() / name / "images"
    photos = sorted(p for p in folder.rglob("*") if p.suffix.lower() in (".jpg", ".jpeg", ".png"))
    return spread(photos, options.photos)


def depth_config(source: str, options: argparse.Namespace) -> PipelineConfig:
    """Which network and weights a source of depth is."""
    config = PipelineConfig(model="plane-sweep" if source == "sweep" else "mini")
    return replace(config, weights=options.first) if source == "first" else config


def source_of(variant: str) -> str:
    """The source of depth of a variant."""
    return {"matched": "shipped", "sh0": "shipped", "rule": "shipped", "sweep-refined": "sweep"}.get(variant, variant)


def depth_key(source: str, posed: PosedViews, options: argparse.Namespace) -> str:
    """What depth depends on: code, libraries and weights, cameras and photos."""
    cameras = [posed.cameras.T_world_cam.tolist(), posed.cameras.K.tolist()]
    photos = [hashlib.sha256(posed.image(i).numpy().tobytes()).hexdigest() for i in range(len(posed))]
    return key_of(version(depth_config(source, options)), source, cameras, photos)


def result_key(variant: str, name: str, count: int | None, options: argparse.Namespace) -> str:
    """What a row of the tables depends on; readable in front."""
    made = key_of(version(depth_config(source_of(variant), options)), [digest_of(photo) for photo in photos_of(name, options)])
    return f"{name} {variant} {count} {options.rounds} {options.polish:g} {made}"


def version(config: PipelineConfig) -> str:
    """Code, libraries and weights as a run that resumes asks for them, and this file."""
    return key_of(identify(config, DEVICE), digest_of(Path(__file__)))


def capture_of(name: str, tools: Tools, options: argparse.Namespace) -> Capture:
    """Photos of a set with cameras, which are found once."""
    config = PipelineConfig(holdout=Holdout(every=4), resume=False)
    ledger = Ledger()
    found = look_at_photos(photos_of(name, options), config, ledger, Progress())
    made = stage_keys(found.views, config, version(config), DEVICE).cameras
    kept = options.work / f"{name}.{made}.cameras"
    if not kept.exists():
        torch.manual_seed(0)
        kept.write_bytes(pickle.dumps(find_cameras(found.views, config, tools, DEVICE, ledger, Progress())))
    return place_photos(found, pickle.loads(kept.read_bytes()), config, ledger)


def depth_of(variant: str, name: str, posed: PosedViews, tools: Tools, options: argparse.Namespace) -> Prediction:
    """Depth of a variant; kept beside the cameras."""
    source = source_of(variant)
    kept = options.work / f"{name}.{source}.{depth_key(source, posed, options)}.depth"
    cameras = posed.cameras.resized([(w + 1) // 2 for w in posed.cameras.width], [(h + 1) // 2 for h in posed.cameras.height])
    if kept.exists():
        depth, confidence = torch.load(kept)
        return Prediction(cameras=cameras, depth=depth, confidence=confidence)
    if source in ("1-view", "2-views", "coarse", "32-planes", "random"):
        prediction = odd_depth(source, posed, tools)
    else:
        prediction = predict_depth(posed, depth_config(source, options), tools, DEVICE, Ledger(), Progress())
    torch.save((prediction.depth, prediction.confidence), kept)
    return prediction


def odd_depth(source: str, posed: PosedViews, tools: Tools) -> Prediction:
    """Depth of the network with something taken away."""
    predictor: Any = tools.load_predictor("mini", device=DEVICE, weights=None, random_seed=0 if source == "random" else None)
    if source == "32-planes":
        network = MiniNetwork(replace(predictor.network.config, planes=32))
        network.load_state_dict(predictor.network.state_dict())
        predictor = MiniPredictor(network, DEVICE)
    if source == "coarse":
        predictor.network.register_forward_hook(only_coarse)
    neighbours = choose_neighbours(posed, count={"1-view": 1, "2-views": 2}.get(source, 4))
    return predictor(posed, neighbours, choose_depth_range(posed), Progress())


def only_coarse(network: MiniNetwork, given: Any, answer: MiniOutput) -> MiniOutput:
    """Answer with what the coarse stage found."""
    return replace(answer, position=torch.nn.functional.interpolate(answer.guess[:, None], scale_factor=2, mode="bilinear")[:, 0])


def shaken(posed: PosedViews, seed: int = 0) -> PosedViews:
    """Cameras turned by about 0.2 degrees and moved by about 0.2% of the median distance between cameras."""
    rng = np.random.default_rng(seed)
    T = posed.cameras.T_world_cam.clone()
    centres = posed.cameras.centers_world
    step = 0.002 * float(torch.cdist(centres, centres).median())
    for i in range(len(posed)):
        x, y, z = np.deg2rad(0.2) * rng.normal(size=3)
        turn = torch.tensor([[1, -z, y], [z, 1, -x], [-y, x, 1]], dtype=T.dtype)
        u, _, v = torch.linalg.svd(turn)
        T[i, :3, :3] = T[i, :3, :3] @ (u @ v)
        T[i, :3, 3] += step * torch.from_numpy(rng.normal(size=3)).to(T.dtype)
    return replace(posed, cameras=replace(posed.cameras, T_world_cam=T))


def run_variant(
    variant: str, name: str, capture: Capture, tools: Tools, options: argparse.Namespace, count: int | None = None
) -> dict[str, float]:
    """Score one variant on one set."""
    posed = shaken(capture.inputs) if variant == "noise" else capture.inputs
    prediction = depth_of(variant, name, posed, tools, options)
    matched = variant in ("first", "matched", "sweep")
    config = PipelineConfig(
        fuse=FuseConfig(max_gaussians=count), refine=0 if matched else options.rounds, refine_sh=0 if variant == "sh0" else 1
    )
    if variant == "rule":
        tools = replace(tools, load_updater=partial(tools.load_updater, random_seed=0))
    rasterizer, began, held_out = tools.load_rasterizer(DEVICE), time.perf_counter(), capture.held_out
    if options.polish:
        ledger = Ledger(choices={"cameras": {"source": "sfm"}})
        config = replace(config, polish=options.polish, holdout=Holdout(every=4))
        fused, after, _ = polish_gaussians(capture, prediction, config, tools, rasterizer, DEVICE, ledger, Progress())
        held_out = after.held_out
    else:
        fused = make_gaussians(posed, prediction, config, tools, rasterizer, DEVICE, Ledger(), Progress())
    seconds = time.perf_counter() - began
    quality = summarize(score_views(fused, held_out, capture.lost_held_out, rasterizer))
    return {"psnr": quality["psnr_mean"], "ssim": quality["ssim_mean"], "count": len(fused.gaussians), "seconds": seconds}


def compare(options: argparse.Namespace) -> None:
    """Print PSNR / SSIM of every variant on every set, for each number of Gaussians."""
    tools, kept = build_tools(), options.work / "results.json"
    results = json.loads(kept.read_text()) if kept.exists() else {}
    for count in options.counts or [None]:
        columns: dict[str, list] = {variant: [] for variant in options.variants}
        print(f"\n| set{f', {count:,} Gaussians' if count else ''} | " + " | ".join(options.variants) + " |")
        print("|---" * (len(options.variants) + 1) + "|", flush=True)
        for name in options.sets:
            capture = None
            for variant in options.variants:
                key = result_key(variant, name, count, options)
                if key not in results:
                    capture = capture or capture_of(name, tools, options)
                    results[key] = run_variant(variant, name, capture, tools, options, count)
                    kept.write_text(json.dumps(results, indent=1))
                columns[variant].append(results[key])
            last = [columns[variant][-1] for variant in options.variants]
            print(f"| {name} | " + " | ".join(f"{r['psnr']:.2f} / {r['ssim']:.3f}" for r in last) + " |", flush=True)
        means = [[np.mean([r[what] for r in columns[v]]) for what in ("psnr", "ssim")] for v in options.variants]
        print("| mean | " + " | ".join(f"{psnr:.2f} / {ssim:.3f}" for psnr, ssim in means) + " |", flush=True)


def at_points(capture: Capture, prediction: Prediction) -> Iterator[tuple[int, torch.Tensor, torch.Tensor, torch.Tensor]]:
    """Yield each photo's index, and at its points of structure from motion predicted depth, confidence and the points' depth."""
    names = capture.views.names
    for i, photo in enumerate(capture.inputs.names):
        seen = capture.solved.visibility[names.index(photo)]
        T = prediction.cameras.T_cam_world[i]
        points = capture.solved.points_world[seen].to(T.dtype) @ T[:3, :3].T + T[:3, 3]
        pixels = points @ prediction.cameras.K[i].to(T.dtype).T
        x, y = (pixels[:, 0] / pixels[:, 2]).floor().long(), (pixels[:, 1] / pixels[:, 2]).floor().long()
        height, width = prediction.depth[i].shape
        inside = (points[:, 2] > 0) & (x >= 0) & (y >= 0) & (x < width) & (y < height)
        x, y = x[inside], y[inside]
        yield i, prediction.depth[i][y, x], prediction.confidence[i][y, x], points[inside, 2].float()


def errors_at_points(capture: Capture, prediction: Prediction) -> tuple[torch.Tensor, torch.Tensor]:
    """Errors of depth in percent at every point in every photo that saw it, and where depth is sure."""
    found = [((depth / truth - 1).abs(), sure > 0.5) for _, depth, sure, truth in at_points(capture, prediction)]
    return 100 * torch.cat([error for error, _ in found]), torch.cat([sure for _, sure in found])


def against_points(options: argparse.Namespace) -> None:
    """Print how far the network's depth lies from the points of structure from motion."""
    tools = build_tools()
    print("| set | points | median error % | within 5% | confident (> 0.5) | of these: median %, within 5% |")
    print("|---|---|---|---|---|---|")
    for name in options.sets:
        capture = capture_of(name, tools, options)
        prediction = depth_of("shipped", name, capture.inputs, tools, options)
        error, certain = errors_at_points(capture, prediction)
        near, share = 100 * (error < 5).float().mean(), 100 * certain.float().mean()
        best = f"{error[certain].median():.2f}, {100 * (error[certain] < 5).float().mean():.0f}%"
        print(f"| {name} | {len(error):,} | {error.median():.2f} | {near:.0f}% | {share:.0f}% | {best} |", flush=True)


def time_views(views: int) -> dict[str, float]:
    """Time depth, fusing and refinement of a made capture of 640x480; the process is thrown away afterwards."""
    from models.training.head_trainer import capture_to_posed
    from models.training.worlds import WorldConfig, Worlds

    capture = Worlds(None, 5, WorldConfig()).capture(views, 480, 640)
    posed = capture_to_posed(capture, range(views))
    tools, config, ranges = build_tools(), PipelineConfig(), torch.from_numpy(capture.depth_range).float()
    rasterizer, predictor = tools.load_rasterizer(DEVICE), tools.load_predictor("mini", device=DEVICE, weights=None)
    neighbours = choose_neighbours(posed, count=4)
    few = capture_to_posed(capture, range(2))
    warm = predictor(few, ((1,), (0,)), ranges[:2], Progress())  # what is compiled and loaded once
    make_gaussians(few, warm, replace(config, refine=1), tools, rasterizer, DEVICE, Ledger(), Progress())
    began = time.perf_counter()
    prediction = predictor(posed, neighbours, ranges, Progress())
    depth_s = time.perf_counter() - began
    began = time.perf_counter()
    plain = replace(config, refine=0, fuse=FuseConfig(recolor_steps=0))
    make_gaussians(posed, prediction, plain, tools, rasterizer, DEVICE, Ledger(), Progress())
    fuse_s = time.perf_counter() - began
    began = time.perf_counter()
    make_gaussians(posed, prediction, config, tools, rasterizer, DEVICE, Ledger(), Progress())
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    return {"depth": depth_s, "fuse": fuse_s, "refine": time.perf_counter() - began - fuse_s, "peak_gb": peak / 1e9}


def print_times(options: argparse.Namespace) -> None:
    """Print the times, each number of photos in a process of its own."""
    print("| photos of 640x480 | depth s | fusing s | refinement s | all s | a photo s | peak GB |")
    print("|---|---|---|---|---|---|---|")
    for views in options.time:
        command = [sys.executable, __file__, "--time-one", str(views)]
        row = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()[-1])
        parts = [row["depth"], row["fuse"], row["refine"]]
        numbers = [f"{number:.1f}" for number in (*parts, sum(parts))]
        print(f"| {views} | {' | '.join(numbers)} | {sum(parts) / views:.2f} | {row['peak_gb']:.2f} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, default=Path("/tmp/bench_model"))
    parser.add_argument("--sets", nargs="+", default=list(SETS))
    parser.add_argument("--variants", nargs="+", default=list(VARIANTS))
    parser.add_argument("--first", type=Path, default=None)
    parser.add_argument("--counts", nargs="+", type=int, default=None)
    parser.add_argument("--photos", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=None)
    parser.add_argument("--polish", type=float, default=0.0, help="seconds of polish that follow")
    parser.add_argument("--points", action="store_true")
    parser.add_argument("--time", nargs="+", type=int, default=None)
    parser.add_argument("--time-one", type=int, default=None)
    options = parser.parse_args()
    comparing = not (options.time or options.time_one or options.points)
    if comparing and "first" in options.variants and not (options.first and options.first.is_file()):
        parser.error("the variant 'first' needs its weights: --first FILE, or leave it out of --variants")
    options.work.mkdir(parents=True, exist_ok=True)
    if options.time_one:
        print(json.dumps(time_views(options.time_one)))
    elif options.time:
        print_times(options)
    elif options.points:
        against_points(options)
    else:
        compare(options)


if __name__ == "__main__":
    main()
