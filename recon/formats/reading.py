"""Reading a file that may be broken or hostile: bounded sizes, honest errors.

Input: bytes from anywhere. Output: checked slices, or ``BadFile`` with one sentence that says what is wrong.
Does not: know any format.
"""

from __future__ import annotations

import json
import zlib
from typing import Any

import numpy as np

from ..errors import UserError

MAX_GAUSSIANS = 50_000_000
"""More than any viewer opens; a header that says more is taken for a lie."""
FREE_BYTES = 64 << 20
"""A compressed file may always unfold to this much."""
MAX_UNFOLDING = 2000
"""Beyond ``FREE_BYTES`` a file may unfold to this many times its size; real scenes stay below 20."""


class BadFile(UserError):
    """The content is not what its format demands. The registry adds the file's name."""


class Reader:
    """Walks through bytes; refuses to step over the end.

    Args:
        data: the bytes.
        what: what they are, for messages.
    """

    def __init__(self, data: bytes | memoryview, what: str) -> None:
        self.data = memoryview(data)
        self.what = what
        self.at = 0

    @property
    def left(self) -> int:
        return len(self.data) - self.at

    def take(self, count: int) -> memoryview:
        """Take the next ``count`` bytes.

        Raises:
            BadFile: there are fewer.
        """
        if count < 0 or count > self.left:
            raise BadFile(f"{self.what} ends {count - self.left} bytes early.")
        self.at += count
        return self.data[self.at - count : self.at]

    def array(self, dtype: str, *shape: int) -> np.ndarray:
        """Take a little-endian array of ``shape``."""
        size = int(np.prod([int(n) for n in shape], dtype=object)) * np.dtype(dtype).itemsize
        return np.frombuffer(self.take(size), dtype=np.dtype(dtype).newbyteorder("<")).reshape(shape)

    def number(self, dtype: str) -> int:
        """Take one integer."""
        return int(self.array(dtype, 1)[0])


def check_count(count: int, available_bytes: int, bytes_each: int, what: str) -> int:
    """Return ``count`` when that many Gaussians can be in the bytes at hand.

    Raises:
        BadFile: none, too many for any viewer, or more than the bytes can hold.
    """
    if count <= 0:
        raise BadFile(f"{what} holds no Gaussians.")
    if count > MAX_GAUSSIANS:
        raise BadFile(f"{what} promises {count:,} Gaussians; at most {MAX_GAUSSIANS:,} are read.")
    if count * bytes_each > available_bytes:
        raise BadFile(f"{what} promises {count:,} Gaussians, but has room for {available_bytes // bytes_each:,}.")
    return count


def unfolding_limit(compressed_bytes: int) -> int:
    """Return how many bytes a compressed stretch may unfold to."""
    return FREE_BYTES + MAX_UNFOLDING * compressed_bytes


def gunzip(data: bytes | memoryview, most_bytes: int, *, whole: bool = False) -> bytes:
    """Unfold one gzip member to at most ``most_bytes``; what lies beyond is left folded.

    Args:
        whole: also demand that the member ends within a byte of ``most_bytes``, with its checksum.

    Raises:
        BadFile: it is not gzip, or it is cut short.
    """
    machine = zlib.decompressobj(wbits=31)
    try:
        out = machine.decompress(data, max(most_bytes, 1))
        if whole and not machine.eof:
            machine.decompress(machine.unconsumed_tail, 1)
    except zlib.error as error:
        raise BadFile(f"its gzip stream is broken ({error}).") from error
    if not machine.eof and (whole or (not machine.unconsumed_tail and len(out) < most_bytes)):
        raise BadFile("its gzip stream is cut short.")
    return out


def parse_json(data: bytes | memoryview, what: str) -> dict[str, Any]:
    """Parse a JSON object.

    Raises:
        BadFile: it is not one.
    """
    try:
        content = json.loads(bytes(data).decode("utf-8"))
    except (UnicodeDecodeError, json.JSONDecodeError, RecursionError) as error:
        raise BadFile(f"{what} is not valid JSON ({error}).") from error
    if not isinstance(content, dict):
        raise BadFile(f"{what} is not a JSON object.")
    return content


def integer(content: Any, key: str, what: str, *, least: int = 0, most: int = 1 << 40) -> int:
    """Read an integer of a JSON object within bounds.

    Raises:
        BadFile: it is missing, of another kind, or out of bounds.
    """
    value = content.get(key) if isinstance(content, dict) else None
    if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
        raise BadFile(f"{what}: {key!r} should be an integer from {least} to {most}, found {str(value)[:40]!r}.")
    return value


def number_list(content: Any, key: str, what: str, count: int) -> np.ndarray:
    """Read ``count`` finite numbers of a JSON object as float32.

    Raises:
        BadFile: they are missing, of another kind or number, or not finite.
    """
    value = content.get(key) if isinstance(content, dict) else None
    good = isinstance(value, list) and len(value) == count and all(type(v) in (int, float) for v in value)
    numbers = np.array([float(v) if abs(v) < 1e30 else np.nan for v in value], dtype=np.float32) if good and value else None
    if numbers is None or not np.isfinite(numbers).all():
        raise BadFile(f"{what}: {key!r} should be {count} finite numbers.")
    return numbers
