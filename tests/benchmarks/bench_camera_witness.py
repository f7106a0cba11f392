"""Whose cameras are nearer the truth where the reference is itself structure from motion: a third detector is asked.

Reference, pycolmap's defaults and `--cameras auto` with several seeds are set beside each other by two measures that need no
reference. How well they explain matches of ORB features, which none of them has seen; and how far a way agrees with itself
when only its random seed changes. On sets with measured cameras both can be checked against the truth.

    python tests/benchmarks/bench_camera_witness.py --sets reichstag british_museum monstree --seeds 0 1 2 --out witness.json

Every result is appended to --out at once; what is there is not computed again.
"""

from __future__ import annotations

import argparse
import json
import sys
from itertools import combinations
from pathlib import Path

import cv2
import numpy as np
from bench_cameras import ROOT, data_root, find, reference_cameras

FEATURES, LEAST_MATCHES = 5000, 20
"""Features of a photo at most, and matches of a pair at least."""
RATIO, LINE_PX = 0.8, 4.0
"""Largest ratio of distances to the best and the second best descriptor; largest distance from the epipolar line of a pair's own
fundamental matrix, wide, so that this choice favours nobody."""
FAR_PX = 20.0
"""Distances beyond this count as much as this; so does a photo without a camera."""
WAYS = ("default", "auto")


def witness(views) -> list[tuple[int, int, np.ndarray]]:
    """Matches of ORB features: (first photo, second photo, pixels ``N 4``), centres at +0.5, of pairs that agree."""
    detector, matcher = cv2.ORB.create(nfeatures=FEATURES, fastThreshold=8), cv2.BFMatcher(cv2.NORM_HAMMING)
    cv2.setRNGSeed(0)
    points, words = [], []
    for view in views:
        grey = cv2.cvtColor(view.decode(view.original_width, view.original_height), cv2.COLOR_RGB2GRAY)
        found, described = detector.detectAndCompute(grey, None)
        points.append(np.array([one.pt for one in found]) + 0.5)
        words.append(described)
    agreed = []
    for i, j in combinations(range(len(views)), 2):
        back = [one[0].trainIdx for one in matcher.knnMatch(words[j], words[i], 1)]
        near = [(a, b) for a, b in matcher.knnMatch(words[i], words[j], 2) if a.distance < RATIO * b.distance]
        rows = np.array([(a.queryIdx, a.trainIdx) for a, _ in near if back[a.trainIdx] == a.queryIdx]).reshape(-1, 2)
        if len(rows) < LEAST_MATCHES:
            continue
        px = np.concatenate([points[i][rows[:, 0]], points[j][rows[:, 1]]], axis=1)
        _, kept = cv2.findFundamentalMat(px[:, :2], px[:, 2:], cv2.USAC_MAGSAC, LINE_PX, 0.9999, 10000)
        if kept is not None and kept.sum() >= LEAST_MATCHES:
            agreed.append((i, j, px[kept[:, 0] > 0]))
    return agreed


def explain(cameras, matches: list[tuple[int, int, np.ndarray]]) -> dict[str, float]:
    """Distances of matches from epipolar lines: mean of log(1 + px²), which mistrusts far ones, median, and share within 1 px."""
    from recon.cameras.evidence import epipolar_distance_px, straight_rays

    T_world_cam, T_cam_world = cameras.T_world_cam.double().numpy(), cameras.T_cam_world.double().numpy()
    focal, placed = cameras.K[:, [0, 1], [0, 1]].double().numpy().mean(axis=1), cameras.registered_mask.numpy()
    found = []
    for i, j, px in matches:
        if not (placed[i] and placed[j]):
            found.append(np.full(len(px), FAR_PX))
            continue
        first, second = straight_rays(cameras, i, px[:, :2]), straight_rays(cameras, j, px[:, 2:])
        T_second_first = (T_cam_world[j] @ T_world_cam[i])[:3]
        found.append(np.minimum(FAR_PX, epipolar_distance_px(T_second_first, first, second, (focal[i] + focal[j]) / 2)))
    px = np.concatenate(found)
    return {
        "matches": len(px),
        "cost": float(np.log1p(px**2).mean()),
        "median_px": float(np.median(px)),
        "near": float((px < 1).mean()),
    }


def measure(name: str, seeds: list[int]) -> dict:
    """Scores of the reference, of every way and seed, and how far every way agrees with itself."""
    from recon.cameras.scoring import area_under_recall, pair_errors_deg
    from recon.photos import open_photos

    folder = data_root() / name
    views = open_photos(folder / "images", long_side=640).views
    reference = reference_cameras(folder, views)
    matches = witness(views)
    row = {"set": name, "seeds": seeds, "reference": explain(reference, matches)}
    for way in WAYS:
        runs = [find(way, views, seed)[0] for seed in seeds]
        row[way] = [{"auc5": area_under_recall(pair_errors_deg(one, reference), 5.0), **explain(one, matches)} for one in runs]
        row[f"{way}_itself"] = [area_under_recall(pair_errors_deg(a, b), 5.0) for a, b in combinations(runs, 2)]
    return row


def table(rows: list[dict]) -> str:
    """Cost of the matches (reference, then every seed), AUC@5 against the reference, and of seeds among themselves."""
    lines = ["| set | matches | cost of the reference | " + " | ".join(f"cost of {way}" for way in WAYS) + " | "]
    lines[0] += " | ".join(f"AUC@5 of {way}" for way in WAYS) + " | " + " | ".join(f"{way} with itself" for way in WAYS) + " |"
    lines.append("|" + "---|" * (3 + 3 * len(WAYS)))
    for row in rows:
        cells = [row["set"], f"{row['reference']['matches']:,}", f"{row['reference']['cost']:.4f}"]
        cells += [", ".join(f"{one['cost']:.4f}" for one in row[way]) for way in WAYS]
        cells += [", ".join(f"{100 * one['auc5']:.1f}" for one in row[way]) for way in WAYS]
        cells += [", ".join(f"{100 * one:.1f}" for one in row[f"{way}_itself"]) or "–" for way in WAYS]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sets", nargs="+", default=["reichstag", "british_museum", "monstree", "fountain_p11"])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--out", type=Path, default=Path("camera_witness.json"))
    options = parser.parse_args()
    sys.path[:0] = [str(ROOT)]
    rows = json.loads(options.out.read_text()) if options.out.exists() else []
    for name in options.sets:
        if name not in {row["set"] for row in rows}:
            rows.append(measure(name, options.seeds))
            options.out.write_text(json.dumps(rows, indent=1))
    print(table(rows))


if __name__ == "__main__":
    main()
