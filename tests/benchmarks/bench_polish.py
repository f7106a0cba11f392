"""Feed-forward + polish against plain 3DGS optimisation, at the same seconds, with the same cameras, in the same run.

The protocol of the CPU baseline: reference cameras, undistorted, longest side 480 px, photos with index % 4 == 1 of the
sorted posed list are tested and never trained on; --photos 6 keeps six evenly spread training photos. Seconds count from the
moment cameras are known: for ours they include depth, fusing and colour matching, for the plain baseline triangulation is
free. One run per method, scored at every --marks on the way; scoring does not use up time.

    python tests/benchmarks/bench_polish.py --out /tmp/bench_polish.json                      # all sets, 60 s
    python tests/benchmarks/bench_polish.py --sets fox,llff_fern --photos 6 --out few.json
    python tests/benchmarks/bench_polish.py --disturb --seconds 30                            # cameras off by 0.5 degrees, 1% focal

--disturb polishes three times: with the true cameras, with disturbed ones held fixed, and with disturbed ones corrected; test
cameras are then aligned on the frozen scene, as the scene stands in the training cameras' frame. --clock processor runs on
one thread and counts SPEED processor seconds as one second, for machines that do other things at the same time.

Photo sets are found through RECON_EVAL_DATA, else ../shared.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numba
import numpy as np
import torch

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(Path(__file__).parent)]

from bench_pipeline import data_root  # noqa: E402
from plain_baseline import PlainOptimisation  # noqa: E402

from recon.depth_range import choose_depth_range  # noqa: E402
from recon.fuse import FuseConfig, Fused, fuse  # noqa: E402
from recon.lens import undistort  # noqa: E402
from recon.neighbours import choose_neighbours  # noqa: E402
from recon.photos import decode_photo, working_size  # noqa: E402
from recon.polishing.cameras import rotate  # noqa: E402
from recon.polishing.choices import PolishConfig, for_refined  # noqa: E402
from recon.polishing.guard import choose_guards, polish_guarded  # noqa: E402
from recon.polishing.polish import Job  # noqa: E402
from recon.polishing.stage import select_prediction  # noqa: E402
from recon.polishing.targets import Targets  # noqa: E402
from recon.posed import PosedViews  # noqa: E402
from recon.progress import Progress  # noqa: E402
from recon.quality.align import AlignConfig, align_cameras  # noqa: E402
from recon.quality.score import as_8bit, psnr, ssim  # noqa: E402
from recon.records import Cameras, Gaussians, Prediction, Rasterizer  # noqa: E402
from recon.refining import refine, with_degree  # noqa: E402

SETS = (
    "fox", "llff_fern", "fountain_p11", "castle_p30", "lund_door", "monstree", "redkitchen", "mother_child", "canyon_drone",
    "eyeful_kitchen",
)  # fmt: skip
LONG_SIDE = 480
DISTURBED = ("true cameras", "fixed cameras", "corrected cameras")
SPEED = 1.7
"""Processor seconds of one thread that do the work of one second of two cores."""


def load_set(name: str, long_side: int, photos: int) -> tuple[PosedViews, PosedViews, PosedViews]:
    """Training photos, the same at half the size, and test photos, all undistorted with reference cameras."""
    folder = data_root() / name
    frames = sorted(json.loads((folder / "poses.json").read_text())["frames"], key=lambda f: f["file"])
    test = [i for i in range(len(frames)) if i % 4 == 1]
    train = [i for i in range(len(frames)) if i % 4 != 1]
    if photos:
        train = [train[i] for i in np.unique(np.linspace(0, len(train) - 1, photos).round().astype(int))]
    make = lambda indices, side: posed_from(folder, [frames[i] for i in indices], side)  # noqa: E731
    return make(train, long_side), make(train, long_side // 2), make(test, long_side)


def posed_from(folder: Path, frames: list[dict], long_side: int) -> PosedViews:
    """Reference cameras of some frames at a size."""
    sizes = [working_size(f["width"], f["height"], long_side) for f in frames]
    K = torch.tensor([[[f["fx"], 0, f["cx"]], [0, f["fy"], f["cy"]], [0, 0, 1]] for f in frames]).float()
    original = Cameras(
        T_world_cam=torch.tensor([f["c2w"] for f in frames]).float(), K=K, width=tuple(f["width"] for f in frames),
        height=tuple(f["height"] for f in frames), names=tuple(f["file"] for f in frames),
    )  # fmt: skip
    cameras = original.resized([w for w, _ in sizes], [h for _, h in sizes])
    bend = [torch.tensor([float(f.get(k) or 0) for k in ("k1", "k2", "p1", "p2")]) for f in frames]

    def read(i: int):
        width, height = sizes[i]
        pixels = decode_photo(folder / "images" / frames[i]["file"], 1, width, height)
        image = torch.from_numpy(pixels).float() / 255
        return undistort(image, cameras.K[i], bend[i], K_out=cameras.K[i], width_out=width, height_out=height)

    return PosedViews(names=cameras.names or (), cameras=cameras, read=read)


def disturbed(posed: PosedViews, seed: int = 0, degrees: float = 0.5, focal: float = 0.01) -> PosedViews:
    """Turn every camera by ``degrees`` about a random axis and lengthen all focal lengths by ``focal``."""
    generator = torch.Generator().manual_seed(seed)
    axis = torch.nn.functional.normalize(torch.randn(len(posed), 3, generator=generator), dim=1)
    T, K = posed.cameras.T_world_cam.clone(), posed.cameras.K.clone()
    T[:, :3, :3] = rotate(T[:, :3, :3], axis * np.deg2rad(degrees))
    K[:, 0, 0] *= 1 + focal
    K[:, 1, 1] *= 1 + focal
    return replace(posed, cameras=replace(posed.cameras, T_world_cam=T, K=K))


def timer_of(options: argparse.Namespace) -> Callable[[], float]:
    """Seconds of the wall clock, or of the processor."""
    return time.perf_counter if options.clock == "wall" else lambda: time.process_time() / SPEED


def score(gaussians: Gaussians, test: PosedViews, rasterizer: Rasterizer, align: bool = False) -> dict[str, float]:
    """Mean PSNR and SSIM of the test photos: black background, 8 bit, valid pixels; ``align`` fits their cameras first."""
    rows = []
    if align:
        test = replace(test, cameras=align_cameras(gaussians, test, rasterizer, AlignConfig(), Progress()))
    for i in range(len(test)):
        image, valid = test.pixels(i)
        with torch.no_grad():
            drawn = as_8bit(rasterizer(gaussians, test.cameras.select([i])).color[0])
        rows.append((psnr(drawn, as_8bit(image), valid), ssim(drawn, as_8bit(image), valid)))
    return {"psnr": float(np.mean([r[0] for r in rows])), "ssim": float(np.mean([r[1] for r in rows])), "gaussians": len(gaussians)}


def feed_forward(small: PosedViews, options: argparse.Namespace) -> tuple[Prediction, object]:
    """Depth at half the size and the head."""
    from models.registry import load_predictor, load_splat_head

    predictor, head = load_predictor(options.depth), load_splat_head()
    return predictor(small, choose_neighbours(small, count=4), choose_depth_range(small), Progress()), head


def run_ours(name: str, options: argparse.Namespace, rasterizer: Rasterizer, method: str = "ours") -> dict:
    """Depth, fusing and polish under guard, all within the seconds."""
    train, small, test = load_set(name, options.long_side, options.photos)
    if options.disturb and method != "true cameras":
        train, small = disturbed(train), disturbed(small)
    timer = timer_of(options)
    began = timer()
    prediction, head = feed_forward(small, options)
    from models.registry import load_updater

    fusing, updater = FuseConfig(), load_updater()
    assert updater is not None

    def start(indices: Sequence[int]) -> Fused:
        some = small.select(indices)
        fused = fuse(some, select_prediction(prediction, indices), head, fusing, Progress())
        ready = with_degree(fused.gaussians, 1)
        refined, _ = refine(ready, Targets(some), rasterizer, updater, rounds=updater.rounds, progress=Progress())
        return Fused(gaussians=refined, shell_count=fused.shell_count)

    depth_s = timer() - began
    row: dict = {"set": name, "photos": len(train), "method": method, "depth_s": round(depth_s, 1), "scores": {}}
    scenes: list[float] = []
    made: dict[tuple[int, ...], Fused] = {}
    scoring = [0.0]

    def scored(gaussians: Gaussians) -> dict[str, float]:
        t = timer()
        result = score(gaussians, test, rasterizer, options.disturb)
        scoring[0] += timer() - t
        return result

    def timed(indices: Sequence[int]) -> Fused:
        if tuple(indices) not in made:
            t = timer()
            made[tuple(indices)] = start(indices)
            scenes.append(timer() - t)
        return made[tuple(indices)]

    guards = choose_guards(len(train))
    everything = list(range(len(train)))
    for indices in [[i for i in everything if i not in guards]] if guards else [everything[::2], everything[1::2], everything]:
        timed(indices)
    row["start"] = scored(timed(indices).gaussians)

    marks = [float(m) for m in options.marks.split(",")]

    def observe(job: Job) -> None:
        while marks and timer() - began - scoring[0] >= marks[0]:
            t = timer()
            row["scores"][f"{marks.pop(0):g}"] = scored(job.parameters.gaussians())
            job.clock.forgive(timer() - t)

    left = max(1.0, options.seconds - (timer() - began - scoring[0]))
    config = replace(for_refined(PolishConfig(), left), start_again=False)  # a second scene would not be within the seconds
    guarded = polish_guarded(
        timed, train, left, config, rasterizer, Progress(), prediction=prediction,
        cameras_known=method != "corrected cameras", observe=observe, timer=timer,
    )  # fmt: skip
    row["total_s"] = round(timer() - began - scoring[0], 1)
    row["fuse_s"] = round(sum(scenes), 1)
    row["final"] = score(guarded.fused.gaussians, test, rasterizer, options.disturb)
    for mark in marks:
        row["scores"][f"{mark:g}"] = row["final"]
    row["guard"] = [v.entry() for v in guarded.verdicts]
    row["camera_changes"] = guarded.polished.camera_changes if guarded.polished else {}
    return row


def run_plain(name: str, options: argparse.Namespace, rasterizer: Rasterizer) -> dict:
    """The baseline."""
    train, _, test = load_set(name, options.long_side, options.photos)
    if options.disturb:
        train = disturbed(train)
    plain = PlainOptimisation(train, rasterizer, options.seconds, timer_of(options))
    row: dict = {"set": name, "photos": len(train), "method": "plain 3DGS", "points": plain.point_count, "scores": {}}
    if plain.values is None:
        return row | {"failed": f"{plain.point_count} points triangulated"}
    row["start"] = score(plain.gaussians(), test, rasterizer)
    marks = [float(m) for m in options.marks.split(",")]

    def observe(state: PlainOptimisation) -> None:
        while marks and state.clock.elapsed_s >= marks[0]:
            t = state.clock.elapsed_s
            row["scores"][f"{marks.pop(0):g}"] = score(state.gaussians(), test, rasterizer)
            state.clock.forgive(state.clock.elapsed_s - t)

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    plain.run(1.0, observe)
    torch.set_num_threads(threads)
    row["final"] = score(plain.gaussians(), test, rasterizer)
    for mark in marks:
        row["scores"][f"{mark:g}"] = row["final"]
    return row


def table(rows: list[dict], marks: list[str]) -> str:
    """Markdown."""
    head = "| set | photos | method | " + " | ".join(f"{m} s" for m in marks) + " | end PSNR / SSIM | Gaussians |"
    lines = [head, "|" + "---|" * (len(marks) + 5)]
    for row in rows:
        scores = [f"{row['scores'][m]['psnr']:.2f}" if m in row["scores"] else "–" for m in marks]
        end = row.get("final")
        last = f"{end['psnr']:.2f} / {end['ssim']:.3f} | {end['gaussians']:,}" if end else f"{row.get('failed', '')} | –"
        lines.append(f"| {row['set']} | {row['photos']} | {row['method']} | " + " | ".join(scores) + f" | {last} |")
    return "\n".join(lines)


def main() -> None:
    """Run the benchmark; marks past the end of a run take its final score."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sets", default=",".join(SETS))
    parser.add_argument("--methods", default="ours,plain", help="ours, plain or both")
    parser.add_argument("--seconds", type=float, default=60.0, help="after cameras are known")
    parser.add_argument("--marks", default="10,30,60", help="seconds at which a scene is scored on the way")
    parser.add_argument("--photos", type=int, default=0, help="keep so many training photos; 0 keeps all")
    parser.add_argument("--long-side", type=int, default=LONG_SIDE)
    parser.add_argument("--depth", default="mini", help="depth source: mini or plane-sweep")
    parser.add_argument("--disturb", action="store_true", help="true, disturbed and corrected training cameras side by side")
    parser.add_argument("--clock", choices=("wall", "processor"), default="wall", help="what seconds are")
    parser.add_argument("--out", type=Path, default=None, help="JSON file")
    options = parser.parse_args()
    if options.clock == "processor":
        numba.set_num_threads(1)
        torch.set_num_threads(1)
    from render.rasterizer import load_rasterizer

    rasterizer = load_rasterizer("cpu")
    rows = []
    for name in options.sets.split(","):
        for method in DISTURBED if options.disturb else options.methods.split(","):
            run = run_plain(name, options, rasterizer) if method == "plain" else run_ours(name, options, rasterizer, method)
            rows.append(run)
            print(table(rows[-1:], options.marks.split(",")).splitlines()[-1], flush=True)
            if options.out:
                options.out.write_text(json.dumps(rows, indent=1))
    print("\n" + table(rows, options.marks.split(",")))


if __name__ == "__main__":
    main()
