"""The state of a training: one step by hand, what is saved, what a resume refuses."""

import itertools

import numpy as np
import paddle
import pytest
from conftest import SMALL_TRAINING

import kernels
import train
from models.weights import load_whole, read_state, save_atomically
from portraitnet.files import lock
from training import state as state_module
from training.state import RESUME_FILE, TrainingState, choose_device, lock_output, make_state


def command(data_root, output, *flags):
    return [*SMALL_TRAINING, "--data_root", str(data_root), "--output", str(output), *flags]


def small_state(**settings):
    """TrainingState of a network of width 0.25, as train.py makes it."""
    defaults = {"width": 0.25, "lr": 0.1, "weight_decay": 0.0, "ema": 0.0, "seed": 0, "amp": False}
    return make_state(["none"], **{**defaults, **settings})[0]


def one_number(value):
    """A layer whose only parameter is one number."""
    layer = paddle.nn.Linear(1, 1, bias_attr=False)
    layer.weight.set_value(paddle.full([1, 1], value))
    return layer


def weights_of(layer):
    return {name: tensor.numpy().copy() for name, tensor in layer.state_dict().items()}


# one step


def test_weight_decay_shrinks_convolutions_and_nothing_else():
    """Without gradients a step multiplies by 1 - lr * decay = 0.95 what is decayed."""
    state = small_state(weight_decay=0.5)
    before = weights_of(state.model)
    sum((0 * parameter).sum() for parameter in state.model.parameters()).backward()
    state.step_optimizer(0.1)
    convolutions = {name for name, value in before.items() if value.ndim > 1}
    assert 0 < len(convolutions) < len(before)
    for name, value in weights_of(state.model).items():
        factor = 0.95 if name in convolutions else 1
        assert value == pytest.approx(factor * before[name], rel=1e-5), name


def test_a_step_takes_its_learning_rate_and_clears_the_gradients():
    """AdamW's first step moves a weight by the learning rate against its gradient's sign."""
    state = small_state(lr=7.0)
    weight = state.model.mask_head.weight
    before = weight.numpy().copy()
    weight.sum().backward()
    state.step_optimizer(0.25)
    assert weight.numpy() == pytest.approx(before - 0.25, abs=1e-5)
    assert weight.grad is None or not weight.grad.numpy().any()


@pytest.mark.parametrize("processes, shared", [(1, 0), (2, 1)])
def test_gradients_are_shared_as_soon_as_there_are_two_processes(monkeypatch, processes, shared):
    calls = []
    monkeypatch.setattr(state_module, "average_gradients", lambda *each: calls.append(each))
    layer = one_number(2.0)
    state = TrainingState(layer, None, 0.0, None, None, world=processes)
    state.backward(3 * layer.weight.sum(), "stop")
    assert layer.weight.grad.item() == 3 and calls == [(layer, "stop")] * shared


@pytest.mark.parametrize(("step", "decay"), [(0, 0.1), (8, 0.5), (71, 0.8), (1000, 0.8)])
def test_averaged_weights_warm_up(step, decay):
    """The decay is (1 + step) / (10 + step) until it reaches --ema: 0 becomes 1 - decay."""
    state = TrainingState(one_number(1.0), one_number(0.0), 0.8, None, None, step=step)
    state.update_average()
    assert state.average.weight.item() == pytest.approx(1 - decay)
    assert state.model.weight.item() == 1 and state.evaluated is state.average


def test_batchnorm_statistics_are_averaged_too():
    state = small_state(ema=0.8)
    name = next(name for name in state.model.state_dict() if name.endswith("_mean"))
    state.model.state_dict()[name].set_value(paddle.ones_like(state.model.state_dict()[name]))
    state.update_average()
    assert state.average.state_dict()[name].numpy() == pytest.approx(0.9)


def test_counting_adds_the_loss_terms():
    state = TrainingState(one_number(0.0), None, 0.0, None, None, batch=3, step=5)
    for value in (1.0, 0.5):
        state.count({"total": paddle.to_tensor(value)})
    assert (state.batch, state.step, float(state.sums["total"])) == (5, 7, 1.5)
    state.next_epoch()
    assert (state.epoch, state.batch, state.step, state.sums) == (1, 0, 7, {})


# an epoch's end


