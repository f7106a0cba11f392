"""The standard 3DGS PLY, in and out.

Input: ``Gaussians``. Output: a binary PLY that every splat viewer reads, and the way back.
Does not: convert axes or units, or read compressed PLY (``recon.formats`` does).

Layout: ``x y z f_dc_0..2 f_rest_* opacity scale_0..2 rot_0..3``, float32, little endian; f_rest channel-major (all of red, then
green, then blue), opacity as a logit, scales as logarithms, rotation wxyz. Source: Kerbl et al., "3D Gaussian Splatting",
SIGGRAPH 2023, as written by the authors' program.
"""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import torch

from .errors import UserError
from .files import atomic_path
from .records import SH_COUNTS, Gaussians

logger = logging.getLogger(__name__)

MAX_HEADER_BYTES = 64 * 1024
PLY_TYPES = {
    "char": "i1", "int8": "i1", "uchar": "u1", "uint8": "u1", "short": "i2", "int16": "i2", "ushort": "u2", "uint16": "u2",
    "int": "i4", "int32": "i4", "uint": "u4", "uint32": "u4", "float": "f4", "float32": "f4", "double": "f8", "float64": "f8",
}  # fmt: skip
WANTED = (
    "x",
    "y",
    "z",
    "f_dc_0",
    "f_dc_1",
    "f_dc_2",
    "opacity",
    "scale_0",
    "scale_1",
    "scale_2",
    "rot_0",
    "rot_1",
    "rot_2",
    "rot_3",
)
NORMALS = ("nx", "ny", "nz")
EDGE = 1e-7
"""Opacities are held this far from 0 and 1, where the logit is infinite."""


def column_names(coefficients: int) -> list[str]:
    """Columns of a PLY with this many SH coefficients, in file order."""
    rest = [f"f_rest_{i}" for i in range(3 * (coefficients - 1))]
    return [*WANTED[:6], *rest, *WANTED[6:]]


def write_ply(path: Path, gaussians: Gaussians, *, normals: bool = False) -> None:
    """Write Gaussians as a standard 3DGS PLY, whole or not at all.

    Args:
        normals: also the columns nx ny nz, all zero, as the authors' program writes them; some readers count columns.

    Raises:
        ValueError: a value is not finite.
        UserError: the file cannot be written.
    """
    count, coefficients = gaussians.sh.shape[:2]
    opacity = gaussians.opacities.double().clamp(EDGE, 1 - EDGE)
    rest = gaussians.sh[:, 1:].transpose(1, 2).reshape(count, 3 * (coefficients - 1))
    parts = [gaussians.means, gaussians.sh[:, 0], rest, torch.logit(opacity)[:, None], gaussians.scales.log(), gaussians.quats]
    table = torch.cat([part.detach().cpu().float() for part in parts], dim=1).numpy()
    if not np.isfinite(table).all():
        bad = int((~np.isfinite(table)).any(axis=1).sum())
        raise ValueError(f"write_ply: {bad} of {count} Gaussians hold values that are not finite")
    names = column_names(coefficients)
    if normals:
        names[3:3] = NORMALS
        table = np.concatenate([table[:, :3], np.zeros((count, 3), np.float32), table[:, 3:]], axis=1)
    header = [
        "ply",
        "format binary_little_endian 1.0",
        f"element vertex {count}",
        *(f"property float {n}" for n in names),
        "end_header",
    ]
    with atomic_path(Path(path)) as temporary, open(temporary, "wb") as file:
        file.write(("\n".join(header) + "\n").encode("ascii"))
        file.write(np.ascontiguousarray(table, dtype="<f4").tobytes())


def parse_header(path: Path, head: bytes) -> tuple[int, np.dtype, int, bool]:
    """Return the number of vertices, their record type, where their data starts, and whether nothing else follows them."""
    end = head.find(b"end_header")
    newline = head.find(b"\n", end)
    if not head.startswith(b"ply") or end < 0 or newline < 0:
        raise UserError(f"{path} is not a PLY file.", "Give a 3DGS PLY.")
    lines = head[:end].decode("ascii", "replace").split("\n")
    count, fields, element, order, alone = -1, [], "", "", True
    for line in (text.strip() for text in lines):
        words = line.split()
        if not words:
            continue
        if words[0] == "format" and len(words) > 1:
            order = words[1]
        elif words[0] == "element" and len(words) == 3:
            if element == "vertex":
                alone = False
                break
            element = words[1]
            if element != "vertex":
                raise UserError(f"{path}: its first element is '{element}', not 'vertex'.", "Give a standard 3DGS PLY.")
            count = int(words[2]) if words[2].isdigit() else -1
        elif words[0] == "property" and element == "vertex":
            if len(words) != 3 or words[1] not in PLY_TYPES:
                raise UserError(f"{path}: its vertices have a property that cannot be read: '{line}'.", "Give a standard 3DGS PLY.")
            fields.append((words[2], PLY_TYPES[words[1]]))
    if order not in ("binary_little_endian", "binary_big_endian"):
        raise UserError(f"{path} is a PLY of format '{order}'.", "Give a binary PLY.")
    if count < 0 or len({name for name, _ in fields}) != len(fields):
        raise UserError(f"{path}: its header is damaged.", "Export the file again.")
    sign = "<" if order == "binary_little_endian" else ">"
    return count, np.dtype([(name, sign + kind) for name, kind in fields]), newline + 1, alone


