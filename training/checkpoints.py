"""A PortraitNet of Paddle behind the library's `Predictor`: checkpoints, and networks in memory."""

import functools
from pathlib import Path

from portraitnet.backends import WEIGHTS, Network, RunBatch, check_model_file, import_paddle, load
from portraitnet.predictor import Predictor

MODEL_PATH = WEIGHTS / "portraitnet.pdparams"  # the bundled checkpoint of `full`


def load_network(
    model_path: str | Path, backend: str, size: int | None = None, threads: int | None = None
) -> Network:
    """As `portraitnet.backends.load`, and checkpoints (.pdparams) with Paddle."""
    if backend != "paddle":
        return load(model_path, backend, size, threads)
    check_model_file(model_path, backend)
    paddle = import_paddle()
    from models.weights import load_model

    model = load_model(model_path)
    if threads is not None:
        paddle.base.core.set_num_threads(threads)
    return Network(runner(model), size or model.size)


# `Predictor`, which also runs checkpoints.
open_predictor = functools.partial(Predictor, load_network=load_network)


def runner(model) -> RunBatch:
    """A PortraitNet in evaluation mode as a function of batch -> probability (see `RunBatch`)."""
    paddle = import_paddle()

    def run_batch(batch):
        with paddle.no_grad():
            return model.probability(paddle.to_tensor(batch)).numpy()

    return run_batch
