"""Every file format of scenes: find it by name or extension, read it, write it.

Input: a path. Output: ``Gaussians`` in our world frame, or a file.
Does not: check what it wrote (``self_check`` does), or know meshes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from ..errors import UserError
from ..files import atomic_path
from ..ply import read_ply, write_ply
from ..records import Gaussians
from . import compressed_ply, gltf, ksplat, sog, splat, spz
from .conventions import Y_DOWN, Y_UP, Similarity, moved_gaussians
from .point_ply import write_points
from .reading import BadFile

MOST_FILE_BYTES = 16 << 30
Notes = tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Format:
    """One way to store Gaussians."""

    name: str
    """What `--format` takes."""
    extensions: tuple[str, ...]
    """Endings of file names that select it, the usual one first; empty when only `--format` does."""
    summary: str
    """One line for help and tables."""
    read: Callable[[Path], Gaussians] | None
    """Path -> Gaussians in our world frame; None when it is only written."""
    write: Callable[[Path, Gaussians], Notes] | None
    """Writes Gaussians given in our world frame; returns what was lost. None when it is only read."""
    R_file_world: Tensor = field(default_factory=lambda: Y_DOWN)
    """The axes its specification demands."""
    max_sh: int = 3
    """Highest SH degree it holds."""
    floor_db: float = 30.0
    """PSNR of the file's renderings against those of the scene, below which an export is taken for broken."""
    second_reader: str | None = None
    """gaussforge's name of the format; None when it has none."""
    second_reader_turns: bool = True
    """False when gaussforge ignores the axes that the format demands."""
    like: str = ""
    """Usual ending of a format that has none of its own."""

    @property
    def ending(self) -> str:
        """The usual ending of its files."""
        return self.extensions[0] if self.extensions else self.like


def _bytes_reader(decode: Callable[[bytes], Gaussians]) -> Callable[[Path], Gaussians]:
    return lambda path: decode(path.read_bytes())


def _bytes_writer(encode: Callable[[Gaussians], tuple[bytes, Notes]]) -> Callable[[Path, Gaussians], Notes]:
    def write(path: Path, gaussians: Gaussians) -> Notes:
        data, notes = encode(gaussians)
        with atomic_path(path) as temporary:
            temporary.write_bytes(data)
        return notes

    return write


def _write_ply(path: Path, gaussians: Gaussians, *, normals: bool = False) -> Notes:
    write_ply(path, gaussians, normals=normals)
    return ()


def _ply(name: str, extensions: tuple[str, ...], summary: str, *, normals: bool) -> Format:
    return Format(
        name=name,
        extensions=extensions,
        summary=summary,
        read=partial(read_ply, keep_broken=True),
        write=partial(_write_ply, normals=normals),
        floor_db=60.0,
        second_reader="ply",
        like=".ply",
    )


def _read_sog(path: Path) -> Gaussians:
    """A `.sog` archive, or the `meta.json` of an unpacked one."""
    if path.suffix.lower() != ".json":
        return sog.decode(path.read_bytes())
    folder = path.parent

    def read(name: str) -> bytes:
        if name != Path(name).name or not (folder / name).is_file():
            raise BadFile(f"its folder lacks {name[:80]!r}.")
        return (folder / name).read_bytes()

    return sog.decode_parts(read, sum(part.stat().st_size for part in folder.glob("*.webp")))


def _spz(name: str, version: int, extensions: tuple[str, ...], summary: str, floor_db: float) -> Format:
    return Format(
        name=name,
        extensions=extensions,
        summary=summary,
        read=_bytes_reader(spz.decode),
        write=_bytes_writer(partial(spz.encode, version=version)),
        R_file_world=Y_UP,
        floor_db=floor_db,
        second_reader="spz",
        second_reader_turns=False,
        like=".spz",
    )


def _gltf(name: str, summary: str, *, binary: bool) -> Format:
    return Format(
        name=name,
        extensions=(f".{name}",),
        summary=summary,
        read=_bytes_reader(gltf.decode),
        write=_bytes_writer(partial(gltf.encode, binary=binary)),
        R_file_world=Y_UP,
        floor_db=55.0,
    )


FORMATS: dict[str, Format] = {
    entry.name: entry
    for entry in (
        _ply("ply", (".ply",), "3DGS PLY: every viewer, nothing lost", normals=False),
        _ply("ply-normals", (), "the same with empty normals, for readers that count columns", normals=True),
        Format(
            name="compressed-ply",
            extensions=(".compressed.ply",),
            summary="PlayCanvas compressed PLY: a quarter of the size",
            read=_bytes_reader(compressed_ply.decode),
            write=_bytes_writer(compressed_ply.encode),
            floor_db=32.0,
            second_reader="compressed.ply",
        ),
        _spz("spz", 3, (".spz",), "SPZ version 3: compact, most readers", 30.0),
        _spz("spz2", 2, (), "SPZ version 2: the oldest readers; coarse rotations", 22.0),
        _spz("spz4", 4, (), "SPZ version 4: compact, new readers only", 30.0),
        Format(
            name="sog",
            extensions=(".sog", "meta.json"),
            summary="SOG version 2: smallest, for the web",
            read=_read_sog,
            write=_bytes_writer(sog.encode),
            floor_db=30.0,
            second_reader="sog",
        ),
        Format(
            name="splat",
            extensions=(".splat",),
            summary="antimatter15 .splat: old web viewers; no view-dependent colour",
            read=_bytes_reader(splat.decode),
            write=_bytes_writer(splat.encode),
            max_sh=0,
            floor_db=30.0,
            second_reader="splat",
        ),
        Format(
            name="ksplat",
            extensions=(".ksplat",),
            summary="mkkellogg .ksplat: read only",
            read=_bytes_reader(ksplat.decode),
            write=None,
        ),
        _gltf("glb", "glTF binary with KHR_gaussian_splatting", binary=True),
        _gltf("gltf", "glTF text with KHR_gaussian_splatting, self-contained", binary=False),
        Format(
            name="points-ply",
            extensions=(".points.ply",),
            summary="coloured points: MeshLab, CloudCompare, Blender",
            read=None,
            write=write_points,
            max_sh=0,
        ),
    )
}
"""Name -> format."""


