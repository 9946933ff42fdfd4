"""Several training processes: means over them, stops that reach all, and no orphans."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import paddle
import pytest
from conftest import SMALL_TRAINING, draw_data_root

import train
from models.weights import read_state
from training import distributed
from training.distributed import (
    STOP_SIGNALS,
    StopRequest,
    all_reduce_mean,
    average_gradients,
    average_statistics,
    join_processes,
)
from training.report import Progress
from training.state import TrainingState

ROOT = Path(__file__).parents[2]
linux_only = pytest.mark.skipif(sys.platform != "linux", reason="no Linux")


@pytest.fixture
def two_processes(monkeypatch):
    """Let this process be one of two; `other` is added as what the second one has sent."""

    def make(other):
        def all_reduce(tensor):
            tensor.set_value(tensor + paddle.to_tensor(other, "float32"))

        monkeypatch.setattr(distributed.dist, "all_reduce", all_reduce)
        monkeypatch.setattr(distributed.dist, "get_world_size", lambda: 2)

    return make


def test_tensors_of_any_shapes_are_averaged_in_one_message(two_processes):
    two_processes([3.0, 4.0, 5.0])
    tensors = [paddle.to_tensor([[1.0], [2.0]]), paddle.to_tensor(3.0)]
    all_reduce_mean(tensors)
    assert tensors[0].tolist() == [[2], [3]] and tensors[1].item() == 4


@pytest.mark.parametrize("asked_there", [False, True])
@pytest.mark.parametrize("asked_here", [False, True])
def test_gradients_are_averaged_and_a_stop_reaches_both(two_processes, asked_here, asked_there):
    layer = paddle.nn.Linear(1, 1)
    (3 * layer.weight.sum()).backward()  # the bias has no gradient
    stop = type("Stop", (), {"asked": asked_here})()
    two_processes([5.0, float(asked_there)])
    average_gradients(layer, stop)
    assert layer.weight.grad.item() == 4 and layer.bias.grad is None
    assert stop.asked == (asked_here or asked_there)


def test_statistics_of_batchnorm_are_averaged_and_weights_are_not(two_processes):
    layer = paddle.nn.BatchNorm2D(1)
    layer._mean.set_value(paddle.to_tensor([1.0]))
    layer._variance.set_value(paddle.to_tensor([2.0]))
    layer.weight.set_value(paddle.to_tensor([7.0]))
    two_processes([3.0, 4.0])
    average_statistics(layer, None)
    assert [layer._mean.item(), layer._variance.item(), layer.weight.item()] == [2, 3, 7]


@pytest.mark.parametrize(("processes", "device"), [("1", "cpu"), ("2", "cpu"), ("2", "gpu")])
def test_processes_of_the_launcher_are_joined(monkeypatch, processes, device):
    calls = []
    monkeypatch.setenv("PADDLE_TRAINERS_NUM", processes)
    monkeypatch.delenv("PADDLE_DISTRI_BACKEND", raising=False)
    monkeypatch.setattr(distributed, "signal_when_parent_dies", calls.append)
    monkeypatch.setattr(distributed.dist, "init_parallel_env", lambda: calls.append("joined"))
    join_processes(device)
    assert calls == ([] if processes == "1" else [signal.SIGTERM, "joined"])
    backend = os.environ.pop("PADDLE_DISTRI_BACKEND", None)
    assert backend == ("gloo" if (processes, device) == ("2", "cpu") else None)


def test_the_first_signal_asks_for_a_stop_and_the_second_ends_at_once():
    before = {number: signal.getsignal(number) for number in STOP_SIGNALS}
    try:
        stop = StopRequest()
        assert not stop.asked
        # Called by hand: pytest and the libraries of earlier tests have changed this process's
        # signal stack. The tests below send real signals to processes of their own.
        assert signal.getsignal(signal.SIGTERM) == stop.ask
        signal.getsignal(signal.SIGTERM)(signal.SIGTERM, None)
        assert stop.asked
        handlers = {number: signal.getsignal(number) for number in STOP_SIGNALS}
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    assert handlers.pop(signal.SIGINT) is signal.default_int_handler
    assert set(handlers.values()) == {signal.SIG_DFL}


# A process that writes its number and ends as train.py does: on the first stop, with exit code 130.
WAITING = """
import os, signal, sys, time
from pathlib import Path
folder, rank = Path(sys.argv[1]), os.environ["PADDLE_TRAINER_ID"]
sys.path.insert(0, sys.argv[2])
from training.distributed import StopRequest, signal_when_parent_dies
stop = StopRequest()
signal_when_parent_dies(signal.SIGTERM)
(folder / f"{rank}.pid").write_text(str(os.getpid()))
if sys.argv[3] == "fails" and rank == "1":
    sys.exit(1)
while not stop.asked and sys.argv[3] != "ends":
    time.sleep(0.05)
