"""What a training reports: lines, means and times from numbers chosen by hand."""

import json
from types import SimpleNamespace

import numpy as np
import paddle
import pytest

from metrics import SELECTION
from training import report
from training.report import Progress, ending, print_epoch, write_history


class Writer:
    """Keeps what VisualDL would draw."""

    def __init__(self):
        self.scalars = {}

    def add_scalar(self, name, value, step):
        self.scalars[name] = (step, value)


def state_at(batch, seconds=0.0, **sums):
    return SimpleNamespace(epoch=1, batch=batch, step=30 + batch, seconds=seconds, sums=sums)


@pytest.fixture
def clock(monkeypatch):
    """A clock that the test sets: clock.now, seconds."""
    clock = SimpleNamespace(now=100.0)
    monkeypatch.setattr(report.time, "perf_counter", lambda: clock.now)
    return clock


def test_the_mean_of_each_loss_and_the_time_of_an_epoch(clock):
    state = state_at(4, seconds=2.0, total=paddle.to_tensor(6.0), edge=2.0)
    progress = Progress(state, steps=4, batch_size=8, log_iter=1, writer=None)

    def batches():
        for batch in ("first", "second"):
            clock.now += 3  # the training waits for a batch
            yield batch

    for _ in progress.timed(batches()):
        clock.now += 2  # and works on it
    assert progress.finish() == {
        "loss": {"total": 1.5, "edge": 0.5},
        "photos_per_second": pytest.approx(4 * 8 / 12),  # the two seconds before a resume count
        "data_wait": pytest.approx(6 / 10),
    }
    assert state.seconds == 12


def test_an_epoch_without_iterations_divides_by_nothing(clock):
    progress = Progress(state_at(0, total=0.0), 4, 8, 1, None)
    clock.now += 1
    assert progress.finish() == {"loss": {"total": 0}, "photos_per_second": 0, "data_wait": 0}


def logits_of(*persons):
    """Logits (N, 2, 1, W) whose person is where a letter is 1."""
    person = np.array([[[int(letter) for letter in each]] for each in persons], np.float32)
    return paddle.to_tensor(np.stack([1 - person, person], 1))


def test_the_reports_line_scores_the_photometric_copies(clock, capsys):
    """Four pixels, three right: accuracy 0.75; IoUs 1/2 and 2/3 on the last of the two copies."""
    writer, state = Writer(), state_at(2)
    progress = Progress(state, steps=9, batch_size=1, log_iter=2, writer=writer)
    clock.now += 1
    terms = {"total": paddle.to_tensor(0.25), "edge": paddle.to_tensor(0.125)}
    mask = np.array([[[0.0, 0.5, 1.0, 1.0]]], np.float32)
    progress.log(terms, 0.001, logits_of("0000", "0001"), mask)
    line = f"iter 1 loss:0.2500 , acc: 0.7500, miou: {(1 / 2 + 2 / 3) / 2:.4f}\n"
    assert capsys.readouterr().out == line
    expected = {"total": 0.25, "edge": 0.125, "lr": 0.001, "accuracy": 0.75, "mean_iou": 7 / 12}
    assert writer.scalars == {f"train/{k}": (32, pytest.approx(v)) for k, v in expected.items()}


@pytest.mark.parametrize(("batch", "logged"), [(1, False), (3, True), (6, True), (7, True)])
def test_the_loss_is_checked_every_log_iter_and_at_the_end(batch, logged):
    progress = Progress(state_at(batch), steps=7, batch_size=1, log_iter=3, writer=None)
    terms = {"total": paddle.to_tensor(float("nan")), "edge": paddle.to_tensor(2.0)}
    arguments = terms, 0.5, logits_of("00"), np.zeros((1, 1, 2), np.float32)
    if not logged:
        progress.log(*arguments)
        return
    with pytest.raises(FloatingPointError, match="not finite in epoch 2, .*edge 2.0.*--lr.* 0.5"):
        progress.log(*arguments)


def epoch(number, iou, seconds=60.0):
    names = "accuracy", "miou_raw", "boundary_iou", SELECTION
    val = dict.fromkeys(names, 0.5) | {SELECTION: iou}
    line = {"epoch": number, "loss": {"total": 0.125}, "photos_per_second": 20.0}
    return line | {"seconds": seconds, "val": {"drawn": val}, "mean_person_iou": iou}


def test_the_time_to_go_follows_the_epochs_costs(capsys):
    costs = np.array([1, 1, 4, 60]) / 66
    print_epoch([epoch(0, 0.9), epoch(1, 0.75, 120.0)], costs)
    message = capsys.readouterr().out  # two minutes an epoch of that cost: 2 * (4 + 60) = 128
    assert "epoch 2 loss:0.1250, 20.00 photos/s, 120 s, about 2:08 h to go\n" in message
    assert "eval drawn: acc: 0.5000, miou: 0.5000, person iou: 0.7500, boundary iou: 0.5" in message
    print_epoch([epoch(0, 0.9)], np.ones(1))
    assert "about 0:00 h to go" in capsys.readouterr().out


def test_the_history_is_written_whole(tmp_path):
    history = [epoch(0, 0.5), epoch(1, 0.75)]
    for count in (1, 2):
        write_history(history[:count], tmp_path)
        lines = (tmp_path / "log.jsonl").read_text().splitlines()
        assert list(map(json.loads, lines)) == history[:count]
    assert (tmp_path / "curves.svg").read_text().startswith("<svg")
    assert len(list(tmp_path.iterdir())) == 2


def test_the_ending_names_the_best_epoch_from_one_and_its_file_from_zero(tmp_path):
    history = [epoch(0, 0.5), epoch(1, 0.75), epoch(2, 0.625)]
    message = ending(history, tmp_path, ["my photos", "EG1800"])
    assert "Epoch 2 of 3 is the best, with a person IoU of:\n  drawn 0.7500" in message
    assert "model_1.pdparams" in message
    assert "--split val --data_root 'my photos' EG1800\n" in message
