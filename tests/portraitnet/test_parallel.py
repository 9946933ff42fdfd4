import os
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from portraitnet.parallel import ahead, core_count, in_thread, outcomes, window


def test_few_items_are_in_memory_at_a_time():
    """The threads are never more than `depth` items ahead of what was taken from them."""
    started = []

    def start(item):
        started.append(item)
        return item

    for taken, item in enumerate(ahead(start, range(50), 4)):
        assert item == taken and len(started) <= taken + 4
    assert sorted(started) == list(range(50))


def test_items_are_made_in_a_thread_and_few_ahead():
    made = []

    def items():
        for index in range(20):
            made.append(threading.get_ident())
            yield index

    for taken, item in enumerate(in_thread(items(), 3)):
        assert item == taken and len(made) <= taken + 3
    assert taken == 19 and threading.get_ident() not in made


def test_stages_overlap():
    """While one stage is at an item, the stage before it is at the next."""
    both = threading.Barrier(2, timeout=30)  # passed by two at a time only

    def stage(items, alone):
        for item in items:
            if item != alone:
                both.wait()
            yield item

    last = in_thread(stage(in_thread(stage(range(30), 0), 3), 29), 3)
    assert list(last) == [*range(30)]


def test_an_error_in_a_thread_reaches_the_caller():
    def items():
        yield 1
        raise ValueError("no more")

    taken = in_thread(items(), 2)
    assert next(taken) == 1
    with pytest.raises(ValueError, match="no more"):
        next(taken)


@pytest.mark.parametrize("readers, batch_size", [(1, 1), (2, 3), (2, 50)])
def test_outcomes_keep_the_order_and_failures_their_place(readers, batch_size):
    groups = []

    def prepare(item):
        if item == 3:
            raise OSError("unread")
        return 10 * item

    def network(prepared):
        groups.append(len(prepared))
        return [value + 1 for value in prepared]

    def finish(item, prepared, answer):
        time.sleep(0.002 * (item % 2))
        if item == 5:
            raise ValueError("unwritten")
        return item, prepared, answer

    found = list(outcomes(range(10), prepare, network, finish, readers, 4, batch_size))
    assert [outcome.item for outcome in found] == list(range(10))
    assert {outcome.item: str(outcome.error) for outcome in found if outcome.error} == {
        3: "unread",
        5: "unwritten",
    }
    assert all(o.result == (o.item, 10 * o.item, 10 * o.item + 1) for o in found if not o.error)
    assert all(outcome.seconds >= 0.002 * (outcome.item % 2) for outcome in found if outcome.result)
    assert sum(groups) == 9 and max(groups) <= batch_size


def test_what_the_network_raises_ends_it():
    def broken(prepared):
        raise ValueError("no network")

    with pytest.raises(ValueError, match="no network"):
        list(outcomes(range(3), np.sqrt, broken, print))


def test_who_stops_taking_cancels_what_waits():
    """One thread is at an item when the reader stops; those behind it are never begun."""
    begun, reached, gate = [], threading.Event(), threading.Event()

    def work(item):
        begun.append(item)
        if item == 1:
            reached.set()
            gate.wait(30)
        return item

    with ThreadPoolExecutor(1) as pool:
        results = window(pool, work, range(100), depth=5)
        assert next(results) == 0
        reached.wait(30)
        results.close()
        gate.set()
    assert begun == [0, 1]


def test_an_error_cancels_what_waits():
    begun = []

    def work(item):
        begun.append(item)
        time.sleep(0.001)
        raise ValueError("unread")

    with ThreadPoolExecutor(1) as pool, pytest.raises(ValueError, match="unread"):
        list(window(pool, work, range(100), depth=50))
    assert len(begun) < 50


def test_cores_are_counted_by_the_quota_of_the_container(tmp_path, monkeypatch):
    monkeypatch.setattr("os.sched_getaffinity", lambda _: set(range(8)), raising=False)
    quota = tmp_path / "cpu.max"
    for text, cores in (("max 100000", 8), ("200000 100000", 2), ("50000 100000", 1), ("", 8)):
        quota.write_text(text + "\n")
        assert core_count(str(quota)) == cores, text
    assert core_count(str(tmp_path / "none")) == 8


def test_processes_end_with_the_one_that_started_them(tmp_path):
    """However it ends: each writes its number and works on; then the first is killed."""
    script = f"""
import os, pathlib, time
from portraitnet.parallel import in_processes

def make():
    def work(item):
        pathlib.Path({str(tmp_path)!r}, str(os.getpid())).touch()
        time.sleep(60)
    return work

if __name__ == "__main__":
    list(in_processes(make, (), range(2), 2))
"""
    (tmp_path / "script").mkdir()
    path = tmp_path / "script" / "run.py"
    path.write_text(script)
    root = Path(__file__).parents[2]
    process = subprocess.Popen([sys.executable, path], env={**os.environ, "PYTHONPATH": str(root)})
    end = time.monotonic() + 60
    while len(numbers := [p.name for p in tmp_path.glob("[0-9]*")]) < 2:
        assert time.monotonic() < end and process.poll() is None
        time.sleep(0.05)
    process.kill()
    process.wait()
    end = time.monotonic() + 10
    while any(map(alive, numbers)):
        assert time.monotonic() < end, "a process lives on"
        time.sleep(0.05)


def alive(number):
    try:
        return ") Z " not in Path("/proc", number, "stat").read_text()
    except OSError:
        return False
