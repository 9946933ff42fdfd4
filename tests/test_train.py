import itertools
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import paddle
import pytest
from conftest import draw_data_root, draw_portrait

import kernels
import train
from models.weights import load_whole, read_state, save_atomically
from portraitnet.files import lock
from portraitnet.geometry import input_shape
from training.checkpoints import open_predictor
from training.schedule import ASPECTS, Schedule, epoch_sizes
from training.state import RESUME_FILE, TrainingState

ROOT = Path(__file__).parent.parent
SMALL = "--width 0.25 --size 64 --batch_size 4 --log_iter 2".split()


def command(data_root, output, *flags):
    return [
        *SMALL,
        "--data_root",
        str(data_root),
        "--output",
        str(output),
        *flags,
    ]


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
def test_killed_and_resumed_run_ends_bit_identical(data_root, tmp_path, precision):
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


def test_ctrl_c_leaves_a_checkpoint_that_goes_on_within_the_epoch(tmp_path):
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
    """All files, of run, cache and data, are from next year, and time runs backwards."""
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


def wait_for(path, process, seconds=120):
    deadline = time.time() + seconds
    while not path.exists():
        assert process.poll() is None and time.time() < deadline, f"{path} was not written"
        time.sleep(0.02)


@pytest.mark.slow
def test_two_processes_train_as_one_that_takes_their_halves_in_turn(tmp_path, monkeypatch):
    """Each process normalises by its own half of the batch; their gradients are averaged."""
    flags = ["--epoch", "2", "--ema", "0"]
    data_root = draw_data_root(tmp_path / "drawn", train=32)
    done = run_train(command(data_root, tmp_path / "two", *flags, "--procs", "2"))
    assert done.returncode == 0, done.stderr + done.stdout

    whole = train.forward

    def forward(model, sample, args):
        halves = [whole(model, [array[rank::2] for array in sample], args) for rank in (0, 1)]
        terms = {name: (term + halves[1][1][name]) / 2 for name, term in halves[0][1].items()}
        return paddle.concat([logits for logits, _ in halves]), terms

    monkeypatch.setattr(train, "forward", forward)
    monkeypatch.setattr(train, "log_iteration", lambda *given: None)
    assert train.main(command(data_root, tmp_path / "one", *flags)) == 0
    one, two = (read_state(tmp_path / name / "model_1.pdparams") for name in ("one", "two"))
    for name in one:
        if not name.endswith(("_mean", "_variance")):  # those were moved twice as often
            assert np.allclose(one[name], two[name], rtol=1e-4, atol=1e-6), name


@pytest.mark.slow
def test_a_process_that_dies_ends_the_run_and_resume_goes_on(tmp_path):
    data_root = draw_data_root(tmp_path / "drawn", train=32)
    flags = command(data_root, tmp_path / "out", "--epoch", "6", "--procs", "2")
    process = subprocess.Popen(
        [sys.executable, "train.py", *flags], cwd=ROOT, stderr=subprocess.PIPE, text=True
    )
    wait_for(tmp_path / "out" / "model_1.pdparams", process)
    ranks = subprocess.run(
        ["pgrep", "-f", f"python -u .*train.py.*{tmp_path}/out"], capture_output=True, text=True
    )
    os.kill(int(ranks.stdout.split()[-1]), signal.SIGKILL)
    message = process.communicate(timeout=120)[1]
    assert process.returncode == 1 and "go on with --resume" in message.splitlines()[-1]
    assert not (tmp_path / "out" / "model_5.pdparams").exists()
    assert run_train([*flags, "--resume"]).returncode == 0
    assert (tmp_path / "out" / "model_5.pdparams").exists()


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
    assert "holds another run" in capsys.readouterr().err
    (out / RESUME_FILE).write_bytes(b"half")
    assert train.main(command(data_root, out, "--resume")) == 1
    assert "is damaged or not Paddle" in capsys.readouterr().err


def test_a_folder_is_one_trainings_alone(data_root, tmp_path, capsys):
    out = tmp_path / "out"
    out.mkdir()
    held = lock(out / "lock", wait=False)
    assert train.main(command(data_root, out, "--epoch", "1")) == 1
    assert "Another training is writing to" in capsys.readouterr().err
    assert not (out / "args.json").exists()
    held.close()
    lock(out / "lock", wait=False).close()


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


def test_a_resume_with_other_arguments_says_so(data_root, tmp_path, capsys):
    out = tmp_path / "out"
    assert train.main(command(data_root, out, "--epoch", "1")) == 0
    capsys.readouterr()
    assert train.main(command(data_root, out, "--epoch", "1", "--resume")) == 0
    assert "not as before" not in capsys.readouterr().out
    assert train.main(command(data_root, out, "--epoch", "2", "--lr", "0.5", "--resume")) == 0
    message = capsys.readouterr().out
    assert "not as before: --epoch 2 (was 1), --lr 0.5 (was 0.001)." in message
    state = load_whole(out / RESUME_FILE)
    del state["history"]
    save_atomically(state, out / RESUME_FILE)
    assert train.main(command(data_root, out, "--resume")) == 1
    assert "is no state of a training" in capsys.readouterr().err


