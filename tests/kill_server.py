"""Runs that can be killed: a process that has loaded everything once, and forks one run after another.

Input: JSON lines on stdin with photos, cameras, out, cache. Output: JSON lines: the process of each run, its stages as they begin,
how it ended. ``Killer`` is the other end.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent


@dataclass
class Run:
    """What became of one run."""

    status: int = 0
    """Exit status as ``os.waitpid`` gives it."""
    began: dict[str, float] = field(default_factory=dict)
    """Stage -> seconds after the start at which it began."""
    seconds: float = 0.0
    error: str = ""


class Killer:
    """Starts runs in a server process and kills some of them."""

    def __init__(self) -> None:
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "NUMBA_NUM_THREADS": "1"}
        self.server = subprocess.Popen(
            [sys.executable, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
        )

    def close(self) -> None:
        assert self.server.stdin is not None
        assert self.server.stdout is not None
        self.server.stdin.close()
        self.server.wait(60)
        self.server.stdout.close()

    def run(self, request: dict[str, Any], *, kill_in: str = "", after_s: float = 0.0) -> Run:
        """Run once; when ``kill_in`` begins, wait ``after_s`` and kill."""
        assert self.server.stdin is not None
        assert self.server.stdout is not None
        self.server.stdin.write(json.dumps(request) + "\n")
        self.server.stdin.flush()
        done, pid, started = Run(), 0, time.perf_counter()
        for line in self.server.stdout:
            news = json.loads(line)
            pid = news.get("pid", pid)
            if "stage" in news:
                done.began.setdefault(news["stage"], time.perf_counter() - started)
                if news["stage"] == kill_in:
                    time.sleep(after_s)
                    kill_in = ""
                    try:
                        os.kill(pid, signal.SIGKILL)
                    except ProcessLookupError:
                        continue
            done.error = news.get("error", done.error)
            if "status" in news:
                done.status, done.seconds = news["status"], time.perf_counter() - started
                return done
        raise AssertionError("the server ended")


def tell(**news: Any) -> None:
    os.write(1, (json.dumps(news) + "\n").encode())


def serve() -> None:
    """Fork a run for every request."""
    from app.identity import code_digest
    from app.run import build_tools
    from recon.config import PipelineConfig
    from recon.fuse import FuseConfig
    from recon.pipeline import run_pipeline
    from recon.progress import Progress

    tools = build_tools()
    code_digest()  # once for all runs: an editor may be at work meanwhile
    for line in sys.stdin:
        request = json.loads(line)
        os.environ["RECON_CACHE"] = request["cache"]
        pid = os.fork()
        if pid == 0:
            status, seen = 1, set()

            def hear(event: Any, seen: set[str] = seen) -> None:
                if event.stage not in seen:
                    seen.add(event.stage)
                    tell(stage=event.stage)

            try:
                config = PipelineConfig(
                    cameras=request["cameras"], long_side=128, video=False, model="mini", device="cpu",
                    polish=request.get("polish", 0.0), fuse=FuseConfig(max_gaussians=1500, recolor_steps=1),
                )  # fmt: skip
                run_pipeline(Path(request["photos"]), Path(request["out"]), config, tools, Progress(hear))
                status = 0
            except Exception as error:
                tell(error=f"{type(error).__name__}: {error}")
            finally:
                os._exit(status)
        tell(pid=pid)
        tell(status=os.waitpid(pid, 0)[1])


if __name__ == "__main__":
    serve()
