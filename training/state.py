"""The state of a training: what changes as it goes, and what `--resume` continues bit-exactly."""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import paddle
import paddle.distributed as dist

import kernels
from models import PortraitNet, PortraitNetLite
from models.weights import (
    are_weights,
    load_pretrained,
    load_state,
    load_whole,
    save_atomically,
)
from portraitnet.files import lock
from training.distributed import (
    StopRequest,
    average_gradients,
    average_statistics,
    join_processes,
)

HARMLESS = ("resume", "output", "log_iter", "sizes")  # settings that may change
DECIDING = ("batch_size", "seed")  # of the order of the photos
SELECTED = "mean_person_iou"  # of an epoch
# Errors of Paddle's optimizer and scaler when they are given a foreign state, from experiments.
FOREIGN = (
    AssertionError,
    AttributeError,
    ImportError,
    LookupError,
    MemoryError,
    OverflowError,
    RuntimeError,
    TypeError,
    ValueError,
)
RESUME_FILE = "resume.pdstate"  # in the training's folder; the epoch's weights lie beside it


class LossWeights(NamedTuple):
    """Weights of the two auxiliary losses beside the mask's cross-entropy."""

    edge: float
    consistency: float


@contextmanager
def lock_output(output: Path, resume: bool) -> Iterator[None]:
    """Keep the folder of a training to this process; the folder is made when missing.

    Raises:
        FileExistsError: another training is in it, or writes to it now.
    """
    output.mkdir(parents=True, exist_ok=True)
    if not resume and (output / RESUME_FILE).exists():
        raise FileExistsError(
            f"{output} holds another training: continue it with --resume or name another --output."
        )
    held = lock(output / "lock", wait=False)
    if held is None:
        raise FileExistsError(
            f"Another training is writing to {output}: wait for it or name another --output."
        )
    with held:
        yield


