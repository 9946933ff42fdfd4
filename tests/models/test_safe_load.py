import importlib
import os
import pickle

import numpy as np
import paddle
import pytest

import predict
import train
from models.safe_load import safe_load


class Crime:
    """Unpickled without care, it makes a folder."""

    def __init__(self, function, *arguments):
        self.function, self.arguments = function, arguments

    def __reduce__(self):
        return self.function, self.arguments


def crimes(folder):
    return {
        "os.system": Crime(os.system, f"mkdir {folder}"),
        "os.mkdir": Crime(os.mkdir, str(folder)),
        "builtins.eval": Crime(eval, f"__import__('os').mkdir({str(folder)!r})"),
        "importlib.import_module": Crime(importlib.import_module, "antigravity"),
    }


def hide(crime):
    """The same in all the places where a state has values."""
    tensor = ("linear.w", crime)
    yield from (crime, {"weight": crime}, {"model": {"weight": crime}}, {"weight": tensor})
    yield {"weight": np.ones(2, np.float32), "history": [{"deep": [crime]}]}


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
@pytest.mark.parametrize(
    "name", ["os.system", "os.mkdir", "builtins.eval", "importlib.import_module"]
)
def test_nothing_in_a_file_is_run(name, protocol, tmp_path):
    done, path = tmp_path / "done", tmp_path / "weights.pdparams"
    for state in hide(crimes(done)[name]):
        path.write_bytes(pickle.dumps(state, protocol))
        with pytest.raises(pickle.UnpicklingError, match="it wants to run"):
            safe_load(path)
        assert not done.exists()


def test_what_paddle_writes_comes_back(tmp_path):
    path = tmp_path / "state.pdstate"
    weights = {"a": paddle.rand([3, 2]), "b": paddle.zeros([1], "int64")}
    state = {"model": weights, "step": 3, "best": np.float64(0.5), "history": [{"loss": 1.0}]}
    for protocol in (2, 4):
        paddle.save(state, str(path), protocol=protocol)
        loaded = safe_load(path)
        assert loaded["step"] == 3 and loaded["best"] == 0.5
        assert loaded["history"] == [{"loss": 1.0}]
        for name, tensor in weights.items():
            assert isinstance(loaded["model"][name], paddle.Tensor)
            assert np.array_equal(loaded["model"][name].numpy(), tensor.numpy())


def test_the_commands_refuse_it_in_one_line(tmp_path, data_root, capsys):
    done, path = tmp_path / "done", tmp_path / "weights.pdparams"
    path.write_bytes(pickle.dumps({"weight": crimes(done)["os.mkdir"]}))
    photo = next((data_root / "Images").iterdir())
    assert predict.main([str(photo), "--model_path", str(path)]) == 1
    assert "wants to run" in (message := capsys.readouterr().err) and message.count("\n") == 1
    flags = ["--data_root", str(data_root), "--output", str(tmp_path / "out")]
    assert train.main([*flags, "--pretrained", str(path)]) == 1
    assert "wants to run" in capsys.readouterr().err
    (tmp_path / "out" / "resume.pdstate").write_bytes(path.read_bytes())
    assert train.main([*flags, "--resume"]) == 1
    assert "wants to run" in capsys.readouterr().err
    assert not done.exists()
