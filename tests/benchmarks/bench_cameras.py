"""Cameras of real photo sets: `--cameras auto` beside pycolmap's defaults, on all photos and on few of them, evenly spread or
--random.

Sets with reference cameras are scored (poses.json beside the photos); the others tell how many photos were placed. Every result
is appended to --out at once, and what is there already is not computed again, so a run can be stopped and continued.

    python tests/benchmarks/bench_cameras.py --out /tmp/bench_cameras.json
    python tests/benchmarks/bench_cameras.py --out /tmp/bench_cameras.json --table

pycolmap's defaults means: extract_features, match_exhaustive and incremental_mapping without any option but the seed, on the
photos as they are; of several models the one with most photos. Photo sets are found through RECON_EVAL_DATA, else ../shared.
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
SUBSETS = (0, 12, 6, 3)
"""Photos given; 0 means all."""
WAYS = ("auto", "sfm", "default", "winner")
"""'winner' is the recipe that won among several in 'auto', alone: what 'auto' would take if it knew."""
SHOWN = ("auc5", "auc10", "auc30", "focal_error", "ate")


def data_root() -> Path:
    """Folder of the photo sets."""
    base = Path(os.environ.get("RECON_EVAL_DATA", ROOT.parent / "shared"))
    root = base / "data" if (base / "data").is_dir() else base
    if not root.is_dir():
        raise SystemExit(f"no photo sets at {root}; set RECON_EVAL_DATA")
    return root


def run_defaults(folder: Path, seed: int) -> None:
    """Run pycolmap's defaults on the photos in FOLDER/images; leaves FOLDER/cameras.json. A process of its own calls this."""
    import pycolmap

    pycolmap.logging.minloglevel = pycolmap.logging.Level.ERROR.value
    pycolmap.set_random_seed(seed)
    database, images = folder / "database.db", folder / "images"
    pycolmap.extract_features(database, images)
    pycolmap.match_exhaustive(database)
    options = pycolmap.IncrementalPipelineOptions()
    options.random_seed = seed
    models = pycolmap.incremental_mapping(database, images, folder / "models", options)
    best = max(models.values(), key=lambda m: (m.num_reg_images(), m.num_points3D()), default=None)
    found = {}
    for i in best.reg_image_ids() if best is not None else ():
        image = best.image(i)
        camera = best.camera(image.camera_id)
        K = camera.calibration_matrix()
        found[image.name] = {
            "T_world_cam": image.cam_from_world().inverse().matrix().tolist(),
            "K": K.tolist(),
            "distortion": [float(camera.params[3]), 0.0, 0.0, 0.0],  # the default lens is SIMPLE_RADIAL
        }
    (folder / "cameras.json").write_text(json.dumps(found))


def default_cameras(views, seed: int):
    """Cameras by pycolmap's defaults."""
    import torch

    from recon.cameras.result import blank_cameras

    cameras = blank_cameras(views)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "images").mkdir()
        (folder / "models").mkdir()
        for view in views:
            (folder / "images" / view.name).symlink_to(view.path)
        command = [sys.executable, __file__, "--defaults", str(folder), "--seed", str(seed)]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        found = json.loads((folder / "cameras.json").read_text())
    for i, view in enumerate(views):
        if view.name in found:
            cameras.T_world_cam[i, :3] = torch.tensor(found[view.name]["T_world_cam"], dtype=torch.float64)
            cameras.K[i] = torch.tensor(found[view.name]["K"], dtype=torch.float64)
            cameras.distortion[i] = torch.tensor(found[view.name]["distortion"], dtype=torch.float64)
            cameras.registered[i] = True
    return cameras


