"""`recon weights` and what the doctor says of published networks: licences first, words for every error, nothing by halves."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from pathlib import Path

import pytest
from checkpoint_shelf import ENTRY
from tiny_networks import TINY, write_tiny

from app import doctor
from app.cli import main
from models import checkpoints
from models.published import planner, zoo
from models.published.zoo import NETWORKS

TINY_ENTRY = replace(ENTRY, revision="main", weights_licence="Terms of the tiny network")


@pytest.fixture(autouse=True)
def shelf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Keep weights in a folder of the test, and know a tiny network."""
    monkeypatch.setenv("RECON_WEIGHTS_DIR", str(tmp_path / "shelf"))
    monkeypatch.setattr(zoo, "NETWORKS", {"tiny": TINY, **NETWORKS})
    known = dict(checkpoints.all_checkpoints())
    monkeypatch.setattr(checkpoints, "all_checkpoints", lambda: {**known, "tiny": TINY_ENTRY})
    return tmp_path / "shelf"


@pytest.fixture
def mine(tmp_path: Path) -> Path:
    """A file of the user's."""
    write_tiny(tmp_path / "mine.safetensors")
    return tmp_path / "mine.safetensors"


def test_the_list_names_licences_sizes_and_what_is_here(mine: Path, capsys: pytest.CaptureFixture) -> None:
    assert main(["weights", "pull", "tiny", "--accept-licence", "--file", str(mine)]) == 0
    capsys.readouterr()
    assert main(["weights", "list"]) == 0
    shown = capsys.readouterr().out
    for part in ("da3-small", "Apache-2.0", "vggt", "CC-BY-NC-4.0", "GB to download", "commercial use: no", "on this machine"):
        assert part in shown
    assert main(["weights", "list", "--commercial-ok", "--json"]) == 0
    listed = {entry["name"]: entry for entry in json.loads(capsys.readouterr().out)["checkpoints"]}
    assert "vggt" not in listed
    assert listed["tiny"]["installed"] is True
    assert listed["da3-base"]["installed"] is False


def test_a_file_is_installed_found_checked_and_removed(mine: Path, shelf: Path, capsys: pytest.CaptureFixture) -> None:
    assert main(["weights", "pull", "tiny", "--accept-licence", "--file", str(mine)]) == 0
    said = capsys.readouterr()
    assert "Terms of the tiny network" in said.err
    assert said.out.strip() == str(shelf / "tiny" / "model.safetensors")
    assert main(["weights", "path", "tiny"]) == 0
    assert capsys.readouterr().out.strip() == str(shelf / "tiny" / "model.safetensors")
    assert main(["weights", "path"]) == 0
    assert capsys.readouterr().out.strip() == str(shelf)
    assert main(["weights", "verify", "tiny"]) == 0
    assert "right" in capsys.readouterr().out
    assert main(["weights", "remove", "tiny"]) == 0
    assert list(shelf.rglob("*.safetensors")) == []


@pytest.mark.parametrize(("typed", "code"), [("yes\n", 0), ("no\n", 2), ("", 2)])
def test_on_a_terminal_the_terms_are_asked_for(
    mine: Path, shelf: Path, monkeypatch: pytest.MonkeyPatch, typed: str, code: int
) -> None:
    answers = io.StringIO(typed)
    monkeypatch.setattr(answers, "isatty", lambda: True)
    monkeypatch.setattr("sys.stdin", answers)
    assert main(["weights", "pull", "tiny", "--file", str(mine)]) == code
    assert (shelf / "tiny" / "model.safetensors").is_file() == (code == 0)


@pytest.mark.parametrize(
    ("words", "part"),
    [
        ("pull tiny", "were not accepted"),
        ("pull vggt --commercial-ok --accept-licence", "CC-BY-NC-4.0"),
        ("pull da3_smal --accept-licence", "Did you mean 'da3-small'?"),
        ("pull da3-small --accept-licence", "Offline mode is on"),
        ("pull tiny --accept-licence --file nowhere.safetensors", "no weights file nowhere.safetensors"),
        ("verify vggt", "recon weights pull vggt"),
        ("remove vggt", "not on this machine"),
        ("path nothing", "no checkpoint called 'nothing'"),
    ],
)
def test_what_cannot_be_done_is_said_in_words(
    shelf: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture, words: str, part: str
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr("sys.stdin", io.StringIO())
    assert main(["weights", *words.split()]) == 2
    said = " ".join(capsys.readouterr().err.split())
    assert part in said
    assert "Traceback" not in said
    assert not shelf.exists() or list(shelf.rglob("*.safetensors")) == []


def test_another_models_checkpoint_is_named(mine: Path, shelf: Path, capsys: pytest.CaptureFixture) -> None:
    assert main(["weights", "pull", "da3-small", "--accept-licence", "--file", str(mine)]) == 2
    assert "tiny" in capsys.readouterr().err
    assert list(shelf.rglob("*.safetensors")) == []


def test_the_doctor_says_what_can_run_and_why_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(planner, "free_bytes", lambda _device: 2 << 30)
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    few = {name: checkpoints.find_checkpoint(name) for name in ("da3-small", "anysplat")}
    monkeypatch.setattr(checkpoints, "all_checkpoints", lambda: few)
    texts = {finding.name: finding.text for finding in doctor.check_published()}
    assert doctor.check_published in doctor.CHECKS
    assert "can run on cpu" in texts["model da3-small"]
    assert "recon weights pull da3-small" in texts["model da3-small"]
    assert "cannot run on cpu" in texts["model anysplat"]
    assert "2.0 GiB are free" in texts["model anysplat"]


@pytest.mark.parametrize(
    ("model", "part"),
    [("da3-smal", "Did you mean 'da3-small'?"), ("pi3", "recon weights pull pi3"), ("zzz", "auto, mini, da3-small")],
)
def test_a_run_with_an_unknown_or_absent_network_says_what_to_do(
    tmp_path: Path, capsys: pytest.CaptureFixture, model: str, part: str
) -> None:
    photos = Path(__file__).resolve().parent.parent / "data" / "sample"
    assert main(["run", str(photos), "-o", str(tmp_path / "out"), "--model", model, "--quiet"]) == 2
    assert part in " ".join(capsys.readouterr().err.split())
    assert not (tmp_path / "out").exists()
