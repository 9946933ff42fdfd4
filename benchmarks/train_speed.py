"""Photos per second of a whole training step: this project's kernels, Paddle's kernels, PyTorch.

A step is one pass of the network on photometric copies alone or on clean images too, all losses,
the backward pass, AdamW and the averaged weights. The photos are noise in memory. Every setting
runs in a process of its own, alternating, `--rounds` times. Paddle's kernels run once, because they
are by far the slowest. The table gives medians. PyTorch is measured in float32 and bfloat16, eager
and compiled, always with channels last and kept memory.
"""

import argparse
import copy
import os
import pathlib
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence

from benchmarks.table import heading, row
from portraitnet.cli import make_parser

FOLDER = pathlib.Path(__file__).parent
# The settings of `kernels.keep_memory` as environment variables, so that PyTorch has them too.
KEEP_MEMORY = {
    "MALLOC_MMAP_MAX_": "0",
    "MALLOC_TRIM_THRESHOLD_": "-1",
    "GLIBC_TUNABLES": "glibc.malloc.hugetlb=1",
}


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = make_parser(
        "Measure a whole training step of this project, of Paddle's own kernels and of PyTorch.",
        example="python -m benchmarks.train_speed --threads 1 --no-stock",
    )
    add = parser.add_argument
    add("--batch_size", type=int, default=32, help="photos in a step")
    copies = "1: photometric copies only, no consistency loss; 2: clean images too"
    add("--copies", type=int, default=2, choices=[1, 2], help=copies)
    add("--size", type=int, default=224, help="height and width, pixels")
    add("--steps", type=int, default=3, help="measured steps of a run, after two warm-up steps")
    add("--rounds", type=int, default=3, help="runs of every setting")
    add("--threads", type=int, nargs="+", default=[1, 2], help="numbers of threads to measure")
    add(
        "--clock",
        choices=["wall", "cpu"],
        default="wall",
        help="clock of the times; cpu is fair if other processes share the core",
    )
    add("--torch_python", help="Python interpreter with PyTorch (default: PyTorch is left out)")
    add("--limit", type=float, default=900, help="time limit of a run, seconds")
    stock = "measure Paddle's own kernels too"
    add("--stock", action=argparse.BooleanOptionalAction, default=True, help=stock)
    add("--run", choices=["stock", "fast", "amp"], help=argparse.SUPPRESS)
    args = parser.parse_args(argv)
    if args.clock == "cpu" and max(args.threads) > 1:
        parser.error("--clock cpu adds up all threads: use it with --threads 1")
    return args


def run_paddle(
    kind: str, threads: int, batch_size: int, copies: int, size: int, steps: int, clock: str
) -> None:
    """Print the seconds of each step in this process, then the peak memory in GB.

    Args:
        kind: "stock" (Paddle's kernels), "fast" (ours) or "amp" (ours with bfloat16).
        threads, batch_size, copies, size, steps, clock: see the flags.
    """
    import resource

    import paddle

    import kernels
    from models import PortraitNet

    if kind != "stock":
        kernels.keep_memory()
    now = time.process_time if clock == "cpu" else time.perf_counter
    paddle.seed(0)
    model = PortraitNet()
    if kind != "stock":
        note = kernels.accelerate(model, threads, half=kind == "amp")
        print(note, file=sys.stderr)
    average = copy.deepcopy(model)
    means, values = (list(network.state_dict().values()) for network in (average, model))
    optimizer = paddle.optimizer.AdamW(1e-3, parameters=model.parameters())
    batch = paddle.randn([copies * batch_size, 3, size, size])
    mask, edge = paddle.randint(0, 2, [2, batch_size, size, size])
    for _ in range(steps + 2):
        start = now()
        terms = kernels.portrait_loss(
            *model(batch),
            mask,
            edge,
            edge_weight=0.1,
            consistency_weight=float(copies == 2),
            temperature=1.0,
        )
        terms["total"].backward()
        optimizer.step()
        optimizer.clear_grad()
        kernels.move_average(means, values, 1e-3)
        print(now() - start, flush=True)
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20)


