"""How long it takes from the command until the page can be used.

    python tests/benchmarks/bench_start.py --runs 7

`recon app` is started again and again as a person starts it, with an empty folder of its own; a browser that is open already goes
to the page as soon as the server says its address, in a fresh profile, so that nothing comes from a cache. The page itself writes
down when its button for a reconstruction is visible; both clocks are the machine's. Floor: 5 s.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import helpers
from pages import DESK, browser

SEEN = """() => {
    const look = () => {
        const button = document.querySelector('#start');
        if (button && button.offsetParent !== null) window.seenAt = Date.now() / 1000;
        else setTimeout(look, 10);
    };
    look();
}"""


def one_start(running, folder: Path) -> tuple[float, float]:
    """Seconds until the server says its address, and until the page can be used."""
    context = running.new_context(viewport=DESK)
    tab = context.new_page()
    tab.add_init_script(f"({SEEN})()")
    command = [sys.executable, "-m", "app.cli", "app", "--port", "0", "--out", str(folder / "out")]
    begun = time.time()
    process = subprocess.Popen(
        command, cwd=helpers.REPOSITORY, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )
    try:
        assert process.stderr is not None
        url = next(line for line in process.stderr if line.startswith("Page: ")).split()[1]
        answers = time.time()
        tab.goto(url)
        tab.wait_for_function("window.seenAt !== undefined", timeout=60_000)
        return answers - begun, float(tab.evaluate("window.seenAt")) - begun
    finally:
        process.terminate()
        process.wait(30)
        context.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=7)
    args = parser.parse_args()
    with browser() as running, tempfile.TemporaryDirectory() as folder:
        one_start(running, Path(folder) / "warm")
        times = [one_start(running, Path(folder) / str(index)) for index in range(args.runs)]
    for name, column in zip(("server says its address", "page can be used"), zip(*times, strict=True), strict=True):
        values = " ".join(f"{value:.1f}" for value in column)
        print(f"{name}: median {statistics.median(column):.1f} s, {min(column):.1f} to {max(column):.1f} ({values})")


if __name__ == "__main__":
    main()
