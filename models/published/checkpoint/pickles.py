"""Read the tensors of a torch file (zip) without running any code it names.

Input: a .pt, .pth or .ckpt file. Output: nested dicts whose leaves are ``StoredTensor``; every other object is an inert stub.
Does not: call torch.load, import what the file asks for, or read tensor data before it is wanted.

A pickle is a small program: it names callables and applies them. Here the names of tensors, storages and ordered dicts lead
to classes of this file; every other name leads to ``Inert``, which accepts everything and does nothing. A Lightning
checkpoint (optimiser, callbacks, paths, configs) therefore opens, and a malicious file has nothing to call.
"""

from __future__ import annotations

import io
import pickle
import struct
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from recon.errors import UserError

DTYPES = {
    "DoubleStorage": torch.float64,
    "FloatStorage": torch.float32,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
}
MOST_PICKLE_BYTES = 256 << 20
"""A larger object program is refused; that of a billion parameters takes well under a megabyte."""
LOCAL_HEADER = struct.Struct("<4s5H3I2H")


class BrokenCheckpoint(UserError):
    """A file that is damaged or is no checkpoint."""


class Inert:
    """Stands for any object of a class we do not know: accepts every call and keeps nothing."""

    def __new__(cls, *args: Any, **kwargs: Any) -> Inert:
        return super().__new__(cls)

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        pass

    def __call__(self, *args: Any, **kwargs: Any) -> Inert:
        return Inert()

    def __setstate__(self, state: Any) -> None:
        pass

    def __setitem__(self, key: Any, value: Any) -> None:
        pass

    def append(self, item: Any) -> None:
        pass

    def extend(self, items: Any) -> None:
        pass

    def add(self, item: Any) -> None:
        pass


class PlainDict(dict):
    """An ordered dict of the file, without the attributes the file would set on it."""

    def __setstate__(self, state: Any) -> None:
        pass


@dataclass(frozen=True)
class Storage:
    """Where the numbers of a tensor lie in the file."""

    dtype: torch.dtype
    key: str
    count: int


@dataclass(frozen=True)
class StoredTensor:
    """A tensor that was not read yet."""

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    stride: tuple[int, ...]


class TensorMaker:
    """Describes a tensor; anything but whole numbers inside the storage makes it inert."""

    def __call__(self, storage: Any, offset: Any, shape: Any, stride: Any, *_: Any) -> Any:
        numbers = (offset, *shape, *stride) if isinstance(shape, tuple) and isinstance(stride, tuple) else (None,)
        if not isinstance(storage, Storage) or len(shape) != len(stride) or not all(type(n) is int and n >= 0 for n in numbers):
            return Inert()
        last = offset + sum((n - 1) * s for n, s in zip(shape, stride, strict=True))
        if all(shape) and last >= storage.count:
            return Inert()
        return StoredTensor(storage, offset, shape, stride)

    def __setstate__(self, state: Any) -> None:
        pass


class ParameterMaker:
    """Gives back the tensor a parameter wraps."""

    def __call__(self, data: Any, *_: Any) -> Any:
        return data

    def __setstate__(self, state: Any) -> None:
        pass


class _Reader(pickle.Unpickler):
    """An unpickler whose every name leads to this file."""

    def find_class(self, module_name: str, global_name: str) -> Any:
        if module_name in ("torch", "torch.storage") and global_name in DTYPES:
            return DTYPES[global_name]
        known = {
            ("collections", "OrderedDict"): PlainDict,
            ("torch._utils", "_rebuild_tensor_v2"): TensorMaker(),
            ("torch._utils", "_rebuild_parameter"): ParameterMaker(),
        }
        return known.get((module_name, global_name), Inert)

    def persistent_load(self, pid: Any) -> Any:
        if not (isinstance(pid, tuple) and len(pid) == 5 and pid[0] == "storage" and isinstance(pid[1], torch.dtype)):
            return Inert()
        _, dtype, key, _, count = pid
        return Storage(dtype, str(key), count) if type(count) is int and count >= 0 else Inert()


class TorchFile:
    """The tensors of a torch zip file, read from disk one at a time.

    Raises:
        BrokenCheckpoint: the file is damaged or not of this kind.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            with zipfile.ZipFile(path) as archive:
                self._entries = {entry.filename: entry for entry in archive.infolist()}
                program = next((name for name in self._entries if name.endswith("/data.pkl")), None)
                if program is None:
                    raise BrokenCheckpoint(f"{path.name} is a zip file but no checkpoint.", "Give the published weights file.")
                self._root = program[: -len("data.pkl")]
                if self._entries[program].file_size > MOST_PICKLE_BYTES:
                    raise BrokenCheckpoint(f"{path.name}: its list of objects is implausibly large.", "Download it again.")
                order = archive.read(self._root + "byteorder") if self._root + "byteorder" in self._entries else b"little"
                content = _Reader(io.BytesIO(archive.read(program))).load()
        except BrokenCheckpoint:
            raise
        except Exception as error:  # a damaged pickle can raise anything; none of it is ours
            raise BrokenCheckpoint(f"{path.name} is damaged ({type(error).__name__}: {error}).", "Download it again.") from error
        if order != b"little":
            raise BrokenCheckpoint(f"{path.name} was written on a big-endian machine.", "Convert it to safetensors.")
        self._tensors = state_dict_of(content)
        if not self._tensors:
            raise BrokenCheckpoint(f"{path.name} holds no tensors under names.", "Give the published weights file.")
        self.shapes = {name: tensor.shape for name, tensor in self._tensors.items()}
        for name, tensor in self._tensors.items():
            entry = self._entries.get(f"{self._root}data/{tensor.storage.key}")
            size = tensor.storage.count * tensor.storage.dtype.itemsize
            if entry is None or entry.compress_type != zipfile.ZIP_STORED or entry.file_size < size:
                raise BrokenCheckpoint(f"{path.name}: the numbers of {name} are missing or cut off.", "Download it again.")

    def read(self, key: str) -> Tensor:
        """Read one tensor from disk; the memory is the file's, mapped."""
        stored = self._tensors[key]
        entry = self._entries[f"{self._root}data/{stored.storage.key}"]
        size = stored.storage.count * stored.storage.dtype.itemsize
        if size == 0:
            return torch.empty(stored.shape, dtype=stored.storage.dtype)
        with self.path.open("rb") as file:
            file.seek(entry.header_offset)
            *_, name_length, extra_length = LOCAL_HEADER.unpack(file.read(LOCAL_HEADER.size))
        start = entry.header_offset + LOCAL_HEADER.size + name_length + extra_length
        mapped = np.memmap(self.path, dtype=np.uint8, mode="c", offset=start, shape=(size,))
        flat = torch.from_numpy(mapped).view(stored.storage.dtype)
        return flat.as_strided(stored.shape, stored.stride, stored.offset)


def state_dict_of(content: Any) -> dict[str, StoredTensor]:
    """Find the named tensors: under "state_dict" or "model" where the file has one, else at the top."""
    if not isinstance(content, dict):
        return {}
    for name in ("state_dict", "model"):
        inner = content.get(name)
        if isinstance(inner, dict) and any(isinstance(value, StoredTensor) for value in inner.values()):
            content = inner
            break
    return {key: value for key, value in content.items() if isinstance(key, str) and isinstance(value, StoredTensor)}
