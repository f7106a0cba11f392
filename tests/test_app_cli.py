"""The command line: what it reads, what it says, and how it ends."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from app import cli, run
from app.cli import COMMANDS, main, parse
from app.run import RunArguments, configure, option_names, reconstruct
from recon.config import Holdout, PipelineConfig
from recon.errors import CannotReconstruct, UserError
from recon.pipeline import Result
from recon.progress import Cancelled, Progress
from recon.records import Gaussians, Scene

import helpers


def make_result(out: Path | None) -> Result:
    gaussians = Gaussians(
        means=torch.zeros(5, 3),
        quats=torch.tensor([1.0, 0, 0, 0]).repeat(5, 1),
        scales=torch.ones(5, 3),
        opacities=torch.full((5,), 0.5),
        sh=torch.zeros(5, 1, 3),
    )
    report = {
        "counts": {"gaussians": 5, "used": 3},
        "seconds": {"photos": 0.5, "depth": 1.5},
        "peak_memory_bytes": {"process": 2**20, "largest_child": 2**21},
        "warnings": ["1 of 4 photos could not be placed: d.jpg."],
        "quality": {"n_scored": 1, "psnr_mean": 21.25, "ssim_mean": 0.7, "coverage": 0.93},
    }
    return Result(scene=Scene(gaussians=gaussians), report=report, out=out)


@pytest.fixture
def pipeline(monkeypatch: pytest.MonkeyPatch) -> list[tuple]:
    """A pipeline that only notes what it was asked; returns the notes."""
    calls: list[tuple] = []

    def fake(source, out, config, tools, progress: Progress) -> Result:
        calls.append((source, out, config))
        progress.update("photos", 1.0, "3 photos")
        progress.update("depth", 0.5)
        return make_result(out)

    monkeypatch.setattr(run, "run_pipeline", fake)
    monkeypatch.setattr(run, "build_tools", lambda: None)
    return calls


def failing(error: BaseException):
    def fake(*_: object) -> Result:
        raise error

    return fake


def test_every_flag_of_the_config_is_a_plain_flag(pipeline: list[tuple]) -> None:
    words = "run photos -o out --long-side 320 --max-gaussians 5000 --holdout 4:1 --device cpu --seed 7 --no-video --keep-gps"
    assert main([*words.split(), "--cameras", "cams.json", "--quiet"]) == 0
    source, out, config = pipeline[0]
    assert (source, out) == (Path("photos"), Path("out"))
    assert config.holdout == Holdout(every=4, offset=1)
    assert config.fuse.max_gaussians == 5000
    assert (config.long_side, config.device, config.seed, config.video, config.keep_gps) == (320, "cpu", 7, False, True)
    assert config.cameras == "cams.json"


def test_several_photos_stay_in_the_order_given(pipeline: list[tuple]) -> None:
    assert main(["run", "b.jpg", "a.jpg", "-o", "out", "--quiet"]) == 0
    assert pipeline[0][0] == [Path("b.jpg"), Path("a.jpg")]


def test_json_is_one_object_on_stdout_and_progress_goes_to_stderr(pipeline, capsys: pytest.CaptureFixture) -> None:
    assert main(["run", "photos", "-o", "out", "--json"]) == 0
    captured = capsys.readouterr()
    answer = json.loads(captured.out)
    assert answer["quality"]["psnr_mean"] == 21.25
    assert answer["out"] == "out"
    assert "Reading photos" in captured.err


def test_the_summary_tells_numbers_notes_and_where_to_look(pipeline, capsys: pytest.CaptureFixture) -> None:
    assert main(["run", "photos", "-o", "out"]) == 0
    said = capsys.readouterr()
    assert said.out == ""
    for part in ("5 Gaussians", "2 s", "21.25 dB", "could not be placed: d.jpg", "recon view out"):
        assert part in said.err


def test_quiet_says_nothing(pipeline, capsys: pytest.CaptureFixture) -> None:
    assert main(["run", "photos", "-o", "out", "--quiet"]) == 0
    captured = capsys.readouterr()
    assert captured.out == captured.err == ""


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (CannotReconstruct("Photos show different places.", "Take overlapping photos."), 3),
        (UserError("There is no such folder.", "Check the name."), 2),
        (Cancelled("stopped"), 130),
        (KeyboardInterrupt(), 130),
    ],
)
def test_errors_become_words_and_exit_codes(pipeline, monkeypatch, capsys: pytest.CaptureFixture, error, code: int) -> None:
    monkeypatch.setattr(run, "run_pipeline", failing(error))
    assert main(["run", "photos", "-o", "out"]) == code
    said = capsys.readouterr().err
    assert "Traceback" not in said
    if isinstance(error, UserError):
        assert error.reason in said
        assert error.remedy in said


def test_a_json_reader_gets_the_reason_as_json(pipeline, monkeypatch, capsys: pytest.CaptureFixture) -> None:
    monkeypatch.setattr(run, "run_pipeline", failing(CannotReconstruct("Too few.", "Take more.")))
    assert main(["run", "photos", "-o", "out", "--json", "--quiet"]) == 3
    assert json.loads(capsys.readouterr().out) == {"error": "Too few.", "remedy": "Take more.", "exit_code": 3}


def test_a_fault_of_ours_keeps_its_traceback(pipeline, monkeypatch) -> None:
    monkeypatch.setattr(run, "run_pipeline", failing(ZeroDivisionError("ours")))
    with pytest.raises(ZeroDivisionError):
        main(["run", "photos", "-o", "out", "--quiet"])


@pytest.mark.parametrize(
    "words",
    ["--refine -1", "--refine 1000", "--polish -1", "--long-side 8", "--max-gaussians 3"],
    ids=["refine", "rounds", "polish", "side", "budget"],
)
def test_what_cannot_be_done_is_refused_before_work_begins(pipeline, capsys: pytest.CaptureFixture, words: str) -> None:
    assert main(["run", "photos", "-o", "out", *words.split()]) == 2
    assert pipeline == []
    assert words.split()[0] in capsys.readouterr().err


@pytest.mark.parametrize("words", ["--holdout 1", "--holdout x", "--holdout 4:4", "--bogus", "--device tpu"])
def test_wrong_flags_are_exit_code_2(pipeline, words: str) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["run", "photos", "-o", "out", *words.split()])
    assert caught.value.code == 2
    assert pipeline == []


def test_no_photos_is_an_error_in_words(pipeline, capsys: pytest.CaptureFixture) -> None:
    assert main(["run", "-o", "out"]) == 2
    assert "No photos were given" in capsys.readouterr().err


def test_unknown_command_and_no_command() -> None:
    assert main(["reconstruct"]) == 2
    assert main([]) == 2
    assert main(["--help"]) == 0
    assert main(["--version"]) == 0


@pytest.mark.parametrize("name", list(COMMANDS))
def test_every_command_explains_itself(name: str, capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(SystemExit) as caught:
        main([name, "--help"])
    assert caught.value.code == 0
    shown = capsys.readouterr().out
    assert f"recon {name}" in shown
    assert name in cli.overview()


def test_the_readme_knows_every_command() -> None:
    words = (helpers.REPOSITORY / "README.md").read_text(encoding="utf-8")
    assert [name for name in COMMANDS if f"recon {name}" not in words and f"`{name}`" not in words] == []


def test_the_overview_needs_no_heavy_package() -> None:
    probe = "import sys; from app.cli import main; main(['--help']); sys.exit(','.join({'torch', 'numpy'} & set(sys.modules)) or 0)"
    done = subprocess.run([sys.executable, "-c", probe], cwd=helpers.REPOSITORY, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(("setting", "wanted"), [("always [madvise] never", "1"), ("always madvise [never]", None), (None, None)])
def test_large_pages_are_asked_for_where_there_are_any(
    tmp_path: Path, monkeypatch, setting: str | None, wanted: str | None
) -> None:
    monkeypatch.setenv("THP_MEM_ALLOC_ENABLE", "x")  # so that what the function sets is undone afterwards
    monkeypatch.delenv("THP_MEM_ALLOC_ENABLE")
    if setting is not None:
        (tmp_path / "enabled").write_text(setting)
    cli.prefer_large_pages(tmp_path / "enabled")
    assert os.environ.get("THP_MEM_ALLOC_ENABLE") == wanted


def test_reconstruct_takes_plain_names(pipeline: list[tuple]) -> None:
    result = reconstruct("photos", long_side=200, max_gaussians=900, holdout="3:1", seed=5)
    assert len(result.scene.gaussians) == 5
    source, out, config = pipeline[0]
    assert (source, out) == (Path("photos"), None)
    assert (config.long_side, config.fuse.max_gaussians, config.holdout, config.seed) == (200, 900, Holdout(every=3, offset=1), 5)


def test_reconstruct_refuses_an_option_that_does_not_exist(pipeline: list[tuple]) -> None:
    with pytest.raises(TypeError, match="long_size"):
        reconstruct("photos", long_size=200)
    assert pipeline == []


def test_plain_names_are_unambiguous() -> None:
    names = option_names(PipelineConfig())
    assert len(set(names)) == len(names)
    assert configure(PipelineConfig(), {}) == PipelineConfig()


def test_defaults_of_the_command_line_are_those_of_the_config() -> None:
    assert parse(RunArguments, ["photos", "-o", "out"], "recon run").config == PipelineConfig()
    assert {field.name for field in dataclasses.fields(RunArguments)} == {"photos", "out", "config", "quiet", "json"}
