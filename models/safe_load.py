"""`paddle.load` for files that come from anywhere: nothing in them is run."""

import io
import pickle
from pathlib import Path

import paddle

# All that Paddle writes into weights and training states. A pickle may name any function of any
# module and have it called with any arguments, so whatever is not here ends the reading.
ALLOWED = {
    ("__builtin__", "tuple"),  # protocol 2's names, as is the codec for its bytes
    ("builtins", "tuple"),
    ("_codecs", "encode"),
    ("collections", "OrderedDict"),
    ("numpy", "dtype"),
    ("numpy", "ndarray"),
    ("numpy.core.multiarray", "_reconstruct"),  # before numpy 2
    ("numpy.core.multiarray", "scalar"),
    ("numpy._core.multiarray", "_reconstruct"),
    ("numpy._core.multiarray", "scalar"),
}


class AllowedUnpickler(pickle.Unpickler):
    """Builds arrays and containers, and refuses to look up anything else."""

    def find_class(self, module, name):
        if (module, name) not in ALLOWED:
            raise pickle.UnpicklingError(f"it wants to run {module}.{name}")
        return super().find_class(module, name)


def safe_load(path):
    """What `paddle.save` wrote.

    The bytes are read once and unpickled twice: by the unpickler above, which finds out what they
    want, and only then by Paddle, which makes tensors of them.

    Raises:
        OSError: the file cannot be read.
        pickle.UnpicklingError: it names something that is not in ALLOWED.
        Exception: of many kinds, where the file is damaged (`weights.DAMAGED`).
    """
    data = Path(path).read_bytes()
    AllowedUnpickler(io.BytesIO(data), encoding="latin1").load()
    return paddle.load(io.BytesIO(data))
