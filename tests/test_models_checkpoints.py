"""The registry of published checkpoints against bad input: nothing runs, nothing is half installed, every error is in words."""

from __future__ import annotations

import errno
import hashlib
import shutil
from pathlib import Path

import pytest
import torch
from checkpoint_shelf import COMMIT, ENTRY, own_shelf, shelf  # noqa: F401
from safetensors.torch import save_file
from tiny_networks import published_tensors, tiny_network, write_tiny

from models import checkpoints
from models.published.checkpoint.files import open_checkpoint
from models.published.checkpoint.keys import WrongCheckpoint
from models.published.checkpoint.pickles import BrokenCheckpoint
from models.published.networks.precision import set_backbone_dtype
from models.published.planner import GIB, needed_bytes, weight_bytes
from models.published.zoo import NETWORKS, load_network
from recon.errors import UserError

# The entries


def test_entries_are_complete() -> None:
    for name, entry in checkpoints.all_checkpoints().items():
        assert entry.name == name
        assert entry.network in {*NETWORKS, "tiny"}
        assert entry.sha256 is None or len(bytes.fromhex(entry.sha256)) == 32
        assert entry.weights_licence
        assert entry.code_licence
        if "NC" in entry.weights_licence:
            assert not entry.commercial
        assert entry.revision == "main" or len(entry.revision) == 40


@pytest.mark.parametrize("name", ["da3-small", "da3-base", "vggt", "anysplat", "pi3", "yonosplat", "mapanything"])
def test_memory_in_the_list_is_the_planners(name: str) -> None:
    network, entry = NETWORKS[name], checkpoints.find_checkpoint(name)
    side = network.long_side
    canvas = (side, side * 3 // 4 // 14 * 14)
    needed = needed_bytes(network, 4, canvas, 1, torch.float32, weight_bytes(network)) / GIB
    assert entry.memory_gib == pytest.approx(needed, rel=0.15)


def test_unknown_names_get_the_nearest() -> None:
    with pytest.raises(UserError, match=r"Did you mean 'da3-small'\?"):
        checkpoints.find_checkpoint("DA3_small")
    with pytest.raises(UserError, match="There are: da3-small"):
        checkpoints.find_checkpoint("zzzzzzzz")


def test_terms_come_first(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"not accepted.*CC-BY-NC-4\.0.*--accept-licence"):
        checkpoints.pull("vggt", accept_licence=False)
    assert shelf(tmp_path) == []


# Files


def test_a_checkpoint_loads_to_the_same_numbers(tmp_path: Path) -> None:
    network = write_tiny(tmp_path / "model.safetensors")
    loaded = load_network("tiny", tmp_path / "model.safetensors")
    wanted = network.state_dict()
    assert loaded.state_dict().keys() == wanted.keys()
    assert all(torch.equal(value, wanted[name]) for name, value in loaded.state_dict().items())


def test_a_shorter_format_is_read_straight_from_the_file(tmp_path: Path) -> None:
    network = write_tiny(tmp_path / "model.safetensors")
    loaded = load_network("tiny", tmp_path / "model.safetensors", dtype=torch.bfloat16)
    set_backbone_dtype(network, torch.bfloat16)
    for name, value in network.state_dict().items():
        assert loaded.state_dict()[name].dtype == value.dtype, name
        assert torch.equal(loaded.state_dict()[name], value), name
    assert loaded.get_parameter("backbone.blocks.0.attn.qkv.weight").dtype == torch.bfloat16
    assert loaded.get_parameter("cam_dec.fc_t.weight").dtype == torch.float32


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "is empty"),
        (b"<!DOCTYPE html><html><body>Sign in to the network</body></html>", "web page"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 5\n", "LFS pointer"),
        (b'{"error": "Invalid username or password."}', "error message of a server"),
        (b"\x80\x02}q\x00.", "bare pickle"),
        (bytes(range(256)) * 8, "neither a safetensors file nor a torch checkpoint"),
        (b"PK\x03\x04 and then nothing", "damaged"),
    ],
)
def test_what_is_no_checkpoint_is_named(tmp_path: Path, content: bytes, words: str) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(content)
    with pytest.raises(BrokenCheckpoint, match=words):
        open_checkpoint(path)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="There is no weights file"):
        open_checkpoint(tmp_path / "absent.safetensors")


