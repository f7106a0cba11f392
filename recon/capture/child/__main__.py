"""Decode files on request, within limits, and say what was found.

Input: one JSON request a line on stdin. Output: one or more JSON lines a request on stdout, the last with "done".
Ends when stdin closes. A crash, a hang or a flood of memory stays in here; the parent ends this process and goes on.
Does not: import torch, or keep anything between requests.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import sys
import warnings
from pathlib import Path
from typing import IO, Any


def limit_memory(budget_bytes: int) -> None:
    """Let this process grow by no more than ``budget_bytes`` (where the system can: Linux)."""
    try:
        import resource
    except ImportError:  # Windows has no such module; the limit on pixels remains
        return
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[0])
    except OSError:
        return
    wanted = pages * os.sysconf("SC_PAGESIZE") + budget_bytes
    resource.setrlimit(resource.RLIMIT_AS, (wanted, resource.getrlimit(resource.RLIMIT_AS)[1]))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def set_alarm(seconds: float) -> None:
    """Have the system end this process after ``seconds`` of processor time, even in native code; 0 calls it off."""
    import signal

    if hasattr(signal, "setitimer"):
        signal.signal(signal.SIGPROF, signal.SIG_DFL)
        signal.setitimer(signal.ITIMER_PROF, seconds)


def probe(request: dict[str, Any]) -> dict[str, Any]:
    """Decode one picture in full and measure it; "reason" says why it cannot be used."""
    from ..decode import READABLE, decode_alpha, decode_photo, opened, turn_needed
    from ..measures import blur, exposure, grey, likeness_key
    from ..photo_size import SMALLEST_SIDE, working_size
    from .facts import facts_of

    path = Path(request["path"])
    try:
        with opened(path) as image:
            stored, kind = image.size, str(image.format)
            frames = int(getattr(image, "n_frames", 1)) if kind in ("GIF", "WEBP", "PNG") else 1
            facts = facts_of(image, keep_private=request["keep_private"])
            orientation = turn_needed(image, facts["orientation"])

    except FileNotFoundError:
        return {"reason": "there is no such file"}
    except (PermissionError, IsADirectoryError) as error:
        return {"reason": f"cannot be opened ({error.strerror})"}
    except Exception as error:
        if "pixels are more than" in str(error) or "DecompressionBomb" in type(error).__name__:
            return {"reason": "has too many pixels; make it smaller"}
        return {"reason": f"is not a {READABLE} image, or its header is damaged"}
    width, height = stored[::-1] if orientation >= 5 else stored
    if min(width, height) < SMALLEST_SIDE:
        return {"reason": f"is only {width}x{height} pixels"}
    if max(width, height) > 60 * min(width, height):
        return {"reason": f"has an impossible shape ({width}x{height} pixels)"}
    small = working_size(width, height, request["side"])
    try:
        pixels = decode_photo(path, orientation, *small)
        alpha = decode_alpha(path, orientation, *small)
    except MemoryError:
        return {"reason": "needs more memory to decode than is allowed; make it smaller"}
    except Exception as error:
        return {"reason": f"is damaged or cut off ({plain_text(error)})"}
    if alpha is not None and not alpha.any():
        return {"reason": "is wholly transparent"}
    luma = grey(pixels)
    with open(path, "rb") as file:
        content = hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=16)).hexdigest()
    return {
        "facts": {**facts, "orientation": orientation},
        "width": width,
        "height": height,
        "kind": kind,
        "frames": frames,
        "digest": hashlib.blake2b(pixels.tobytes() + f"{width}x{height}".encode(), digest_size=16).hexdigest(),
        "content": content,
        "blur": blur(luma),
        "exposure": exposure(luma),
        "likeness": base64.b64encode(likeness_key(luma).tobytes()).decode(),
        "opaque": None if alpha is None else float(alpha.mean()),
    }


def plain_text(error: BaseException) -> str:
    """What an error says, short and printable."""
    text = str(error) or type(error).__name__
    return "".join(letter if letter.isprintable() else " " for letter in text)[:160]


def frames(request: dict[str, Any], news: IO[str]) -> dict[str, Any]:
    """Choose and write frames of a video or animation."""
    import cv2

    from ..video import extract_frames

    cv2.setNumThreads(1)  # pictures this small are done before other threads wake

    def tell(share: float) -> None:
        set_alarm(request["seconds"])
        news.write(json.dumps({"share": share}) + "\n")
        news.flush()

    try:
        return extract_frames(
            Path(request["path"]), Path(request["target"]), fps=request["fps"], max_frames=request["max_frames"], tell=tell
        )
    except MemoryError:
        return {"reason": "needs more memory to decode than is allowed; make it smaller"}
    except OSError as error:
        if error.errno:  # the disk, not the video
            return {"reason": f"its frames cannot be written ({error.strerror})", "disk": True}
        return {"reason": f"cannot be read as a video ({plain_text(error)})"}
    except Exception as error:
        return {"reason": f"cannot be read as a video ({plain_text(error)})"}


def main() -> None:
    """Answer requests until stdin closes."""
    news = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what native code prints must not mix with the answers
    warnings.simplefilter("ignore")
    os.environ["OPENCV_LOG_LEVEL"] = "OFF"
    os.environ["OPENCV_FFMPEG_LOGLEVEL"] = "-8"
    from PIL import Image, ImageFile

    Image.MAX_IMAGE_PIXELS = None  # ``opened`` has its own limit
    ImageFile.LOAD_TRUNCATED_IMAGES = False
    limit_memory(int(sys.argv[1]))
    for line in sys.stdin:
        request = json.loads(line)
        set_alarm(request["seconds"])
        answer = frames(request, news) if request["task"] == "frames" else probe(request)
        set_alarm(0)
        news.write(json.dumps({**answer, "done": True}) + "\n")
        news.flush()


if __name__ == "__main__":
    main()
