"""Time of the depth network from 4 to 64 photos beside the floor that its operations set on this machine.

    python tests/benchmarks/bench_floor.py --views 4 8 16 32 64

Operations are counted while one photo is encoded and one is matched with its neighbours, each operation of PyTorch by itself:
multiply-adds by ``torch.utils.flop_counter``, bytes as what it reads and writes. The cost volume's kernel, which PyTorch does not
see, is counted by formula (``sweep_cost``). What one core sustains is measured here as well: multiply-adds as the best of a large
matrix product and of large convolutions, in float32 and in bfloat16 where the network uses it; bytes by a copy. Two floors:

    arithmetic   all multiply-adds at the best rate, nothing else
    roofline     every operation at its multiply-adds or its bytes, whichever takes longer (Williams et al., "Roofline", 2009)

Everything runs on one thread and time is the processor's. On a machine that others use even that is too long: a virtual processor's
time goes on while its host serves somebody else. So beside the whole run stands what it takes undisturbed: for as many photos, the
quickest tenth of its encodings and of its matchings (short enough to fall between disturbances).
"""

from __future__ import annotations

import argparse
import math
import sys
import time
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import numba
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

from models import mini
from models.mini_predictor import MiniPredictor
from models.registry import load_predictor
from models.training.head_trainer import capture_to_posed
from models.training.worlds import Worlds
from recon.neighbours import choose_neighbours
from recon.posed import PosedViews
from recon.progress import Progress

HEIGHT, WIDTH = 480, 640
NEIGHBOURS = 4
REPEATS = 9
"""Of what the machine is measured by; the least counts."""
KERNEL = "cost volume"
FREE = (
    "view",
    "reshape",
    "permute",
    "transpose",
    "expand",
    "slice",
    "select",
    "squeeze",
    "unsqueeze",
    "detach",
    "alias",
    "as_strided",
    "t",
)
"""Operations that touch no data, by the first word of their name."""


@dataclass(frozen=True)
class Operation:
    """One operation that was run."""

    name: str
    macs: float
    """Multiply-adds."""
    bytes: float
    """Read and written, each tensor once."""
    dtype: torch.dtype


@dataclass
class Count(TorchDispatchMode):
    """Notes every operation that PyTorch runs inside."""

    operations: list[Operation] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__init__()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        packet = func.overloadpacket
        if packet not in flop_registry:
            with self:
                made = func.decompose(*args, **kwargs)
            if made is not NotImplemented:
                return made
        out = func(*args, **kwargs)
        name = packet.__name__
        if name.split("_")[0] in FREE or name.startswith(("_unsafe_view", "_reshape", "empty", "lift")):
            return out
        read, written = ([t for t in tree_leaves(tree) if isinstance(t, torch.Tensor)] for tree in ((args, kwargs), out))
        flops = flop_registry[packet](*args, **kwargs, out_val=out) if packet in flop_registry else 0
        moved = sum(bytes_of(t) for t in read + written)
        dtype = written[0].dtype if written else torch.float32
        self.operations.append(Operation(name, flops / 2, float(moved), dtype))
        return out


def bytes_of(tensor: torch.Tensor) -> int:
    """What a tensor holds; what is repeated along an axis counts once."""
    return math.prod(size for size, stride in zip(tensor.shape, tensor.stride(), strict=True) if stride) * tensor.element_size()


def sweep_cost(ref: torch.Tensor, src: torch.Tensor, planes: int, groups: int) -> Operation:
    """What ``sweep_correlation`` needs: every hypothesis of every pixel and neighbour once.

    A hypothesis takes 9 multiply-adds to project, 4 a channel to interpolate and 1 a channel to correlate. Bytes: both feature maps
    read once, the volume and what is inside written once; repeated reads are taken to be in the cache.
    """
    batch, height, width, channels = ref.shape
    hypotheses = batch * src.shape[1] * planes * height * width
    moved = 4.0 * (ref.numel() + src.numel() + hypotheses * (groups + 1))
    return Operation(KERNEL, hypotheses * (9.0 + 5.0 * channels), moved, torch.float32)