def extra_columns(path: Path) -> list[str]:
    """Name the columns of a PLY that Gaussians do not have; reading leaves them out.

    Raises:
        UserError: the file is missing or no PLY.
    """
    try:
        with open(path, "rb") as file:
            _, record, _, _ = parse_header(path, file.read(MAX_HEADER_BYTES))
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror or error}.", "Check the path.") from error
    return _surplus(set(record.names or ()))


def _surplus(names: set[str]) -> list[str]:
    return sorted(name for name in names - {*WANTED, *NORMALS} if not name.startswith("f_rest_"))


def read_ply(path: Path, *, keep_broken: bool = False) -> Gaussians:
    """Read a standard 3DGS PLY of SH degree 0 to 3, with or without normals; other columns are ignored and logged.

    Rotations are normalised. Gaussians with values that are not finite are dropped and counted in the log.

    Args:
        keep_broken: let NaN and infinite values through; a rotation of length 0 becomes NaN.

    Raises:
        UserError: the file is missing, truncated, no PLY, or not one of Gaussians.
    """
    path = Path(path)
    try:
        size = path.stat().st_size
        with open(path, "rb") as file:
            count, record, start, alone = parse_header(path, file.read(MAX_HEADER_BYTES))
            missing = [name for name in WANTED if name not in (record.names or ())]
            if missing:
                raise UserError(f"{path} holds no Gaussians: it lacks {', '.join(missing[:4])}.", "Give a 3DGS PLY.")
            if size - start < count * record.itemsize:
                raise UserError(
                    f"{path} is cut short: {count:,} Gaussians need {count * record.itemsize:,} bytes, {size - start:,} are there.",
                    "Copy or export the file again.",
                )
            surplus = size - start - count * record.itemsize
            if alone and surplus >= record.itemsize:
                raise UserError(
                    f"{path} holds {surplus:,} bytes more than the {count:,} Gaussians its header announces.",
                    "Copy or export the file again.",
                )
            file.seek(start)
            table = np.frombuffer(file.read(count * record.itemsize), dtype=record)
    except FileNotFoundError as error:
        raise UserError(f"There is no file {path}.", "Check the path.") from error
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror or error}.", "Check the path.") from error
    return _to_gaussians(path, table, keep_broken)


def _to_gaussians(path: Path, table: np.ndarray, keep_broken: bool) -> Gaussians:
    names = set(table.dtype.names or ())
    rest_count = sum(name.startswith("f_rest_") for name in names)
    coefficients = rest_count // 3 + 1
    rest_names = [f"f_rest_{i}" for i in range(rest_count)]
    if rest_count % 3 or coefficients not in SH_COUNTS or not names.issuperset(rest_names):
        raise UserError(
            f"{path} has {rest_count} f_rest columns; 0, 9, 24 or 45 were expected.", "Export it with SH degree 0 to 3."
        )
    extra = _surplus(names)
    if extra:
        logger.warning("%s: columns that Gaussians do not have were ignored: %s", path, ", ".join(extra))

    def columns(*wanted: str) -> torch.Tensor:
        return torch.from_numpy(
            np.stack([table[name].astype(np.float32) for name in wanted], axis=1).reshape(len(table), len(wanted))
        )

    values = columns(*column_names(coefficients))
    quats = columns("rot_0", "rot_1", "rot_2", "rot_3")
    length = quats.norm(dim=1, keepdim=True)
    kept = torch.isfinite(values).all(dim=1) & (length[:, 0] > 1e-12)
    if keep_broken:
        kept = torch.ones_like(kept)
    if not kept.all():
        logger.warning("%s: %d Gaussians with values that are not finite were dropped", path, int((~kept).sum()))
    rest = columns(*rest_names).reshape(len(table), 3, coefficients - 1) if rest_names else values.new_zeros(len(table), 3, 0)
    sh = torch.cat([columns("f_dc_0", "f_dc_1", "f_dc_2")[:, None], rest.transpose(1, 2)], dim=1)
    logits, logs = columns("opacity")[kept, 0], columns("scale_0", "scale_1", "scale_2")[kept]
    return Gaussians(
        means=columns("x", "y", "z")[kept],
        quats=torch.where(length > 1e-12, quats / length, torch.nan)[kept],
        scales=torch.where(logs.isfinite(), logs.clamp(-60, 60).exp(), torch.nan),
        opacities=torch.where(logits.isfinite(), torch.sigmoid(logits).clamp(EDGE, 1 - EDGE), torch.nan),
        sh=sh[kept].contiguous(),
    )