def reference_cameras(folder: Path, views):
    """Cameras of poses.json, at the size of the photos; photos it does not name are not registered. None without the file."""
    import torch

    from recon.cameras.result import blank_cameras

    if not (folder / "poses.json").exists():
        return None
    frames = {Path(frame["file"]).name: frame for frame in json.loads((folder / "poses.json").read_text())["frames"]}
    cameras = blank_cameras(views)
    for i, view in enumerate(views):
        frame = frames.get(view.name)
        if frame is None:
            continue
        assert (frame["width"], frame["height"]) == (view.original_width, view.original_height), view.name
        cameras.T_world_cam[i] = torch.tensor(frame["c2w"], dtype=torch.float64)
        cameras.K[i] = torch.tensor([[frame["fx"], 0, frame["cx"]], [0, frame["fy"], frame["cy"]], [0, 0, 1]], dtype=torch.float64)
        cameras.distortion[i] = torch.tensor([frame.get(key, 0.0) for key in ("k1", "k2", "p1", "p2")], dtype=torch.float64)
        cameras.registered[i] = True
    return cameras


def processor_seconds() -> float:
    """Processor time of this process and of its finished children."""
    return sum(sum(resource.getrusage(who)[:2]) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))


def find(way: str, views, seed: int, recipe: str) -> tuple:
    """(cameras, attempts, words) of one way of finding cameras; ``recipe`` is that of 'winner'."""
    from recon.cameras.auto import find_cameras
    from recon.cameras.recipes import LADDER, QUICK
    from recon.cameras.result import blank_cameras
    from recon.errors import CannotReconstruct
    from recon.progress import Progress

    if way == "default":
        return default_cameras(views, seed), [], []
    try:
        ladder = {"auto": LADDER, "sfm": QUICK, "winner": tuple(one for one in LADDER if one.name == recipe)}[way]
        solved = find_cameras(views, progress=Progress(), seed=seed, ladder=ladder)
    except CannotReconstruct as error:
        return blank_cameras(views), [], [str(error)]
    return solved.cameras, list(solved.attempts), list(solved.warnings)


def measure(name: str, way: str, count: int, seed: int, recipe: str = "", random: bool = False) -> dict:
    """Find the cameras of one choice of photos of one set, and score them where there is a reference."""
    import torch

    from recon.cameras.scoring import drawn_at_random, evenly_spread, score_cameras
    from recon.photos import open_photos

    folder = data_root() / name
    views = open_photos(folder / "images", long_side=640).views
    reference = reference_cameras(folder, views)
    rows = list(range(len(views)))
    if count:
        known = rows if reference is None else torch.nonzero(reference.registered_mask)[:, 0].tolist()
        rows = drawn_at_random(known, count, seed) if random else evenly_spread(known, count)
    chosen = views.select(rows)
    started, processor = time.perf_counter(), processor_seconds()
    cameras, attempts, words = find(way, chosen, seed, recipe)
    row = {"set": name, "way": way, "count": count, "given": len(chosen), "found": int(cameras.registered_mask.sum())}
    row |= {
        "random": random,
        "seed": seed,
        "seconds": time.perf_counter() - started,
        "processor_seconds": processor_seconds() - processor,
    }
    if reference is not None:
        row |= score_cameras(cameras, reference.select(rows)).plain()
    return row | {"attempts": attempts, "words": words}


def winning_recipe(rows: list[dict], name: str, count: int) -> str:
    """Which of several recipes won in 'auto'; empty when one was tried, or the winner is none."""
    row = next((row for row in rows if (row["set"], row["way"], row["count"]) == (name, "auto", count)), None)
    if row is None or len(row["attempts"]) < 2:
        return ""
    return next((one["tried"] for one in row["attempts"] if one.get("chosen")), "")


def winners_table(rows: list[dict]) -> str:
    """Time of 'auto' over that of its winner alone, where several recipes were tried."""
    by = {(row["set"], row["way"], row["count"]): row for row in rows}
    lines = ["", "| set | photos | tried | winner | auto s | winner s | ratio |", "|" + "---|" * 7]
    for (name, way, count), alone in sorted(by.items()):
        if way == "winner" and (name, "auto", count) in by:
            auto = by[name, "auto", count]
            ratio = auto["processor_seconds"] / alone["processor_seconds"]
            cells = [name, auto["given"], len(auto["attempts"]), winning_recipe(rows, name, count)]
            cells += [f"{auto['processor_seconds']:.0f}", f"{alone['processor_seconds']:.0f}", f"{ratio:.2f}"]
            lines.append("| " + " | ".join(str(cell) for cell in cells) + " |")
    return "\n".join(lines) if len(lines) > 3 else ""


