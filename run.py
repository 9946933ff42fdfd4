"""The state of a training: what `--resume` needs to go on bit for bit."""

from dataclasses import dataclass, field

import paddle

import kernels
from models import PortraitNet
from models.weights import load_state, load_whole, save_atomically

RESUME_FILE = "resume.pdstate"  # in the run's folder; the epoch's weights lie beside it


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
        state["seconds"] = self.seconds
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
            ValueError: its file is damaged or of another network.
        """
        path = output / RESUME_FILE
        if not path.is_file():
            raise FileNotFoundError(
                f"There is no {path} to resume from; start without --resume or name the run's "
                "--output."
            )
        state = load_whole(path)
        if not isinstance(state, dict) or not state.keys() >= self.KEYS:
            raise ValueError(f"{path} is no state of a training; start without --resume.")
        load_state(self.model, state["model"], path)
        if self.average is not None:
            if state["average"] is None:
                raise ValueError(
                    f"The run in {output} kept no averaged weights; resume it with --ema 0."
                )
            load_state(self.average, state["average"], path)
        self.optimizer.set_state_dict(state["optimizer"])
        if self.scaler is not None:
            self.scaler.load_state_dict(state["scaler"])
        for name in (*self.PLACE, "sums"):
            setattr(self, name, state[name])
        self.seconds = state.get("seconds", 0.0)
        harmless = ("resume", "output", "num_workers", "cache_dir", "log_iter", "sizes")
        changed = [
            f"--{name} {value} (was {state['args'][name]})"
            for name, value in vars(args).items()
            if name not in harmless and state["args"].get(name, value) != value
        ]
        return [f"Going on with other arguments: {', '.join(changed)}."] if changed else []
