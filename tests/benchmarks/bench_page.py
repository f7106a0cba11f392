"""How long a visitor waits: for the page, for the first cameras, for the first scene, for the end.

    python tests/benchmarks/bench_page.py                       # the sample, preset balanced
    python tests/benchmarks/bench_page.py --preset fast --photos DIR

`recon app` is started as a person starts it; a real browser opens the page, drops the photos, starts, and looks every tenth of a
second. The clock of the page runs from the start of the command, the others from the click on "Reconstruct". A scene counts as seen
when the viewer's picture is no flat colour. "of it computing" is what the server's process had computed when the page stood, for
machines that have other work. Prints one row for RESULTS.md.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from pathlib import Path

sys.path[:0] = [str(Path(__file__).resolve().parents[1]), str(Path(__file__).resolve().parents[2])]

import helpers  # noqa: E402
from app_process import PATIENCE_S, recon_app, wait_until  # noqa: E402
from pages import Visit, browser, visit  # noqa: E402

COLOURFUL = 20.0
"""Standard deviation of grey levels from which a picture shows something."""


def frame_shows(tab: Visit, which: str) -> bool:
    """Whether the viewer shows this scene, and a picture in it."""
    place = tab.page.locator(f"#viewer iframe[data-scene={which}]")
    if not place.count() or not place.is_visible():
        return False
    frame = tab.frame()
    if not frame.locator("canvas").count():
        return False
    for hint in frame.get_by_role("button", name="Go on").all():
        hint.click()
    picture = tab.picture(place)
    height, width = picture.shape[:2]
    return float(picture[int(0.3 * height) : int(0.9 * height), int(0.05 * width) : int(0.6 * width)].std()) > COLOURFUL


def computed_s(pid: int) -> float:
    """Processor seconds of a process so far (Linux)."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def measure(photos: list[Path], preset: str) -> dict[str, float]:
    """Seconds until each thing is seen."""
    seen: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as folder, browser() as running:
        began = time.perf_counter()
        with recon_app(Path(folder) / "out", Path(folder) / "cache") as (server, url), visit(running, url) as tab:
            seen["page"] = time.perf_counter() - began
            seen["of it computing"] = computed_s(server.pid)
            began = time.perf_counter()
            tab.page.set_input_files("#drop input[type=file]", [str(photo) for photo in photos])
            tab.page.check(f"#presets input[value={preset}]")
            tab.page.wait_for_selector("#start:not([disabled])", timeout=PATIENCE_S * 1000)
            seen["photos looked at"] = time.perf_counter() - began
            tab.page.click("#start")
            began = time.perf_counter()
            watched = {
                "first cameras": lambda: tab.page.locator("#plot canvas").is_visible(),
                "first scene": lambda: frame_shows(tab, "early") or frame_shows(tab, "final"),
                "end": lambda: frame_shows(tab, "final"),
            }
            for name, true in watched.items():
                wait_until(true, name, timeout_s=4 * PATIENCE_S)
                seen[name] = time.perf_counter() - began
    return seen


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", type=Path, default=helpers.REPOSITORY / "data" / "sample")
    parser.add_argument("--preset", default="balanced")
    given = parser.parse_args()
    photos = sorted(path for path in given.photos.iterdir() if path.suffix.lower() in (".jpg", ".jpeg", ".png"))
    seen = measure(photos, given.preset)
    print("| photos | preset | " + " | ".join(seen) + " |")
    print(f"| {len(photos)} | {given.preset} | " + " | ".join(f"{seconds:.1f} s" for seconds in seen.values()) + " |")


if __name__ == "__main__":
    main()
