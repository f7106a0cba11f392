"""A corpus of generated bad photos: cut, flipped, mislabelled, absurd, hostile. The same seed makes the same files.

Nothing here comes from elsewhere. Used by the default test (a small fixed share) and by the benchmark (all of it).
"""

from __future__ import annotations

import io
import os
import struct
import sys
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

FIXTURES = Path(__file__).parent / "fixtures"
COUNT = 300


def good_files(rng: np.random.Generator) -> dict[str, bytes]:
    """One whole file of every kind, by its ending."""
    coarse = rng.integers(0, 255, (12, 16, 3), dtype=np.uint8)
    picture = Image.fromarray(coarse).resize((160, 120), Image.Resampling.BICUBIC)
    exif = Image.Exif()
    exif[271], exif[272], exif[274] = "Maker", "Body", 1
    detail = exif.get_ifd(0x8769)
    detail[37386], detail[41989] = 4.5, 28
    made = {}
    for ending, options in {
        "jpg": {"quality": 90, "exif": exif.tobytes()},
        "png": {"exif": exif.tobytes()},
        "webp": {"quality": 85},
        "tif": {"compression": "tiff_lzw"},
        "gif": {},
        "bmp": {},
        "avif": {"quality": 60},
    }.items():
        buffer = io.BytesIO()
        picture.save(buffer, format={"jpg": "JPEG", "tif": "TIFF"}.get(ending, ending.upper()), **options)
        made[ending] = buffer.getvalue()
    made["heic"] = (FIXTURES / "turned.heic").read_bytes()
    return made


def chunk(kind: bytes, body: bytes) -> bytes:
    """One chunk of a PNG."""
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png(width: int, height: int, body: bytes, *extra: bytes, depth: int = 8, color: int = 2) -> bytes:
    """A PNG that says what it is told to say."""
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, color, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + b"".join(extra) + chunk(b"IDAT", body) + chunk(b"IEND", b"")


def cut(rng: np.random.Generator, good: dict[str, bytes]) -> tuple[str, bytes]:
    ending = str(rng.choice(list(good)))
    data = good[ending]
    return ending, data[: int(rng.integers(0, len(data)))]


def flip(rng: np.random.Generator, good: dict[str, bytes]) -> tuple[str, bytes]:
    ending = str(rng.choice(list(good)))
    data = bytearray(good[ending])
    for _ in range(int(rng.choice([1, 4, 32, 256]))):
        data[int(rng.integers(0, len(data)))] ^= 1 << int(rng.integers(0, 8))
    return ending, bytes(data)


def flip_header(rng: np.random.Generator, good: dict[str, bytes]) -> tuple[str, bytes]:
    ending = str(rng.choice(list(good)))
    data = bytearray(good[ending])
    for _ in range(6):
        data[int(rng.integers(4, min(120, len(data))))] = int(rng.integers(0, 256))
    return ending, bytes(data)


def wrong_type(rng: np.random.Generator, good: dict[str, bytes]) -> tuple[str, bytes]:
    other = io.BytesIO()
    with zipfile.ZipFile(other, "w") as archive:
        archive.writestr("a.txt", "hello")
    contents = [
        b"", b"\0" * 4096, rng.bytes(5000), b"<svg xmlns='http://www.w3.org/2000/svg'><rect/></svg>", b"%PDF-1.4\n%%EOF", b"GIF89a",
        other.getvalue(), b"\x7fELF" + rng.bytes(300), b"P6\n99999 99999\n255\n", b"II*\0\x08\0\0\0\xff\xff" + rng.bytes(200),
        b"\xff\xd8\xff\xe1\xff\xff" + b"Exif\0\0" + rng.bytes(400), b"RIFF\xff\xff\xff\xffWEBPVP8L" + rng.bytes(100),
        b"\0\0\0\x20ftypheic" + rng.bytes(500), b"\0\0\0\x20ftypavif" + rng.bytes(500), b"%!PS-Adobe-3.0 EPSF-3.0\n",
        b"8BPS\0\1" + rng.bytes(80), b"\0\0\1\0\1\0" + rng.bytes(60), "日本".encode() * 300,
    ]  # fmt: skip
    return str(rng.choice(["jpg", "png", "heic", "tif", "webp", "gif", "avif"])), contents[int(rng.integers(0, len(contents)))]


def renamed(rng: np.random.Generator, good: dict[str, bytes]) -> tuple[str, bytes]:
    """A whole file under the ending of another kind: that is no reason to refuse it."""
    kinds = list(good)
    first, second = rng.choice(len(kinds), 2, replace=False)
    return kinds[int(first)], good[kinds[int(second)]]


def absurd_size(rng: np.random.Generator, good: dict[str, bytes]) -> tuple[str, bytes]:
    sizes = [
        (2**31 - 1, 2**31 - 1),
        (0, 0),
        (1, 1),
        (1, 200_000),
        (200_000, 1),
        (65_535, 65_535),
        (2**31 - 1, 1),
        (17, 9_000),
        (30_000, 30_000),
    ]
    width, height = sizes[int(rng.integers(0, len(sizes)))]
    if rng.random() < 0.5:
        return "png", png(width, height, zlib.compress(bytes(1000)))
    data = bytearray(good["jpg"])
    at = data.find(b"\xff\xc0")
    data[at + 5 : at + 9] = struct.pack(">HH", min(height, 65_535), min(width, 65_535))
    return "jpg", bytes(data)


