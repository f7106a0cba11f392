"""Digests of plain values and of files.

Input: values, paths. Output: hexadecimal text. Does not: keep anything.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any


def key_of(*parts: Any) -> str:
    """Digest of plain values, as the key of a result."""
    text = json.dumps(parts, sort_keys=True, default=str)
    return hashlib.blake2b(text.encode("utf-8", "backslashreplace"), digest_size=16).hexdigest()


def path_digest(text: str) -> str:
    """Digest of a file, or of every file in a folder; empty when there is none of that name."""
    path = Path(text)
    try:
        files = sorted(file for file in path.rglob("*") if file.is_file()) if path.is_dir() else [path] if path.is_file() else []
        digest = hashlib.blake2b(digest_size=16)
        for file in files:
            digest.update(file.relative_to(path if path.is_dir() else path.parent).as_posix().encode("utf-8", "backslashreplace"))
            digest.update(file.read_bytes())
    except OSError:
        return ""  # the stage that reads it says what is wrong
    return digest.hexdigest() if files else ""
