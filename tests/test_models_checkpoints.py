"""The registry of published checkpoints against bad input: nothing runs, nothing is half installed, every error is in words."""

from __future__ import annotations

import errno
import hashlib
import io
import json
import os
import pickle
import shutil
import threading
import zipfile
from collections import OrderedDict, namedtuple
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from tiny_networks import TINY, published_tensors, tiny_network, write_tiny

from models import checkpoints
from models.published import zoo
from models.published.checkpoint.files import open_checkpoint
from models.published.checkpoint.keys import WrongCheckpoint
from models.published.checkpoint.pickles import BrokenCheckpoint
from models.published.networks.precision import set_backbone_dtype
from models.published.planner import GIB, needed_bytes, weight_bytes
from models.published.zoo import NETWORKS, load_network
from recon.errors import UserError

COMMIT = "0123456789abcdef0123456789abcdef01234567"
ENTRY = checkpoints.Checkpoint(
    name="tiny",
    network="tiny",
    title="Tiny",
    task="tests",
    repository="someone/tiny",
    revision=COMMIT,
    file="model.safetensors",
    size_bytes=1_000_000,
    code_licence="Apache-2.0",
    weights_licence="Apache-2.0",
    commercial=True,
    gated=False,
    memory_gib=0.1,
)


@pytest.fixture(autouse=True)
def _shelf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep weights in a folder of the test, and know a tiny network."""
    monkeypatch.setenv("RECON_WEIGHTS_DIR", str(tmp_path / "shelf"))
    monkeypatch.setattr(zoo, "NETWORKS", {"tiny": TINY, **NETWORKS})
    known = dict(checkpoints.all_checkpoints())
    monkeypatch.setattr(checkpoints, "all_checkpoints", lambda: {**known, "tiny": ENTRY})


def shelf(tmp_path: Path) -> list[str]:
    """List what is installed or left over."""
    root = tmp_path / "shelf"
    return sorted(path.relative_to(root).as_posix() for path in root.rglob("*")) if root.exists() else []


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


# Pickles


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


# A hub on this machine


class Hub(ThreadingHTTPServer):
    """Serves one file the way the hub does, or misbehaves."""

    content: bytes = b""
    behaviour: str = "good"


class _Handler(BaseHTTPRequestHandler):
    server: Hub

    def do_HEAD(self) -> None:
        self._answer(with_body=False)

    def do_GET(self) -> None:
        self._answer(with_body=True)

    def _answer(self, *, with_body: bool) -> None:
        kind, body, status = self.server.behaviour, self.server.content, 200
        headers = {"ETag": f'"{hashlib.sha256(body).hexdigest()}"', "X-Repo-Commit": COMMIT}
        if kind == "web page":
            body, headers = b"<html>Sign in</html>", {"Content-Type": "text/html"}
        elif kind == "page for file" and with_body:
            body = b"<html>Sign in</html>".ljust(len(body))
        elif kind == "gated":
            body, status, headers = b"", 403, {"X-Error-Code": "GatedRepo"}
        elif kind == "absent":
            body, status, headers = b"", 404, {"X-Error-Code": "EntryNotFound"}
        elif kind == "other file" and with_body:
            body = body[:-4] + b"\x00\x01\x02\x03"
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if with_body:
            self.wfile.write(body[: len(body) // 2] if kind == "cut off" else body)

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """Run a hub and point the client at it."""
    import huggingface_hub.constants

    server = Hub(("127.0.0.1", 0), _Handler)
    write_tiny(tmp_path / "served.safetensors")
    server.content = (tmp_path / "served.safetensors").read_bytes()
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{server.server_port}")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


def test_a_checkpoint_is_fetched_from_a_hub(hub: Hub, tmp_path: Path) -> None:
    said: list[str] = []
    path = checkpoints.pull("tiny", accept_licence=True, say=said.append)
    assert path.read_bytes() == hub.content
    assert shelf(tmp_path) == [".unfinished", "tiny", "tiny/model.safetensors", "tiny/receipt.json"]
    assert checkpoints.verify("tiny").source == f"someone/tiny@{COMMIT}"
    assert any("downloading" in line for line in said)
    assert json.loads((path.parent / "receipt.json").read_text())["size_bytes"] == len(hub.content)


@pytest.mark.parametrize(
    ("behaviour", "words"),
    [
        ("web page", "did not come from a Hugging Face hub"),
        ("page for file", "web page"),
        ("gated", "on request only"),
        ("absent", "The hub has no model.safetensors"),
    ],
)
def test_a_misbehaving_hub_installs_nothing(hub: Hub, tmp_path: Path, behaviour: str, words: str) -> None:
    hub.behaviour = behaviour
    with pytest.raises(UserError, match=words):
        checkpoints.pull("tiny", accept_licence=True)
    assert [name for name in shelf(tmp_path) if name.startswith("tiny")] == []


def test_a_file_that_is_not_the_published_one_is_refused(hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pinned = replace(ENTRY, sha256=hashlib.sha256(hub.content).hexdigest())
    monkeypatch.setattr(checkpoints, "all_checkpoints", lambda: {"tiny": pinned})
    hub.behaviour = "other file"
    with pytest.raises(BrokenCheckpoint, match="its checksum differs"):
        checkpoints.pull("tiny", accept_licence=True)
    assert [name for name in shelf(tmp_path) if "tiny" in name] == []


def test_an_interrupted_download_installs_nothing_and_can_be_repeated(hub: Hub, tmp_path: Path) -> None:
    hub.behaviour = "cut off"
    with pytest.raises(UserError, match="download failed"):
        checkpoints.pull("tiny", accept_licence=True)
    assert [name for name in shelf(tmp_path) if name.startswith("tiny")] == []
    hub.behaviour = "good"
    assert checkpoints.pull("tiny", accept_licence=True).read_bytes() == hub.content


def test_no_network_is_said_so(hub: Hub, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(UserError, match=r"download failed.*Check the network"):
        checkpoints.pull("tiny", accept_licence=True)
    assert [name for name in shelf(tmp_path) if name.startswith("tiny")] == []
