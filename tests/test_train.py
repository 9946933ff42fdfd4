import itertools
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from conftest import SMALL_TRAINING, draw_data_root, draw_portrait

import kernels
import train
from models import PortraitNetLite, weights
from models.weights import load_whole, read_state
from training.checkpoints import open_predictor
from training.schedule import Schedule
from training.state import RESUME_FILE, TrainingState

ROOT = Path(__file__).parent.parent


def command(data_root, output, *flags):
    return [*SMALL_TRAINING, "--data_root", str(data_root), "--output", str(output), *flags]


def run_train(arguments, **options):
    return subprocess.run(
        [sys.executable, str(ROOT / "train.py"), *arguments],
        capture_output=True,
        text=True,
        **options,
    )


# train.py with a signal in one iteration: its number, the iteration, the arguments
SIGNALLED = """
import os, signal, sys
import train
from training.state import TrainingState
number, last, backward = int(sys.argv.pop(1)), int(sys.argv.pop(1)), TrainingState.backward
def backward_and_signal(self, loss, stop):
    backward(self, loss, stop)
    if self.step + 1 == last:
        os.kill(os.getpid(), number)
TrainingState.backward = backward_and_signal
sys.exit(train.main(sys.argv[1:]))
"""


def run_signalled(arguments, number, step):
    """Train in a process that gets a signal in an iteration, however fast the machine is."""
    words = [sys.executable, "-c", SIGNALLED, str(int(number)), str(step), *arguments]
    return subprocess.run(words, cwd=ROOT, capture_output=True, text=True)


def same_weights(one, other):
    one, other = read_state(one), read_state(other)
    return one.keys() == other.keys() and all(
        np.array_equal(one[name].numpy(), other[name].numpy()) for name in one
    )


def stop_after(monkeypatch, last):
    """Every training is asked to stop after an iteration of an epoch; None: after each."""
    backward = TrainingState.backward

    def backward_and_stop(self, loss, stop):
        backward(self, loss, stop)
        stop.asked = last is None or self.batch + 1 == last

    monkeypatch.setattr(TrainingState, "backward", backward_and_stop)


def test_training_learns_drawn_portraits(tmp_path):
    data_root = draw_data_root(tmp_path / "drawn", train=32, val=6)
    flags = "--epoch 12 --lr 0.005 --ema 0.9 --rotation 10 --scale 0.9 1.1".split()
    assert train.main(command(data_root, tmp_path / "out", *flags)) == 0
    log = [json.loads(line) for line in (tmp_path / "out" / "log.jsonl").read_text().splitlines()]
    assert [line["epoch"] for line in log] == list(range(12))
    assert log[-1]["loss"]["total"] < 0.5 * log[0]["loss"]["total"]
    assert log[-1]["val"]["drawn"]["miou_raw"] > 0.85
    assert log[-1]["mean_person_iou"] == log[-1]["val"]["drawn"]["person_iou_smoothed"]
    for name in ("model_0.pdparams", "model_11.pdparams", "best.pdparams", "args.json", "visualdl"):
        assert (tmp_path / "out" / name).exists(), name
    assert not list((tmp_path / "out").glob(".*.part*"))
    image, mask = draw_portrait(np.random.default_rng(99), 200, 160)
    person = (
        open_predictor(tmp_path / "out" / "model_11.pdparams", size=64).probability(image) > 0.5
    )
    assert (person & (mask == 1)).sum() / (person | (mask == 1)).sum() > 0.8


@pytest.mark.parametrize("precision", [[], ["--amp"]])
def test_a_killed_and_resumed_training_ends_bit_identical(data_root, tmp_path, precision):
    if precision and not kernels.has_bfloat16():
        pytest.skip("this processor has no AVX512-BF16")
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    flags = ["--epoch", "3", *precision]
    assert run_train(command(data_root, whole, *flags)).returncode == 0
    done = run_signalled(command(data_root, killed, *flags), signal.SIGKILL, 5)
    assert done.returncode == -signal.SIGKILL and (killed / RESUME_FILE).exists()
    assert not (killed / "model_2.pdparams").exists()
    resumed = run_train(command(data_root, killed, *flags, "--resume"))
    assert resumed.returncode == 0, resumed.stderr
    assert "ccache" not in resumed.stderr
    assert same_weights(whole / "model_2.pdparams", killed / "model_2.pdparams")
    epochs = [json.loads(line)["epoch"] for line in (killed / "log.jsonl").read_text().splitlines()]
    assert epochs == [0, 1, 2]