def bomb(rng: np.random.Generator, good: dict[str, bytes]) -> tuple[str, bytes]:
    """Small files that claim to unpack to very much."""
    which = int(rng.integers(0, 5))
    if which == 0:  # as many pixels as a header may claim, all of them there
        side = int(rng.choice([9_000, 12_000]))
        return "png", png(side, side, zlib.compress(bytes((side + 1) * side), 9), color=0)
    if which == 1:  # text that unpacks to 64 MB
        text = chunk(b"zTXt", b"Comment\0\0" + zlib.compress(bytes(64 << 20), 9))
        return "png", png(64, 48, zlib.compress(bytes(48 * (64 * 3 + 1))), text)
    if which == 2:  # a colour profile that does
        profile = chunk(b"iCCP", b"sRGB\0\0" + zlib.compress(bytes(64 << 20), 9))
        return "png", png(64, 48, zlib.compress(bytes(48 * (64 * 3 + 1))), profile)
    if which == 3:  # 3000 frames
        frame = good["gif"][:-1]
        return "gif", frame + b"".join(frame[-200:] for _ in range(3000)) + b";"
    buffer = io.BytesIO()
    Image.new("L", (14_000, 12_500)).save(buffer, format="TIFF", compression="tiff_lzw")
    return "tif", buffer.getvalue()


def hostile_exif(rng: np.random.Generator, good: dict[str, bytes]) -> tuple[str, bytes]:
    """EXIF blocks that point out of themselves, at themselves, count to 2^32, divide by zero, or shout."""
    entries = []
    for _ in range(int(rng.integers(1, 40))):
        tag = int(rng.choice([271, 272, 274, 33434, 34665, 34853, 37386, 37510, 41486, 41989, 700, 0xFFFF]))
        kind = int(rng.choice([1, 2, 3, 4, 5, 7, 9, 10, 12, 0, 99]))
        count = int(rng.choice([0, 1, 2, 4, 1000, 2**16, 2**31, 2**32 - 1]))
        value = int(rng.choice([0, 1, 6, 8, 9, 26, 2**31, 2**32 - 1]))
        entries.append(struct.pack("<HHII", tag, kind, count, value))
    following = int(rng.choice([0, 8, 2**32 - 1]))
    body = b"II*\0\x08\0\0\0" + struct.pack("<H", len(entries)) + b"".join(entries) + struct.pack("<I", following)
    block = b"Exif\0\0" + body + rng.bytes(int(rng.integers(0, 64))) + b"\x1b[31m<script>\0" * int(rng.integers(0, 50))
    plain = io.BytesIO()
    Image.open(io.BytesIO(good["jpg"])).save(plain, format="JPEG")
    jpeg = plain.getvalue()
    return "jpg", jpeg[:2] + b"\xff\xe1" + struct.pack(">H", len(block) + 2) + block + jpeg[2:]


def hostile_name(rng: np.random.Generator, good: dict[str, bytes]) -> tuple[str, bytes]:
    """A name follows the slash: it replaces the usual one."""
    names = [
        "\x1b[2J\x1b[31m.jpg", "two\nlines.jpg", "tab\t.jpg", "-rf.jpg", "$(reboot).jpg", "'; drop table.jpg",
        "<img src=x onerror=1>.jpg", "%s%n%d.jpg", "..jpg", "con.jpg", "a" * 240 + ".jpg", "\u202egpj.exe.jpg", "e\u0301.jpg",
        "nul\udcff\udcfe.jpg", "\U0001f600" * 50 + ".jpg", "trailing space .jpg", "1" * 200 + ".jpg", "*.jpg", "[a].jpg",
        "\\\\server\\share.jpg", "C:evil.jpg", "\uff19\uff19.jpg", "\u00b2\u00b3.jpg",
    ]  # fmt: skip
    name = names[int(rng.integers(0, len(names)))]
    if sys.platform != "linux":
        name = name.encode("ascii", "ignore").decode().replace(":", "").replace("*", "").strip("\\<>") or "plain.jpg"
    return "/" + name, good["jpg"]


MAKERS: tuple[tuple[Callable[[np.random.Generator, dict[str, bytes]], tuple[str, bytes]], float], ...] = (
    (cut, 0.22), (flip, 0.2), (flip_header, 0.12), (wrong_type, 0.13), (renamed, 0.04),
    (absurd_size, 0.08), (bomb, 0.04), (hostile_exif, 0.1), (hostile_name, 0.07),
)  # fmt: skip
"""What goes wrong with a file, and its share of the corpus."""


def write_corpus(folder: Path, count: int = COUNT, *, seed: int = 0, without: tuple[str, ...] = ()) -> dict[Path, str]:
    """Write ``count`` bad photos.

    Args:
        without: names of makers that are left out, for tests that have no time for them.

    Returns:
        Path -> what was done to the file.
    """
    rng = np.random.default_rng(seed)
    good = good_files(rng)
    makers = [(maker, share) for maker, share in MAKERS if maker.__name__ not in without]
    shares = np.array([share for _, share in makers])
    folder.mkdir(parents=True, exist_ok=True)
    made: dict[Path, str] = {}
    for index in range(count):
        maker = makers[int(rng.choice(len(makers), p=shares / shares.sum()))][0]
        ending, data = maker(rng, good)
        name = f"{index:03d}_{maker.__name__}.{ending}" if not ending.startswith("/") else f"{index:03d}{ending[1:]}"
        path = Path(os.fsdecode(os.fsencode(str(folder)) + b"/" + os.fsencode(name)[:250]))
        path.write_bytes(data)
        made[path] = maker.__name__
    return made