def test_the_encoder_knows_people_from_the_start_if_it_has_their_width():
    assert train.parse_args([]).pretrained == ["person"]
    assert train.parse_args(["--width", "0.5"]).pretrained == ["none"]
    assert train.parse_args(["--pretrained", "none"]).pretrained == ["none"]


def test_learning_rate_warms_up_and_falls():
    course = Schedule(epochs=10, batch_size=4, sizes=(64,) * 10, lr=1)
    rates = [course.learning_rate(epoch) for epoch in (0, 0.25, 0.5, 5.25, 10)]
    assert rates == pytest.approx([0.002, 0.502, 1, 0.5, 0], abs=1e-6)
    course = Schedule(epochs=100, batch_size=4, sizes=(64,) * 100, lr=1, lr_schedule="step")
    assert course.learning_rate(0) == 1
    assert course.learning_rate(45) == pytest.approx(0.95**2)
    course = Schedule(epochs=10, batch_size=4, sizes=(64,) * 10, lr=1, lr_schedule="constant")
    assert course.learning_rate(9) == 1


def test_every_epoch_sees_each_photo_once_in_another_order():
    course = Schedule(epochs=2, batch_size=4, sizes=(64, 64), lr=1)

    def indices(steps):
        return sum((batch for _, batch in steps), [])

    first, second = (course.steps(12, epoch) for epoch in (0, 1))
    assert sorted(indices(first)) == sorted(indices(second)) == list(range(12))
    assert first != second
    assert [len(batch) for _, batch in course.steps(11, 0)] == [4, 4]
    assert [len(batch) for _, batch in course.steps(3, 0)] == [3]
    drawn = [shape for shape, _ in course.steps(3200, 0)]
    shapes = [input_shape(*aspect, 64) for aspect in ASPECTS]
    assert set(drawn) == set(shapes)
    for shape in set(shapes):  # each aspect is drawn as often as it is listed, 100 times
        expected = 100 * shapes.count(shape)
        assert abs(drawn.count(shape) - expected) < 4 * expected**0.5


def test_size_schedule():
    assert epoch_sizes("128:2,160:1,192", 5) == (128, 128, 160, 192, 192)
    assert epoch_sizes("224", 2) == (224, 224)
    assert epoch_sizes("128:1", 2) == (128, 224)
    assert epoch_sizes("128:9,224", 2) == (128, 128)
    course = Schedule(epochs=3, batch_size=4, sizes=(64, 64, 128), lr=1)
    assert course.epoch_costs == pytest.approx([1 / 6, 1 / 6, 4 / 6])


def test_deformation_falls_to_its_final_strength():
    course = Schedule(epochs=5, batch_size=4, sizes=(64,) * 5, lr=1, final_geometry=0.2)
    strengths = [course.geometry_strength(epoch) for epoch in range(5)]
    assert strengths == pytest.approx([1, 0.8, 0.6, 0.4, 0.2])


def broken_states(each):
    """What may lie where a training's state is expected: a change of a good one -> a bad one."""
    yield from (lambda state, wrong=wrong: wrong for wrong in ([], {}, "state", {"epoch": 1}))
    wrongs = itertools.cycle(["x", [1], {"x": "y"}, {1: 2}, 10**30, float("nan"), -1])
    for name in ("model", "optimizer", "average", "sums", "history", "args", "epoch", "step"):
        for wrong in itertools.islice(wrongs, each):
            yield lambda state, name=name, wrong=wrong: state | {name: wrong}


@pytest.mark.parametrize("each", [1, pytest.param(7, marks=pytest.mark.slow)])
def test_a_foreign_state_is_one_sentence(data_root, tmp_path, capsys, each):
    output = tmp_path / "out"
    assert train.main(command(data_root, output, "--epoch", "1")) == 0
    good, message = load_whole(output / RESUME_FILE), []
    for change in broken_states(each):
        save_atomically(change(good), output / RESUME_FILE)
        capsys.readouterr()
        code = train.main(command(data_root, output, "--epoch", "1", "--resume"))
        message.append((code, capsys.readouterr().err))
    assert all(code == 1 and err.count("\n") == 1 for code, err in message if code), message
    assert (
        sum(code == 0 for code, _ in message) < 9
    )  # --args x and the like only change what is told


def test_a_broken_photo_ends_the_run_and_its_mending_goes_on(tmp_path, capsys):
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


def test_within_an_epoch_the_photos_left_of_it_stay_the_same(data_root, tmp_path, capsys):
    output = tmp_path / "out"
    assert train.main(command(data_root, output, "--epoch", "1")) == 0
    state = load_whole(output / RESUME_FILE)
    photo = next((data_root / "Images").iterdir())
    for batch, code in ((0, 0), (1, 1)):
        save_atomically(state | {"batch": batch}, output / RESUME_FILE)
        for flags, change in (
            (["--batch_size", "3"], "--batch_size 3 (was 4)"),
            (["--seed", "7"], "--seed 7 (was 0)"),
            ([], "the training photos are not the same"),
        ):
            content = photo.read_bytes()
            if not flags:
                photo.write_bytes(content + b"\0")
            done = train.main(command(data_root, output, "--epoch", "1", *flags, "--resume"))
            message = capsys.readouterr()
            photo.write_bytes(content)
            assert (done, change in message.out + message.err) == (code, True), message
    assert "what decides which photos are left of it has changed" in message.err
