"""Procedural worlds a second, one after the other in one process, and where the time goes; with ``--cast cuda`` on a GPU as well.

    python tests/benchmarks/bench_worlds.py --cast cpu cuda

Captures of five photos. One thread casts on the CPU, as in the processes that make worlds beside training; a process
for every core makes as many times more.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

import numba

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from models.training.raycast_cuda import can_cast
from models.training.worlds import Worlds

VIEWS = 5


class Timed:
    """A caster that counts its seconds."""

    def __init__(self, caster) -> None:
        self.caster, self.seconds = caster, 0.0

    def depth(self, *arguments):
        return self._count(self.caster.depth, arguments)

    def surfaces(self, *arguments):
        return self._count(self.caster.surfaces, arguments)

    def colors(self, *arguments):
        return self._count(self.caster.colors, arguments)

    def _count(self, call, arguments):
        began = time.perf_counter()
        result = call(*arguments)
        self.seconds += time.perf_counter() - began
        return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cast", nargs="+", choices=("cpu", "cuda"), default=["cpu"])
    parser.add_argument("--captures", type=int, default=40)
    parser.add_argument("--size", nargs=2, type=int, default=(192, 256), metavar=("HEIGHT", "WIDTH"))
    options = parser.parse_args()
    if "cuda" in options.cast and not can_cast():
        sys.exit("there is no GPU that Numba can compile for: leave --cast cuda out")
    numba.set_num_threads(1)
    for cast in options.cast:
        worlds = Worlds(None, 5, cast=cast)
        worlds.capture(VIEWS, *options.size)  # compiles
        worlds.caster = timed = Timed(worlds.caster)
        began = time.perf_counter()
        for _ in range(options.captures):
            worlds.capture(VIEWS, *options.size)
        spent = (time.perf_counter() - began) / options.captures
        cast_s = timed.seconds / options.captures
        print(f"{cast}: {1 / spent:.1f} worlds a second; {1e3 * spent:.0f} ms each, {1e3 * cast_s:.0f} ms of it casting")


if __name__ == "__main__":
    main()
