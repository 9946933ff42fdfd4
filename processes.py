"""Several training processes, and how they stop together."""

import os
import signal
import subprocess
import sys

import numpy as np
import paddle
import paddle.distributed as dist


def all_reduce_mean(tensors):
    """Average a list of tensors over the processes, in one message."""
    with paddle.no_grad():
        flat = paddle.concat([t.flatten() for t in tensors])
        dist.all_reduce(flat)
        parts = paddle.split(flat / dist.get_world_size(), [int(np.prod(t.shape)) for t in tensors])
        for tensor, part in zip(tensors, parts):
            tensor.copy_(part.reshape(tensor.shape), False)


class StopRequest:
    """Ctrl-C or SIGTERM: stop after the running iteration; a second one: at once."""

    def __init__(self):
        self.asked = False
        signal.signal(signal.SIGINT, self.ask)
        signal.signal(signal.SIGTERM, self.ask)

    def ask(self, number, frame):
        self.asked = True
        signal.signal(signal.SIGINT, signal.default_int_handler)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


def launch(script, argv, count, log_dir):
    """Run a script as `count` processes of Paddle's launcher; returns the exit code."""
    command = [sys.executable, "-m", "paddle.distributed.launch"]
    command += ["--nproc_per_node", str(count), "--log_dir", log_dir]
    # Every process would be asked to install a compiler's cache.
    quiet = os.environ | {"PYTHONWARNINGS": "ignore:No ccache found"}
    process = subprocess.Popen([*command, script, *argv], env=quiet)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the processes hear it too, and save
    if process.wait() == 0:
        return 0
    told = f"A training process ended early, see {log_dir}; go on with --resume."
    print(f"train.py: {told}", file=sys.stderr)
    return 1
