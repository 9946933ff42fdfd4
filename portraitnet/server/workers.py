"""Processes that each hold one network: a job goes to the next free one; what dies is replaced."""

import multiprocessing
import signal
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from queue import Queue
from typing import Any, NamedTuple

from portraitnet.cli import MISTAKES, sentence
from portraitnet.parallel import Outcome, attempt, become_worker

START_SECONDS = 120.0  # that a network may take to load
PAUSE = 1.0  # seconds between two starts that fail


class RefusedError(ValueError):
    """What the function of a job raised, in one sentence."""


class Job(NamedTuple):
    """What waits for a process.

    Attributes:
        item: argument of the function.
        deadline: in seconds of `time.monotonic`.
        future: of the result.
    """

    item: Any
    deadline: float
    future: Future


class Workers:
    """Some processes with the same function.

    A process has one job at a time, so a photo never waits for another one's batch or shape. A
    process that ends, or that has not answered by its job's deadline, is replaced.

    Args:
        make: called with `arguments` once in each process; it returns the function of an item.
            Everything that goes to and from a process is pickled.
        count: number of processes.

    Attributes:
        ready: number of processes that have their function.
        replaced: number of processes that were replaced.

    Raises:
        RuntimeError: a process could not make its function; the message is the sentence why.
    """

    def __init__(self, make: Callable[..., Callable], arguments: tuple, count: int):
        self.start = lambda: Process(make, arguments)
        self.jobs, self.closed = Queue(), threading.Event()
        self.ready = self.replaced = 0
        self.lock = threading.Lock()
        self.processes = [self.start() for _ in range(count)]  # they load at the same time
        try:
            for process in self.processes:
                process.wait()
        except RuntimeError:
            self.close()
            raise
        self.ready = count
        for index in range(count):
            threading.Thread(target=self._run, args=(index,), daemon=True).start()

    def submit(self, item: Any, deadline: float) -> Future:
        """The future result of an item.

        Args:
            deadline: in seconds of `time.monotonic`.

        Its exceptions: RefusedError by the function, TimeoutError at the deadline,
        ChildProcessError where the process ended.
        """
        job = Job(item, deadline, Future())
        self.jobs.put(job)
        return job.future

    def close(self) -> None:
        """End the processes; jobs that wait are not done."""
        self.closed.set()
        for process in self.processes:
            self.jobs.put(None)
            process.end()

    def _run(self, index):
        """Give jobs to one process, and then to the one that replaces it."""
        while (job := self.jobs.get()) is not None and not self.closed.is_set():
            if not job.future.set_running_or_notify_cancel():
                continue
            if time.monotonic() > job.deadline:
                job.future.set_exception(TimeoutError())
                continue
            try:
                result, refusal = self.processes[index].call(job.item, job.deadline)
            except (EOFError, OSError) as error:
                late = isinstance(error, TimeoutError)
                job.future.set_exception(TimeoutError() if late else ChildProcessError())
                self._replace(index)
            else:
                if refusal is None:
                    job.future.set_result(result)
                else:
                    job.future.set_exception(RefusedError(refusal))

    def _replace(self, index):
        self._count(ready=-1, replaced=1)
        while not self.closed.is_set():
            self.processes[index].end()
            self.processes[index] = self.start()
            try:
                self.processes[index].wait()
            except RuntimeError:  # no memory yet, say; the other processes go on
                self.closed.wait(PAUSE)
            else:
                self._count(ready=1)
                return

    def _count(self, ready=0, replaced=0):
        with self.lock:
            self.ready += ready
            self.replaced += replaced


class Process:
    """One process and the pipe to it; see `Workers`."""

    def __init__(self, make, arguments):
        context = multiprocessing.get_context("spawn")  # a fork would copy threads' locks
        self.pipe, there = context.Pipe()
        self.process = context.Process(target=_work, args=(there, make, arguments), daemon=True)
        self.process.start()
        there.close()  # or its end could not be seen here

    def wait(self):
        """Until the function is made; RuntimeError with a sentence if it cannot be."""
        try:
            refusal = self.pipe.recv() if self.pipe.poll(START_SECONDS) else "It takes too long."
        except (EOFError, OSError):
            refusal = "A process ended while it loaded the network: see whether memory is free."
        if refusal is not None:
            raise RuntimeError(refusal)

    def call(self, item, deadline):
        """(result, None) or (None, refusal); TimeoutError, EOFError or OSError if neither comes."""
        self.pipe.send(item)
        if not self.pipe.poll(max(0, deadline - time.monotonic())):
            raise TimeoutError
        return self.pipe.recv()

    def end(self):
        self.pipe.close()
        self.process.kill()
        self.process.join()


def _work(pipe, make, arguments):
    """What a process does until its pipe is closed."""
    become_worker()
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # a service manager sends it to all at once
    try:
        function = make(*arguments)
    except MISTAKES as error:
        pipe.send(sentence(error))
        return
    pipe.send(None)
    while True:
        try:
            item = pipe.recv()
        except EOFError:
            return
        outcome = attempt(Outcome(None), function, item)
        pipe.send((outcome.result, outcome.error and sentence(outcome.error)))
        del item, outcome  # not kept while it waits
