"""Stands in for the process of a reconstruction, with its contract: ``python -m tests.fake_run_child [FOLDER]``.

The names of the photos say what happens: bad (cannot be reconstructed), error (a fault of the program), killed (dies at the first
start), hopeless (dies at every start), slow (takes long unless it is stopped), stubborn (does not stop by itself).
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
from pathlib import Path

BEHAVIOURS = ("bad", "error", "killed", "hopeless", "slow", "stubborn")


def tell(**news: object) -> None:
    sys.stdout.write(json.dumps(news) + "\n")
    sys.stdout.flush()


def watch(stop: threading.Event) -> None:
    for _ in sys.stdin:
        stop.set()
    os._exit(9)


def main(folder: Path) -> None:
    order = json.loads((folder / "job.json").read_text())
    stop = threading.Event()
    threading.Thread(target=watch, args=(stop,), daemon=True).start()
    names = sorted(path.name for path in (folder / "photos").iterdir())
    (folder / "pid").write_text(str(os.getpid()))
    starts = folder / "starts"
    starts.write_text(str(int(starts.read_text()) + 1 if starts.exists() else 1))
    tell(stage="photos", fraction=1.0, message=f"{len(names)} photos", seconds=0.1)
    tell(stage="cameras", fraction=0.5, message="", seconds=0.1)
    first = next((name for name in names if name.startswith(BEHAVIOURS)), names[0])
    if first.startswith("error"):
        raise SystemExit(1)
    if first.startswith("hopeless") or (first.startswith("killed") and starts.read_text() == "1"):
        os.kill(os.getpid(), signal.SIGKILL)
    if first.startswith("bad"):
        tell(end="failed", reason=f"{first} shows <another> place.", remedy="Take overlapping photos.", hopeless=True)
        return
    (folder / "early").mkdir(exist_ok=True)
    (folder / "early" / "cameras.json").write_text('{"format": 1, "frames": [], "points": []}')
    tell(early="cameras")
    step = 0
    while first.startswith("stubborn"):
        time.sleep(0.05)
    while first.startswith("slow") and step < 600:
        tell(stage="depth", fraction=step / 600, message="", seconds=0.05 * step)
        time.sleep(0.05)
        step += 1
        if stop.is_set():
            tell(end="stopped")
            return
    (folder / "scene").mkdir(exist_ok=True)
    for name, text in (("scene.ply", "ply"), ("preview.png", "png"), ("report.html", "<script>1</script>")):
        (folder / "scene" / name).write_text(text)
    report = {"photos": names, "settings": order["settings"]}
    (folder / "scene" / "report.json").write_text(json.dumps(report))
    (folder / "cover.jpg").write_bytes(b"\xff\xd8\xff\xd9")
    tell(end="done", photo_words={names[-1]: ["blurred"]}, offending=[names[-1]], advice=["Take more photos."])


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else json.loads(sys.stdin.readline())["folder"]))