def table(rows: list[dict]) -> str:
    """Sets against ways, one block per number of photos, with means over the sets all ways have done."""
    lines = []
    for count in SUBSETS:
        mine = [row for row in rows if row["count"] == count]
        ways = [way for way in WAYS if way != "winner" and any(row["way"] == way for row in mine)]
        by = {(row["set"], row["way"]): row for row in mine}
        names = [name for name in sorted({row["set"] for row in mine}) if all((name, way) in by for way in ways)]
        if not names:
            continue
        lines += [
            f"\n{count or 'all'} photos: " + " / ".join(ways),
            "",
            "| set | placed | " + " | ".join(SHOWN) + " | processor s |",
        ]
        lines.append("|" + "---|" * (len(SHOWN) + 3))
        for name in names:
            cells = []
            for shown in SHOWN:
                values = [by[name, way].get(shown) for way in ways]
                cells.append(" / ".join("-" if v is None else f"{100 * v:.1f}" if "auc" in shown else f"{v:.4f}" for v in values))
            placed = " / ".join(str(by[name, way]["found"]) for way in ways) + f" of {by[name, ways[0]]['given']}"
            seconds = " / ".join(f"{by[name, way]['processor_seconds']:.0f}" for way in ways)
            lines.append(f"| {name} | {placed} | " + " | ".join(cells) + f" | {seconds} |")
        scored = [name for name in names if "auc5" in by[name, ways[0]]]
        if scored:
            means = []
            for shown in SHOWN[:3]:
                means.append(" / ".join(f"{100 * sum(by[n, w][shown] for n in scored) / len(scored):.1f}" for w in ways))
            share = " / ".join(f"{sum(by[n, w]['placed'] / by[n, w]['photos'] for n in scored) / len(scored):.3f}" for w in ways)
            lines.append(f"| mean of {len(scored)} scored | {share} | " + " | ".join(means) + " | | | |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sets", nargs="+", help="names of photo sets; all of them otherwise")
    parser.add_argument("--ways", nargs="+", default=["auto", "default"], choices=WAYS)
    parser.add_argument("--counts", nargs="+", type=int, default=list(SUBSETS), help="photos given; 0 means all")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--random", action="store_true", help="draw the few at random, by --seed; give each seed its own --out")
    parser.add_argument("--out", type=Path, default=Path("bench_cameras.json"))
    parser.add_argument("--table", action="store_true", help="print the table of what is in --out, compute nothing")
    parser.add_argument("--defaults", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.defaults is not None:
        run_defaults(options.defaults, options.seed)
        return
    sys.path[:0] = [str(ROOT)]
    rows = json.loads(options.out.read_text()) if options.out.exists() else []
    if not options.table and any((row.get("random", False), row.get("seed", 0)) != (options.random, options.seed) for row in rows):
        raise SystemExit(f"{options.out} holds other subsets or another seed; give another --out")
    names = options.sets or sorted(p.name for p in data_root().iterdir() if (p / "images").is_dir())
    done = {(row["set"], row["way"], row["count"]) for row in rows}
    for count in [] if options.table else options.counts:
        for name in names:
            for way in options.ways:
                photos = len(list((data_root() / name / "images").glob("*.*")))
                recipe = winning_recipe(rows, name, count)
                if (name, way, count) in done or count >= photos or (way == "winner" and not recipe):
                    continue
                rows.append(measure(name, way, count, options.seed, recipe, options.random))
                print(json.dumps({k: v for k, v in rows[-1].items() if k != "attempts"}), flush=True)
                temporary = options.out.with_suffix(".part")
                temporary.write_text(json.dumps(rows, indent=1))
                temporary.replace(options.out)
    print(table(rows) + winners_table(rows))


if __name__ == "__main__":
    main()
