"""Published checkpoints that are pickles: nothing in them runs, and what they say is checked."""

from __future__ import annotations

import io
import os
import pickle
import zipfile
from collections import OrderedDict, namedtuple
from pathlib import Path

import pytest
import torch
from checkpoint_shelf import COMMIT, ENTRY, own_shelf, shelf  # noqa: F401
from tiny_networks import published_tensors, tiny_network

from models.published.checkpoint.files import open_checkpoint
from models.published.checkpoint.pickles import BrokenCheckpoint
from models.published.zoo import load_network


class Trap:
    """Would make a file if anybody let it."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self):
        return (os.system, (f"touch {self.marker}",))


class Evaluated(Trap):
    """Would make a file through eval."""

    def __reduce__(self):
        return (eval, (f"open({str(self.marker)!r}, 'w').close()",))


class Executed(Trap):
    """Would make a file through exec."""

    def __reduce__(self):
        return (exec, (f"open({str(self.marker)!r}, 'w').close()",))


class Listing(list):
    """A list of a class the reader does not know."""


class Table(dict):
    """A dict of a class the reader does not know."""


Point = namedtuple("Point", "x y")


def lightning_file(path: Path, marker: Path) -> dict[str, torch.Tensor]:
    """Write what Lightning writes: weights beside optimiser, callbacks, paths and objects of unknown classes, some malicious."""
    tensors = published_tensors(tiny_network())
    parameters = OrderedDict((name, torch.nn.Parameter(value)) for name, value in tensors.items())
    content = {
        "epoch": 3,
        "pytorch-lightning_version": "2.5",
        "state_dict": parameters,
        "optimizer_states": [{"state": {0: {"exp_avg": torch.ones(3), "hook": Trap(marker)}}, "groups": [Evaluated(marker)]}],
        "callbacks": {"path": Path("/somewhere"), "point": Point(1, 2), "more": [Executed(marker), Listing([1, 2]), Table(a=1)]},
        "hyper_parameters": {"dtype": torch.float16, "size": torch.Size([1, 2]), "device": torch.device("cpu"), "set": {1, 2}},
    }
    torch.save(content, path)
    return tensors


def test_nothing_in_a_malicious_pickle_runs(tmp_path: Path) -> None:
    marker = tmp_path / "it_ran"
    tensors = lightning_file(tmp_path / "model.ckpt", marker)
    opened = open_checkpoint(tmp_path / "model.ckpt")
    assert set(opened.shapes) == set(tensors)
    assert all(torch.equal(opened.read(name), value) for name, value in tensors.items())
    loaded = load_network("tiny", tmp_path / "model.ckpt")
    assert torch.equal(loaded.state_dict()["cam_dec.fc_t.weight"], tensors["model.cam_dec.fc_t.weight"])
    assert not marker.exists()
    torch.load(tmp_path / "model.ckpt", weights_only=False)  # the trap is real: the ordinary way springs it
    assert marker.exists()


def rewritten(source: Path, target: Path, program: bytes) -> None:
    """Copy a torch file with another object program."""
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w") as new:
        for entry in old.infolist():
            new.writestr(entry.filename, program if entry.filename.endswith("/data.pkl") else old.read(entry))


@pytest.mark.parametrize(
    "program",
    [
        b"cos\nsystem\n(S'touch {marker}'\ntR.",  # call
        b"(S'touch {marker}'\nios\nsystem\n.",  # instance
        b"cbuiltins\neval\n(S'1'\ntR}(S'a'\nI1\nsb.",  # set state
        b"ctorch._utils\n_rebuild_tensor_v2\n}S'__call__'\ncos\nsystem\nsb.",  # change our own reader
        b"ccollections\nOrderedDict\n}S'__setstate__'\nNsb.",
        b"ctorch\nFloatStorage\n)R.",
        b"I1\nQ.",  # a persistent id that is none
        b"\x80\x04\x95\xff\xff\xff\xff\xff\xff\xff\x7f.",  # a frame longer than the world
        b"not a pickle",
        b"",
    ],
)
def test_hand_made_pickles_do_nothing(tmp_path: Path, program: bytes) -> None:
    marker = tmp_path / "it_ran"
    torch.save({"state_dict": {"a": torch.zeros(2)}}, tmp_path / "good.ckpt")
    rewritten(tmp_path / "good.ckpt", tmp_path / "bad.ckpt", program.replace(b"{marker}", str(marker).encode()))
    with pytest.raises(BrokenCheckpoint):
        open_checkpoint(tmp_path / "bad.ckpt")
    assert not marker.exists()
    assert open_checkpoint(tmp_path / "good.ckpt").shapes == {"a": (2,)}  # the reader itself is as it was


def test_a_tensor_outside_its_storage_is_not_read(tmp_path: Path) -> None:
    torch.save({"state_dict": {"a": torch.arange(6.0)}}, tmp_path / "good.ckpt")
    with zipfile.ZipFile(tmp_path / "good.ckpt") as archive:
        program = archive.read("good/data.pkl")
    assert b"K\x06\x85" in program  # the shape (6,)
    rewritten(tmp_path / "good.ckpt", tmp_path / "bad.ckpt", program.replace(b"K\x06\x85", b"K\x60\x85"))
    with pytest.raises(BrokenCheckpoint, match="no tensors"):
        open_checkpoint(tmp_path / "bad.ckpt")


def test_other_zip_files_are_no_checkpoints(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.ckpt", "w") as archive:
        archive.writestr("readme.txt", "hello")
    with pytest.raises(BrokenCheckpoint, match="no checkpoint"):
        open_checkpoint(tmp_path / "a.ckpt")


def test_views_slices_and_halves_are_read_right(tmp_path: Path) -> None:
    base = torch.arange(24.0).reshape(4, 6)
    wanted = {"t": base.T, "s": base[1:, ::2], "h": base.half(), "b": base.bfloat16(), "i": torch.arange(3), "e": torch.zeros(0, 2)}
    torch.save({"model": wanted}, tmp_path / "a.pt")
    opened = open_checkpoint(tmp_path / "a.pt")
    assert all(torch.equal(opened.read(name), value) and opened.read(name).dtype == value.dtype for name, value in wanted.items())


def test_a_pickled_bomb_in_plain_pickle_form_is_refused(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    pickle.dump(Trap(tmp_path / "it_ran"), buffer)
    (tmp_path / "model.pkl").write_bytes(buffer.getvalue())
    with pytest.raises(BrokenCheckpoint, match="bare pickle"):
        open_checkpoint(tmp_path / "model.pkl")
    assert not (tmp_path / "it_ran").exists()