def test_ctrl_c_leaves_a_state_that_resumes_within_the_epoch(tmp_path):
    data_root = draw_data_root(tmp_path / "drawn", train=24)
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    done = run_signalled(command(data_root, stopped, "--epoch", "1"), signal.SIGINT, 3)
    assert done.returncode == 130
    assert "Stopped in epoch 1, iteration 3; --resume continues from there" in done.stdout
    assert not (stopped / "model_0.pdparams").exists()
    assert run_train(command(data_root, stopped, "--epoch", "1", "--resume")).returncode == 0
    assert run_train(command(data_root, whole, "--epoch", "1")).returncode == 0
    assert same_weights(whole / "model_0.pdparams", stopped / "model_0.pdparams")


@pytest.mark.parametrize("last", [1, 3])
def test_a_stopped_epoch_has_the_mean_of_all_its_iterations(
    data_root, tmp_path, monkeypatch, capsys, last
):
    """Stopped after one of its three iterations, or after the last."""
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    assert train.main(command(data_root, whole, "--epoch", "1")) == 0
    with monkeypatch.context() as patch:
        stop_after(patch, last)
        assert train.main(command(data_root, stopped, "--epoch", "1")) == 130
    capsys.readouterr()
    assert train.main(command(data_root, stopped, "--epoch", "1", "--resume")) == 0
    lines = [json.loads((folder / "log.jsonl").read_text()) for folder in (whole, stopped)]
    assert lines[1]["loss"] == pytest.approx(lines[0]["loss"], rel=1e-5)
    assert lines[1]["loss"]["total"] > 0 and lines[1]["photos_per_second"] > 0
    message = capsys.readouterr().out
    iou = lines[1]["val"]["drawn"]["person_iou_smoothed"]
    assert f"Epoch 1 of 1 is the best, with a person IoU of:\n  drawn {iou:.4f} " in message
    path = stopped / "best.pdparams"
    assert f"evaluate.py --model_path {path} --split val --data_root {data_root}\n" in message
    assert (stopped / "curves.svg").read_text().count("<polyline") == 2


def test_neither_workers_nor_stops_change_the_weights(data_root, tmp_path, monkeypatch):
    flags, last = ["--epoch", "2"], "model_1.pdparams"

    def train_with(workers, arguments):
        monkeypatch.setattr(train, "default_workers", lambda processes: workers)
        return train.main(arguments)

    for workers in (0, 1, 2):
        arguments = command(data_root, tmp_path / str(workers), *flags)
        assert train_with(workers, arguments) == 0
    stopped = command(data_root, tmp_path / "stopped", *flags)
    with monkeypatch.context() as patch:
        stop_after(patch, None)
        codes = [train_with(0, stopped)]
        codes += [train_with(i % 3, [*stopped, "--resume"]) for i in range(1, 6)]
    assert codes == [130] * 6
    assert train_with(1, [*stopped, "--resume"]) == 0
    for name in ("1", "2", "stopped"):
        assert same_weights(tmp_path / "0" / last, tmp_path / name / last), name


def test_a_clock_that_is_set_back_changes_nothing(data_root, tmp_path, monkeypatch):
    """All files, of training, cache and data, are from next year, and time runs backwards."""
    whole, stopped, cache = tmp_path / "whole", tmp_path / "stopped", tmp_path / "cache"
    monkeypatch.setenv("XDG_CACHE_HOME", str(cache))
    flags = ["--epoch", "2"]
    assert train.main(command(data_root, whole, *flags)) == 0
    with monkeypatch.context() as patch:
        stop_after(patch, 2)
        assert train.main(command(data_root, stopped, *flags)) == 130
    later = time.time() + 365 * 24 * 3600
    for folder in (stopped, cache, data_root):
        for path in folder.rglob("*"):
            os.utime(path, (later, later))
    clock = itertools.count(time.time(), -60)
    monkeypatch.setattr(time, "time", lambda: next(clock))
    assert train.main(command(data_root, stopped, *flags, "--resume")) == 0
    assert same_weights(whole / "model_1.pdparams", stopped / "model_1.pdparams")
    lines = [json.loads(line) for line in (stopped / "log.jsonl").read_text().splitlines()]
    assert all(line["seconds"] > 0 and line["photos_per_second"] > 0 for line in lines)


