"""What a training tells its user: lines, progress bar, log files, the end."""

import json
import math
import shlex
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
from tqdm import tqdm

from metrics import SELECTION, batch_counts, mean_iou, pixel_accuracy
from portraitnet.files import write_whole
from portraitnet.images import THRESHOLD
from training.plots import draw_curves


class Progress:
    """Progress bar, log lines, VisualDL's curves and timing of one epoch.

    Args:
        state: TrainingState, at the iteration where the epoch begins or is resumed.
        steps: iterations of the whole epoch.
        batch_size: photos in a step, over all processes.
        log_iter: iterations between log lines.
        writer: VisualDL's LogWriter; None in every process but the first, which alone reports.
    """

    def __init__(self, state, steps: int, batch_size: int, log_iter: int, writer):
        self.state, self.steps, self.log_iter, self.writer = state, steps, log_iter, writer
        self.batch_size, self.seconds_before = batch_size, state.seconds
        self.started, self.waited = time.perf_counter(), 0.0
        title = f"epoch {state.epoch + 1}"
        self.bar = tqdm(total=steps, initial=state.batch, desc=title, disable=writer is None)

    def timed(self, batches: Iterable) -> Iterator:
        """The batches; the time that the training waits for them is counted."""
        batches = iter(batches)
        while True:
            asked = time.perf_counter()
            batch = next(batches, None)
            self.waited += time.perf_counter() - asked
            if batch is None:
                return
            yield batch

    def log(self, terms: dict, lr: float, mask_logits, mask: np.ndarray) -> None:
        """Advance the bar; every `log_iter` iterations check the loss and print the report's line.

        Args:
            terms: name -> 0-d tensor; reading one makes a GPU wait, so it is done seldom.
            lr: learning rate of this iteration.
            mask_logits: (N or 2N, 2, H, W) tensor; the photometric copies are the last N.
            mask: (N, H, W) float32 0..1.

        Raises:
            FloatingPointError: the loss is not finite; every term is named.
        """
        state = self.state
        self.bar.update()
        if state.batch % self.log_iter and state.batch != self.steps:
            return
        values = {name: term.item() for name, term in terms.items()}
        if not math.isfinite(values["total"]):
            each = ", ".join(f"{name} {value}" for name, value in values.items())
            raise FloatingPointError(
                f"The loss is not finite in epoch {state.epoch + 1}, iteration {state.batch - 1} "
                f"({each}): use a smaller --lr, now {lr:g}."
            )
        if self.writer is None:
            return
        person = mask > THRESHOLD
        counts = batch_counts(mask_logits[-len(mask) :].argmax(1).numpy(), person).sum(0)
        accuracy, miou = pixel_accuracy(counts), mean_iou(counts)
        line = f"loss:{values['total']:.4f} , acc: {accuracy:.4f}, miou: {miou:.4f}"
        tqdm.write(f"iter {state.batch - 1} {line}")
        self.bar.set_postfix_str(f"{line}, {self.photos_per_second():.1f} photos/s")
        for name, value in (values | {"lr": lr, "accuracy": accuracy, "mean_iou": miou}).items():
            self.writer.add_scalar(f"train/{name}", value, state.step)

    def photos_per_second(self) -> float:
        """Mean speed over the whole epoch, the part before a resume included."""
        seconds = self.seconds_before + time.perf_counter() - self.started
        return self.state.batch * self.batch_size / seconds

    def finish(self) -> dict:
        """{"loss": mean of each term, "photos_per_second": float, "data_wait": fraction of the
        time}; the epoch's seconds are added to the state."""
        self.bar.close()
        speed, seconds = self.photos_per_second(), time.perf_counter() - self.started
        self.state.seconds += seconds
        sums, batches = self.state.sums, max(1, self.state.batch)
        return {
            "loss": {name: float(value) / batches for name, value in sums.items()},
            "photos_per_second": speed,
            "data_wait": self.waited / seconds,
        }


def print_epoch(history: Sequence[dict], epoch_costs: np.ndarray) -> None:
    """Print the last epoch's loss, speed and scores, and the time to go.

    Args:
        history: a dict for each finished epoch, the lines of log.jsonl.
        epoch_costs: each epoch's fraction of the training's time.
    """
    line, epoch = history[-1], len(history) - 1
    minutes = int(line["seconds"] * epoch_costs[epoch + 1 :].sum() / epoch_costs[epoch] / 60)
    print(
        f"epoch {epoch + 1} loss:{line['loss']['total']:.4f}, "
        f"{line['photos_per_second']:.2f} photos/s, {line['seconds']:.0f} s, "
        f"about {minutes // 60}:{minutes % 60:02} h to go",
        flush=True,
    )
    for name, summary in line["val"].items():
        print(
            "eval {name}: acc: {accuracy:.4f}, miou: {miou_raw:.4f}, person iou: "
            "{person_iou_smoothed:.4f}, boundary iou: {boundary_iou:.4f}".format(
                name=name, **summary
            )
        )


def write_history(history: Sequence[dict], output: Path) -> None:
    """Write log.jsonl and curves.svg whole, so that a killed and resumed run repeats no line."""
    lines = "".join(json.dumps(line) + "\n" for line in history)
    write_whole(output / "log.jsonl", lines.encode())
    write_whole(output / "curves.svg", draw_curves(history).encode())


def ending(history: Sequence[dict], output: Path, data_root: Sequence[str]) -> str:
    """What the user has now and may do next, a few lines."""
    best = max(history, key=lambda line: line["mean_person_iou"])
    scores = ", ".join(f"{name} {each[SELECTION]:.4f}" for name, each in best["val"].items())
    path, curves = output / "best.pdparams", output / "curves.svg"
    return f"""Done. Epoch {best["epoch"] + 1} of {len(history)} is the best, with a person IoU of:
  {scores} (validation photos)
  {path}   its weights (the same as model_{best["epoch"]}.pdparams: files are numbered from 0)
  {curves}   loss and scores of every epoch, for a browser
Next:
  python evaluate.py --model_path {path} --split val --data_root {shlex.join(data_root)}
  python predict.py photo.jpg --model_path {path}"""
