"""Records as bytes and back, without pickles.

Input: records, tensors, lists, dictionaries, numbers and text. Output: bytes in the safetensors format, and the same values again.
Does not: know stages or files.
"""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors

from ..cameras.result import SfmResult
from ..fuse import Fused
from ..quality.score import ViewScore
from ..records import Cameras, Gaussians, Prediction

RECORDS: dict[str, type] = {cls.__name__: cls for cls in (Cameras, Gaussians, Prediction, SfmResult, Fused, ViewScore)}
"""What may be packed, and be made again."""
TREE = "tree"


def pack(value: Any) -> bytes:
    """Turn a value into bytes.

    Raises:
        TypeError: it holds something else than records, tensors, lists, dictionaries with text keys, numbers and text.
    """
    tensors: dict[str, torch.Tensor] = {}
    tree = _tree(value, tensors)
    return save_tensors(tensors, metadata={TREE: json.dumps(tree, allow_nan=True)})


def unpack(data: bytes) -> Any:
    """Make the value again; tensors return to the device they were on, where there is one.

    Raises:
        ValueError: these bytes were not made by ``pack``.
    """
    try:
        length = int.from_bytes(data[:8], "little")
        header = json.loads(data[8 : 8 + length])
        return _value(json.loads(header["__metadata__"][TREE]), load_tensors(data))
    except (KeyError, TypeError, IndexError) as error:
        raise ValueError(f"not a packed record: {error!r}") from error


def _tree(value: Any, tensors: dict[str, torch.Tensor]) -> Any:
    if isinstance(value, np.ndarray):
        value = torch.from_numpy(np.ascontiguousarray(value))
    if isinstance(value, torch.Tensor):
        name = str(len(tensors))
        held = value.detach().cpu().contiguous()
        part = held.untyped_storage().nbytes() != held.nbytes
        shared = any(held.untyped_storage().data_ptr() == other.untyped_storage().data_ptr() for other in tensors.values())
        tensors[name] = held.clone() if part or (shared and held.numel()) else held
        return {"tensor": name, "device": value.device.type}
    if type(value).__name__ in RECORDS and isinstance(value, RECORDS[type(value).__name__]):
        fields = {f.name: _tree(getattr(value, f.name), tensors) for f in dataclasses.fields(value)}
        return {"record": type(value).__name__, "fields": fields}
    if isinstance(value, dict):
        return {"dict": [[_key(key), _tree(item, tensors)] for key, item in value.items()]}
    if isinstance(value, tuple):
        return {"tuple": [_tree(item, tensors) for item in value]}
    if isinstance(value, list):
        return {"list": [_tree(item, tensors) for item in value]}
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, Path):
        return str(value)
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise TypeError(f"cannot be packed: {type(value).__name__}")


def _key(key: Any) -> str:
    if not isinstance(key, str):
        raise TypeError(f"cannot be packed: a dictionary with the key {key!r}")
    return key


def _value(tree: Any, tensors: dict[str, torch.Tensor]) -> Any:
    if not isinstance(tree, dict):
        return tree
    if "tensor" in tree:
        held = tensors[tree["tensor"]]
        return held.to("cuda") if tree["device"] == "cuda" and torch.cuda.is_available() else held
    if "record" in tree:
        return RECORDS[tree["record"]](**{name: _value(item, tensors) for name, item in tree["fields"].items()})
    if "dict" in tree:
        return {key: _value(item, tensors) for key, item in tree["dict"]}
    if "tuple" in tree:
        return tuple(_value(item, tensors) for item in tree["tuple"])
    return [_value(item, tensors) for item in tree["list"]]