@contextmanager
def counting():
    """Collect the operations of what runs inside, cost volumes included."""
    count, real = Count(), mini.sweep_correlation

    def counted(ref, src, sweep, groups):
        noted = len(count.operations)
        found = real(ref, src, sweep, groups)
        del count.operations[noted:]  # what the kernel's wrapper copies is the kernel's own
        count.operations.append(sweep_cost(ref, src, sweep.offsets.shape[1], groups))
        return found

    mini.sweep_correlation = counted
    try:
        with count:
            yield count.operations
    finally:
        mini.sweep_correlation = real


@dataclass(frozen=True)
class Machine:
    """What one core sustains."""

    macs: dict[torch.dtype, float]
    """Multiply-adds a second."""
    bytes: float
    """Read and written a second."""

    def arithmetic(self, operation: Operation) -> float:
        """Seconds for the multiply-adds."""
        return operation.macs / self.macs.get(operation.dtype, self.macs[torch.float32])

    def roofline(self, operation: Operation) -> float:
        """Seconds for the multiply-adds or the bytes, whichever are more."""
        return max(self.arithmetic(operation), operation.bytes / self.bytes)


def quickest(run: Callable[[], Any], repeats: int) -> float:
    """Least processor seconds of a call."""
    seconds = []
    for _ in range(repeats):
        began = time.process_time()
        run()
        seconds.append(time.process_time() - began)
    return min(seconds)


@torch.inference_mode()
def measure_machine(repeats: int) -> Machine:
    """Measure products, convolutions and a copy that is larger than any cache."""
    best: dict[torch.dtype, float] = {}
    for dtype in (torch.float32, torch.bfloat16):
        square = torch.randn(2048, 2048).to(dtype)
        image = torch.randn(1, 64, 240, 320).to(dtype).contiguous(memory_format=torch.channels_last)
        kernel = torch.randn(64, 64, 3, 3).to(dtype).contiguous(memory_format=torch.channels_last)
        volume = torch.randn(1, 32, 32, 60, 80).to(dtype).contiguous(memory_format=torch.channels_last_3d)
        block = torch.randn(32, 32, 3, 3, 3).to(dtype).contiguous(memory_format=torch.channels_last_3d)
        runs = {
            "matrix product": (lambda a=square: a @ a, 2048**3),
            "convolution": (lambda a=image, k=kernel: torch.conv2d(a, k, padding=1), 240 * 320 * 64 * 64 * 9),
            "3D convolution": (lambda a=volume, k=block: torch.conv3d(a, k, padding=1), 32 * 60 * 80 * 32 * 32 * 27),
        }
        rates = {name: macs / quickest(run, repeats) for name, (run, macs) in runs.items()}
        best[dtype] = max(rates.values())
        print(f"{str(dtype)[6:]}: " + ", ".join(f"{name} {rate / 1e9:.0f}" for name, rate in rates.items()) + " GMAC/s")
    large = torch.zeros(64 * 1024 * 1024)
    target = torch.empty_like(large)
    moved = 2 * 4 * large.numel() / quickest(lambda: target.copy_(large), repeats)
    print(f"copy: {moved / 1e9:.1f} GB/s read and written\n", flush=True)
    return Machine(best, moved)


@torch.inference_mode()
def count_parts(predictor: MiniPredictor) -> dict[int, list[Operation]]:
    """Operations of encoding a photo (-1) and of matching one with so many neighbours."""
    posed, ranges = made_views(NEIGHBOURS + 1)
    parts: dict[int, list[Operation]] = {}
    with counting() as operations:
        first = predictor._encode(*posed.pixels(0))
        parts[-1] = list(operations)
    cache = {0: first, **{i: predictor._encode(*posed.pixels(i)) for i in range(1, len(posed))}}
    for count in range(NEIGHBOURS + 1):
        with counting() as operations:
            predictor._estimate(posed, cache, 0, range(1, count + 1), ranges[0])
            parts[count] = list(operations)
    return parts


