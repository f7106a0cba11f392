"""The process that writes uploaded pictures anew, within limits: ``python -m app.server.picture_child BYTES``.

Input: one JSON request a line on stdin. Output: one JSON line each on stdout. Does not: import torch, or believe a name's ending.

A picture that can be written without decoding keeps every bit (``app.server.strip``); other kinds are decoded, those that lose
little stored as JPEG, the rest as PNG. All metadata but the lens goes.
"""

from __future__ import annotations

import json
import os
import sys
import warnings
from pathlib import Path
from typing import Any

from recon.capture.child.__main__ import limit_memory, plain_text, set_alarm
from recon.capture.decode import decode_alpha, decode_photo, opened, turn_needed
from recon.capture.photo_size import working_size
from recon.exif import read_facts

from .strip import TURNED, Damaged, short_exif, strip

THUMB_SIDE = 192
ENDINGS = {"JPEG": ".jpg", "PNG": ".png", "WEBP": ".webp"}
LOSSY = ("HEIF", "AVIF")
QUALITY = 95


def clean(request: dict[str, Any]) -> dict[str, Any]:
    """Write a picture without metadata, and a thumbnail; "reason" says why it cannot be."""
    source, stem, thumb = Path(request["path"]), Path(request["stem"]), Path(request["thumb"])
    try:
        with opened(source) as image:
            kind = str(image.format)
            orientation = read_facts(image).orientation
            exif = short_exif(image, _turned(orientation, request.get("turns", 0)) if kind in ENDINGS else 1)
            left = turn_needed(image, orientation)
            stored = image.size
        target = _write(source, stem, kind, exif, left, stored, request.get("turns", 0))
        _write_thumb(target, thumb)
    except MemoryError:
        return {"reason": "needs more memory to decode than is allowed; make it smaller"}
    except OSError as error:
        if error.errno:
            return {"disk": error.strerror or str(error)}
        return {"reason": f"is damaged or cut off ({plain_text(error)})"}
    except Exception as error:
        return {"reason": f"is damaged or cut off ({plain_text(error)})"}
    return {"file": target.name}


def mask(request: dict[str, Any]) -> dict[str, Any]:
    """Write a mask as a grey PNG."""
    from PIL import Image

    try:
        with opened(Path(request["path"])) as image:
            left = turn_needed(image, read_facts(image).orientation)
            width, height = image.size[::-1] if left >= 5 else image.size
        grey = Image.fromarray(decode_photo(Path(request["path"]), left, width, height)).convert("L")
        grey.save(request["target"], format="PNG")
    except OSError as error:
        if error.errno:
            return {"disk": error.strerror or str(error)}
        return {"reason": f"is not usable as a mask ({plain_text(error)})"}
    except Exception as error:
        return {"reason": f"is not usable as a mask ({plain_text(error)})"}
    return {}


def _turned(orientation: int, turns: int) -> int:
    for _ in range(turns % 4):
        orientation = TURNED[orientation]
    return orientation


def _write(source: Path, stem: Path, kind: str, exif: bytes, left: int, stored: tuple[int, int], turns: int) -> Path:
    """Write the picture beside ``stem``, whole or not at all."""
    partial = stem.with_name(f".{stem.name}.part")
    try:
        if kind in ENDINGS:
            try:
                partial.write_bytes(strip(source.read_bytes(), kind, exif))
                target = stem.with_name(stem.name + ENDINGS[kind])
                os.replace(partial, target)
                return target
            except Damaged:
                left = _turned(left, turns)  # pixels are written upright below
        target = stem.with_name(stem.name + _encode(source, partial, kind, exif, left, stored))
        os.replace(partial, target)
        return target
    finally:
        partial.unlink(missing_ok=True)


def _encode(source: Path, partial: Path, kind: str, exif: bytes, left: int, stored: tuple[int, int]) -> str:
    """Decode and write upright pixels; returns the ending that suits."""
    from PIL import Image

    width, height = stored[::-1] if left >= 5 else stored
    pixels = Image.fromarray(decode_photo(source, left, width, height))
    alpha = decode_alpha(source, left, width, height)
    with Image.open(_as_file(exif)) as blank:
        upright = short_exif(blank, 1)
    if kind in LOSSY and alpha is None:
        pixels.save(partial, format="JPEG", quality=QUALITY, subsampling=0, exif=upright)
        return ".jpg"
    if alpha is not None:
        pixels.putalpha(Image.fromarray(alpha.astype("uint8") * 255))
    pixels.save(partial, format="PNG", compress_level=1, exif=upright)
    return ".png"


def _as_file(exif: bytes) -> Any:
    """A tiny picture that carries EXIF, to read it back through one door."""
    import io

    from PIL import Image

    file = io.BytesIO()
    Image.new("L", (1, 1)).save(file, format="JPEG", exif=exif)
    file.seek(0)
    return file


def _write_thumb(picture: Path, thumb: Path) -> None:
    from PIL import Image

    with opened(picture) as image:
        left = turn_needed(image, read_facts(image).orientation)
        width, height = image.size[::-1] if left >= 5 else image.size
    small = Image.fromarray(decode_photo(picture, left, *working_size(width, height, THUMB_SIDE)))
    small.save(thumb, format="JPEG", quality=80)


def main() -> None:
    """Answer requests until stdin closes."""
    news = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what native code prints must not mix with the answers
    warnings.simplefilter("ignore")
    from PIL import Image

    Image.MAX_IMAGE_PIXELS = None  # ``opened`` has its own limit
    limit_memory(int(sys.argv[1]))
    for line in sys.stdin:
        request = json.loads(line)
        set_alarm(request["seconds"])
        answer = mask(request) if request["task"] == "mask" else clean(request)
        set_alarm(0)
        news.write(json.dumps({**answer, "done": True}) + "\n")
        news.flush()


if __name__ == "__main__":
    main()
