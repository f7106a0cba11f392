"""The process COLMAP runs in: ending it while it speaks leaves no thread behind and no half-read line."""

from __future__ import annotations

import queue
import subprocess
import sys
import threading

import pytest

from recon.cameras import child_process

CHATTER = """
import sys
while True:
    sys.stdout.write('{"stage": 1}\\n' * 50 + '{"sta')
    sys.stdout.flush()
    sys.stdout.write('ge": 1}\\n')
"""


@pytest.mark.filterwarnings("error::pytest.PytestUnhandledThreadExceptionWarning")
def test_ending_a_talkative_child_ends_its_listener():
    """Killed twenty times in the middle of its words: the listener comes to its end, and every piece of news is whole."""
    for _ in range(20):
        news: queue.Queue = queue.Queue()
        process = subprocess.Popen([sys.executable, "-c", CHATTER], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert process.stdout is not None
        listener = threading.Thread(target=child_process._listen, args=(process.stdout, news))
        listener.start()
        first = news.get(timeout=10)
        child_process._end(process)
        listener.join(timeout=10)
        assert not listener.is_alive()
        assert process.stdout.closed
        said = [first, *news.queue]
        assert said[-1] is None
        assert all("stage" in item for item in said[:-1])
