"""Batches of training samples, read and augmented by worker processes."""

import ctypes
import multiprocessing
import os
import signal
import sys
from concurrent.futures import ProcessPoolExecutor

import cv2
import numpy as np

from portraitnet.parallel import core_count, window

PR_SET_PDEATHSIG = 1  # Linux, sys/prctl.h


def default_workers(processes: int) -> int:
    """Worker processes for one of `processes` trainings: 2, but no more than the other cores.

    0 where workers cannot be forked, as on Windows.
    """
    if "fork" not in multiprocessing.get_all_start_methods():
        return 0
    return max(0, min(2, core_count() // processes - 1))


def load_batches(samples, steps, epoch, strength, num_workers):
    """Read and augment batches in worker processes, at most two a worker ahead of their use.

    Args:
        samples: TrainingSamples.
        steps: list of (network input shape, list of indices).
        epoch, strength: of `TrainingSamples.sample`.
        num_workers: processes; 0 reads in this one.

    Yields:
        [image, texture, mask, edge] for each step in order, with a leading batch axis.

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


def load_batch(samples, input_shape, indices, epoch, strength):
    """[image, texture, mask, edge] of a list of indices, stacked."""
    drawn = (samples.sample(index, input_shape, epoch, strength) for index in indices)
    return [np.stack(arrays) for arrays in zip(*drawn)]


def worker_init(samples, training):
    """A worker is one thread, leaves Ctrl-C to the training, and ends with it, come what may."""
    global _worker_samples
    _worker_samples = samples  # by the fork, once; with every job it would be pickled
    cv2.setNumThreads(0)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != training:  # it ended before it could be asked for
            os._exit(1)


def worker_batch(job):
    """`load_batch` in a worker."""
    return load_batch(_worker_samples, *job)
