"""Photos and frames on their way through a network: reading, network and writing overlap."""

import os
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor, ThreadPoolExecutor
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


def core_count() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()


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
