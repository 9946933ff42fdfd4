"""The state of a training: what `--resume` needs to go on bit for bit."""

from dataclasses import dataclass, field

import paddle

import kernels
from files import lock
from models import PortraitNet
from models.weights import are_weights, load_state, load_whole, save_atomically

HARMLESS = ("resume", "output", "num_workers", "cache_dir", "log_iter", "sizes")  # if changed
DECIDING = ("batch_size", "seed")  # of the order of the photos
SELECTED = "mean_person_iou"  # of an epoch
# What Paddle's optimizer and scaler raise when they are given another's state, by trial.
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
RESUME_FILE = "resume.pdstate"  # in the run's folder; the epoch's weights lie beside it


def claim(output, resume):
    """Keep the folder of a run to this process; it is made when missing.

    Returns:
        what holds the lock: keep it.

    Raises:
        FileExistsError: another run is in it, or writes to it now.
    """
    output.mkdir(parents=True, exist_ok=True)
    if not resume and (output / RESUME_FILE).exists():
        raise FileExistsError(
            f"{output} holds another run; go on with --resume or name another --output."
        )
    held = lock(output / "lock", wait=False)
    if held is None:
        raise FileExistsError(
            f"Another training is writing to {output}: wait for it or name another --output."
        )
    return held


@dataclass
class Run:
    """What a training changes as it goes, and `--resume` needs to go on bit for bit.

    Attributes:
        average: PortraitNet with the averaged weights, None without --ema.
        scaler: of mixed precision on a GPU, or None.
        epoch: the one that runs.
        batch: iterations of it that are done.
        step: iterations in all.
        sums: of each loss term over the epoch's iterations; floats or 0-d tensors.
        seconds: that the epoch has taken.
        best: highest mean person IoU of an epoch.
        photos: `TrainingSamples.digest` of what it is trained on.
        history: a dict for each epoch that is done, the lines of log.jsonl.
    """

    model: PortraitNet
    average: PortraitNet | None
    optimizer: paddle.optimizer.Optimizer
    scaler: paddle.amp.GradScaler | None
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
    def evaluated(self):
        """The model whose weights are scored and kept: the averaged one where there is one."""
        return self.model if self.average is None else self.average

    def update_average(self, decay):
        """Move averaged weights and BatchNorm statistics towards the model's; at first further."""
        decay = min(decay, (1 + self.step) / (10 + self.step))
        networks = self.average, self.model
        means, values = (list(network.state_dict().values()) for network in networks)
        kernels.move_average(means, values, 1 - decay)

    def save(self, args, output):
        """Write RESUME_FILE."""
        state = {name: getattr(self, name) for name in self.PLACE}
        state |= {"seconds": self.seconds, "photos": self.photos}
        state["sums"] = {name: float(value) for name, value in self.sums.items()}
        state |= {"model": self.model.state_dict(), "optimizer": self.optimizer.state_dict()}
        state["average"] = None if self.average is None else self.average.state_dict()
        state["scaler"] = None if self.scaler is None else self.scaler.state_dict()
        save_atomically(state | {"args": vars(args)}, output / RESUME_FILE)

    def load(self, args, output):
        """Take up what `save` wrote.

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
        notes = self.compare(args, state)
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

    def compare(self, args, state):
        """Sentences on what is not as it was when the state was saved.

        Raises:
            ValueError: within an epoch, it is what decides which photos are left of it.
        """
        changed = {
            name: f"--{name} {value} (was {state['args'][name]})"
            for name, value in vars(args).items()
            if name not in HARMLESS and state["args"].get(name, value) != value
        }
        if state.get("photos", self.photos) != self.photos:
            changed["photos"] = "the training photos are not the same"
        deciding = [told for name, told in changed.items() if name in ("photos", *DECIDING)]
        if state["batch"] and deciding:
            raise ValueError(
                f"The run stopped within epoch {state['epoch']}, and what decides which photos are "
                f"left of it has changed: {', '.join(deciding)}; resume it as it was."
            )
        told = ", ".join(changed.values())
        return [f"Going on, but not as before: {told}."] if changed else []
