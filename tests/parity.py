"""What the parity tests share: the fixtures, the rule that fills a network, capturing intermediates, comparing.

The rule is the fixtures' own (their README): every value is a function of the tensor's published name and shape.
"""

from __future__ import annotations

import json
import os
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from models.published.checkpoint.keys import KeyMap, fill, match_keys

from helpers import REPOSITORY

TOKENS = {"cls_token", "mask_token", "pos_embed", "register_tokens", "register_token", "camera_token", "empty_pose_tokens",
          "query_ref_token", "virual_tracks", "time_emb", "scale_token"}  # fmt: skip
CONSTANTS = {"image_mean": (0.485, 0.456, 0.406), "image_std": (0.229, 0.224, 0.225)}
PLACED = {  # suffix -> (scale, offset): outputs kept in a range where they test something
    "camera_head.pose_branch.fc2.weight": (0.05, 0.0),
    "camera_head.pose_branch.fc2.bias": (0.05, (0, 0, 0, 0, 0, 0, 0.25, 0.25, 0.25)),
    "point_head.proj.weight": (0.2, 0.0),
    "cam_dec.fc_t.weight": (0.5, 0.0),
    "cam_dec.fc_qvec.weight": (0.1, 0.0),
    "cam_dec.fc_qvec.bias": (0.05, (0, 0, 0, 1.0)),
    "cam_dec.fc_fov.0.weight": (0.05, 0.0),
    "cam_dec.fc_fov.0.bias": (0.05, (0.9, 1.1)),
    "head.scratch.output_conv2.2.weight": (0.25, 0.0),
    "head.scratch.output_conv2_aux.3.5.weight": (0.5, 0.0),
}
PIECE = 1 << 21
"""Values made at a time."""


def fixture_folder(name: str) -> Path:
    """Find the fixture of a network or skip the test."""
    given = os.environ.get("RECON_EVAL_DATA")
    root = Path(given) if given else REPOSITORY.parent / "shared"
    for folder in (root / "parity" / name, root.parent / "parity" / name):
        if (folder / "io.npz").is_file():
            return folder
    pytest.skip(f"parity fixture {name!r} not found: set RECON_EVAL_DATA to the folder that holds parity/")


def raw_words(name: str, count: int) -> np.ndarray:
    """Draw the Philox words of a stream."""
    return np.random.Philox(key=zlib.crc32(name.encode())).random_raw(count)


def unit(name: str, count: int) -> np.ndarray:
    """Draw values on a 24-bit grid in [-1, 1)."""
    return (raw_words(name, count) >> np.uint64(40)).astype(np.float64) * 2.0**-23 - 1.0


def value_of(name: str, shape: tuple[int, ...]) -> Tensor:
    """Compute a parameter from its published name; float64 arithmetic rounded once."""
    last = name.rsplit(".", 1)[-1]
    if last in CONSTANTS:
        return torch.tensor(CONSTANTS[last]).reshape(shape)
    scale, offset = (np.sqrt(3.0 / np.prod(shape[1:], dtype=np.int64)) if len(shape) >= 2 else 1.0), 0.0
    placed = next((PLACED[suffix] for suffix in PLACED if name.endswith("." + suffix) or name == suffix), None)
    if placed is not None:
        scale, offset = scale * placed[0], np.asarray(placed[1], np.float64)
    elif last in TOKENS:
        scale = 0.5
    elif last == "gamma":
        scale, offset = 0.05, 0.2
    elif len(shape) == 1:
        scale, offset = {"weight": (0.1, 1.0), "bias": (0.05, 0.0)}.get(last, (0.5, 0.0))
    count = int(np.prod(shape, dtype=np.int64))
    if count <= PIECE:
        return torch.from_numpy((unit(name, count).reshape(shape) * scale + offset).astype(np.float32))
    generator, made = np.random.Philox(key=zlib.crc32(name.encode())), torch.empty(count)
    buffer = np.empty(PIECE)
    for start in range(0, count, PIECE):
        words = generator.random_raw(min(PIECE, count - start))
        words >>= np.uint64(40)
        piece = buffer[: len(words)]
        np.multiply(words, 2.0**-23, out=piece)
        piece -= 1.0
        piece *= scale
        piece += offset
        made.numpy()[start : start + len(words)] = piece
    return made.reshape(shape)


