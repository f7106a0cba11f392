"""Photos without what they say about people: position, owner, serial numbers, comments, second pictures, trailing videos.

Input: the bytes of a JPEG, PNG or WebP. Output: the same picture, bit for bit, with new short EXIF. Does not: decode pixels.

Nothing of the file is taken over but what decoding needs (a list of what may stay, not of what must go), so that no unknown block
carries a position along. What a camera finder needs of EXIF (orientation, focal length, make, model) is written anew.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Mapping
from typing import Any

from PIL import ExifTags, Image
from PIL.TiffImagePlugin import IFDRational

EXIF_HEAD = b"Exif\0\0"
JPEG_KEPT = frozenset((0xC4, 0xCC, 0xDB, 0xDD, *(code for code in range(0xC0, 0xD0) if code not in (0xC4, 0xC8, 0xCC))))
"""Segments of a JPEG before its scans that decoding needs: tables, frames, restart interval."""
PNG_KEPT = frozenset((b"IHDR", b"PLTE", b"IDAT", b"IEND", b"tRNS", b"gAMA", b"cHRM", b"sRGB", b"iCCP", b"sBIT", b"bKGD"))
WEBP_KEPT = frozenset((b"VP8 ", b"VP8L", b"ALPH", b"ICCP"))
BASE_KEPT = ("Make", "Model")
DETAIL_KEPT = (
    "LensModel", "FocalLength", "FocalLengthIn35mmFilm", "FocalPlaneXResolution", "FocalPlaneYResolution",
    "FocalPlaneResolutionUnit", "ExifImageWidth", "ExifImageHeight", "ExposureTime", "FNumber", "ISOSpeedRatings",
)  # fmt: skip
LONGEST_TEXT = 64
PARTS, MOST_RATIO = 10_000, 2e5
"""Ratios are written in parts of so many; larger ones are no lens."""
TURNED = {1: 6, 6: 3, 3: 8, 8: 1, 2: 7, 7: 4, 4: 5, 5: 2}
"""EXIF orientation -> the same turned a quarter clockwise."""


class Damaged(ValueError):
    """The file is not built as its kind is."""


def short_exif(image: Image.Image, orientation: int | None = None) -> bytes:
    """EXIF (with its head) that holds nothing but what finding cameras needs.

    Args:
        orientation: None keeps the picture's.
    """
    made = Image.Exif()
    try:
        found = image.getexif()
        base: Mapping[int, Any] = dict(found)
        detail: Mapping[int, Any] = found.get_ifd(ExifTags.IFD.Exif)
    except Exception:  # PIL's parser meets every kind of broken block; a photo without EXIF is still a photo
        base, detail = {}, {}
    kept = _kept(detail, DETAIL_KEPT)
    for tag, value in _kept(base, BASE_KEPT).items():
        made[tag] = value
    given = orientation or base.get(ExifTags.Base.Orientation, 1)
    made[ExifTags.Base.Orientation] = given if given in TURNED else 1
    if kept:
        made.get_ifd(ExifTags.IFD.Exif).update(kept)
    data = made.tobytes()
    return data if data.startswith(EXIF_HEAD) else EXIF_HEAD + data


def _kept(tags: Mapping[int, Any], names: tuple[str, ...]) -> dict[int, Any]:
    """Tags of these names whose values are numbers or short printable text."""
    kept: dict[int, Any] = {}
    for name in names:
        value = tags.get(ExifTags.Base[name])
        if isinstance(value, str):
            text = "".join(letter for letter in value if " " <= letter <= "~")[:LONGEST_TEXT].strip()
            if text:
                kept[ExifTags.Base[name]] = text
        elif isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**31:
            kept[ExifTags.Base[name]] = value
        elif isinstance(value, (float, IFDRational)) and 0 <= value < MOST_RATIO:  # NaN is in no range
            kept[ExifTags.Base[name]] = IFDRational(round(float(value) * PARTS), PARTS)
    return kept


def strip(data: bytes, kind: str, exif: bytes) -> bytes:
    """The same picture with ``exif`` instead of all else that is no picture.

    Args:
        kind: JPEG, PNG or WEBP.
        exif: from ``short_exif``.

    Raises:
        Damaged: the file is not built as its kind is.
    """
    try:
        return {"JPEG": _strip_jpeg, "PNG": _strip_png, "WEBP": _strip_webp}[kind](data, exif)
    except (struct.error, IndexError) as error:
        raise Damaged("is cut off") from error


def _strip_jpeg(data: bytes, exif: bytes) -> bytes:
    if data[:2] != b"\xff\xd8":
        raise Damaged("does not begin as a JPEG")
    out = [b"\xff\xd8", b"\xff\xe1", struct.pack(">H", len(exif) + 2), exif]
    at, scanned = 2, False
    while at < len(data):
        if data[at] != 0xFF:
            raise Damaged("has no marker where one belongs")
        code = data[at + 1]
        if code == 0xFF:  # filling before a marker
            at += 1
            continue
        if code == 0xD9:
            break
        if 0xD0 <= code <= 0xD7 or code == 0x01:
            at += 2
            continue
        length = struct.unpack_from(">H", data, at + 2)[0]
        body = data[at + 4 : at + 2 + length]
        if length < 2 or at + 2 + length > len(data):
            raise Damaged("is cut off")
        end = at + 2 + length
        if code == 0xDA:
            end = _end_of_scan(data, end)
            scanned = True
        icc = code == 0xE2 and body.startswith(b"ICC_PROFILE\0")
        adobe = code == 0xEE and body.startswith(b"Adobe") and length <= 16
        jfif = code == 0xE0 and body.startswith(b"JFIF\0")
        if jfif:
            out.append(data[at : at + 2] + struct.pack(">H", 16) + body[:12] + b"\0\0")  # without its thumbnail
        elif code == 0xDA or code in JPEG_KEPT or icc or adobe:
            out.append(data[at:end])
        at = end
    if not scanned:
        raise Damaged("holds no picture")
    return b"".join([*out, b"\xff\xd9"])


def _end_of_scan(data: bytes, at: int) -> int:
    """Where the marker after compressed data begins; a cut-off picture ends with the file."""
    while True:
        at = data.find(b"\xff", at)
        if at < 0 or at + 1 >= len(data):
            return len(data)
        code = data[at + 1]
        if code == 0 or 0xD0 <= code <= 0xD7:
            at += 2
        elif code == 0xFF:
            at += 1
        else:
            return at


def _strip_png(data: bytes, exif: bytes) -> bytes:
    if data[:8] != b"\x89PNG\r\n\x1a\n":
        raise Damaged("does not begin as a PNG")
    out, at, ended = [data[:8]], 8, False
    while at + 12 <= len(data) and not ended:
        length, name = struct.unpack_from(">I4s", data, at)
        if at + 12 + length > len(data):
            raise Damaged("is cut off")
        if name in PNG_KEPT:
            out.append(data[at : at + 12 + length])
        if name == b"IHDR":
            body = b"eXIf" + exif.removeprefix(EXIF_HEAD)
            out.append(struct.pack(">I", len(body) - 4) + body + struct.pack(">I", zlib.crc32(body)))
        ended = name == b"IEND"
        at += 12 + length
    if not ended:
        raise Damaged("is cut off")
    return b"".join(out)


def _strip_webp(data: bytes, exif: bytes) -> bytes:
    """Still pictures; an animation has none of the chunks that may stay and is written anew by its first picture."""
    if data[:4] != b"RIFF" or data[8:12] != b"WEBP":
        raise Damaged("does not begin as a WebP")
    end = min(len(data), 8 + struct.unpack_from("<I", data, 4)[0])
    chunks, at, size = [], 12, None
    while at + 8 <= end:
        name, length = struct.unpack_from("<4sI", data, at)
        body = data[at + 8 : at + 8 + length]
        if len(body) < length:
            raise Damaged("is cut off")
        if name == b"VP8X":
            size = body[4:10]
        elif name in WEBP_KEPT:
            chunks.append((name, body))
        at += 8 + length + length % 2
    names = {name for name, _ in chunks}
    if not names & {b"VP8 ", b"VP8L"}:
        raise Damaged("holds no still picture")
    if size is None:
        size = _webp_size(*next((name, body) for name, body in chunks if name in (b"VP8 ", b"VP8L")))
    alpha = b"ALPH" in names or any(name == b"VP8L" and body[4] & 0x10 for name, body in chunks)
    flags = 0x08 | (0x20 if b"ICCP" in names else 0) | (0x10 if alpha else 0)
    ordered = sorted(chunks, key=lambda chunk: (b"ICCP", b"ALPH", b"VP8 ", b"VP8L").index(chunk[0]))
    whole = [(b"VP8X", bytes([flags, 0, 0, 0]) + size), *ordered, (b"EXIF", exif.removeprefix(EXIF_HEAD))]
    packed = b"".join(name + struct.pack("<I", len(body)) + body + b"\0" * (len(body) % 2) for name, body in whole)
    return b"RIFF" + struct.pack("<I", len(packed) + 4) + b"WEBP" + packed


def _webp_size(name: bytes, body: bytes) -> bytes:
    """Width and height less one, three bytes each, as the extended header wants them."""
    if name == b"VP8 ":
        width, height = (value & 0x3FFF for value in struct.unpack_from("<HH", body, 6))
    else:
        bits = struct.unpack_from("<I", body, 1)[0]
        width, height = (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    return (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little")