def made_views(views: int) -> tuple[PosedViews, torch.Tensor]:
    """Photos of a made world, and their depth ranges."""
    capture = Worlds(None, 5).capture(views, HEIGHT, WIDTH)
    return capture_to_posed(capture, range(views)), torch.from_numpy(capture.depth_range).float()


def whole(parts: dict[int, list[Operation]], neighbours: tuple[tuple[int, ...], ...]) -> list[Operation]:
    """Operations of a capture: every photo is encoded once, and matched with its neighbours."""
    return [one for chosen in neighbours for one in parts[-1] + parts[len(chosen)]]


@contextmanager
def timing(predictor: MiniPredictor):
    """Collect processor seconds of each encoding and of each matching that runs inside."""
    seconds: dict[str, list[float]] = {"_encode": [], "_estimate": []}

    def timed(name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def run(*given: Any) -> Any:
            began = time.process_time()
            found = call(*given)
            seconds[name].append(time.process_time() - began)
            return found

        return run

    for name in seconds:
        setattr(predictor, name, timed(name, getattr(predictor, name)))
    try:
        yield seconds
    finally:
        for name in seconds:
            delattr(predictor, name)


def undisturbed(seconds: dict[str, list[float]], views: int) -> float:
    """What so many photos take at the pace of the quickest tenth."""
    return sum(views * sorted(of)[(len(of) - 1) // 10] for of in seconds.values())


def print_parts(parts: dict[int, list[Operation]], machine: Machine) -> None:
    """Print where the operations are."""
    print("| operation | GMAC | GB | arithmetic s | roofline s |\n|---|---|---|---|---|")
    matching = parts[NEIGHBOURS]
    rows = {
        "encoding a photo": parts[-1],
        f"matching one with {NEIGHBOURS}: cost volumes": [one for one in matching if one.name == KERNEL],
        "convolutions of them": [one for one in matching if one.name != KERNEL and one.macs],
        "all else": [one for one in matching if not one.macs],
        "a photo": parts[-1] + matching,
    }
    for name, operations in rows.items():
        macs, moved = sum(one.macs for one in operations), sum(one.bytes for one in operations)
        floors = [sum(floor(one) for one in operations) for floor in (machine.arithmetic, machine.roofline)]
        print(f"| {name} | {macs / 1e9:.2f} | {moved / 1e9:.2f} | {floors[0]:.3f} | {floors[1]:.3f} |")
    print()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--views", nargs="+", type=int, default=[4, 8, 16, 32, 64])
    options = parser.parse_args()
    torch.set_num_threads(1)
    numba.set_num_threads(1)
    machine, predictor = measure_machine(REPEATS), load_predictor("mini")
    assert isinstance(predictor, MiniPredictor)
    parts = count_parts(predictor)
    print_parts(parts, machine)
    columns = (
        "photos of 640x480",
        "GMAC",
        "arithmetic s",
        "roofline s",
        "whole run s",
        "undisturbed s",
        "a photo s",
        "over the roofline",
    )
    print(f"| {' | '.join(columns)} |\n" + "|---" * len(columns) + "|", flush=True)
    for views in options.views:
        posed, ranges = made_views(views)
        neighbours = choose_neighbours(posed, count=NEIGHBOURS)
        operations = whole(parts, neighbours)
        floors = [sum(floor(one) for one in operations) for floor in (machine.arithmetic, machine.roofline)]
        began = time.process_time()
        with timing(predictor) as seconds:
            predictor(posed, neighbours, ranges, Progress())
        taken, least = time.process_time() - began, undisturbed(seconds, views)
        numbers = [f"{number:.1f}" for number in (sum(one.macs for one in operations) / 1e9, *floors, taken, least)]
        print(f"| {views} | {' | '.join(numbers)} | {least / views:.2f} | {least / floors[1]:.1f} |", flush=True)


if __name__ == "__main__":
    main()
