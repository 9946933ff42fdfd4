"""Photos and frames on their way through a network: reading, network and writing overlap."""

import ctypes
import multiprocessing
import os
import signal
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from itertools import count, islice
from typing import Any, NamedTuple

import cv2

FAILURES = (
    OSError,
    ValueError,
    MemoryError,
    cv2.error,
)  # errors of one item; the other items continue
END = object()


def core_count(quota_file: str = "/sys/fs/cgroup/cpu.max") -> int:
    """Cores that this process may use, by its affinity and by the quota of its container.

    Args:
        quota_file: of Linux's control groups: microseconds of all cores in a period, or "max".
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    try:
        with open(quota_file) as file:
            quota, period = map(int, file.read().split())
    except (OSError, ValueError):  # no such system, or no quota
        return cores
    return max(1, min(cores, round(quota / period)))


class Outcome(NamedTuple):
    """The result of one item.

    Attributes:
        item: the item itself.
        result: what `finish` returned.
        error: one of FAILURES instead of a result, or None.
        seconds: time spent on the item, without waiting.
    """

    item: Any
    result: Any = None
    error: Exception | None = None
    seconds: float = 0.0


def outcomes(
    items: Iterable,
    prepare: Callable,
    network: Callable[[list], Iterable],
    finish: Callable,
    readers: int = 1,
    depth: int = 4,
    batch_size: int = 1,
) -> Iterator[Outcome]:
    """Prepare, run and finish items; the three steps overlap, with few items in memory at a time.

    Args:
        items: anything; a single reader makes them in its own thread, in order, as videos need.
        prepare: function of an item -> input of `network` and `finish`.
        network: function of a list of prepared items -> one answer each; called in order.
        finish: function of an item, its prepared form and its answer -> result; in two threads.
        readers: number of threads that prepare.
        depth: number of items by which each step may be ahead of the next.
        batch_size: items in a batch of the network.

    Yields:
        an Outcome for each item, in order. Errors of `items` or `network` end the iteration.
    """

    def start(item):
        return attempt(Outcome(item), prepare, item)

    def run(prepared):
        prepared = iter(prepared)
        while group := list(islice(prepared, batch_size)):
            whole = [outcome for outcome in group if outcome.error is None]
            began = time.perf_counter()
            answers = iter(network([outcome.result for outcome in whole]) if whole else ())
            seconds = (time.perf_counter() - began) / max(1, len(whole))
            for outcome in group:
                if outcome.error is None:
                    outcome = outcome._replace(
                        result=(outcome.result, next(answers)), seconds=outcome.seconds + seconds
                    )
                yield outcome

    def end(outcome):
        if outcome.error is not None:
            return outcome
        return attempt(outcome, finish, outcome.item, *outcome.result)

    if readers == 1:
        prepared = in_thread(map(start, items), depth)
    else:
        prepared = ahead(start, items, depth, readers)
    return ahead(end, in_thread(run(prepared), depth), depth)


def attempt(outcome: Outcome, function: Callable, *arguments) -> Outcome:
    """The outcome after one more step, with its result or its error."""
    began = time.perf_counter()
    try:
        result, error = function(*arguments), None
    except FAILURES as failure:
        result, error = None, failure
    seconds = outcome.seconds + time.perf_counter() - began
    return Outcome(outcome.item, result, error, seconds)


def ahead(function: Callable, items: Iterable, depth: int, threads: int = 2) -> Iterator:
    """Results of `function`, in order, at most `depth` ahead of the consumer."""
    with ThreadPoolExecutor(threads) as pool:
        yield from window(pool, function, items, depth)


def window(pool: Executor, function: Callable, items: Iterable, depth: int) -> Iterator:
    """Results of `function` from a pool, in order; a consumer that stops cancels the rest."""
    items = iter(items)
    futures = deque(pool.submit(function, item) for item in islice(items, depth))
    try:
        while futures:
            yield futures.popleft().result()
            futures.extend(pool.submit(function, item) for item in islice(items, 1))
    finally:
        for future in futures:
            future.cancel()


def in_thread(items: Iterable, depth: int) -> Iterator:
    """The items, made in a thread of their own, up to `depth` ahead of the consumer."""
    items = iter(items)
    for item in ahead(lambda _: next(items, END), count(), depth, threads=1):
        if item is END:
            return
        yield item


def in_processes(
    make: Callable[..., Callable], arguments: tuple, items: Iterable, processes: int
) -> Iterator:
    """The results of a function for each item, in order, each computed in one of some processes.

    Args:
        make: called with `arguments` once in each process; it returns the function of an item.
            Everything that goes to and from a process is pickled.
        processes: number of processes.

    Raises:
        RuntimeError: a process was ended from outside, mostly for lack of memory.
    """
    context = multiprocessing.get_context("spawn")  # a fork would copy threads' locks
    try:
        with ProcessPoolExecutor(processes, context, _start_process, (make, arguments)) as pool:
            yield from window(pool, _call, items, depth=2 * processes)
    except BrokenProcessPool:
        raise RuntimeError(
            "A process was ended while it worked, mostly for lack of memory: free some and run "
            "the command again."
        ) from None


def _start_process(make, arguments):
    global _function
    become_worker()
    _function = make(*arguments)


def _call(item):
    return _function(item)


def keep_memory() -> None:
    """Let the process keep freed memory for the next photo, where the C library is glibc.

    By default glibc gives the memory of every larger array back at once, and the system clears each
    page anew: a quarter of the time of `effects.person_colors`.
    """
    mmap_threshold, trim_threshold = -3, -1  # from malloc.h
    with suppress(OSError, AttributeError, TypeError):
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(mmap_threshold, 2**25)  # larger arrays are rare, and would be kept for long
        mallopt(trim_threshold, 2**27)


def become_worker() -> None:
    """Make this process one of several, each on a core of its own: OpenCV has one thread, Ctrl-C is
    left to the process that started this one, and this one ends with it, however it ends.
    """
    keep_memory()
    cv2.setNumThreads(1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()

    def follow():
        parent.join()
        os._exit(1)

    threading.Thread(target=follow, daemon=True).start()
