"""Bad photos through the real doors: no traceback, no hang, memory bounded.

    python tests/benchmarks/bench_bad_input.py                 # 300 files; seconds and memory of the worst
    python tests/benchmarks/bench_bad_input.py --count 1000 --seed 7

Every file is opened through `open_photos`, which decodes it in a process of its own, and what was accepted is decoded again here.
Seconds are of processor time of the decoding process where the system tells (Linux), so that a busy machine does not count.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]


def child_facts(pid: int) -> tuple[float, int]:
    """Processor seconds and largest resident bytes of a process so far; zeros where the system does not tell."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        peak = next(line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("VmHWM"))
    except (OSError, StopIteration):
        return 0.0, 0
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK"), int(peak.split()[1]) * 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=300)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    from bad_photos import write_corpus

    from recon.capture.decode import decode_photo
    from recon.capture.decoder import Decoder
    from recon.capture.files import find_files
    from recon.capture.photo_size import working_size

    with tempfile.TemporaryDirectory() as folder:
        made = write_corpus(Path(folder) / "photos", options.count, seed=options.seed)
        found = find_files(Path(folder) / "photos")
        candidates = {path: name for name, path in found.photos.items()}
        outcome: Counter[str] = Counter({"skipped unopened": len(found.skipped)})
        slowest, largest, longest_wall, restarts, pid = (0.0, ""), (0, ""), (0.0, ""), 0, 0
        with Decoder() as decoder:
            for path, maker in made.items():
                if path not in candidates:
                    continue
                request = {"task": "probe", "path": str(path), "keep_private": True, "side": 512}
                process = decoder._start()
                restarts += process.pid != pid
                pid, (before_s, _), began = process.pid, child_facts(process.pid), time.perf_counter()
                answer = decoder.ask(request)
                wall = time.perf_counter() - began
                used_s, peak = child_facts(pid)
                assert "Traceback" not in json.dumps(answer), path
                if "reason" not in answer:
                    size = working_size(answer["width"], answer["height"], 640)
                    decode_photo(path, answer["facts"]["orientation"], *size)
                outcome["refused in words" if "reason" in answer else "accepted"] += 1
                slowest = max(slowest, (used_s - before_s, f"{maker} {path.name!a}"))
                if peak > largest[0]:  # the process keeps its peak: the file that raised it is meant
                    largest = (peak, f"{maker} {path.name!a}")
                longest_wall = max(longest_wall, (wall, f"{maker} {path.name!a}"))
    print(f"{options.count} files, seed {options.seed}: {dict(outcome)}")
    print(f"decoding processes started: {restarts}")
    print(f"most processor time of one file: {slowest[0]:.2f} s ({slowest[1]})")
    print(f"longest by the clock: {longest_wall[0]:.2f} s ({longest_wall[1]})")
    print(f"largest decoding process: {largest[0] / 1e9:.2f} GB ({largest[1]})")


if __name__ == "__main__":
    main()
