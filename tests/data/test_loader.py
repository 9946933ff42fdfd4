"""Batches by worker processes."""

import multiprocessing
import os
import sys

import numpy as np
import pytest

from data import loader
from data.lists import find_pairs
from data.loader import default_workers, load_batches, worker_init
from data.portraits import TrainingSamples


def samples_of(data_root):
    return TrainingSamples(find_pairs(data_root, "train")[0])


@pytest.mark.parametrize("workers", [0, 1, 2])
def test_batches_hold_the_samples_of_their_steps(data_root, workers):
    samples = samples_of(data_root)
    steps = [((64, 32), [7, 0, 3]), ((32, 64), [11, 2, 5]), ((64, 64), [1, 4]), ((32, 32), [8])]
    batches = list(load_batches(samples, steps, epoch=2, strength=0.5, num_workers=workers))
    assert len(batches) == len(steps)
    for (input_shape, indices), batch in zip(steps, batches):
        drawn = [samples.sample(index, input_shape, 2, 0.5) for index in indices]
        assert all(map(np.array_equal, batch, (np.stack(arrays) for arrays in zip(*drawn))))


def test_a_photo_that_a_worker_cannot_read_is_named(data_root):
    (data_root / "Images" / "00002.png").write_bytes(b"no picture")
    steps = [((64, 64), indices) for indices in ([0, 1], [2, 3], [4, 5])]
    with pytest.raises(ValueError, match="00002.png is not a readable picture"):
        list(load_batches(samples_of(data_root), steps, 0, 1.0, num_workers=2))


def test_workers_end_with_an_interrupted_epoch(data_root):
    steps = [((64, 64), [0, 1])] * 20
    batches = load_batches(samples_of(data_root), steps, 0, 1.0, num_workers=2)
    next(batches)
    batches.close()
    assert not multiprocessing.active_children()


@pytest.mark.skipif(sys.platform != "linux", reason="no Linux")
def test_a_worker_without_its_training_ends():
    """The training may end after the fork and before the worker asks for a signal."""
    context = multiprocessing.get_context("fork")
    codes = []
    for training in (os.getpid(), os.getppid()):  # the worker's parent, and another process
        worker = context.Process(target=worker_init, args=(None, training))
        worker.start()
        worker.join()
        codes.append(worker.exitcode)
    assert codes == [0, 1]


@pytest.mark.parametrize(
    ("cores", "processes", "workers"), [(1, 1, 0), (2, 1, 1), (8, 1, 2), (8, 4, 1), (4, 4, 0)]
)
def test_workers_take_the_other_cores_and_at_most_two(monkeypatch, cores, processes, workers):
    monkeypatch.setattr(loader, "core_count", lambda: cores)
    assert default_workers(processes) == workers


def test_there_are_no_workers_without_fork(monkeypatch):
    monkeypatch.setattr(loader, "core_count", lambda: 8)
    monkeypatch.setattr(multiprocessing, "get_all_start_methods", lambda: ["spawn"])
    assert default_workers(1) == 0