def measure(
    command: Sequence[str], environment: dict[str, str], limit: float
) -> tuple[list[float], float] | None:
    """Run one setting.

    Args:
        command: command line.
        environment: additional environment variables.
        limit: time limit, seconds.

    Returns:
        (seconds of each measured step, peak memory in GB), or None if the run failed.
    """
    try:
        done = subprocess.run(
            command,
            env={**os.environ, **environment},
            cwd=FOLDER.parent,
            capture_output=True,
            text=True,
            timeout=limit,
        )
    except subprocess.TimeoutExpired:
        return None
    if done.returncode != 0:
        print(f"{' '.join(command)} failed:\n{done.stderr[-2000:]}", file=sys.stderr)
        return None
    *seconds, memory = map(float, done.stdout.split())
    return seconds[2:], memory


def settings(
    args: argparse.Namespace,
) -> dict[str, tuple[list[str], dict[str, str]]]:
    """All settings to compare: {name: (command, environment)}."""
    size = ["--batch_size", args.batch_size, "--copies", args.copies, "--size", args.size]
    size += ["--steps", args.steps, "--clock", args.clock]
    paths = {"PYTHONPATH": str(FOLDER.parent)}
    found = {}
    for threads in args.threads:
        plural = f"{threads} thread{'s' if threads > 1 else ''}"
        ours = [sys.executable, "-W", "ignore", __file__, *size, "--threads", threads, "--run"]
        torch = [args.torch_python, FOLDER / "torch_portraitnet.py", *size, "--threads", threads]
        if args.stock:
            found[f"Paddle's kernels, {plural}"] = [*ours, "stock"], {"OMP_NUM_THREADS": threads}
        if args.torch_python:
            for precision, amp in (("float32", []), ("bfloat16", ["--amp"])):
                for way, compiled in (("eager", []), ("compiled", ["--compile"])):
                    name = f"PyTorch, {precision}, {way}, {plural}"
                    found[name] = [*torch, *amp, *compiled], KEEP_MEMORY
        found[f"this project, float32, {plural}"] = [*ours, "fast"], {}
        found[f"this project, bfloat16, {plural}"] = [*ours, "amp"], {}
    return {
        name: ([str(word) for word in command], paths | {k: str(v) for k, v in environment.items()})
        for name, (command, environment) in found.items()
    }


def main(argv: Sequence[str] | None = None) -> int:
    args = parse_args(argv)
    if args.run:
        size = args.batch_size, args.copies, args.size
        run_paddle(args.run, args.threads[0], *size, args.steps, args.clock)
        return 0
    seconds, memory = {}, {}
    for round_ in range(args.rounds):
        for name, (command, environment) in settings(args).items():
            if round_ and ("Paddle's" in name or name not in seconds):  # slow or failed
                continue
            result = measure(command, environment, args.limit)
            if result is None:
                print(f"| {name} | failed |")
                continue
            steps, memory[name] = result
            seconds.setdefault(name, []).append(statistics.median(steps))
            print(f"round {round_ + 1}: {name}: {seconds[name][-1]:.3f} s", file=sys.stderr)
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    print(heading(["kernels", "s a step", "photos/s", "to PyTorch's best", "peak memory"]))
    for name, median in medians.items():
        threads = name.rsplit(", ", 1)[1]
        rivals = [m for n, m in medians.items() if "PyTorch" in n and n.endswith(threads)]
        ratio = f"{min(rivals) / median:.2f}x" if rivals else "-"
        speed = f"{args.batch_size / median:.1f}"
        print(row([name, f"{median:.3f}", speed, ratio, f"{memory[name]:.1f} GB"]))
    return 0


if __name__ == "__main__":
    sys.exit(main())
