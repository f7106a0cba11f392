"""Runs killed at random moments: how often they go on to the very same result, and how much they repeat.

    python tests/benchmarks/bench_resume.py                      # 20 kills in each stage, seed printed
    python tests/benchmarks/bench_resume.py --kills 3 --seed 7 --stages depth gaussians

Every kill is SIGKILL at a random millisecond of a stage. The run is then started again with the same words, and must write the
same bytes, repeat at most the stage it was in, and leave nothing beside its folder. Cameras are given, but for "found", which is
the stage "cameras" with COLMAP at work; "polish" ends by the clock, so that its scene need only be whole.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]


def main() -> None:
    from kill_server import Killer
    from test_recon_resume import STAGES, kill_and_go_on

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=20, help="per stage")
    parser.add_argument("--seed", type=int, default=time.time_ns() % 2**32)
    parser.add_argument("--stages", nargs="+", choices=(*STAGES, "found", "polish"), default=[*STAGES, "found", "polish"])
    options = parser.parse_args()
    killer = Killer()
    try:
        with tempfile.TemporaryDirectory() as folder:
            given = tuple(stage for stage in options.stages if stage in STAGES)
            work = [(given, {})] if given else []
            work += [(("cameras",), {"find_cameras": True})] if "found" in options.stages else []
            work += [(("polish",), {"polish": 1.0})] if "polish" in options.stages else []
            seen = []
            for number, (stages, more) in enumerate(work):
                seen += kill_and_go_on(killer, Path(folder) / f"{number}", stages, options.kills, options.seed, **more)
    finally:
        killer.close()
    repeated = Counter(line.split(" after ")[0] + ": " + line.split("computed again ")[1] for line in seen)
    for line, count in sorted(repeated.items()):
        print(f"{count:4d} x killed in {line}")
    print(f"{len(seen)} kills, seed {options.seed}: every run went on to its scene")


if __name__ == "__main__":
    main()