@pytest.mark.parametrize("workers", [0, 1])
def test_rate_and_geometry_follow_the_schedule_in_every_iteration(
    data_root, tmp_path, monkeypatch, workers
):
    """Three iterations an epoch: the rate at 0, 1/3, 2/3, ...; the strength falls from 1 to 0.2."""
    rates, strengths = [], []
    step, load_batches = TrainingState.step_optimizer, train.load_batches

    def keep_rate(self, lr):
        rates.append((lr, self.optimizer.get_lr()))
        step(self, lr)

    def keep_strength(samples, steps, epoch, strength, num_workers):
        strengths.append((epoch, strength))
        return load_batches(samples, steps, epoch, strength, workers)

    monkeypatch.setattr(TrainingState, "step_optimizer", keep_rate)
    monkeypatch.setattr(train, "load_batches", keep_strength)
    flags = ["--epoch", "3", "--lr", "0.004", "--final_geometry", "0.2"]
    assert train.main(command(data_root, tmp_path / "out", *flags)) == 0
    schedule = Schedule(epochs=3, batch_size=4, sizes=(64,) * 3, lr=0.004)
    expected = [schedule.learning_rate(iteration / 3) for iteration in range(9)]
    assert [rate for rate, _ in rates] == pytest.approx(expected)
    assert [before for _, before in rates[1:]] == pytest.approx(expected[:-1])  # it was set
    assert strengths == [(0, 1), (1, pytest.approx(0.6)), (2, pytest.approx(0.2))]


def test_weights_of_zero_drop_their_terms(data_root, tmp_path):
    flags = ["--epoch", "1", "--loss_weights", "0", "0"]
    assert train.main(command(data_root, tmp_path / "out", *flags)) == 0
    loss = json.loads((tmp_path / "out" / "log.jsonl").read_text())["loss"]
    assert loss["edge"] == 0 and loss["consistency"] == 0
    assert loss["total"] == pytest.approx(loss["mask"])


def test_user_errors_are_one_line(data_root, tmp_path, capsys, monkeypatch):
    out = tmp_path / "out"
    assert train.main(command(tmp_path / "none", out)) == 1
    assert "No folder" in capsys.readouterr().err
    assert train.main(command(data_root, out, "--resume")) == 1
    assert "to resume from" in capsys.readouterr().err
    assert train.main(command(data_root, out, "--pretrained", "no.pdparams")) == 1
    assert "There is no weights file no.pdparams" in capsys.readouterr().err
    monkeypatch.setattr(kernels, "has_bfloat16", lambda: False)
    assert train.main(command(data_root, out, "--amp")) == 1
    assert "--amp needs a GPU" in capsys.readouterr().err
    assert train.main(command(data_root, out, "--epoch", "1")) == 0
    assert train.main(command(data_root, out, "--epoch", "1")) == 1
    assert "holds another training" in capsys.readouterr().err
    (out / RESUME_FILE).write_bytes(b"half")
    assert train.main(command(data_root, out, "--resume")) == 1
    assert "is damaged or not Paddle" in capsys.readouterr().err


def test_a_broken_validation_photo_is_found_before_the_first_epoch(data_root, tmp_path, capsys):
    (data_root / "Images" / "00013.png").write_bytes(b"no picture")
    assert train.main(command(data_root, tmp_path / "out", "--epoch", "1")) == 1
    message = capsys.readouterr()
    assert "00013.png is not a readable picture" in message.err and "iter" not in message.out


def test_a_loss_that_is_not_finite_stops_with_every_term(data_root, tmp_path, capsys):
    assert train.main(command(data_root, tmp_path / "a", "--epoch", "1", "--lr", "1e30")) == 1
    assert "edge" in (message := capsys.readouterr().err) and "not finite" in message


