"""Batches of training samples, read and augmented by worker processes."""

import ctypes
import multiprocessing
import os
import signal
import sys
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor

import cv2
import numpy as np

from data.portraits import TrainingSamples
from portraitnet.parallel import core_count, window

PR_SET_PDEATHSIG = 1  # Linux, sys/prctl.h
Step = tuple[tuple[int, int], Sequence[int]]  # input shape (h, w), indices of the photos


def default_workers(processes: int) -> int:
    """The number of worker processes for each of `processes` training processes.

    Returns:
        2, or fewer if the machine has no free cores for them; 0 on systems without fork.
    """
    if "fork" not in multiprocessing.get_all_start_methods():
        return 0
    return max(0, min(2, core_count() // processes - 1))


def load_batches(
    samples: TrainingSamples,
    steps: Sequence[Step],
    epoch: int,
    strength: float,
    num_workers: int,
) -> Iterator[list[np.ndarray]]:
    """Read and augment batches in worker processes, at most two a worker ahead of their use.

    Args:
        samples: the training photos.
        steps: (input shape (h, w), indices of the photos) of each batch.
        epoch, strength: see `TrainingSamples.sample`.
        num_workers: number of worker processes; 0 reads in the calling process.

    Yields:
        [image, photometric copy, mask, edge] of each step in order: the arrays of
        `TrainingSamples.sample` with a leading batch axis.

    Raises:
        FileNotFoundError, ValueError: a photo cannot be read.
    """
    jobs = ((input_shape, indices, epoch, strength) for input_shape, indices in steps)
    if num_workers == 0:
        yield from (load_batch(samples, *job) for job in jobs)
        return
    context = multiprocessing.get_context("fork")
    with ProcessPoolExecutor(num_workers, context, worker_init, (samples, os.getpid())) as pool:
        yield from window(pool, worker_batch, jobs, depth=2 * num_workers + 1)


def load_batch(
    samples: TrainingSamples,
    input_shape: tuple[int, int],
    indices: Iterable[int],
    epoch: int,
    strength: float,
) -> list[np.ndarray]:
    """One batch of `load_batches`."""
    drawn = (samples.sample(index, input_shape, epoch, strength) for index in indices)
    return [np.stack(arrays) for arrays in zip(*drawn)]


def worker_init(samples: TrainingSamples, training: int) -> None:
    """Prepare a worker: one thread, Ctrl-C left to the training, which the worker never outlives.

    Args:
        samples: the training photos.
        training: process number of the training.
    """
    global _worker_samples
    _worker_samples = samples  # passed once by the fork, so that no job has to pickle it
    cv2.setNumThreads(0)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != training:  # the training ended before prctl
            os._exit(1)


def worker_batch(job: tuple) -> list[np.ndarray]:
    """`load_batch` in a worker; `job` holds its arguments after `samples`."""
    return load_batch(_worker_samples, *job)
