"""Names of photos that every file format and terminal can carry.

Input: paths as the system gives them, bytes that are not UTF-8 and control characters included. Output: clean unique names.
"""

from __future__ import annotations

import os
import re

_PARTS = re.compile(r"([0-9]+)")


def natural_key(name: str) -> tuple[tuple[int, int | str], ...]:
    """Sort key under which img2 comes before img10."""
    parts = (part for part in _PARTS.split(name) if part)
    return tuple((0, int(part)) if part.isdigit() and len(part) < 64 else (1, part.casefold()) for part in parts)


def clean_name(name: str) -> str:
    """Write what is not printable Unicode as %XX, so that a name can stand in JSON, HTML and on a terminal.

    Distinct names stay distinct: a percent sign before two hexadecimal digits is written as %25.
    """
    out = []
    for index, letter in enumerate(name):
        if not letter.isprintable():  # surrogates stand for bytes that are not UTF-8
            errors = "surrogateescape" if "\udc80" <= letter <= "\udcff" else "surrogatepass"
            out += [f"%{byte:02X}" for byte in letter.encode("utf-8", errors)]
        elif letter == "%" and re.match(r"[0-9A-F]{2}", name[index + 1 : index + 3]):
            out.append("%25")
        else:
            out.append(letter)
    return "".join(out)


def shown(path: object) -> str:
    """A path as it can be printed."""
    return clean_name(os.fspath(path) if isinstance(path, os.PathLike) else str(path))
