"""Files that are either complete or not there.

Input: a target path and what writes it. Output: the finished file or folder under its final name.
Does not: know formats; each writer fills the temporary path it is given.
"""

from __future__ import annotations

import dataclasses
import json
import math
import os
import secrets
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch

from .errors import UserError


def _beside(path: Path) -> Path:
    """Name a hidden temporary neighbour of ``path`` with the same suffix, so that writers still recognise the format."""
    return path.with_name(f".{path.stem}.{secrets.token_hex(4)}.part{path.suffix}")


def _make_parent(path: Path) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(
            f"The folder {path.parent} cannot be written ({error.strerror or error}).", "Choose another output folder."
        ) from error


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Yield a temporary path that replaces ``path`` when the block ends well and vanishes when it raises.

    Args:
        path: the file to write; its folder is created.

    Raises:
        UserError: the folder or file cannot be written.
    """
    path = Path(path)
    _make_parent(path)
    temporary = _beside(path)
    try:
        yield temporary
        os.replace(temporary, path)
    except (PermissionError, IsADirectoryError) as error:
        raise UserError(f"{path} cannot be written ({error.strerror or error}).", "Choose another output folder.") from error
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """Yield a temporary folder that takes the place of ``path`` when the block ends well and vanishes when it raises.

    A folder that was there before is removed only after the new one is complete.

    Raises:
        UserError: the folder cannot be written.
    """
    path = Path(path)
    _make_parent(path)
    temporary, replaced = _beside(path), _beside(path)
    try:
        temporary.mkdir()
        yield temporary
        if path.exists():
            os.replace(path, replaced)
        os.replace(temporary, path)
    except PermissionError as error:
        raise UserError(f"{path} cannot be written ({error.strerror or error}).", "Choose another output folder.") from error
    finally:
        if replaced.exists() and not path.exists():
            os.replace(replaced, path)
        shutil.rmtree(temporary, ignore_errors=True)
        shutil.rmtree(replaced, ignore_errors=True)


def plain(value: Any) -> Any:
    """Turn records, tensors, arrays, paths and numpy numbers into what JSON knows; non-finite numbers become null."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (torch.Tensor, np.ndarray, np.generic)):
        return plain(value.tolist())
    if isinstance(value, (list, tuple, set, frozenset)):
        return [plain(item) for item in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if value is None or isinstance(value, (bool, int, str)):
        return value
    if isinstance(value, Path):
        return str(value)
    raise TypeError(f"cannot be written as JSON: {type(value).__name__}")


def write_json_atomic(path: Path, data: Any) -> None:
    """Write ``data`` as indented JSON; float64 values keep every digit.

    Raises:
        UserError: the file cannot be written.
        TypeError: ``data`` holds something JSON cannot express.
    """
    text = json.dumps(plain(data), indent=1, ensure_ascii=False, allow_nan=False)
    with atomic_path(Path(path)) as temporary:
        temporary.write_text(text + "\n", encoding="utf-8")


def read_json(path: Path) -> Any:
    """Read a JSON file that a person gave us.

    Raises:
        UserError: the file is missing, unreadable or not JSON.
    """
    path = Path(path)
    try:
        return json.loads(path.read_text(encoding="utf-8-sig"))
    except FileNotFoundError as error:
        raise UserError(f"There is no file {path}.", "Check the path.") from error
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path} cannot be read ({error}).", "Check that it is a readable JSON file.") from error
    except json.JSONDecodeError as error:
        where = f"line {error.lineno}, column {error.colno}: {error.msg}"
        raise UserError(f"{path} is not valid JSON ({where}).", "Repair the file or write it again.") from error
