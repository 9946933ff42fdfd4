"""Images a second of a whole training step: this project with stock and fast kernels, and PyTorch.

A step is the network on clean and texture-augmented photos in one pass, all losses, the backward
pass, AdamW and the averaged weights; the photos are noise and already in memory. Every setting runs
in a process of its own, in turn, `--rounds` times; the table gives medians.
"""

import argparse
import copy
import os
import pathlib
import statistics
import subprocess
import sys
import time

FOLDER = pathlib.Path(__file__).parent
# What `keep_memory` does for us, as far as the environment can: PyTorch is measured at its best.
KEEP_MEMORY = {
    "MALLOC_MMAP_MAX_": "0",
    "MALLOC_TRIM_THRESHOLD_": "-1",
    "GLIBC_TUNABLES": "glibc.malloc.hugetlb=1",
}


def parse_args(argv=None):
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("--batch", type=int, default=32, help="photos a step; each passes twice")
    parser.add_argument("--size", type=int, default=224, help="height and width")
    parser.add_argument(
        "--steps", type=int, default=3, help="measured in a run, after two warm-ups"
    )
    parser.add_argument("--rounds", type=int, default=3, help="runs of every setting")
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument(
        "--torch_python", help="a Python with PyTorch; without it PyTorch is left out"
    )
    parser.add_argument("--stock", action=argparse.BooleanOptionalAction, default=True)
    parser.add_argument("--run", choices=["stock", "fast"], help=argparse.SUPPRESS)
    return parser.parse_args(argv)


def run_paddle(args):
    """Print the seconds of each step of this process, then its peak memory in GB."""
    import resource

    import paddle

    import kernels
    from losses import portrait_loss
    from models import PortraitNet
    from train import update_average

    if args.run == "fast":
        kernels.keep_memory()
    paddle.seed(0)
    model = PortraitNet()
    if args.run == "fast":
        print(kernels.accelerate(model, args.threads[0]), file=sys.stderr)
    average = copy.deepcopy(model)
    optimizer = paddle.optimizer.AdamW(1e-3, parameters=model.parameters())
    batch = paddle.randn([2 * args.batch, 3, args.size, args.size])
    mask, edge = paddle.randint(0, 2, [2, args.batch, args.size, args.size])
    for step in range(args.steps + 2):
        start = time.perf_counter()
        terms = portrait_loss(
            *model(batch), mask, edge, edge_weight=0.1, consistency_weight=2.0, temperature=1.0
        )
        terms["total"].backward()
        optimizer.step()
        optimizer.clear_grad()
        update_average(average, model, 0.999, step)
        print(time.perf_counter() - start, flush=True)
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20)


def measure(command, environment):
    """(seconds of the measured steps, peak memory in GB) of one run."""
    done = subprocess.run(
        command,
        env={**os.environ, **environment},
        cwd=FOLDER.parent,
        capture_output=True,
        text=True,
    )
    if done.returncode != 0:
        raise SystemExit(f"{' '.join(command)} failed:\n{done.stderr}")
    *seconds, memory = map(float, done.stdout.split())
    return seconds[2:], memory


def settings(args):
    """Name -> (command, environment) of everything that is compared."""
    size = ["--batch", args.batch, "--size", args.size, "--steps", args.steps]
    paths = {"PYTHONPATH": str(FOLDER.parent)}
    found = {}
    for threads in args.threads:
        ours = [sys.executable, "-W", "ignore", __file__, *size, "--threads", threads, "--run"]
        plural = f"{threads} thread{'s' if threads > 1 else ''}"
        if args.stock:
            found[f"Paddle, stock, {plural}"] = (
                [*ours, "stock"],
                {**paths, "OMP_NUM_THREADS": threads},
            )
        if args.torch_python:
            torch = [
                args.torch_python,
                FOLDER / "torch_portraitnet.py",
                *size,
                "--threads",
                threads,
            ]
            found[f"PyTorch, {plural}"] = torch, {}
            found[f"PyTorch, kept memory, {plural}"] = torch, KEEP_MEMORY
        found[f"this project, {plural}"] = [*ours, "fast"], paths
    return {
        name: ([str(word) for word in command], {k: str(v) for k, v in environment.items()})
        for name, (command, environment) in found.items()
    }


def main(argv=None):
    args = parse_args(argv)
    if args.run:
        run_paddle(args)
        return 0
    seconds, memory = {}, {}
    for round_ in range(args.rounds):
        for name, setting in settings(args).items():
            steps, memory[name] = measure(*setting)
            seconds.setdefault(name, []).append(statistics.median(steps))
            print(f"round {round_ + 1}: {name}: {seconds[name][-1]:.2f} s", file=sys.stderr)
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    images = 2 * args.batch
    rival = min((m for name, m in medians.items() if "PyTorch" in name), default=None)
    print("| kernels | s a step | images/s | to PyTorch's best | peak memory |")
    print("|---|---|---|---|---|")
    for name, median in medians.items():
        ratio = f"{rival / median:.2f}x" if rival else "-"
        speed = f"{median:.2f} | {images / median:.1f} | {ratio} | {memory[name]:.1f} GB"
        print(f"| {name} | {speed} |")
    return 0


if __name__ == "__main__":
    sys.exit(main())
