"""Photos a second of a whole training step: this project with its kernels and Paddle's, PyTorch.

A step is the network on one or both copies of each photo (clean and texture-augmented) in one pass,
all losses, the backward pass, AdamW and the averaged weights; the photos are noise and already in
memory. Every setting runs in a process of its own, in turn, `--rounds` times (Paddle's kernels, by
far the slowest, once); the table gives medians. PyTorch is measured in every way its users have:
float32 and bfloat16, eager and compiled, all with channels last and kept memory.
"""

import argparse
import copy
import os
import pathlib
import statistics
import subprocess
import sys
import time

from benchmarks.table import heading, row
from portraitnet.cli import make_parser

FOLDER = pathlib.Path(__file__).parent
# What `keep_memory` does for us, as far as the environment can: PyTorch is measured at its best.
KEEP_MEMORY = {
    "MALLOC_MMAP_MAX_": "0",
    "MALLOC_TRIM_THRESHOLD_": "-1",
    "GLIBC_TUNABLES": "glibc.malloc.hugetlb=1",
}


def parse_args(argv=None):
    parser = make_parser(
        "Photos a second of a whole training step: this project, Paddle's own kernels, PyTorch.",
        example="python -m benchmarks.train_speed --threads 1 --no-stock",
    )
    add = parser.add_argument
    add("--batch_size", type=int, default=32, help="photos a step")
    add("--copies", type=int, default=2, choices=[1, 2], help="passes of each photo; 1: no KL")
    add("--size", type=int, default=224, help="height and width")
    add("--steps", type=int, default=3, help="measured in a run, after two warm-ups")
    add("--rounds", type=int, default=3, help="runs of every setting")
    add("--threads", type=int, nargs="+", default=[1, 2])
    add(
        "--clock",
        choices=["wall", "cpu"],
        default="wall",
        help="cpu: fair where one thread shares its core",
    )
    add("--torch_python", help="a Python with PyTorch; without it PyTorch is left out")
    add("--limit", type=float, default=900, help="seconds after which a run counts as failed")
    add("--stock", action=argparse.BooleanOptionalAction, default=True, help="Paddle's kernels too")
    add("--run", choices=["stock", "fast", "amp"], help=argparse.SUPPRESS)
    args = parser.parse_args(argv)
    if args.clock == "cpu" and max(args.threads) > 1:
        parser.error("--clock cpu adds up all threads: use it with --threads 1")
    return args


def run_paddle(args):
    """Print the seconds of each step of this process, then its peak memory in GB."""
    import resource

    import paddle

    import kernels
    from models import PortraitNet

    if args.run != "stock":
        kernels.keep_memory()
    clock = time.process_time if args.clock == "cpu" else time.perf_counter
    paddle.seed(0)
    model = PortraitNet()
    if args.run != "stock":
        note = kernels.accelerate(model, args.threads[0], half=args.run == "amp")
        print(note, file=sys.stderr)
    average = copy.deepcopy(model)
    means, values = (list(network.state_dict().values()) for network in (average, model))
    optimizer = paddle.optimizer.AdamW(1e-3, parameters=model.parameters())
    batch = paddle.randn([args.copies * args.batch_size, 3, args.size, args.size])
    mask, edge = paddle.randint(0, 2, [2, args.batch_size, args.size, args.size])
    for _ in range(args.steps + 2):
        start = clock()
        terms = kernels.portrait_loss(
            *model(batch),
            mask,
            edge,
            edge_weight=0.1,
            consistency_weight=float(args.copies == 2),
            temperature=1.0,
        )
        terms["total"].backward()
        optimizer.step()
        optimizer.clear_grad()
        kernels.move_average(means, values, 1e-3)
        print(clock() - start, flush=True)
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20)


def measure(command, environment, limit):
    """(seconds of the measured steps, peak memory in GB) of one run; None if it failed."""
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


def settings(args):
    """Name -> (command, environment) of everything that is compared."""
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


def main(argv=None):
    args = parse_args(argv)
    if args.run:
        run_paddle(args)
        return 0
    seconds, memory = {}, {}
    for round_ in range(args.rounds):
        for name, (command, environment) in settings(args).items():
            if round_ and ("Paddle's" in name or name not in seconds):  # slow, or it failed
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