def image_levels(views: int, height: int, width: int, tag: str = "input", cell: int = 14) -> np.ndarray:
    """Make the fixtures' input, uint8 0..127 ``V 3 H W``: blocks of one level mixed 3:1 with noise."""
    rows, columns = -(-height // cell), -(-width // cell)
    size = f"{views}x{height}x{width}"
    top = [
        (raw_words(f"{tag}/{kind}/{size}", n) >> np.uint64(57)).astype(np.int64)
        for kind, n in (("base", views * 3 * rows * columns), ("noise", views * 3 * height * width))
    ]
    base = top[0].reshape(views, 3, rows, columns).repeat(cell, 2).repeat(cell, 3)[:, :, :height, :width]
    return ((3 * base + top[1].reshape(views, 3, height, width)) // 4).astype(np.uint8)


def images(views: int, height: int, width: int, tag: str = "input") -> Tensor:
    """Make the fixtures' input in [0, 1]."""
    return torch.from_numpy(image_levels(views, height, width, tag)).float() / 128.0


def build_filled(
    folder: Path, build: Callable[[], nn.Module], keys: KeyMap, aliases: Callable[[str], str] = lambda key: key
) -> nn.Module:
    """Build a network on the meta device and fill it by the rule, requiring that all keys of the manifest fit."""
    manifest = json.loads((folder / "manifest.json").read_text())
    shapes = {key: tuple(entry["shape"]) for key, entry in manifest["state_dict"].items()}
    with torch.device("meta"):
        network = build()
    match = match_keys(network, keys, shapes)
    assert match.complete, (match.missing[:5], match.unexpected[:5], match.misshapen[:5])
    assert len(match.sources) + len(match.unused) == len(shapes)
    fill(network, match, lambda key: value_of(aliases(key), shapes[key]), device="cpu")
    return network


def capture(network: nn.Module, names: list[str]) -> tuple[dict[str, list[Tensor]], list]:
    """Record the outputs of named submodules during later calls; returns the record and the hooks."""
    seen: dict[str, list[Tensor]] = {name: [] for name in names}

    def keeper(name: str) -> Callable:
        def keep(_module: nn.Module, _args: tuple, out: Tensor) -> None:  # a returned value would replace the output
            seen[name].append(out.detach().clone())

        return keep

    return seen, [network.get_submodule(name).register_forward_hook(keeper(name)) for name in names]


class Comparison:
    """Compares arrays with a fixture and remembers the worst ratio of error to tolerance.

    The tolerance is 5 times the official code's own float32 error where the fixture lists it, else 1e-4 of the largest value.
    """

    def __init__(self, folder: Path, errors: dict[str, dict]) -> None:
        self.stored = np.load(folder / "io.npz")
        self.errors = errors
        self.ratios: dict[str, float] = {}

    def check(self, name: str, ours: Tensor | np.ndarray, *, listed: str | None = None) -> None:
        """Compare ``ours`` with the array ``name``; ``listed`` is its name in tolerance.json where it differs."""
        reference = self.stored[name].astype(np.float64)
        given = (ours.detach().numpy() if isinstance(ours, Tensor) else ours).astype(np.float64)
        assert given.shape == reference.shape, f"{name}: {given.shape} against {reference.shape}"
        entry = self.errors.get(listed or name)
        tolerance = 5 * entry["max_abs"] if entry else 1e-4 * np.abs(reference).max()
        self.ratios[name] = float(np.abs(given - reference).max() / tolerance)

    def finish(self) -> None:
        """Fail with every array that was out of tolerance."""
        assert self.ratios
        worst = max(self.ratios, key=lambda name: self.ratios[name])
        print(f"{len(self.ratios)} arrays, worst {worst}: {self.ratios[worst]:.3f} of its tolerance")
        failed = {name: round(ratio, 2) for name, ratio in self.ratios.items() if not ratio <= 1.0}
        assert not failed, f"error over tolerance, as a multiple: {failed}"
