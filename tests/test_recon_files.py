"""Files are whole or absent, and JSON says what it was told."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch

from recon.errors import UserError
from recon.files import atomic_folder, atomic_path, read_json, write_json_atomic


def test_a_file_appears_only_when_complete(tmp_path):
    target = tmp_path / "deep" / "a.png"
    with atomic_path(target) as temporary:
        temporary.write_text("new")
        assert temporary.suffix == ".png"
        assert not target.exists()
    assert target.read_text() == "new"
    assert os.listdir(target.parent) == ["a.png"]


def test_a_failed_write_leaves_the_old_file(tmp_path):
    target = tmp_path / "a.txt"
    target.write_text("old")

    def write_half() -> None:
        with atomic_path(target) as temporary:
            temporary.write_text("half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_half()
    assert target.read_text() == "old"
    assert os.listdir(tmp_path) == ["a.txt"]


def test_a_folder_is_replaced_as_a_whole(tmp_path):
    target = tmp_path / "model"
    for word in ("first", "second"):
        with atomic_folder(target) as temporary:
            (temporary / f"{word}.txt").write_text(word)
    assert os.listdir(target) == ["second.txt"]

    def write_half() -> None:
        with atomic_folder(target) as temporary:
            (temporary / "third.txt").write_text("half")
            raise ValueError("stop")

    with pytest.raises(ValueError, match="stop"):
        write_half()
    assert os.listdir(target) == ["second.txt"]
    assert os.listdir(tmp_path) == ["model"]


def test_a_place_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(UserError, match="cannot be written"), atomic_path(tmp_path / "file" / "a.txt"):
        pass
    with pytest.raises(UserError, match="cannot be written"):
        write_json_atomic(tmp_path / "file" / "a.json", {})
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "b").write_text("")
    with pytest.raises(UserError, match="cannot be written"), atomic_path(tmp_path / "folder") as temporary:
        temporary.write_text("a")


@dataclass
class Record:
    a: float
    b: Path


def test_json_keeps_every_digit_and_plain_types(tmp_path):
    value = 1 / 3 + 1e-15
    data = {
        "t": torch.tensor([[value]], dtype=torch.float64),
        "n": np.float64(value),
        "r": Record(value, Path("x")),
        3: (1, True, None),
    }
    write_json_atomic(tmp_path / "a.json", data)
    assert read_json(tmp_path / "a.json") == {"t": [[value]], "n": value, "r": {"a": value, "b": "x"}, "3": [1, True, None]}


def test_json_has_no_infinities(tmp_path):
    write_json_atomic(tmp_path / "a.json", {"psnr": float("inf"), "x": np.array([np.nan, 1.0])})
    text = (tmp_path / "a.json").read_text()
    assert json.loads(text, parse_constant=pytest.fail) == {"psnr": None, "x": [None, 1.0]}


def test_json_refuses_what_it_cannot_say(tmp_path):
    with pytest.raises(TypeError, match="cannot be written as JSON: object"):
        write_json_atomic(tmp_path / "a.json", {"a": object()})
    assert not os.listdir(tmp_path)


def test_reading_json_names_what_is_wrong(tmp_path):
    with pytest.raises(UserError, match="There is no file"):
        read_json(tmp_path / "a.json")
    (tmp_path / "a.json").write_text('{"a": 1,\n "b": }')
    with pytest.raises(UserError, match="not valid JSON"):
        read_json(tmp_path / "a.json")
    (tmp_path / "a.json").write_bytes(b"\xff\xfe\x00\x01")
    with pytest.raises(UserError, match="cannot be read"):
        read_json(tmp_path / "a.json")