@pytest.mark.parametrize("share", [0.001, 0.3, 0.999])
@pytest.mark.parametrize("kind", ["safetensors", "ckpt"])
def test_a_file_cut_off_is_found(tmp_path: Path, share: float, kind: str) -> None:
    path = tmp_path / f"model.{kind}"
    tensors = published_tensors(tiny_network())
    save_file(tensors, path) if kind == "safetensors" else torch.save({"state_dict": tensors}, path)
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    with pytest.raises(BrokenCheckpoint):
        load_network("tiny", path)


def test_missing_unexpected_and_misshapen_tensors_are_named(tmp_path: Path) -> None:
    tensors = published_tensors(tiny_network())
    del tensors["model.cam_dec.fc_t.weight"]
    tensors["model.surprise"] = torch.zeros(3)
    tensors["model.head.norm.bias"] = torch.zeros(7)
    save_file(tensors, tmp_path / "model.safetensors")
    with pytest.raises(WrongCheckpoint) as caught:
        load_network("tiny", tmp_path / "model.safetensors")
    text = str(caught.value)
    assert "1 missing (model.cam_dec.fc_t.weight)" in text
    assert "1 unexpected (model.surprise)" in text
    assert "model.head.norm.bias is (7,), wanted (128,)" in text


def test_another_models_checkpoint_is_recognised(tmp_path: Path) -> None:
    write_tiny(tmp_path / "model.safetensors")
    with pytest.raises(WrongCheckpoint, match="It has the keys of tiny"):
        load_network("da3-small", tmp_path / "model.safetensors")
    with pytest.raises(WrongCheckpoint, match="not a checkpoint of vggt"):
        load_network("vggt", tmp_path / "model.safetensors")


# Installing


def test_a_file_of_the_user_is_installed_checked_and_removed(tmp_path: Path) -> None:
    write_tiny(tmp_path / "mine.safetensors")
    path = checkpoints.pull("tiny", accept_licence=True, file=tmp_path / "mine.safetensors")
    assert path == checkpoints.installed_path("tiny")
    assert shelf(tmp_path) == ["tiny", "tiny/model.safetensors", "tiny/receipt.json"]
    receipt = checkpoints.verify("tiny")
    assert receipt.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(BrokenCheckpoint, match="changed since it was installed"):
        checkpoints.verify("tiny")
    assert checkpoints.remove("tiny") > len(content)
    assert shelf(tmp_path) == []
    with pytest.raises(UserError, match="not on this machine"):
        checkpoints.remove("tiny")
    with pytest.raises(UserError, match="recon weights pull tiny"):
        checkpoints.installed_path("tiny")


def test_a_wrong_file_leaves_what_was_installed(tmp_path: Path) -> None:
    write_tiny(tmp_path / "mine.safetensors")
    checkpoints.pull("tiny", accept_licence=True, file=tmp_path / "mine.safetensors")
    before = shelf(tmp_path)
    (tmp_path / "bad.safetensors").write_bytes(b"<html>")
    with pytest.raises(BrokenCheckpoint):
        checkpoints.pull("tiny", accept_licence=True, file=tmp_path / "bad.safetensors")
    assert shelf(tmp_path) == before
    checkpoints.verify("tiny")


def test_a_full_disk_is_seen_before_and_during(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_tiny(tmp_path / "mine.safetensors")
    usage = shutil.disk_usage(tmp_path)
    with monkeypatch.context() as patched:
        patched.setattr(shutil, "disk_usage", lambda _: usage._replace(free=10))
        with pytest.raises(UserError, match=r"GB are needed and 0\.00 GB are free"):
            checkpoints.pull("tiny", accept_licence=True, file=tmp_path / "mine.safetensors")

    def full(*_args: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(shutil, "copyfile", full)
    with pytest.raises(UserError, match="is full"):
        checkpoints.pull("tiny", accept_licence=True, file=tmp_path / "mine.safetensors")
    assert [name for name in shelf(tmp_path) if "tiny" in name] == []


def test_offline_mode_is_kept(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(UserError, match=r"Offline mode is on.*--file FILE"):
        checkpoints.pull("tiny", accept_licence=True)
    assert shelf(tmp_path) == []
