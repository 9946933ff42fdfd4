"""A PortraitNet of Paddle behind the library's `Predictor`: checkpoints, and networks in memory."""

from pathlib import Path

from portraitnet.backends import AUTO, WEIGHTS, RunBatch, check_model_file, choose, import_paddle
from portraitnet.geometry import SIZE
from portraitnet.predictor import Predictor

MODEL_PATH = WEIGHTS / "portraitnet.pdparams"  # the bundled checkpoint of `full`


def open_predictor(
    model_path: str | Path | None = None,
    backend: str = AUTO,
    refine: bool = True,
    size: int | None = None,
    threads: int | None = None,
    photos: int | None = None,
) -> Predictor:
    """`Predictor`, which also runs checkpoints (.pdparams) with Paddle.

    Args and errors: see `Predictor`.
    """
    choice = choose(model_path, backend, photos)
    if choice.backend != "paddle":
        return Predictor(model_path, backend, refine, size, threads, photos)
    check_model_file(choice.path, choice.backend)
    paddle = import_paddle()
    from models.weights import load_model

    model = load_model(choice.path)
    if threads is not None:
        paddle.base.core.set_num_threads(threads)
    predictor = Predictor.of(runner(model), size or choice.size or SIZE, refine)
    predictor.model_path, predictor.backend = choice.path, choice.backend
    return predictor


def runner(model) -> RunBatch:
    """A PortraitNet in evaluation mode as a function of batch -> probability (see `RunBatch`)."""
    paddle = import_paddle()

    def run_batch(batch):
        with paddle.no_grad():
            return model.probability(paddle.to_tensor(batch)).numpy()

    return run_batch