def find_format(path: Path, name: str | None = None) -> Format:
    """Choose a format by name, or by the longest ending of the file's name that is known.

    Raises:
        UserError: there is no such format.
    """
    if name is not None:
        if name not in FORMATS:
            raise UserError(f"There is no format {name!r}.", f"Choose one of {', '.join(FORMATS)}.")
        return FORMATS[name]
    endings = sorted(((e, entry) for entry in FORMATS.values() for e in entry.extensions), key=lambda pair: -len(pair[0]))
    lower = path.name.lower()
    for ending, entry in endings:
        if lower.endswith(ending):
            return entry
    known = ", ".join(sorted(ending for ending, _ in endings))
    raise UserError(f"The ending of {path.name!r} names no format.", f"Use one of {known}, or say --format.")


def is_splat_file(path: Path) -> bool:
    """True when the name of a file ends like a format that can be read."""
    lower = path.name.lower()
    return any(lower.endswith(ending) for entry in FORMATS.values() if entry.read is not None for ending in entry.extensions)


def sniff_format(path: Path, name: str | None = None) -> Format:
    """Choose how to read a file that exists: by name, ending, and for `.ply` by its first bytes.

    Raises:
        UserError: it is not there, or of no format that can be read.
    """
    if not path.is_file():
        raise UserError(f"There is no file {path}.", "Check the path.")
    found = find_format(path, name)
    if name is None and path.suffix.lower() == ".ply":
        with path.open("rb") as file:
            compressed = compressed_ply.looks_compressed(file.read(8192))
        found = FORMATS["compressed-ply" if compressed else "ply"]
    if found.read is None:
        raise UserError(f"{path.name} is of the format {found.name}, which is only written.", "Give a splat file.")
    return found


def read_splats(path: Path | str, name: str | None = None, *, keep_broken: bool = False) -> Gaussians:
    """Read Gaussians from a file of any known format, in our world frame.

    Args:
        path: the file.
        name: its format; None looks at the ending and the first bytes.
        keep_broken: let NaN and infinite values through; `clean` and `info` deal with them.

    Raises:
        UserError: the file is missing, broken, or holds values that are not finite.
    """
    path = Path(path)
    found = sniff_format(path, name)
    assert found.read is not None
    if path.stat().st_size > MOST_FILE_BYTES:
        raise UserError(f"{path.name} has {path.stat().st_size:,} bytes.", f"Files up to {MOST_FILE_BYTES:,} bytes are read.")
    try:
        gaussians = found.read(path)
    except BadFile as error:
        raise UserError(f"{path.name} cannot be read as {found.name}: {error.reason}", "Write or download it again.") from error
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror or error}).", "Check the file and its permissions.") from error
    if len(gaussians) == 0:
        raise UserError(f"{path.name} holds no Gaussians.", "Give another file.")
    broken = len(gaussians) - int(finite_mask(gaussians).sum())
    if broken and not keep_broken:
        remedy = f"Remove them with `recon clean {path} cleaned.ply`."
        raise UserError(f"{broken:,} of {len(gaussians):,} Gaussians of {path.name} hold NaN or infinite numbers.", remedy)
    return gaussians


def write_splats(path: Path | str, gaussians: Gaussians, entry: Format, *, R_file_world: Tensor | None = None) -> Notes:
    """Write Gaussians, given in our world frame; the count never changes.

    Args:
        R_file_world: axes of the file; None takes those that the format demands.

    Returns:
        What the file does not hold, one sentence each.

    Raises:
        UserError: the format is read only, or there is nothing finite to write.
    """
    if entry.write is None:
        raise UserError(f"The format {entry.name} is only read.", "Choose another one; `recon export --help` lists them.")
    if len(gaussians) == 0:
        raise UserError("The scene holds no Gaussians.", "There is nothing to write; check what was cropped or cleaned away.")
    broken = len(gaussians) - int(finite_mask(gaussians).sum())
    if broken:
        raise UserError(f"{broken:,} Gaussians hold NaN or infinite numbers.", "Run `recon clean` first.")
    notes: Notes = ()
    if gaussians.sh_degree > entry.max_sh:
        notes = (f"view-dependent colour cut from SH degree {gaussians.sh_degree} to {entry.max_sh}",)
        gaussians = cut_sh(gaussians, entry.max_sh)
    if R_file_world is not None:
        gaussians = moved_gaussians(gaussians, Similarity(R_new_old=entry.R_file_world.T @ R_file_world))
    return notes + entry.write(Path(path), gaussians)


def finite_mask(gaussians: Gaussians) -> Tensor:
    """True for Gaussians whose every value is finite."""
    parts = (gaussians.means, gaussians.quats, gaussians.scales, gaussians.opacities[:, None], gaussians.sh.flatten(1))
    return torch.stack([part.isfinite().all(dim=1) for part in parts]).all(dim=0)


def cut_sh(gaussians: Gaussians, degree: int) -> Gaussians:
    """Drop the coefficients beyond ``degree``; a lower scene stays as it is."""
    count = min((degree + 1) ** 2, gaussians.sh.shape[1])
    names = ("means", "quats", "scales", "opacities")
    return Gaussians(**{name: getattr(gaussians, name) for name in names}, sh=gaussians.sh[:, :count])
