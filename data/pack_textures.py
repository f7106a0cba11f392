"""Pack a folder of texture images into one file for training, which itself reads no image formats.

Usage: python -m data.pack_textures FOLDER OUT.npz
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from PIL import Image

SIZE = 256


def pack_textures(folder: Path, out: Path) -> int:
    """Resize every JPEG and PNG of ``folder`` to 256 x 256 and write them as ``textures`` (T 256 256 3 uint8); return T."""
    files = sorted(p for p in folder.iterdir() if p.suffix.lower() in (".jpg", ".jpeg", ".png"))
    images = [np.asarray(Image.open(p).convert("RGB").resize((SIZE, SIZE), Image.Resampling.LANCZOS)) for p in files]
    np.savez_compressed(out, textures=np.stack(images))
    return len(images)


if __name__ == "__main__":
    count = pack_textures(Path(sys.argv[1]), Path(sys.argv[2]))
    sys.stdout.write(f"{count} textures\n")
