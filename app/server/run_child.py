"""The process of one reconstruction: ``python -m app.server.run_child [FOLDER]``.

Input: FOLDER/job.json and FOLDER/photos. Output: FOLDER/early, FOLDER/scene, FOLDER/cover.jpg, and JSON lines on stdout: stages,
advice, early results, the end. Does not: outlive its server: it ends when stdin closes, and stops in good order at a line there.

Results of stages are kept in FOLDER/cache, so that a run that was killed goes on with its last finished stage.
Without FOLDER it loads what every run needs, which takes seconds, and waits for a line with the folder on stdin.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import warnings
from pathlib import Path
from typing import IO, Any

SERVER_GONE = 9
PATIENCE_S = 900.0
"""Seconds a process that was started ahead waits for its run."""
MOST_POINTS = 4000
"""Sparse points of early/cameras.json."""
COVER_SIDE = 480
AFTER_OTHERS = 10
"""Niceness once a first scene can be seen: who walks around in it goes first, then the work that goes on."""


class News:
    """Speaks on what was stdout; native code that prints there now prints to stderr."""

    def __init__(self) -> None:
        self._pipe = os.fdopen(os.dup(1), "w")
        self._lock = threading.Lock()
        os.dup2(2, 1)

    def __call__(self, **news: Any) -> None:
        with self._lock:
            self._pipe.write(json.dumps(news) + "\n")
            self._pipe.flush()


def watch_stdin(progress: Any) -> None:
    """Stop when asked, end when the server is gone."""
    for _ in sys.stdin:
        progress.cancel()
    os._exit(SERVER_GONE)


def wait_for_order() -> Path:
    """Load everything while nobody waits, then learn the folder; ends the process when no run comes."""
    late = threading.Timer(PATIENCE_S, os._exit, (0,))
    late.daemon = True
    late.start()
    from app.run import build_tools

    build_tools()
    line = sys.stdin.readline()
    if not line:
        os._exit(SERVER_GONE)
    late.cancel()
    folder = Path(json.loads(line)["folder"])
    with (folder / "run.log").open("wb") as log:
        os.dup2(log.fileno(), 2)
    os.chdir(folder)
    return folder


def main(folder: Path) -> None:
    """Run the job of a folder."""
    news = News()
    held = hold(folder / ".lock")
    job = json.loads((folder / "job.json").read_text(encoding="utf-8"))
    os.environ["RECON_CACHE"] = str(folder / "cache")
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    keep_to_cores(job.get("cores") or 0)
    warnings.filterwarnings("ignore", module=r"PIL(\.|$)")
    from recon.errors import UserError
    from recon.progress import Cancelled, Progress

    early = Early(folder, news)
    progress = Progress(lambda event: hear(event, news), early.take)
    threading.Thread(target=watch_stdin, args=(progress,), daemon=True).start()
    try:
        news(end="done", **run(folder, job, progress))
    except UserError as error:
        news(end="failed", reason=error.reason, remedy=error.remedy, hopeless=error.exit_code == 3)
    except (Cancelled, KeyboardInterrupt):
        news(end="stopped")
    except OSError as error:
        from recon.resume.disk import disk_trouble

        told = disk_trouble(error)
        if told is None:
            raise
        news(end="failed", reason=told.reason, remedy="Free some space and continue: it goes on with the last finished stage.")
    except MemoryError:
        news(end="failed", reason="The memory is not enough.", remedy="Choose a smaller working size, or fewer photos.")
    finally:
        held.close()


def hold(path: Path) -> IO[str]:
    """Wait until no earlier process works in the folder: one whose server was killed may need a moment to notice."""
    held = path.open("w")
    try:
        import fcntl
    except ImportError:  # Windows ends children with their server's job
        return held
    fcntl.flock(held, fcntl.LOCK_EX)
    return held


def keep_to_cores(count: int) -> None:
    """Keep this process and all it starts to some cores (Linux); 0 takes all."""
    if count and hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:count])


def run(folder: Path, job: dict[str, Any], progress: Any) -> dict[str, Any]:
    """Reconstruct; returns what the server should know about it."""
    from dataclasses import replace

    from app.run import start
    from models.registry import camera_models
    from recon.errors import UserError

    from .settings import CAMERAS, RunSettings

    settings = RunSettings.read(job["settings"])
    if settings.cameras not in (*CAMERAS, *camera_models()):
        raise UserError(f"There is no way to find cameras called {settings.cameras!r}.", f"Choose one of {', '.join(CAMERAS)}.")
    masks = folder / "masks"
    config = settings.config(masks=masks if masks.is_dir() else None)
    config = replace(config, max_memory=job.get("max_memory"), device=job.get("device", "auto"))
    result = start([folder / "photos"], folder / "scene", config, progress)
    write_cover(folder, result.scene)
    return facts_of(result.report)


def facts_of(report: dict[str, Any]) -> dict[str, Any]:
    """What marks photos, out of a report."""
    words: dict[str, list[str]] = {}
    check = report["photos"].get("check") or {}
    for photo in check.get("photos", []):
        words.setdefault(photo["name"], []).extend(photo["words"])
    lost = [name for name in words if any("could not be placed" in w and name in w for w in report["warnings"])]
    for name in lost:
        words[name].append("could not be placed")
    return {
        "photo_words": {name: said for name, said in words.items() if said},
        "offending": [name for name, said in words.items() if said],
        "advice": [*report["warnings"], *check.get("advice", [])],
    }


def hear(event: Any, news: News) -> None:
    """Pass an event on."""
    if event.advice:
        news(advice=event.message)
    else:
        news(stage=event.stage, fraction=round(event.fraction, 4), message=event.message, seconds=round(event.elapsed_s, 2))


def let_others_go_first(niceness: int) -> None:
    """Lower the priority of this process, once; where the system has no such thing, nothing happens."""
    if not hasattr(os, "nice") or os.nice(0) >= niceness:
        return
    os.nice(niceness - os.nice(0))
    if not sys.platform.startswith("linux"):
        return
    try:  # Linux counts niceness by thread, and by session first (man 7 sched, "The nice value" and "The autogroup feature")
        for thread in Path("/proc/self/task").iterdir():
            os.setpriority(os.PRIO_PROCESS, int(thread.name), niceness)
        Path("/proc/self/autogroup").write_text(str(niceness))
    except OSError:
        return


class Early:
    """Writes what is known before the run ends."""

    def __init__(self, folder: Path, news: News) -> None:
        self._folder, self._news = folder / "early", news

    def take(self, name: str, *things: Any) -> None:
        """Write cameras, or a first scene; whoever looks finds a whole file or none."""
        if name == "cameras":
            self._cameras(*things)
        elif not self._scene(name, things[0]):
            return
        self._news(early=name)
        if name != "cameras":
            let_others_go_first(AFTER_OTHERS)

    def _scene(self, name: str, scene: Any) -> bool:
        """Write a scene before its time; the run does not end over it when that fails."""
        from recon.errors import UserError
        from recon.files import atomic_path
        from recon.ply import write_ply

        try:
            with atomic_path(self._folder / f"{name}.ply") as partial:
                write_ply(partial, scene.gaussians.detach().to("cpu"))
        except (OSError, UserError) as error:
            sys.stderr.write(f"no early {name}: {error}\n")
            return False
        return True

    def _cameras(self, solved: Any, views: Any) -> None:
        from recon.cameras.camera_files import write_cameras_json
        from recon.files import atomic_path, read_json, write_json_atomic

        self._folder.mkdir(exist_ok=True)
        with atomic_path(self._folder / "cameras.json") as partial:
            write_cameras_json(partial, solved.cameras, views)
            step = max(1, len(solved.points_world) // MOST_POINTS)
            rows = zip(solved.points_world[::step].tolist(), solved.points_rgb[::step].tolist(), strict=True)
            points = [[round(value, 5) for value in at] + color for at, color in rows][:MOST_POINTS]
            write_json_atomic(partial, {**read_json(partial), "points": points})


def write_cover(folder: Path, scene: Any) -> None:
    """A small picture for the gallery: the scene from its first camera."""
    import torch
    from PIL import Image

    from app.scene_files import fit_cameras
    from recon.files import atomic_path
    from render.rasterizer import load_rasterizer

    if scene.cameras is None:
        return
    with torch.no_grad():
        camera = fit_cameras(scene.cameras.select([0]), COVER_SIDE).to("cpu")
        color = load_rasterizer("cpu")(scene.gaussians.to("cpu"), camera).color[0]
    picture = (color.clamp(0, 1) * 255).round().byte().numpy()
    with atomic_path(folder / "cover.jpg") as partial:
        Image.fromarray(picture).save(partial, quality=85)


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else wait_for_order())
