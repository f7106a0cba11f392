"""How well the published networks use the machine: time against its own matrix-multiply rate, and peak memory.

The network is filled with random numbers (they do not change the time). Its operations are counted layer by layer in one
pass; the machine's rate is the best of several matrix products of the sizes the network uses, measured in the same process.

    python tests/benchmarks/bench_published.py      # the rows of RESULTS.md for a CPU, a minute on two cores
    python tests/benchmarks/bench_published.py --model vggt --views 10 50 100 --size 518 280 --device cuda --no-heads
    python tests/benchmarks/bench_published.py --model da3-base --profile    # where the time goes

Each row runs in a process of its own, so that peak memory is its own; "planned" is what the planner expects of it.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
OFFICIAL_PEAK_GIB = {("da3-small", 1): 0.563, ("da3-small", 4): 0.859, ("da3-small", 10): 1.435,
                     ("da3-base", 1): 1.11, ("da3-base", 4): 1.553, ("da3-base", 10): 2.437,
                     ("vggt", 1): 5.7, ("vggt", 2): 6.0, ("vggt", 4): 6.7}  # fmt: skip
"""Peak resident memory of the official code in float32 on a CPU: DA3 at 504 x 378, VGGT at 518 x 392."""
GIB = 1 << 30
CPU_ROWS = (
    ("da3-base", 4, (504, 378), "float32"),
    ("da3-base", 4, (504, 378), "bfloat16"),
    ("da3-base", 4, (252, 182), "float32"),
    ("da3-small", 4, (504, 378), "float32"),
    ("da3-small", 10, (504, 378), "float32"),
    ("da3-small", 4, (252, 182), "float32"),
)
"""What is measured when no model is named: (network, views, (width, height), number format)."""
HEADER = (
    "| network | views | size | format | seconds | TFLOP | GFLOP/s | matmul GFLOP/s | share | peak GiB | planned | official |\n"
    "|---|---|---|---|---|---|---|---|---|---|---|---|"
)


def matmul_rate(device: str, dtype, shapes: list[tuple[int, int, int]]) -> float:
    """Measure the best rate over some products (rows, inner, columns), in operations per second."""
    import torch

    best = 0.0
    for rows, inner, columns in shapes:
        a, b = torch.randn(rows, inner, device=device, dtype=dtype), torch.randn(inner, columns, device=device, dtype=dtype)
        for _ in range(6):
            synchronise(device)
            began = time.perf_counter()
            torch.mm(a, b)
            synchronise(device)
            best = max(best, 2.0 * rows * inner * columns / (time.perf_counter() - began))
    return best


def synchronise(device: str) -> None:
    """Wait for the device."""
    import torch

    if device == "cuda":
        torch.cuda.synchronize()


def count_operations(network, run) -> float:
    """Count multiply-adds (as two operations) of one call: linear layers, convolutions and attention."""
    from torch import nn

    from models.published.layers.transformer import Attention

    total = [0.0]

    def linear(module, args, out) -> None:
        total[0] += 2.0 * out.numel() * module.in_features

    def convolution(module, args, out) -> None:
        total[0] += 2.0 * out.numel() * module.weight[0].numel()

    def transposed(module, args, out) -> None:
        total[0] += 2.0 * args[0].numel() * module.weight[0].numel()

    def attention(module, args, out) -> None:
        batch, tokens, channels = args[0].shape
        total[0] += 4.0 * batch * tokens * tokens * channels

    kinds = ((nn.Linear, linear), (nn.Conv2d, convolution), (nn.ConvTranspose2d, transposed), (Attention, attention))
    hooks = [m.register_forward_hook(count) for m in network.modules() for kind, count in kinds if isinstance(m, kind)]
    run()
    for hook in hooks:
        hook.remove()
    return total[0]


def random_network(name: str, device: str, dtype):
    """Build a network filled with small random numbers, its backbone stored in ``dtype`` from the start."""
    import torch

    from models.published.networks.precision import set_backbone_dtype
    from models.published.zoo import find_network, on_meta

    network = on_meta(find_network(name).build)
    set_backbone_dtype(network, dtype)
    network = network.to_empty(device=device)
    generator = torch.Generator(device=device).manual_seed(0)
    with torch.no_grad():
        for parameter in [*network.parameters(), *network.buffers()]:
            parameter.uniform_(-0.02, 0.02, generator=generator)
    return network.eval().requires_grad_(False)


def measure(model: str, views: int, size: tuple[int, int], device: str, dtype_name: str, repeats: int, heads: bool) -> dict:
    """Time one number of views in this process."""
    import torch

    from models.published.planner import needed_bytes, weight_bytes
    from models.published.zoo import find_network

    dtype = getattr(torch, dtype_name)
    network = random_network(model, device, dtype)
    head_chunk = 8 if device == "cuda" else 1
    about = find_network(model)
    planned = needed_bytes(about, views, size, head_chunk, dtype, weight_bytes(about, dtype), in_pieces=device == "cpu")
    images = torch.rand(views, 3, size[1], size[0], device=device)

    def run():
        if heads:
            return network.geometry(images, head_chunk=head_chunk)
        with torch.autocast(device, dtype=dtype, enabled=dtype != torch.float32):
            return network.backbone(images)

    with torch.inference_mode():
        operations = count_operations(network, run)
        times = []
        for _ in range(repeats):
            synchronise(device)
            began = time.perf_counter()
            run()
            synchronise(device)
            times.append(time.perf_counter() - began)
    peak = torch.cuda.max_memory_allocated() if device == "cuda" else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    tokens = views * ((size[0] // 14) * (size[1] // 14) + 1)
    dim = next(p.shape[0] for n, p in network.named_parameters() if n.endswith("attn.proj.weight"))
    rate = matmul_rate(device, dtype, [(tokens, dim, 4 * dim), (tokens, 4 * dim, dim), (tokens, dim, 3 * dim)])
    comparable = (device, dtype_name, size) == ("cpu", "float32", (518, 392) if model == "vggt" else (504, 378))
    return {
        "model": model,
        "views": views,
        "size": list(size),
        "dtype": dtype_name,
        "seconds": min(times),
        "operations": operations,
        "rate": operations / min(times),
        "matmul_rate": rate,
        "share_of_matmul_rate": operations / min(times) / rate,
        "peak_gib": peak / GIB,
        "planned_gib": planned / GIB,
        "official_peak_gib": OFFICIAL_PEAK_GIB.get((model, views)) if comparable else None,
    }


def profile(model: str, views: int, size: tuple[int, int], dtype_name: str) -> str:
    """Say which operators take the time of one pass on a CPU."""
    import torch

    network = random_network(model, "cpu", getattr(torch, dtype_name))
    images = torch.rand(views, 3, size[1], size[0])
    with torch.inference_mode(), torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as seen:
        network.geometry(images, head_chunk=1)
    return seen.key_averages().table(sort_by="self_cpu_time_total", row_limit=18, max_name_column_width=40)


def table_row(row: dict) -> str:
    """Write a measurement as a row of RESULTS.md."""
    official = row["official_peak_gib"]
    return (
        f"| {row['model']} | {row['views']} | {row['size'][0]} x {row['size'][1]} | {row['dtype']} | {row['seconds']:.2f} "
        f"| {row['operations'] / 1e12:.2f} | {row['rate'] / 1e9:.0f} | {row['matmul_rate'] / 1e9:.0f} "
        f"| {row['share_of_matmul_rate']:.0%} | {row['peak_gib']:.2f} | {row['planned_gib']:.2f} "
        f"| {'' if official is None else official} |"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", help="one network instead of the rows of RESULTS.md")
    parser.add_argument("--views", type=int, nargs="+", default=[4])
    parser.add_argument("--size", type=int, nargs=2, default=[504, 378], metavar=("WIDTH", "HEIGHT"))
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", default="float32", choices=["float32", "bfloat16", "float16"])
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--no-heads", dest="heads", action="store_false", help="only the backbone (VGGT and AnySplat)")
    parser.add_argument("--profile", action="store_true", help="list the operators instead (CPU)")
    parser.add_argument("--here", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    sys.path.insert(0, str(ROOT))
    from app.cli import LARGE_PAGES, prefer_large_pages

    prefer_large_pages(LARGE_PAGES)  # as the command line does
    size = tuple(options.size)
    if options.profile:
        print(profile(options.model or "da3-base", options.views[0], size, options.dtype))
        return
    if options.here:
        print(
            json.dumps(
                measure(options.model, options.views[0], size, options.device, options.dtype, options.repeats, options.heads)
            )
        )
        return
    asked = [(options.model, views, size, options.dtype) for views in options.views]
    print(HEADER)
    for model, views, (width, height), dtype in asked if options.model else CPU_ROWS:
        words = ["--model", model, "--views", str(views), "--size", str(width), str(height), "--device", options.device]
        words += ["--dtype", dtype, "--repeats", str(options.repeats), *([] if options.heads else ["--no-heads"])]
        done = subprocess.run([sys.executable, __file__, *words, "--here"], capture_output=True, text=True)
        if done.returncode:
            raise SystemExit(done.stderr)
        print(table_row(json.loads(done.stdout.splitlines()[-1])), flush=True)


if __name__ == "__main__":
    main()