def test_best_is_the_best_epoch_and_not_the_last(tmp_path):
    state = TrainingState(one_number(0.0), None, 0.0, None, None)
    for value, iou in enumerate((0.5, 0.75, 0.625, 0.75)):
        state.model.weight.set_value(paddle.full([1, 1], float(value)))
        state.finish_epoch({"mean_person_iou": iou, "val": {}}, 64, tmp_path)
        state.next_epoch()
    kept = {path.name: read_state(path)["weight"].item() for path in tmp_path.glob("*.pdparams")}
    numbered = {f"model_{epoch}.pdparams": epoch for epoch in range(4)}
    assert kept == {**numbered, "best.pdparams": 1} and state.best == 0.75
    ious = [(line["epoch"], line["mean_person_iou"]) for line in state.history]
    assert ious == [(0, 0.5), (1, 0.75), (2, 0.625), (3, 0.75)]


def test_a_weight_that_is_not_finite_is_never_saved(tmp_path):
    state = small_state()
    state.save({}, tmp_path)
    before = (tmp_path / RESUME_FILE).read_bytes()
    state.model.mask_head.weight.set_value(state.model.mask_head.weight * float("nan"))
    for save in (
        lambda: state.save({}, tmp_path),
        lambda: state.finish_epoch({"mean_person_iou": 1.0}, 64, tmp_path),
    ):
        with pytest.raises(FloatingPointError, match=r"diverged: mask_head.* --lr, now 0\.1"):
            save()
    assert (tmp_path / RESUME_FILE).read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == [RESUME_FILE]


# save and load


def step(state):
    state.model.mask_head.weight.sum().backward()
    state.step_optimizer(0.1)
    state.update_average()


def test_a_loaded_state_is_the_saved_one_and_continues_bit_exactly(tmp_path):
    guard = paddle.utils.unique_name.guard  # as train.py: the optimizer's state has the names
    with guard():
        saved = small_state(ema=0.9)
        step(saved)
        saved.count({"total": paddle.to_tensor(0.5)})
        saved.seconds, saved.best, saved.photos = 4.0, 0.25, "digest"
        saved.save({"lr": 0.1}, tmp_path)
        step(saved)
    with guard():
        loaded = small_state(ema=0.9, seed=1)
        loaded.photos = "digest"
        assert loaded.load({"lr": 0.1}, tmp_path) == []
        for name in (*TrainingState.PLACE, "sums", "seconds"):
            assert getattr(loaded, name) == getattr(saved, name), name
        step(loaded)
    for one, other in ((saved.model, loaded.model), (saved.average, loaded.average)):
        one, other = weights_of(one), weights_of(other)
        assert all(np.array_equal(one[name], other[name]) for name in one)


def test_what_cannot_be_resumed_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="no .*resume.pdstate to resume from"):
        small_state().load({}, tmp_path)
    small_state().save({}, tmp_path)
    with pytest.raises(ValueError, match="no averaged weights.* --ema 0"):
        small_state(ema=0.5).load({}, tmp_path)
    with pytest.raises(ValueError, match="does not fit this network"):
        small_state(width=0.5).load({}, tmp_path)
    (tmp_path / RESUME_FILE).write_bytes(b"half")
    with pytest.raises(ValueError, match="is damaged or not Paddle"):
        small_state().load({}, tmp_path)


def test_a_state_that_the_optimizer_does_not_take_is_named(tmp_path, monkeypatch):
    """As of another release of Paddle."""
    small_state().save({}, tmp_path)
    state = small_state()

    def refuse(values):
        raise KeyError("LR_Scheduler")

    monkeypatch.setattr(state.optimizer, "set_state_dict", refuse)
    with pytest.raises(ValueError, match="holds no state of this optimizer .*LR_Scheduler"):
        state.load({}, tmp_path)


def compare(batch, now, before, photos="same"):
    state = TrainingState(None, None, 0.0, None, None, photos="same")
    return state.compare(now, {"batch": batch, "args": before, "photos": photos, "epoch": 3})


def test_a_resume_reports_what_differs():
    before = {"lr": 0.001, "seed": 0, "log_iter": 10}
    assert compare(0, before, before) == []
    assert compare(0, before | {"log_iter": 5}, before) == []  # harmless
    assert compare(0, before | {"new_flag": 1}, before) == []  # of a later version
    (note,) = compare(0, before | {"lr": 0.5, "seed": 7}, before, photos="others")
    for part in (
        "--lr 0.5 (was 0.001)",
        "--seed 7 (was 0)",
        "the training photos are not the same",
    ):
        assert part in note


