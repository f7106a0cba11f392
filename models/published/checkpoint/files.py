"""Open a checkpoint file of either published kind.

Input: a path. Output: shapes by name at once, tensors by name when asked.
Does not: run code of the file, or know which network it belongs to.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Protocol, runtime_checkable

from safetensors import SafetensorError, safe_open
from torch import Tensor

from recon.errors import UserError

from .pickles import BrokenCheckpoint, TorchFile

AGAIN = "Download it again, through a connection that is not intercepted."


@runtime_checkable
class TensorFile(Protocol):
    """Named tensors on disk."""

    @property
    def shapes(self) -> Mapping[str, tuple[int, ...]]: ...

    def read(self, key: str) -> Tensor: ...


class SafeFile:
    """The tensors of a safetensors file.

    Raises:
        BrokenCheckpoint: the file is damaged or cut off.
    """

    def __init__(self, path: Path) -> None:
        try:
            self._file = safe_open(path, framework="pt")
            names = self._file.keys()
            self.shapes = {name: tuple(self._file.get_slice(name).get_shape()) for name in names}
        except (SafetensorError, OSError) as error:
            raise BrokenCheckpoint(f"{path.name} is damaged or cut off ({error}).", "Download it again.") from error

    def read(self, key: str) -> Tensor:
        """Read one tensor."""
        return self._file.get_tensor(key)


def open_checkpoint(path: Path) -> TensorFile:
    """Open a safetensors file or a torch zip file, told apart by their first bytes.

    Raises:
        UserError: there is no file.
        BrokenCheckpoint: it is neither, with a guess at what it is.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"There is no weights file {path}.", "Check the path, or pull the model with `recon weights pull NAME`.")
    size = path.stat().st_size
    with path.open("rb") as file:
        head = file.read(512)
    start = head.lstrip().lower()
    if size == 0:
        raise BrokenCheckpoint(f"{path.name} is empty.", AGAIN)
    if start.startswith((b"<!doctype", b"<html", b"<?xml", b"<head", b"<body")):
        raise BrokenCheckpoint(f"{path.name} is a web page, not weights: a proxy or a login page answered.", AGAIN)
    if start.startswith(b"version https://git-lfs"):
        raise BrokenCheckpoint(f"{path.name} is a Git LFS pointer, not the weights.", "Fetch the file with git lfs pull.")
    if start.startswith(b"{") and b'"error"' in head:
        raise BrokenCheckpoint(f"{path.name} is an error message of a server: {head[:120].decode(errors='replace')}.", AGAIN)
    if head.startswith(b"PK\x03\x04"):
        return TorchFile(path)
    if head.startswith(b"\x80"):
        raise BrokenCheckpoint(
            f"{path.name} is a bare pickle or a torch file older than version 1.6, which is not read.",
            "Give the published safetensors file.",
        )
    header_bytes = int.from_bytes(head[:8], "little")
    if len(head) > 8 and head[8:9] == b"{" and header_bytes < max(size, 1 << 27):
        return SafeFile(path)
    raise BrokenCheckpoint(f"{path.name} is neither a safetensors file nor a torch checkpoint.", "Give the published weights file.")
