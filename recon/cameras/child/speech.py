"""How COLMAP's process speaks to the one that started it, and when it ends.

Output: JSON lines on stdout; COLMAP's log on stderr. Does not: work.
"""

from __future__ import annotations

import json
import os
import sys
import threading
from typing import Any

import pycolmap


def say(**news: Any) -> None:
    """Send one line of news to the parent."""
    sys.stdout.write(json.dumps(news) + "\n")
    sys.stdout.flush()


def stop_with_parent() -> None:
    """End this process when the parent closes our stdin or dies."""

    def wait() -> None:
        while os.read(0, 1):  # not sys.stdin, whose lock a thread must not hold while the interpreter shuts down
            pass
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()


def speak_on_stderr() -> None:
    """Keep COLMAP's log to warnings, and to stderr: by itself it leaves log files in the temporary folder.

    Some of its functions set the flags back, so the files are also denied a name.
    """
    log = pycolmap.logging
    log.minloglevel, log.logtostderr = log.Level.WARNING.value, True
    for level in (log.Level.INFO, log.Level.WARNING, log.Level.ERROR, log.Level.FATAL):
        log.set_log_destination(level, "")
