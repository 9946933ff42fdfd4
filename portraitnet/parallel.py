"""Photos and frames on their way through a network: read, run and finished at once, in order."""

import os
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor, ThreadPoolExecutor
from itertools import count, islice
from typing import Any, NamedTuple

import cv2

FAILURES = (OSError, ValueError, MemoryError, cv2.error)  # of one item: the others go on
END = object()


def core_count() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()


class Outcome(NamedTuple):
    """What became of one item.

    Attributes:
        item: as it was given.
        result: what was made of it.
        error: one of FAILURES instead of a result, or None.
        seconds: spent on it, waiting left out.
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
    """Prepare, run and finish items; the three overlap, and few items are in memory at a time.

    Args:
        items: anything; with one reader they are made in its thread, as a video's frames want it.
        prepare: function of an item -> what the network sees of it and `finish` needs.
        network: function of a list of prepared items -> an answer for each; called in their order.
        finish: function of an item, as prepared, and its answer -> result; called in two threads.
        readers: threads that prepare.
        depth: items that each of the three may be ahead of the next.
        batch_size: items that the network sees at once.

    Yields:
        an Outcome for each item, in their order. What `items` or `network` raise ends it.
    """

    def start(item):
        return attempt(Outcome(item), prepare, item)

    def run(prepared):
        prepared = iter(prepared)
        while group := list(islice(prepared, batch_size)):
            whole = [outcome for outcome in group if outcome.error is None]
            began = time.perf_counter()
            answers = iter(network([outcome.result for outcome in whole]) if whole else ())
            share = (time.perf_counter() - began) / max(1, len(whole))
            for outcome in group:
                if outcome.error is None:
                    outcome = outcome._replace(
                        result=(outcome.result, next(answers)), seconds=outcome.seconds + share
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
    """The outcome after one step more, with its result or its error."""
    began = time.perf_counter()
    try:
        result, error = function(*arguments), None
    except FAILURES as failure:
        result, error = None, failure
    seconds = outcome.seconds + time.perf_counter() - began
    return Outcome(outcome.item, result, error, seconds)


def ahead(function: Callable, items: Iterable, depth: int, threads: int = 2) -> Iterator:
    """What `function` makes of items, in order, at most `depth` ahead of who takes it."""
    with ThreadPoolExecutor(threads) as pool:
        yield from window(pool, function, items, depth)


def window(pool: Executor, function: Callable, items: Iterable, depth: int) -> Iterator:
    """What `function` makes of items in a pool, in order; who stops taking cancels the rest."""
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
    """The items, made in a thread of their own and up to `depth` ahead of who takes them."""
    items = iter(items)
    for item in ahead(lambda _: next(items, END), count(), depth, threads=1):
        if item is END:
            return
        yield item