@dataclass
class TrainingState:
    """Networks, optimizer and place of a training.

    Attributes:
        average: PortraitNet with the averaged weights, or None.
        ema: decay of the averaged weights, 0..1.
        scaler: of mixed precision on a GPU, or None.
        threads: of the kernels.
        rank, world: number of this process, and of all.
        epoch: number of finished epochs.
        batch: finished iterations of the running epoch.
        step: finished iterations of all epochs.
        sums: of each loss term over the epoch's iterations; floats or 0-d tensors.
        seconds: that the epoch has taken.
        best: highest mean person IoU of an epoch.
        history: a dict for each finished epoch, the lines of log.jsonl.
        photos: `TrainingSamples.digest` of the training photos.
    """

    model: PortraitNet
    average: PortraitNet | None
    ema: float
    optimizer: paddle.optimizer.Optimizer
    scaler: paddle.amp.GradScaler | None
    threads: int = 1
    rank: int = 0
    world: int = 1
    epoch: int = 0
    batch: int = 0
    step: int = 0
    sums: dict = field(default_factory=dict)
    seconds: float = 0.0
    best: float = 0.0
    history: list = field(default_factory=list)
    photos: str = ""

    PLACE = ("epoch", "batch", "step", "best", "history")
    KEYS = {*PLACE, "sums", "model", "average", "optimizer", "scaler", "args"}  # of the file

    @property
    def evaluated(self) -> PortraitNet:
        """The model whose weights are scored and kept: the averaged one where there is one."""
        return self.model if self.average is None else self.average

    def forward(self, batch: np.ndarray) -> tuple[paddle.Tensor, paddle.Tensor]:
        """Batch (N, 3, H, W) float32 -> mask logits and edge logits (N, 2, H, W) float32."""
        # On a CPU the kernels convert inside the blocks; Paddle's casts would only add work.
        with paddle.amp.auto_cast(enable=self.scaler is not None):
            mask_logits, edge_logits = self.model(paddle.to_tensor(batch))
        return mask_logits.astype("float32"), edge_logits.astype("float32")

    def loss(
        self,
        mask_logits: paddle.Tensor,
        edge_logits: paddle.Tensor,
        mask: np.ndarray,
        edge: np.ndarray,
        weights: LossWeights,
    ) -> dict[str, paddle.Tensor]:
        """`losses.portrait_loss`, with mask (N, H, W) float32 0..1 and edge (N, H, W) uint8 0/1."""
        labels = paddle.to_tensor(mask), paddle.to_tensor(edge)
        return kernels.portrait_loss(
            mask_logits, edge_logits, *labels, *weights, threads=self.threads
        )

    def backward(self, loss: paddle.Tensor, stop: StopRequest) -> None:
        """Backward pass; gradients, and a wish to stop, are shared by all processes."""
        (loss if self.scaler is None else self.scaler.scale(loss)).backward()
        if self.world > 1:
            average_gradients(self.model, stop)

    def step_optimizer(self, lr: float) -> None:
        """One step of the optimizer at a learning rate; the gradients are cleared."""
        self.optimizer.set_lr(lr)
        if self.scaler is None:
            self.optimizer.step()
        else:
            self.scaler.step(self.optimizer)
            self.scaler.update()
        self.optimizer.clear_grad()

    def update_average(self) -> None:
        """Move averaged weights and BatchNorm statistics towards the model's; at first further."""
        if self.average is None:
            return
        decay = min(self.ema, (1 + self.step) / (10 + self.step))
        networks = self.average, self.model
        means, values = (list(network.state_dict().values()) for network in networks)
        kernels.move_average(means, values, 1 - decay)

    def count(self, terms: dict[str, paddle.Tensor]) -> None:
        """Count an iteration and add its loss terms to the sums."""
        self.step += 1
        self.batch += 1
        # Sums stay tensors: reading them would make a GPU wait in every iteration.
        for name, term in terms.items():
            self.sums[name] = self.sums.get(name, 0.0) + term.detach()

    def average_statistics(self) -> None:
        """Average BatchNorm's running statistics over the processes."""
        if self.world > 1:
            average_statistics(self.model, self.average)

    def check_finite(self) -> None:
        """Raise FloatingPointError if a weight is not finite."""
        for name, tensor in self.model.state_dict().items():
            if not bool(paddle.isfinite(tensor).all()):
                raise FloatingPointError(
                    f"The training diverged: {name} is not finite in epoch {self.epoch + 1}. "
                    f"Earlier checkpoints were kept; use a smaller --lr, now "
                    f"{self.optimizer.get_lr():g}."
                )

    def finish_epoch(self, result: dict, size: int, output: Path) -> None:
        """Write the epoch's checkpoint, and best.pdparams where it is the best, and its history.

        Args:
            result: what is known of the epoch; `mean_person_iou` chooses the best one.
            size: input size, pixels.
            output: folder.

        Raises:
            FloatingPointError: see `check_finite`; nothing is written.
        """
        self.check_finite()
        weights = self.evaluated.state_dict()
        save_atomically(weights, output / f"model_{self.epoch}.pdparams")
        if result[SELECTED] > self.best:
            self.best = result[SELECTED]
            save_atomically(weights, output / "best.pdparams")
        head = {"epoch": self.epoch, "size": size, "seconds": round(self.seconds, 1)}
        self.history.append(head | result)

    def next_epoch(self) -> None:
        """Go to the beginning of the next epoch."""
        self.epoch, self.batch, self.sums, self.seconds = self.epoch + 1, 0, {}, 0.0

    def save(self, settings: dict, output: Path) -> None:
        """Write RESUME_FILE.

        Raises:
            FloatingPointError: see `check_finite`; the earlier file is kept.
        """
        self.check_finite()
        state = {name: getattr(self, name) for name in self.PLACE}
        state |= {"seconds": self.seconds, "photos": self.photos}
        state["sums"] = {name: float(value) for name, value in self.sums.items()}
        state |= {"model": self.model.state_dict(), "optimizer": self.optimizer.state_dict()}
        state["average"] = None if self.average is None else self.average.state_dict()
        state["scaler"] = None if self.scaler is None else self.scaler.state_dict()
        save_atomically(state | {"args": settings}, output / RESUME_FILE)

    def load(self, settings: dict, output: Path) -> list[str]:
        """Continue from what `save` wrote.

        Returns:
            list of sentences for the user.

        Raises:
            FileNotFoundError: there is nothing to resume in `output`.
            ValueError: its file is damaged or of another network, or what decides the order of the
                photos has changed within an epoch.
        """
        path = output / RESUME_FILE
        if not path.is_file():
            raise FileNotFoundError(
                f"There is no {path} to resume from; start without --resume or name the run's "
                "--output."
            )
        state = load_whole(path)
        if not self.is_state(state):
            raise ValueError(f"{path} is no state of a training; start without --resume.")
        notes = self.compare(settings, state)
        load_state(self.model, state["model"], path)
        if self.average is not None:
            if state["average"] is None:
                raise ValueError(
                    f"The run in {output} kept no averaged weights; resume it with --ema 0."
                )
            load_state(self.average, state["average"], path)
        try:
            self.optimizer.set_state_dict(state["optimizer"])
            if self.scaler is not None:
                self.scaler.load_state_dict(state["scaler"])
        except FOREIGN as error:
            raise ValueError(f"{path} holds no state of this optimizer ({error}).") from None
        for name in (*self.PLACE, "sums"):
            setattr(self, name, state[name])
        self.seconds = state.get("seconds", 0.0)
        return notes

    def is_state(self, state):
        """Whether an object has the parts that `save` writes, but for what is checked later."""
        if not isinstance(state, dict) or not state.keys() >= self.KEYS:
            return False
        counts, history = (state["epoch"], state["batch"], state["step"]), state["history"]
        return (
            all(isinstance(count, int) and 0 <= count < 2**31 for count in counts)
            and isinstance(state["best"], (int, float))
            and all(isinstance(state[name], dict) for name in ("optimizer", "sums", "args"))
            and are_weights(state["model"])
            and (state["average"] is None or are_weights(state["average"]))
            and all(isinstance(value, (int, float)) for value in state["sums"].values())
            and isinstance(history, list)
            and len(history) == state["epoch"]
            and all(isinstance(line, dict) and {"val", SELECTED} <= line.keys() for line in history)
        )

    def compare(self, settings: dict, state: dict) -> list[str]:
        """Sentences on what is not as it was when the state was saved.

        Raises:
            ValueError: within an epoch, it is what decides which photos are left of it.
        """
        changed = {
            name: f"--{name} {value} (was {state['args'][name]})"
            for name, value in settings.items()
            if name not in HARMLESS and state["args"].get(name, value) != value
        }
        if state.get("photos", self.photos) != self.photos:
            changed["photos"] = "the training photos are not the same"
        deciding = [message for name, message in changed.items() if name in ("photos", *DECIDING)]
        if state["batch"] and deciding:
            raise ValueError(
                f"The run stopped within epoch {state['epoch']}, and what decides which photos are "
                f"left of it has changed: {', '.join(deciding)}; resume it as it was."
            )
        message = ", ".join(changed.values())
        return [f"Going on, but not as before: {message}."] if changed else []


