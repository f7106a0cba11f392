"""Pack a folder of texture images into one file for training, which itself reads no image formats.

Usage: python -m data.pack_textures FOLDER OUT.npz; ``python -m data.pack_training`` also packs photos to judge a training by.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from PIL import Image

SIZE = 256


def differences(pictures: UInt8[np.ndarray, "T H W 3"]) -> UInt8[np.ndarray, "T 3 H W"]:
    """Red and blue less green, and every pixel less the one to its left, modulo 256: two thirds as large once compressed.

    ``models.training.textures.whole_pictures`` undoes it exactly.
    """
    apart = pictures.copy()
    apart[..., ::2] -= pictures[..., 1:2]
    apart[:, :, 1:] -= apart[:, :, :-1].copy()
    return np.ascontiguousarray(np.moveaxis(apart, 3, 1))


def pack_textures(folder: Path, out: Path) -> int:
    """Resize every JPEG and PNG of ``folder`` to 256 x 256 and write their ``differences`` (T 3 256 256 uint8); return T.

    Raises:
        ValueError: there are none.
    """
    files = sorted(p for p in folder.iterdir() if p.suffix.lower() in (".jpg", ".jpeg", ".png"))
    if not files:
        raise ValueError(f"{folder} holds no JPEG or PNG pictures to pack as textures")
    images = [np.asarray(Image.open(p).convert("RGB").resize((SIZE, SIZE), Image.Resampling.LANCZOS)) for p in files]
    np.savez_compressed(out, differences=differences(np.stack(images)))
    return len(images)


if __name__ == "__main__":
    count = pack_textures(Path(sys.argv[1]), Path(sys.argv[2]))
    sys.stdout.write(f"{count} textures\n")