@pytest.mark.parametrize(
    ("now", "photos"), [({"seed": 7}, "same"), ({"batch_size": 7}, "same"), ({}, "others")]
)
def test_within_an_epoch_the_order_of_the_photos_is_fixed(now, photos):
    before = {"lr": 0.001, "seed": 0, "batch_size": 4}
    assert compare(2, before | {"lr": 1}, before)
    assert compare(0, before | now, before, photos)
    with pytest.raises(ValueError, match="stopped within epoch 3.* resume it as it was"):
        compare(2, before | now, before, photos)


def test_a_folder_holds_one_training(tmp_path):
    with lock_output(tmp_path / "runs" / "new", resume=False):
        assert lock(tmp_path / "runs" / "new" / "lock", wait=False) is None
        with (
            pytest.raises(FileExistsError, match="Another training is writing to .*new"),
            lock_output(tmp_path / "runs" / "new", resume=True),
        ):
            pass
    (tmp_path / "runs" / "new" / RESUME_FILE).touch()
    with lock_output(tmp_path / "runs" / "new", resume=True):
        pass
    with (
        pytest.raises(FileExistsError, match="holds another training: continue it with --resume"),
        lock_output(tmp_path / "runs" / "new", resume=False),
    ):
        pass


def test_mixed_precision_without_the_processor_is_one_sentence(monkeypatch):
    monkeypatch.setattr(kernels, "has_bfloat16", lambda: False)
    monkeypatch.setattr(state_module.paddle, "is_compiled_with_cuda", lambda: False)
    with pytest.raises(RuntimeError, match="--amp needs a GPU or a processor with AVX512-BF16"):
        choose_device(amp=True)
    assert choose_device(amp=False) == "cpu"


# through train.py


def test_a_folder_is_one_trainings_alone(data_root, tmp_path, capsys):
    out = tmp_path / "out"
    out.mkdir()
    held = lock(out / "lock", wait=False)
    assert train.main(command(data_root, out, "--epoch", "1")) == 1
    assert "Another training is writing to" in capsys.readouterr().err
    assert not (out / "args.json").exists()
    held.close()
    lock(out / "lock", wait=False).close()


def test_a_resume_with_other_arguments_reports_them(data_root, tmp_path, capsys):
    out = tmp_path / "out"
    assert train.main(command(data_root, out, "--epoch", "1")) == 0
    capsys.readouterr()
    assert train.main(command(data_root, out, "--epoch", "1", "--resume")) == 0
    assert "(was " not in capsys.readouterr().out
    assert train.main(command(data_root, out, "--epoch", "2", "--lr", "0.5", "--resume")) == 0
    assert "--epoch 2 (was 1), --lr 0.5 (was 0.001)" in capsys.readouterr().out


def broken_states(each):
    """Changes of a good state, each to a bad one: functions of a state -> what is saved instead."""
    yield from (lambda state, wrong=wrong: wrong for wrong in ([], {}, "state", {"epoch": 1}))
    yield lambda state: {name: value for name, value in state.items() if name != "history"}
    wrongs = itertools.cycle(["x", [1], {"x": "y"}, {1: 2}, 10**30, float("nan"), -1])
    for name in ("model", "optimizer", "average", "sums", "history", "args", "epoch", "step"):
        for wrong in itertools.islice(wrongs, each):
            yield lambda state, name=name, wrong=wrong: state | {name: wrong}


@pytest.mark.parametrize("each", [1, pytest.param(7, marks=pytest.mark.slow)])
def test_a_foreign_state_is_one_sentence(data_root, tmp_path, capsys, each):
    output = tmp_path / "out"
    assert train.main(command(data_root, output, "--epoch", "1")) == 0
    good, outcomes = load_whole(output / RESUME_FILE), []
    for change in broken_states(each):
        save_atomically(change(good), output / RESUME_FILE)
        capsys.readouterr()
        code = train.main(command(data_root, output, "--epoch", "1", "--resume"))
        outcomes.append((code, capsys.readouterr().err))
    assert all(code == 1 and err.count("\n") == 1 for code, err in outcomes if code), outcomes
    # Settings such as --args x only change what is reported.
    assert sum(code == 0 for code, _ in outcomes) < 9


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
