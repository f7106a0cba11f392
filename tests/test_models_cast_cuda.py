"""Rays cast by the CUDA kernels, which Numba's simulator runs where there is no GPU, meet what the processor's meet."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

from app.cli import main
from models.training import raycast_cuda
from models.training.makers import waiting
from models.training.matcher_trainer import MatcherTraining, pair_maker
from models.training.plan import WARM_UP, timed
from models.training.raycast_cuda import CudaCaster, can_cast
from models.training.textures import generated_textures
from models.training.trainer import TrainConfig, batch_maker
from models.training.worlds import Worlds

ROOT = Path(__file__).resolve().parent.parent
SEEDS = (3,)
MAKE = """
import sys
import numpy as np
from models.training.worlds import Worlds
made = {}
for seed in map(int, sys.argv[2:]):
    one = Worlds(None, seed, cast="cuda").capture(2, 16, 24)
    made |= {f"images{seed}": one.images, f"depth{seed}": one.depth[2], f"normals{seed}": one.normals}
np.savez(sys.argv[1], **made)
"""


def test_a_seed_makes_the_same_worlds_with_cuda(tmp_path):
    """The kernels themselves, thread by thread; a whole capture, so that a world refused on one side would show as well."""
    environment = {**os.environ, "NUMBA_ENABLE_CUDASIM": "1", "NUMBA_DISABLE_JIT": "1", "PYTHONPATH": str(ROOT)}
    out = tmp_path / "made.npz"
    subprocess.run([sys.executable, "-c", MAKE, str(out), *map(str, SEEDS)], env=environment, check=True, timeout=300)
    simulated = np.load(out)
    for seed in SEEDS:
        expected = Worlds(None, seed).capture(2, 16, 24)
        assert expected.depth[2][expected.depth[2] < 1e20].std() > 0.01
        assert np.allclose(simulated[f"depth{seed}"], expected.depth[2], rtol=1e-5)
        assert np.allclose(simulated[f"images{seed}"], expected.images, atol=1e-4)
        assert expected.normals.std(axis=(1, 2)).max() > 0.1
        assert np.allclose(simulated[f"normals{seed}"], expected.normals, atol=1e-4)


@pytest.mark.skipif(can_cast(), reason="there is a GPU")
def test_without_a_gpu_casting_on_one_is_refused_in_words():
    with pytest.raises(RuntimeError, match="CUDA_HOME"):
        CudaCaster((np.zeros((1, 8, 8, 3), np.uint8),))


@pytest.mark.skipif(not can_cast(), reason="needs a GPU")
def test_a_gpu_casts_what_the_processor_casts():
    for seed in range(4):
        there, here = Worlds(None, seed, cast="cuda").capture(3, 96, 128), Worlds(None, seed).capture(3, 96, 128)
        assert there.kind == here.kind
        wrong = np.abs(there.depth[2] / here.depth[2] - 1) > 1e-4
        assert wrong.mean() < 1e-3  # rays that graze an edge
        assert (np.abs(there.normals - here.normals).max(axis=-1) > 1e-3).mean() < 2e-3
        assert (np.abs(there.images - here.images).max(axis=-1) > 0.01).mean() < 2e-3


def test_every_ray_has_a_thread():
    for rays in (1, raycast_cuda.THREADS, raycast_cuda.THREADS + 1):
        assert raycast_cuda.blocks(rays) * raycast_cuda.THREADS - rays in range(raycast_cuda.THREADS)


@pytest.mark.parametrize(("maker", "config"), [(batch_maker, TrainConfig), (pair_maker, MatcherTraining)])
def test_makers_can_be_sent_to_processes_and_differ(maker, config, tmp_path, monkeypatch):
    monkeypatch.setattr("models.training.worlds.generated_textures", lambda rng, count: generated_textures(rng, 6))
    monkeypatch.setattr("models.training.correspondences.generated_textures", lambda rng, count: generated_textures(rng, 6))
    begin = pickle.loads(pickle.dumps(partial(maker, config(out=tmp_path), None, 0)))
    first, again, other = (begin(number)() for number in (0, 0, 1))
    photos = [one.images if hasattr(one, "images") else one.captures[0].images for one in (first, again, other)]
    assert np.array_equal(photos[0], photos[1])
    assert photos[0].shape != photos[2].shape or not np.array_equal(photos[0], photos[2])


def test_steps_on_a_gpu_see_more_and_processes_feed_them(tmp_path):
    on_cpu, on_gpu = (TrainConfig(out=tmp_path, device=device) for device in ("cpu", "cuda"))
    assert (on_cpu.maker_count, on_cpu.worlds_per_step) == (1, 1)
    assert on_gpu.maker_count == max(1, (os.cpu_count() or 1) - 2)
    assert on_gpu.worlds_per_step > 1
    assert TrainConfig(out=tmp_path, device="cuda", makers=3, captures=2).maker_count == 3
    assert TrainConfig(out=tmp_path, device="cuda", captures=2).worlds_per_step == 2
    assert MatcherTraining(out=tmp_path, device="cuda").worlds_per_step > MatcherTraining(out=tmp_path).worlds_per_step


@pytest.mark.skipif(can_cast(), reason="there is a GPU")
@pytest.mark.parametrize("words", [["train", "mini", "--out", "OUT"], ["worlds", "--sheet", "OUT.png"]])
def test_casting_without_a_gpu_is_refused_before_anything_is_written(words, tmp_path, capsys):
    assert main([word.replace("OUT", str(tmp_path / "out")) for word in words] + ["--cast", "cuda"]) != 0
    assert "CUDA_HOME" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
@pytest.mark.parametrize("network", ["mini", "matcher", "cameras"])
def test_training_on_a_gpu_that_is_not_there_is_refused_before_anything_is_written(network, tmp_path, capsys):
    assert main(["train", network, "--out", str(tmp_path / "out"), "--device", "cuda"]) != 0
    assert "no CUDA GPU" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("network", ["matcher", "cameras", "refiner"])
def test_a_loss_that_a_network_does_not_have_is_refused(network, tmp_path, capsys):
    assert main(["train", network, "--out", str(tmp_path / "out"), "--normals", "0.1"]) != 0
    assert "belongs to 'mini'" in capsys.readouterr().err


@pytest.mark.skipif(not hasattr(os, "nice"), reason="no priorities")
def test_a_stretch_on_a_cpu_lets_others_go_first():
    code = "import os; from models.training.stretch import go_last; go_last('cuda'); a = os.nice(0); go_last('cpu'); go_last('cpu')"
    code += "; print(a, os.nice(0))"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    before, after = map(int, found.stdout.split())
    assert before == os.nice(0)
    assert after == max(before, 10)


@pytest.mark.parametrize("word", ["--makers", "--captures", "--threads"])
def test_none_of_what_a_step_needs_is_refused(word, tmp_path, capsys):
    assert main(["train", "mini", "--out", str(tmp_path / "out"), word, "0"]) != 0
    assert f"{word} 0 is too few" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_a_plan_does_not_time_what_was_made_before_it_looked():
    """What processes made ahead is used up before steps are timed."""
    used = []
    source = (number for number in range(1000))
    timed(source, lambda batch, step: used.append(batch), lambda batch: [], 5, makers=4)
    assert len(used) == 5 + WARM_UP + waiting(4)
