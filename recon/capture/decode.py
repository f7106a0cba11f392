"""Decoding one still picture of any supported kind.

Input: a file. Output: 8-bit sRGB pixels at a wanted size, turned upright; the alpha channel as a mask.
Does not: set limits of time and memory; ``capture.child`` does, and every file is decoded there before it is decoded here.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from PIL import Image, ImageCms

FORMATS = ("JPEG", "PNG", "WEBP", "TIFF", "GIF", "BMP", "AVIF")
"""What Pillow may try. The MPO of cameras that append a second picture opens as JPEG; its first picture is read."""
READABLE = "JPEG, PNG, HEIC, WebP, AVIF, TIFF, GIF or BMP"
"""The same for people."""
MAX_PIXELS = 180_000_000
"""Pictures with more pixels are refused before they are decoded."""
DRAFT_FACTOR = 2
"""JPEGs are decoded at no less than this multiple of the wanted size, then filtered down."""
OPAQUE = 128
"""Alpha from which a pixel counts as seen."""
HEIF_BRANDS = frozenset((b"heic", b"heix", b"hevc", b"hevx", b"heim", b"heis", b"mif1", b"msf1"))

_TRANSPOSE = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""EXIF orientation -> what turns the stored pixels upright."""
_ALPHA_MODES = ("RGBA", "LA", "PA", "La", "RGBa")


def is_heif(head: bytes) -> bool:
    """Tell HEIC from the first sixteen bytes of a file. AVIF has the same container and another brand."""
    return head[4:8] == b"ftyp" and head[8:12] in HEIF_BRANDS


@contextmanager
def opened(path: Path) -> Iterator[Image.Image]:
    """Open a picture without decoding it; of an animation or a file with several pages, the first.

    Raises:
        OSError: the file is missing, of another kind, or too large.
    """
    with open(path, "rb") as file:
        head = file.read(16)
        file.seek(0)
        if is_heif(head):
            import pi_heif

            try:
                image: Image.Image = pi_heif.open_heif(file).to_pillow()
            except (ValueError, EOFError, SyntaxError) as error:
                raise OSError(f"broken HEIC: {error}") from error
            image.format = "HEIF"
        else:
            Image.init()
            if Image.MAX_IMAGE_PIXELS is not None:  # Pillow's own limit warns earlier than ours refuses
                Image.MAX_IMAGE_PIXELS = max(Image.MAX_IMAGE_PIXELS, MAX_PIXELS)
            known = [name for name in FORMATS if name in Image.OPEN]  # older Pillows lack AVIF
            image = Image.open(file, formats=known)
        if image.width * image.height > MAX_PIXELS:
            raise OSError(f"{image.width}x{image.height} pixels are more than {MAX_PIXELS:,}")
        yield image


def turn_needed(image: Image.Image, orientation: int) -> int:
    """EXIF orientation that is left to apply: Pillow turns TIFF itself, and libheif HEIC."""
    return 1 if image.format in ("TIFF", "HEIF") else orientation


def _to_8bit(image: Image.Image) -> Image.Image:
    """Bring deep grey pictures to 8 bit: 16-bit by their high byte, floats by the range they seem to be in."""
    values = np.nan_to_num(np.asarray(image).astype(np.float64), posinf=0.0, neginf=0.0)
    top = float(values.max(initial=0.0))
    if image.mode == "F" and top <= 1.5:
        values *= 255.0
    elif image.mode != "F" or top > 255.0:
        values /= 257.0 if top <= 65535 else top / 255.0
    return Image.fromarray(values.clip(0, 255).round().astype(np.uint8))


def _print_to_rgb(image: Image.Image) -> Image.Image:
    """CMYK and Lab to sRGB, by the embedded profile where there is a usable one."""
    srgb = ImageCms.createProfile("sRGB")
    if image.mode == "LAB":
        return ImageCms.applyTransform(image, ImageCms.buildTransform(ImageCms.createProfile("LAB"), srgb, "LAB", "RGB")) or image
    profile = image.info.get("icc_profile")
    if profile:
        try:
            turned = ImageCms.profileToProfile(image, ImageCms.ImageCmsProfile(io.BytesIO(profile)), srgb, outputMode="RGB")
            return turned or image.convert("RGB")
        except (ImageCms.PyCMSError, OSError, ValueError):
            return image.convert("RGB")  # a broken profile is no reason to lose the photo
    return image.convert("RGB")


def to_rgb(image: Image.Image) -> Image.Image:
    """Any PIL mode to 8-bit RGB; transparent pixels become black."""
    if image.mode.startswith("I") or image.mode == "F":
        image = _to_8bit(image)
    if image.mode in ("CMYK", "LAB"):
        return _print_to_rgb(image)
    if image.mode in _ALPHA_MODES or "transparency" in image.info:
        rgba = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", rgba.size, (0, 0, 0, 255)), rgba)
    return image.convert("RGB")


def _sized(pixels: Image.Image, orientation: int, width: int, height: int) -> np.ndarray:
    size = (height, width) if orientation >= 5 else (width, height)
    if pixels.size != size:
        pixels = pixels.resize(size, Image.Resampling.LANCZOS, reducing_gap=3.0)
    if orientation in _TRANSPOSE:
        pixels = pixels.transpose(_TRANSPOSE[orientation])
    return np.array(pixels)


def decode_photo(path: Path, orientation: int, width: int, height: int) -> np.ndarray:
    """Decode one photo at a size, turned upright; large JPEGs are decoded at a fraction of their size first.

    Args:
        path: a picture of one of ``FORMATS``, or HEIC.
        orientation: EXIF orientation, 1 to 8, as ``turn_needed`` says.
        width: wanted width in pixels after orientation.
        height: wanted height in pixels after orientation.

    Returns:
        uint8 ``H W 3``, sRGB.

    Raises:
        OSError: the file is missing, broken or truncated.
    """
    size = (height, width) if orientation >= 5 else (width, height)
    with opened(path) as image:
        image.draft("RGB", (size[0] * DRAFT_FACTOR, size[1] * DRAFT_FACTOR))
        return _sized(to_rgb(image), orientation, width, height)


def decode_alpha(path: Path, orientation: int, width: int, height: int) -> np.ndarray | None:
    """Which pixels of a photo are opaque, at a size and turned upright.

    Returns:
        bool ``H W``; None when the photo has no alpha channel.
    """
    with opened(path) as image:
        if image.mode not in _ALPHA_MODES and "transparency" not in image.info:
            return None
        return _sized(image.convert("RGBA").getchannel("A"), orientation, width, height) >= OPAQUE
