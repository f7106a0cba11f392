"""All photo sets in one `recon batch`: who was placed, how well it looks, what it took, and what a photographer reads on failure.

Sets of more than --photos photos take part with that many, evenly spread among those of their reference cameras, so that the scores
of cameras can be set beside those of `bench_cameras.py`. A batch that was stopped goes on where it was.

    python tests/benchmarks/bench_sets.py --work /tmp/sets                 # 12 photos a set, 400 px, one in eight scored
    python tests/benchmarks/bench_sets.py --work /tmp/sets --table         # the table of what is there

Anything after `--` goes to `recon batch`. Photo sets are found through RECON_EVAL_DATA, else ../shared.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path

from bench_cameras import ROOT, data_root, reference_cameras

SUBSET = 12
USUAL = ("--long-side", "400", "--no-video", "--holdout", "8")


def link_photos(name: str, target: Path, most: int) -> None:
    """Make a folder with links to the photos of a set that take part."""
    import torch

    from recon.cameras.scoring import evenly_spread
    from recon.photos import open_photos

    views = open_photos(data_root() / name / "images", long_side=640).views
    rows = list(range(len(views)))
    if most and len(rows) > most:
        reference = reference_cameras(data_root() / name, views)
        known = rows if reference is None else torch.nonzero(reference.registered_mask)[:, 0].tolist()
        rows = evenly_spread(known, most)
    target.mkdir(parents=True)
    for view in views.select(rows):
        (target / view.name).symlink_to(view.path)


def found_cameras(cameras_json: Path, views):
    """Cameras of an output folder in the order of ``views``."""
    import torch

    from recon.cameras.result import blank_cameras

    frames = {frame["name"]: frame for frame in json.loads(cameras_json.read_text())["frames"]}
    cameras = blank_cameras(views)
    for i, view in enumerate(views):
        frame = frames.get(view.name)
        if frame is not None and frame["registered"]:
            cameras.T_world_cam[i] = torch.tensor(frame["T_world_cam"], dtype=torch.float64)
            cameras.K[i] = torch.tensor(frame["K"], dtype=torch.float64)
            cameras.registered[i] = True
    return cameras


def camera_score(name: str, photos: Path, out: Path) -> float | None:
    """AUC@5 of a set's cameras against its reference; None without one."""
    from recon.cameras.scoring import score_cameras
    from recon.photos import open_photos

    views = open_photos(photos, long_side=640).views
    reference = reference_cameras(data_root() / name, views)
    return None if reference is None else score_cameras(found_cameras(out / "cameras.json", views), reference).plain()["auc5"]


def row(result: dict, work: Path) -> str:
    """One line of the table."""
    name, out = result["name"], work / "out" / result["name"]
    if result["status"] != "ok":
        note = " ".join(filter(None, (result["reason"], result["remedy"]))) or result["status"]
        return f"| {name} | 0 | – | – | {result['seconds']:.0f} | – | {note} |"
    report = json.loads((out / "report.json").read_text())
    took = {**(report.get("cached_s") or {}), **report["seconds"]}
    counts, quality = report["counts"], report["quality"]
    auc5 = camera_score(name, work / "sets" / name / "images", out)
    psnr = f"{quality['psnr_mean']:.2f}" if quality.get("n_scored") else "–"
    memory = max(report["peak_memory_bytes"].values()) / 1e9
    shown = "–" if auc5 is None else f"{100 * auc5:.1f}"
    chosen = report["choices"]["cameras"].get("chosen", "")
    notes = "; ".join([chosen, *report["warnings"][:1]])
    placed = f"{counts['registered']} of {counts['photos']}"
    return f"| {name} | {placed} | {shown} | {psnr} | {sum(took.values()):.0f} | {memory:.2f} | {notes} |"


def table(work: Path) -> str:
    """Everything in batch.json, with seconds of the stages as they ran."""
    results = json.loads((work / "out" / "batch.json").read_text())["results"]
    head = "| set | placed | AUC@5 | PSNR dB | seconds | GB | cameras by; what is said |\n|---|---|---|---|---|---|---|"
    return "\n".join([head, *(row(result, work) for result in results if result["status"] != "not started")])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True, help="folder for links, results and the cache")
    parser.add_argument("--sets", nargs="+", help="names of photo sets; all of them otherwise")
    parser.add_argument("--photos", type=int, default=SUBSET, help="photos of a set at most; 0 means all")
    parser.add_argument("--table", action="store_true", help="print the table of what is there, compute nothing")
    words = sys.argv[1:]
    more = words[words.index("--") + 1 :] if "--" in words else list(USUAL)
    options = parser.parse_args(words[: words.index("--")] if "--" in words else words)
    sys.path[:0] = [str(ROOT)]
    if not options.table:
        for name in options.sets or sorted(p.name for p in data_root().iterdir() if (p / "images").is_dir()):
            target = options.work / "sets" / name / "images"
            if not target.is_dir():
                link_photos(name, target, options.photos)
        command = [sys.executable, "-m", "app.cli", "batch", str(options.work / "sets"), "-o", str(options.work / "out"), *more]
        code = subprocess.run(command, cwd=ROOT, check=False).returncode
        if code not in (0, 1):
            sys.exit(code)
    print(table(options.work))


if __name__ == "__main__":
    main()