@pytest.mark.parametrize(
    "flags, message",
    [
        (["--size", "100"], "multiples of 32"),
        (["--size", "128:x"], "SIZE:EPOCHS"),
        (["--size", "100:2,224"], "multiples of 32"),
        (["--epo", "1"], "unrecognized"),
        (["--scale", "0", "0"], "a number above 0, not '0'"),
        (["--scale", "-1", "1"], "a number above 0, not '-1'"),
        (["--scale", "1.5", "1"], "the smaller value first"),
        (["--batch_size", "0"], "a whole number from 1"),
        (["--epoch", "-1"], "a whole number from 1"),
        (["--lr", "nan"], "a number above 0"),
        (["--ema", "nan"], "from 0 to 1"),
        (["--log_iter", "0"], "a whole number from 1"),
        (["--seed", "-1"], "a whole number"),
        (["--rotation", "nan"], "from 0 to 180"),
        (["--width", "0"], "a number above 0"),
        (["--teacher_data", "y"], "must name folders of --data_root"),
    ],
)
def test_wrong_flags_are_usage_errors(flags, message, capsys):
    with pytest.raises(SystemExit) as stopped:
        train.parse_args(["--data_root", "x", *flags])
    assert stopped.value.code == 2 and message in capsys.readouterr().err


def test_the_encoder_starts_from_person_weights_if_it_has_their_width():
    assert train.parse_args([]).pretrained == ["person"]
    assert train.parse_args(["--width", "0.5"]).pretrained == ["none"]
    assert train.parse_args(["--pretrained", "none"]).pretrained == ["none"]


def test_a_broken_photo_ends_the_training_and_it_resumes_once_mended(tmp_path, capsys):
    data_root = draw_data_root(tmp_path / "drawn", train=16)
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    assert train.main(command(data_root, whole, "--epoch", "1")) == 0
    third = Schedule(epochs=1, batch_size=4, sizes=(64,), lr=1).steps(16, 0)[2][1]
    photo = data_root / "Images" / (data_root / "eg1800_train.txt").read_text().split()[third[0]]
    content = photo.read_bytes()
    photo.write_bytes(bytes(len(content)))
    capsys.readouterr()
    assert train.main(command(data_root, broken, "--epoch", "1")) == 1
    message = capsys.readouterr().err
    assert f"{photo} is not a readable picture" in message
    photo.write_bytes(content)
    assert load_whole(broken / RESUME_FILE)["batch"] == 2
    assert train.main(command(data_root, broken, "--epoch", "1", "--resume")) == 0
    assert same_weights(whole / "model_0.pdparams", broken / "model_0.pdparams")


def test_the_largest_width_is_that_of_the_weights():
    assert train.MAX_WIDTH == weights.MAX_WIDTH
    assert train.parse_args(["--width", str(weights.MAX_WIDTH)]).width == weights.MAX_WIDTH


def test_weights_that_diverge_in_the_last_step_name_the_learning_rate(
    data_root, tmp_path, capsys, monkeypatch
):
    """The loss of the last iteration is finite; the step after it is not."""
    step, output = TrainingState.step_optimizer, tmp_path / "out"

    def step_astray(self, lr):
        step(self, lr)
        if self.batch == 2:  # the last of three
            self.model.mask_head.weight.set_value(self.model.mask_head.weight * float("nan"))

    monkeypatch.setattr(TrainingState, "step_optimizer", step_astray)
    assert train.main(command(data_root, output, "--epoch", "1")) == 1
    message = capsys.readouterr().err
    assert "The training diverged: mask_head.weight is not finite in epoch 1" in message
    assert "smaller --lr" in message
    assert not list(output.glob("*.pdparams")) and not (output / RESUME_FILE).exists()


def test_lite_is_trained_further_from_what_it_knows(data_root, tmp_path):
    output = tmp_path / "lite"
    flags = "--lite --size 64 --batch_size 4 --epoch 1".split()
    assert train.main([*flags, "--data_root", str(data_root), "--output", str(output)]) == 0
    trained, start = read_state(output / "model_0.pdparams"), read_state(weights.LITE_PERSON)
    assert trained.keys() == start.keys()
    moved = [name for name in start if (trained[name].numpy() != start[name].numpy()).any()]
    assert len(moved) > 0.9 * len(start)
    assert isinstance(weights.load_model(output / "model_0.pdparams"), PortraitNetLite)
