"""Starting and ending child processes: spawned, in a group of their own, ended with all they started.

Input: how many cores. Output: an environment, arguments of ``Popen``. Does not: know what children do.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

HOME = Path(__file__).resolve().parent.parent.parent


def child_environment(cores: int = 0) -> dict[str, str]:
    """Environment in which our modules are found and threads keep to the cores given.

    Args:
        cores: 0 leaves the choice to the libraries.
    """
    path = os.environ.get("PYTHONPATH")
    found = {**os.environ, "PYTHONPATH": str(HOME) if not path else str(HOME) + os.pathsep + path}
    found.setdefault("OMP_WAIT_POLICY", "passive")
    found.pop("RECON_AUTH", None)  # the password is nobody else's business
    if cores:
        found |= dict.fromkeys(("OMP_NUM_THREADS", "NUMBA_NUM_THREADS", "MKL_NUM_THREADS"), str(cores))
    return found


def new_group() -> dict[str, Any]:
    """Arguments of ``Popen`` that keep Ctrl-C of the server from the child."""
    if sys.platform == "win32":
        return {"creationflags": getattr(subprocess, "CREATE_NEW_PROCESS_GROUP", 0)}
    return {"start_new_session": True}


def let_go(child: subprocess.Popen) -> None:
    """Close the pipes of a child that has ended or is ending, and wait until it is gone."""
    for pipe in (child.stdin, child.stdout):
        try:
            if pipe is not None:
                pipe.close()
        except OSError:  # what was still to be written reaches nobody
            continue
    child.wait()


def end_child(child: subprocess.Popen) -> None:
    """End a child and its group at once; one that has ended already is left alone."""
    if child.poll() is not None:
        return
    if sys.platform == "win32":
        child.kill()
        return
    try:
        os.killpg(child.pid, signal.SIGKILL)
    except ProcessLookupError:
        return