def make_state(
    pretrained: Sequence[str],
    width: float,
    lr: float,
    weight_decay: float,
    ema: float,
    seed: int,
    amp: bool,
    lite: bool = False,
) -> tuple[TrainingState, list[str]]:
    """A fresh state, on the GPU if there is one, and sentences for the user.

    Args:
        pretrained: see `load_pretrained`.
        width: factor on the network's channels.
        lr, weight_decay: of AdamW.
        ema: decay of the averaged weights; 0 for none.
        seed: of the random weights.
        amp: mixed precision.
        lite: PortraitNetLite instead of PortraitNet; it has no width.

    Raises:
        RuntimeError: mixed precision is asked for and neither GPU nor processor has it.
    """
    device = choose_device(amp)
    join_processes(device)
    paddle.seed(seed)
    network = PortraitNetLite if lite else partial(PortraitNet, width=width)
    model = network()
    processes = int(os.environ.get("PADDLE_LOCAL_SIZE", 1))  # on this machine
    threads = max(1, kernels.core_count() // processes)
    notes = [f"Training on the {device.upper()}.", load_pretrained(model, *pretrained)]
    # From here on the model's blocks run this project's C++ instead of their own `forward`.
    notes.append(kernels.accelerate(model, threads, half=amp and device == "cpu"))
    average = None
    if ema:
        average = network()
        average.set_state_dict(model.state_dict())
        kernels.accelerate(average, threads)
    # Weight decay on convolution weights alone.
    decayed = {p.name for p in model.parameters() if p.ndim > 1}
    optimizer = paddle.optimizer.AdamW(
        learning_rate=lr,
        parameters=[p for p in model.parameters() if not p.stop_gradient],
        weight_decay=weight_decay,
        apply_decay_param_fun=lambda name: name in decayed,
    )
    scaler = paddle.amp.GradScaler() if amp and device == "gpu" else None
    place = {"threads": threads, "rank": dist.get_rank(), "world": dist.get_world_size()}
    return TrainingState(model, average, ema, optimizer, scaler, **place), notes


def choose_device(amp: bool) -> str:
    """Set Paddle's device, the GPU if there is one, and return its name.

    Raises:
        RuntimeError: see `make_state`.
    """
    has_gpu = paddle.is_compiled_with_cuda() and paddle.device.cuda.device_count() > 0
    if amp and not has_gpu and not kernels.has_bfloat16():
        raise RuntimeError(
            "--amp needs a GPU or a processor with AVX512-BF16, and this has neither; leave it out."
        )
    device = "gpu" if has_gpu else "cpu"
    paddle.set_device(device)
    return device