(folder / f"{rank}.saved").touch()
sys.exit(130 if stop.asked else 0)
"""
LAUNCH = """
import sys
from training.distributed import launch
sys.exit(launch(sys.argv[1], sys.argv[2:], 2, sys.argv[2] + "/launcher"))
"""


@pytest.fixture
def launch(tmp_path):
    """A function that launches two processes; what is left of them ends with the test."""
    launched = []

    def start(behaviour):
        script = tmp_path / "waiting.py"
        script.write_text(WAITING)
        words = [sys.executable, "-c", LAUNCH, str(script), str(tmp_path), str(ROOT), behaviour]
        process = subprocess.Popen(words, cwd=ROOT, stderr=subprocess.PIPE, text=True)
        launched.append(process)
        return process

    yield start
    for number in [*(int(path.read_text()) for path in tmp_path.glob("*.pid")), launched[0].pid]:
        with contextlib.suppress(ProcessLookupError):
            os.kill(number, signal.SIGKILL)


def wait_until(happens, seconds=120):
    deadline = time.monotonic() + seconds
    while not happens():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def is_alive(process_id):
    try:
        state = Path(f"/proc/{process_id}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


@linux_only
@pytest.mark.parametrize(
    "number",
    [
        signal.SIGTERM,
        signal.SIGKILL,
        pytest.param(signal.SIGHUP, marks=pytest.mark.slow),
        pytest.param(signal.SIGINT, marks=pytest.mark.slow),
    ],
)
def test_every_end_of_the_launching_process_stops_and_saves_all(launch, tmp_path, number):
    """Also SIGKILL, which nobody can hand on: the kernel does."""
    process = launch("waits")
    pids = [tmp_path / f"{rank}.pid" for rank in (0, 1)]
    wait_until(lambda: all(path.exists() and path.read_text() for path in pids))
    process.send_signal(number)
    process.communicate(timeout=60)
    assert process.returncode == (-signal.SIGKILL if number == signal.SIGKILL else 1)
    wait_until(lambda: not any(is_alive(int(path.read_text())) for path in pids))
    assert len(list(tmp_path.glob("*.saved"))) == 2


@linux_only
@pytest.mark.parametrize(("behaviour", "code"), [("ends", 0), ("fails", 1)])
def test_a_process_that_fails_ends_the_training_with_a_sentence(launch, tmp_path, behaviour, code):
    process = launch(behaviour)
    message = process.communicate(timeout=120)[1]
    assert process.returncode == code
    assert message.count("continue with --resume") == code
    pids = [int(path.read_text()) for path in tmp_path.glob("*.pid")]
    assert pids and not any(map(is_alive, pids))


# train.py --procs


def command(data_root, output, *flags):
    return [*SMALL_TRAINING, "--data_root", str(data_root), "--output", str(output), *flags]


def run_train(arguments):
    words = [sys.executable, str(ROOT / "train.py"), *arguments]
    return subprocess.run(words, capture_output=True, text=True)


@pytest.mark.slow
def test_two_processes_train_as_one_that_takes_their_halves_in_turn(tmp_path, monkeypatch):
    """Each process normalises by its own half of the batch; their gradients are averaged."""
    flags = ["--epoch", "2", "--ema", "0"]
    data_root = draw_data_root(tmp_path / "drawn", train=32)
    done = run_train(command(data_root, tmp_path / "two", *flags, "--procs", "2"))
    assert done.returncode == 0, done.stderr + done.stdout

    forward, loss = TrainingState.forward, TrainingState.loss

    def forward_halves(self, batch):
        image, photometric = np.split(batch, 2)
        halves = [np.concatenate([image[r::2], photometric[r::2]]) for r in (0, 1)]
        return tuple(zip(*(forward(self, half) for half in halves)))

    def mean_loss(self, mask_logits, edge_logits, mask, edge, weights):
        halves = [
            loss(self, mask_logits[r], edge_logits[r], mask[r::2], edge[r::2], weights)
            for r in (0, 1)
        ]
        return {name: (term + halves[1][name]) / 2 for name, term in halves[0].items()}

    monkeypatch.setattr(TrainingState, "forward", forward_halves)
    monkeypatch.setattr(TrainingState, "loss", mean_loss)
    monkeypatch.setattr(Progress, "log", lambda self, *arguments: self.bar.update())
    assert train.main(command(data_root, tmp_path / "one", *flags)) == 0
    one, two = (read_state(tmp_path / name / "model_1.pdparams") for name in ("one", "two"))
    for name in one:
        if not name.endswith(("_mean", "_variance")):  # those were moved twice as often
            assert np.allclose(one[name], two[name], rtol=1e-4, atol=1e-6), name


@pytest.mark.slow
def test_a_process_that_dies_ends_the_training_and_resume_continues(tmp_path):
    data_root = draw_data_root(tmp_path / "drawn", train=32)
    flags = command(data_root, tmp_path / "out", "--epoch", "6", "--procs", "2")
    process = subprocess.Popen(
        [sys.executable, "train.py", *flags], cwd=ROOT, stderr=subprocess.PIPE, text=True
    )
    wait_until(lambda: (tmp_path / "out" / "model_1.pdparams").exists())
    ranks = subprocess.run(
        ["pgrep", "-f", f"python -u .*train.py.*{tmp_path}/out"], capture_output=True, text=True
    )
    os.kill(int(ranks.stdout.split()[-1]), signal.SIGKILL)
    message = process.communicate(timeout=240)[1]
    assert process.returncode == 1 and "continue with --resume" in message.splitlines()[-1]
    assert not (tmp_path / "out" / "model_5.pdparams").exists()
    assert run_train([*flags, "--resume"]).returncode == 0
    assert (tmp_path / "out" / "model_5.pdparams").exists()
