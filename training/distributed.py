"""Several training processes, and how they stop together."""

import ctypes
import os
import signal
import subprocess
import sys

import numpy as np
import paddle
import paddle.distributed as dist

STOP_SIGNALS = [
    getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)
]
PR_SET_PDEATHSIG = 1  # Linux, sys/prctl.h


def join_processes(device: str) -> None:
    """Join the processes that Paddle's launcher started, if it started any."""
    if int(os.environ.get("PADDLE_TRAINERS_NUM", 1)) == 1:
        return
    signal_when_parent_dies(signal.SIGTERM)  # the launcher: what was trained is saved first
    if device == "cpu":  # Paddle would try NCCL
        os.environ.setdefault("PADDLE_DISTRI_BACKEND", "gloo")
    dist.init_parallel_env()


def signal_when_parent_dies(number: int) -> None:
    """Let the kernel send this process a signal when its parent ends, however it ends."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, number)


def all_reduce_mean(tensors: list[paddle.Tensor]) -> None:
    """Average a list of tensors over the processes, in place and in one message."""
    with paddle.no_grad():
        flat = paddle.concat([t.flatten() for t in tensors])
        dist.all_reduce(flat)
        parts = paddle.split(flat / dist.get_world_size(), [int(np.prod(t.shape)) for t in tensors])
        for tensor, part in zip(tensors, parts):
            tensor.copy_(part.reshape(tensor.shape), False)


def average_gradients(model: paddle.nn.Layer, stop: "StopRequest") -> None:
    """Average the gradients over the processes.

    A stop that one process was asked for travels with the gradients, so that all stop together.
    """
    asked = paddle.to_tensor([float(stop.asked)])
    gradients = [p.grad for p in model.parameters() if p.grad is not None]
    all_reduce_mean([*gradients, asked])
    stop.asked = asked.item() > 0


def average_statistics(*models: paddle.nn.Layer | None) -> None:
    """Average BatchNorm's running statistics: each process kept those of its own photos."""
    for model in filter(None, models):
        all_reduce_mean([t for t in model.state_dict().values() if t.stop_gradient])


class StopRequest:
    """Ctrl-C, SIGTERM or SIGHUP: stop after the running iteration; a second one: at once."""

    def __init__(self):
        self.asked = False
        for number in STOP_SIGNALS:
            signal.signal(number, self.ask)

    def ask(self, number, frame):
        self.asked = True
        for number in STOP_SIGNALS:
            default = number == signal.SIGINT
            signal.signal(number, signal.default_int_handler if default else signal.SIG_DFL)


def launch(script: str, argv: list[str], count: int, log_dir: str) -> int:
    """Run a script as `count` processes of Paddle's launcher, and stop them when this one stops.

    Args:
        argv: flags of the script.
        log_dir: folder of the processes' output.

    Returns:
        the exit code.
    """
    command = [sys.executable, "-m", "paddle.distributed.launch"]
    command += ["--nproc_per_node", str(count), "--log_dir", log_dir]
    # Every process would be asked to install a compiler's cache.
    quiet = os.environ | {"PYTHONWARNINGS": "ignore:No ccache found"}

    def end_with_parent():
        signal_when_parent_dies(signal.SIGKILL)  # its processes then hear SIGTERM, and save

    # In a session of its own, so that a stop reaches every process once, whoever sends it.
    process = subprocess.Popen(
        [*command, script, *argv], env=quiet, start_new_session=True, preexec_fn=end_with_parent
    )

    def stop_all(number, frame):
        os.killpg(process.pid, signal.SIGINT)

    for number in STOP_SIGNALS:
        signal.signal(number, stop_all)
    if process.wait() == 0:
        return 0
    print(
        f"train.py: A training process ended early, see {log_dir}; continue with --resume.",
        file=sys.stderr,
    )
    return 1
