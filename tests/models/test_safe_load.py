"""Files of weights: what Paddle writes comes back as `paddle.load` gives it, and what means harm is
refused in one sentence, within a second and MEMORY, in a process of its own that may crash."""

import base64
import importlib
import io
import json
import os
import pickle
import re
import struct
import subprocess
import sys
from collections import OrderedDict
from pathlib import Path

import numpy as np
import paddle
import pytest

import predict
import train
from models import PortraitNet
from models.safe_load import safe_load
from models.weights import load_whole
from training.state import RESUME_FILE, TrainingState

ROOT = Path(__file__).parents[2]
MEMORY = 200 * 2**20  # bytes that a file may take, besides what Paddle takes when it is imported
PROTOCOLS = (2, 3, 4)  # of paddle.save


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
        with pytest.raises(ValueError, match="it wants to run"):
            safe_load(path)
        assert not done.exists()


def test_the_commands_refuse_it_in_one_line(tmp_path, data_root, capsys):
    done, path = tmp_path / "done", tmp_path / "weights.pdparams"
    path.write_bytes(pickle.dumps({"weight": crimes(done)["os.mkdir"]}))
    photo = next((data_root / "Images").iterdir())
    assert predict.main([str(photo), "--model_path", str(path)]) == 1
    assert "wants to run" in (message := capsys.readouterr().err) and message.count("\n") == 1
    flags = ["--data_root", str(data_root), "--output", str(tmp_path / "out")]
    for flag in ("--pretrained", "--teacher"):
        assert train.main([*flags, flag, str(path)]) == 1
        assert "wants to run" in capsys.readouterr().err
    (tmp_path / "out" / RESUME_FILE).write_bytes(path.read_bytes())
    assert train.main([*flags, "--resume"]) == 1
    assert "wants to run" in capsys.readouterr().err
    assert not done.exists()


# What Paddle writes comes back.


def same(one, other):
    """Whether two values are equal to the bit, of the same types, tensors with the same names."""
    if type(one) is not type(other):
        return False
    if isinstance(one, paddle.Tensor):
        names = {re.sub("^generated_tensor_[0-9]+$", "", tensor.name) for tensor in (one, other)}
        return len(names) == 1 and one.dtype == other.dtype and same(one.numpy(), other.numpy())
    if isinstance(one, np.ndarray):
        kinds = [(each.dtype, each.shape, each.tobytes()) for each in (one, other)]
        return kinds[0] == kinds[1]
    if isinstance(one, dict):
        return same(list(one.items()), list(other.items()))
    if isinstance(one, (list, tuple)):
        return len(one) == len(other) and all(map(same, one, other))
    return one == other or one != one != other  # NaN


def arrays():
    """Arrays of every kind that weights or states may hold."""
    rng = np.random.default_rng(0)
    whole = rng.standard_normal((4, 6)).astype(np.float32)
    kinds = "float16 float32 float64 int8 uint8 int16 int32 int64 bool complex64 complex128"
    found = {kind: rng.integers(0, 2, (2, 3)).astype(kind) for kind in kinds.split()}
    return found | {
        "bfloat16": rng.integers(0, 2**15, (3,)).astype(np.uint16),  # Paddle's own way to save it
        "0-d": np.float32(3.5).reshape(()),
        "empty": np.zeros((0, 3), np.float32),
        "Fortran": np.asfortranarray(whole),
        "big-endian": whole.astype(">f4"),
        "big-endian integers": np.arange(3, dtype=">i8"),
        "not contiguous": whole[::2, ::-1],
        "transposed": whole.T,
        "not finite": np.array([np.nan, np.inf, -0.0], np.float32),
        "rank 9": np.ones((1,) * 9, np.float32),
        "long": rng.standard_normal(70_000).astype(np.float32),  # a part of its own in protocol 4
    }


def tensors():
    native = {name: a.astype(a.dtype.newbyteorder("=")) for name, a in arrays().items()}
    return {name: paddle.to_tensor(a) for name, a in native.items()}


def optimizer_state():
    """State of an AdamW with a schedule, after a step."""
    paddle.seed(0)
    layer = paddle.nn.Linear(3, 2)
    rate = paddle.optimizer.lr.LinearWarmup(0.1, 5, 0.0, 0.1)
    optimizer = paddle.optimizer.AdamW(rate, parameters=layer.parameters())
    layer(paddle.ones([1, 3])).sum().backward()
    optimizer.step()
    rate.step()
    return optimizer.state_dict()


TIED = [1.5, {"a": None}]
STATES = {  # name -> what paddle.save is given
    "weights": tensors,
    "no weights": dict,
    "one tensor": lambda: paddle.ones([2, 2]),
    "one array": lambda: np.arange(3),
    "network": lambda: PortraitNet(width=0.25).state_dict(),
    "optimizer": optimizer_state,
    "training": lambda: {
        "model": OrderedDict(tensors()),
        "optimizer": optimizer_state(),
        "step": 3,
    },
    "arrays": lambda: {"model": arrays()},
    "arrays and tensors": lambda: {"model": tensors(), "more": arrays()},
    "weights and values": lambda: tensors() | {"more": {"bytes": b"\0\xff", "none": b"", "b": "c"}},
    "named by hand": lambda: {"x": [("name", np.ones(2)), ("other", 2)], "y": np.ones(3)},
    "values": lambda: {
        "int": [0, 255, 256, 65535, 65536, 2**31, -1, -(2**31), 2**63 - 1, -(2**63), 2**64 - 1],
        "float": [0.0, -0.0, 1e300, float("inf"), float("nan")],
        "text": ["", "é", "🙂" * 100, os.fsdecode(b"caf\xe9.png"), "x" * 70_000],
        "other": [
            None,
            True,
            False,
            (),
            (1,),
            (1, 2),
            (1, 2, 3),
            (1, 2, 3, 4),
            [],
            {},
            {1: {2: 3}},
        ],
        "best": [np.float64(0.5), np.float32(0.1), np.int64(-3), np.bool_(True)],
        "ordered": OrderedDict(b=1, a=2),
        "twice": [TIED, TIED, "x", "x"],
        "many": list(range(3000)),
    },
}


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("name", STATES)
def test_what_paddle_writes_comes_back_as_from_paddle(name, protocol, tmp_path):
    path = tmp_path / "state.pdstate"
    paddle.save(STATES[name](), str(path), protocol=protocol)
    assert same(safe_load(path), paddle.load(str(path)))


def test_tensors_own_their_numbers(tmp_path):
    path = tmp_path / "net.pdparams"
    paddle.save({"a": paddle.ones([4]), "b": paddle.ones([4])}, str(path))
    state = safe_load(path)
    state["a"][0] = 5
    assert state["b"].numpy().tolist() == [1] * 4
    assert safe_load(path)["a"].numpy().tolist() == [1] * 4


def test_a_tensor_in_two_places_comes_back_in_both(tmp_path):
    path, tied = tmp_path / "state.pdstate", paddle.rand([100, 100])
    paddle.save({"model": {"head": tied, "encoder": tied}, "step": 1}, str(path))
    state = safe_load(path)
    assert same(state, paddle.load(str(path)))
    assert np.array_equal(state["model"]["head"].numpy(), tied.numpy())


def test_a_training_state_comes_back(tmp_path):
    paddle.seed(0)
    model, average = PortraitNet(width=0.25), PortraitNet(width=0.25)
    optimizer = paddle.optimizer.AdamW(parameters=model.parameters())
    sum(output.mean() for output in model(paddle.rand([1, 3, 32, 32]))).backward()
    optimizer.step()
    scaler = paddle.amp.GradScaler(enable=False)
    run = TrainingState(model, average, 0.9, optimizer, scaler, epoch=1, best=0.5)
    run.history = [{"epoch": 0, "val": {"EG1800": {"miou": 0.9}}, "mean_person_iou": np.float64(1)}]
    run.sums = {"mask": paddle.ones([]), "edge": 0.25}
    run.save(vars(train.parse_args(["--data_root", "x", "y"])), tmp_path)
    path = tmp_path / RESUME_FILE
    assert same(load_whole(path), paddle.load(str(path)))


def test_the_history_of_a_long_training_is_not_too_much(tmp_path):
    line = {f"score {i} of a list of photos": 0.5 for i in range(40)}
    state = {"history": [dict(line) for _ in range(3000)]}
    path = tmp_path / "state.pdstate"
    paddle.save(state, str(path))
    assert safe_load(path) == state


@pytest.mark.parametrize(
    "name", ["portraitnet.pdparams", "portraitnet_lite.pdparams", "mobilenetv2_person.pdparams"]
)
def test_the_weights_of_the_repository_come_back(name):
    path = ROOT / "weights" / name
    if not path.exists():
        pytest.skip("no weights in weights/")
    assert same(safe_load(path), paddle.load(str(path)))


def test_arrays_that_paddle_cut_are_joined(tmp_path):
    """Protocols 2 and 3 cut arrays of more than 1 GB; here they are of 16 and 8 bytes."""
    state = {"w@@.0": np.arange(4, dtype="f4"), "w@@.1": np.arange(2, dtype="f4"), "v": np.ones(2)}
    cut = {"w": {"OriginShape": (2, 3), "slices": ["w@@.0", "w@@.1"]}}
    names = {"StructuredToParameterName@@": {"v": "linear.v", "w": "linear.w"}}
    path = tmp_path / "net.pdparams"
    for more in (names, {}):
        path.write_bytes(pickle.dumps(state | more | {"UnpackBigParamInfor@@": cut}, 2))
        assert same(safe_load(path)["w"].numpy(), np.float32([[0, 1, 2], [3, 0, 1]]))
        assert set(safe_load(path)) == {"v", "w"}


def old_numpy(data):
    """A pickle of protocol 2 as NumPy 1 wrote it."""
    assert b"numpy._core.multiarray" in data and b"\x89\x88\x87" in data
    data = data.replace(b"numpy._core.multiarray", b"numpy.core.multiarray")
    return data.replace(b"\x89\x88\x87", b"K\0K\1\x87")  # align and copy of a dtype, as integers


def test_files_of_older_numpy_are_read(tmp_path):
    path, buffer = tmp_path / "net.pdparams", io.BytesIO()
    paddle.save({"step": 1, "best": np.float64(0.5), "model": tensors()}, buffer, protocol=2)
    path.write_bytes(old_numpy(buffer.getvalue()))
    assert same(safe_load(path), paddle.load(io.BytesIO(buffer.getvalue())))


def test_files_of_python_2_are_read(tmp_path):
    path = tmp_path / "net.pdparams"
    numbers = np.float32([1.5, -2])
    data = b"\x80\2}U\1wcnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\0\x85U\1b\x87R"
    data += b"(K\1\x8a\1\2\x85cnumpy\ndtype\nU\2f4K\0K\1\x87R(K\3U\1<NNNJ\xff\xff\xff\xff"
    data += b"J\xff\xff\xff\xffK\0tb\x89T\x08\0\0\0" + numbers.tobytes() + b"tbs."
    path.write_bytes(data)
    assert same(safe_load(path)["w"].numpy(), numbers)
    assert paddle.load(str(path))["w"].numpy().tolist() == numbers.tolist()


# Files that mean harm, opcode by opcode: pieces of pickles.


def int32(value):
    return pickle.BININT + struct.pack("<i", value)


def int64(value):
    return pickle.LONG1 + b"\x09" + value.to_bytes(9, "little", signed=True)


def text(value):
    data = value.encode()
    return pickle.BINUNICODE + struct.pack("<I", len(data)) + data


def buffer(value):
    return pickle.BINBYTES + struct.pack("<I", len(value)) + value


def put(index):
    return pickle.LONG_BINPUT + struct.pack("<I", index)


def get(index):
    return pickle.LONG_BINGET + struct.pack("<I", index)


def in_dict(value, key=None, more=b""):
    return b"\x80\4}" + more + (key or text("w")) + value + b"s."


def in_list(values):
    return b"\x80\4](" + values + b"e."


RECONSTRUCT = b"cnumpy.core.multiarray\n_reconstruct\n"
SCALAR = b"cnumpy.core.multiarray\nscalar\n"
BLANK = b"cnumpy\nndarray\nK\0\x85C\1b\x87"  # arguments of RECONSTRUCT
SIZE = int32(-1) * 2 + b"K\0"  # of a dtype that is no structure, its alignment, its flags
PLAIN = b"(K\3" + text("<") + b"NNN" + SIZE + b"t"  # state of a dtype


def dtype(code="f4", state=PLAIN):
    return b"cnumpy\ndtype\n" + text(code) + b"\x89\x88\x87R" + state + b"b"


def forged(code, flags, order="|", size=SIZE[:10]):
    """A dtype of 8 bytes whose state differs: it says that they are pointers, or not."""
    return dtype(code, b"(K\3" + text(order) + b"NNN" + size + b"K%ct" % flags)


def array(shape=b"K\2\x85", kind=None, numbers=None, new=RECONSTRUCT + BLANK + b"R"):
    """An array, of two float32 if nothing is given."""
    kind = dtype() if kind is None else kind
    numbers = buffer(bytes(8)) if numbers is None else numbers
    return new + b"(K\1" + shape + kind + b"\x89" + numbers + b"tb"


def doubling(times, value=b")"):
    """A tuple of 2**times values, in 11 bytes each time."""
    return value + b"".join(put(i) + get(i) + pickle.TUPLE2 for i in range(times))


def cut(slices):
    """A table of slices for one array of two numbers."""
    return b"}" + text("x") + b"}" + text("OriginShape") + b"K\2\x85s" + text("slices") + (
        b"](" + slices + b"ess"
    )  # fmt: skip


TURNED = dtype(state=PLAIN.replace(b"<", b">"))
POINTER, POINTERS = buffer(b"A" * 8), buffer(b"A" * 16)
EIGHT = b"K\x08K\1"  # size and alignment
OBJECT = b"(K\3" + text("|") + b"NNN" + int32(-1) * 2 + b"K\x3ft"
FIELDS = text("x") + b"\x85}" + text("x") + dtype() + b"K\0\x86s"
STRUCTURE = b"(K\3" + text("|") + b"N" + FIELDS + SIZE + b"t"
NAMES, SLICES = text("StructuredToParameterName@@"), text("UnpackBigParamInfor@@")
MEGABYTE, QUARTER = buffer(bytes(2**20)), int32(2**18) + b"\x85"  # float32, and their shape
FOUR = text("y") + array(b"K\1\x85", numbers=buffer(bytes(4))) + b"s"  # item: an array of 4 bytes
THOUSANDS = b"N" + put(0) + b"".join(
    b"](" + get(i) * 1000 + b"e" + put(i + 1) for i in range(4)
)  # fmt: skip
FIRST = RECONSTRUCT + put(0) + BLANK + put(1) + b"R(K\1K\0\x85" + dtype() + b"\x89C\0t" + put(2)
ARRAYS = FIRST + b"b" + (get(0) + get(1) + b"R" + get(2) + b"b") * 50_000

# What a file does -> the file.
# fmt: off
POINTING = {
    "objects": array(kind=dtype("O8"), numbers=POINTERS),
    # These three crashed Python at the address in POINTERS, when NumPy's functions were called.
    "objects with the flag of all": array(kind=forged("O8", 1), numbers=POINTERS),
    "objects in another byte order": array(kind=forged("O8", 0, ">"), numbers=POINTERS),
    "scalar of an object without its flags": SCALAR + forged("O8", 0) + POINTER + b"\x86R",
    "bytes forged into objects": array(kind=forged("V8", 1, size=EIGHT), numbers=POINTERS),
    "bytes forged with all flags": array(kind=forged("V8", 63, size=EIGHT), numbers=POINTERS),
    "float forged into objects": array(kind=forged("f8", 63, "<"), numbers=POINTERS),
    "float of 8 bytes": array(kind=forged("f4", 0, size=EIGHT)),
    "float of a strange state": array(kind=dtype(state=b"(K\3Nt")),
    "float with another state later": array(kind=dtype() + STRUCTURE + b"b"),
    "structure": array(kind=dtype("V4", STRUCTURE)),
    "float forged into a structure": array(kind=dtype("f4", STRUCTURE)),
    "structure by commas": array(kind=dtype("f4,f4")),
    "list of objects": array(numbers=b"]"),
    "no numbers": array(numbers=b"N"),
    "text that is no bytes": array(numbers=text("é" * 3 + "€")),
    "no state": RECONSTRUCT + BLANK + b"R",
    "no array but its dtype": dtype(),
    "no array but its function": RECONSTRUCT,
    "another class": array(new=RECONSTRUCT + BLANK.replace(b"ndarray", b"dtype") + b"R"),
    "large from the start": array(new=RECONSTRUCT + BLANK.replace(b"K\0", int32(2**31 - 1)) + b"R"),
    "scalar of an object": SCALAR + dtype("O8", OBJECT) + POINTER + b"\x86R",
    "scalar of the wrong size": SCALAR + dtype() + b"C\2ab\x86R",
    "state of a dict": b"}}b",
    "state of a function": RECONSTRUCT + b"}b",
    **{f"dtype {code[:9]}": array(kind=dtype(code)) for code in (
        "S4", "U1", "V4", "M8", "m8", "f16", "u4", "u8", "", "float32", "x" * 9999)},
}  # as a value of a dict
SHAPES = {
    "negative": array(int32(-1) + int32(-2) + b"\x86"),
    "product over 2**64": array(int64(2**62) + b"K\4\x86", numbers=buffer(b"")),
    "right size modulo 2**64": array(
        int64(2**61 + 1) + b"K\2\x86", dtype("f8"), numbers=buffer(bytes(16))),
    "of all addresses": array(b"K\0" + int64(2**62) + b"\x86", numbers=buffer(b"")),
    "larger than the bytes": array(b"K\3\x85"),
    "smaller than the bytes": array(b"K\1\x85"),
    "floats": array(b"G@\0\0\0\0\0\0\0\x85"),
    "booleans": array(b"\x88K\2\x86"),
    "a list": array(b"](K\2e"),
    "rank 10": array(b"(" + b"K\1" * 9 + b"K\2t"),
    "rank 100,001": array(b"(" + b"K\1" * 100_000 + b"K\2t"),
}
MUCH = {
    "2**40 tuples": in_list(doubling(40)),
    "2**40 texts": in_list(doubling(40, text("x" * 100))),
    "2**40 arrays": in_list(doubling(40, array())),
    "2**40 tensors": in_list(doubling(40, text("name") + array() + b"\x86")),
    "1000**4 values": in_list(THOUSANDS),
    "a text of a megabyte a thousand times": in_list(
        text("x" * 2**20) + put(0) + get(0) * 1000),
    "bytes of a megabyte a thousand times": in_list(MEGABYTE + put(0) + get(0) * 1000),
    "an array of a megabyte a thousand times": in_list(
        array(QUARTER, numbers=MEGABYTE) + put(0) + get(0) * 1000),
    "a thousand arrays on the same megabyte": in_list(
        array(QUARTER, numbers=MEGABYTE + put(0)) + array(QUARTER, numbers=get(0)) * 1000),
    "a thousand arrays on the same megabyte, turned": in_list(
        array(QUARTER, numbers=MEGABYTE + put(0))
        + array(QUARTER, TURNED, numbers=get(0)) * 1000),
    "a thousand arrays on the same megabyte of text": in_list(
        array(QUARTER, numbers=text("x" * 2**20) + put(0)) + array(QUARTER, numbers=get(0)) * 1000),
    "a megabyte of text as bytes a thousand times": in_list(
        text("x" * 2**20) + put(0)
        + (b"c_codecs\nencode\n" + get(0) + text("latin1") + b"\x86R") * 1000),
    "fifty thousand tensors": in_list(ARRAYS),
    "an empty array a hundred thousand times": in_list(
        array(b"K\0\x85", numbers=b"C\0") + put(0) + b"h\0" * 100_000),
    "600,000 dicts": in_list(b"}" * 600_000),
    "100,000 OrderedDicts": in_list(
        b"ccollections\nOrderedDict\n" + put(0) + b")R" + (get(0) + b")R") * 100_000),
    "600,000 memories": b"\x80\4N" + b"\x94" * 600_000 + b".",
    "600,000 marks": b"\x80\4" + b"(" * 600_000 + b".",
    "600,000 tuples in each other": b"\x80\4)" + b"\x85" * 600_000 + b".",
}
DEEP = {
    "2**200 tuples": in_list(doubling(200)),
    "a list that holds itself": b"\x80\4]q\0h\0a.",
    "a dict that holds itself": b"\x80\4}q\0" + text("w") + b"h\0s.",
    "a tuple that holds itself": b"\x80\4]q\0h\0\x85a.",
    "1,600 tuples": b"\x80\4)" + b"\x85" * 1600 + b".",
    "300,000 tuples": b"\x80\4)" + b"\x85" * 300_000 + b".",
    "100,000 lists": b"\x80\4" + b"]" * 100_000 + b"a" * 99_999 + b".",
}
SHORT = {
    "bytes": b"\x80\4B\xff\xff\xff\xff.",
    "2**62 bytes": b"\x80\4\x8e" + struct.pack("<Q", 2**62) + b".",
    "2**64 bytes": b"\x80\4\x8e" + b"\xff" * 8 + b".",
    "2**32 letters": b"\x80\4X\xff\xff\xff\xff.",
    "2**32 letters of Python 2": b"\x80\2T\xff\xff\xff\xff.",
    "a frame of 2**63 bytes": b"\x95\0\0\0\0\0\0\0\x80",
    "nothing": b"",
}
RUN = {
    "lines": b"\x80\2cos\nsystem\n" + text("true") + b"\x85R.",
    "stack": b"\x80\4" + text("posix") + text("system") + b"\x93" + text("true") + b"\x85R.",
    "a dot": b"\x80\4" + text("numpy") + text("f2py.os.system") + b"\x93.",
    "numpy": b"\x80\2cnumpy\nload\n" + text("x") + b"\x85R.",
    "paddle": b"\x80\2cpaddle\nload\n" + text("x") + b"\x85R.",
    "two lines": b"\x80\4" + text("a\nb") + text("c\r\n" * 99) + b"\x93.",
}
CALLS = {
    "ndarray": b"\x80\2cnumpy\nndarray\n" + int64(2**40) + b"\x85\x85R.",
    "tuple": b"\x80\2cbuiltins\ntuple\n](K\1K\2e\x85R.",
    "bytes": b"\x80\2c__builtin__\nbytes\n" + int64(2**40) + b"\x85R.",
    "OrderedDict": b"\x80\4ccollections\nOrderedDict\n]\x85R.",
    "dtype": b"\x80\4cnumpy\ndtype\nNR.",
    "encode": b"\x80\2c_codecs\nencode\n" + text("eJwrAAAA") + text("zlib") + b"\x86R.",
    "what is not a function": b"\x80\4" + text("os.system") + b")R.",
    "what is not a function but a dtype": b"\x80\4" + dtype() + b")R.",
}
OPCODES = {
    "EXT1": b"\x82\1", "EXT2": b"\x83\1\0", "EXT4": b"\x84\1\0\0\0", "PERSID": b"Px\n",
    "BINPERSID": b"NQ", "INST": b"(ios\nsystem\n", "OBJ": b"(cnumpy\ndtype\no",
    "NEWOBJ": b"cnumpy\ndtype\n)\x81", "NEWOBJ_EX": b"cnumpy\ndtype\n)}\x92", "POP": b"NN0",
    "DUP": b")" + b"2\x86" * 100, "POP_MARK": b"N(1", "STRING": b"S'x'\n", "UNICODE": b"Vx\n",
    "FLOAT": b"F1\n", "INT": b"I" + b"9" * 100_000 + b"\n", "LONG": b"L" + b"9" * 100_000 + b"L\n",
    "LONG4": b"\x8b\xff\xff\xff\x7f", "BINUNICODE8": b"\x8d" + b"\xff" * 8, "PUT": b"Np9\n",
    "GET": b"Np9\ng9\n", "DICT": b"(d", "LIST": b"(l", "EMPTY_SET": b"\x8f",
    "ADDITEMS": b"\x8f(N\x90", "FROZENSET": b"(\x91", "BYTEARRAY8": b"\x96" + bytes(8),
    "NEXT_BUFFER": b"\x97", "READONLY_BUFFER": b"N\x98", "none": b"\xff",
}
DAMAGE = {
    "ends without a value|does not end with one value": [b"\x80\4.", b"\x80\4NN.", b"\x80\4(N."],
    "refers to a value that it does not hold": [b"\x80\4Nt.", b"\x80\4\x86.", b"\x80\4h\7."],
    "integer of more than 64 bits": [b"\x80\4\x8a\xff" + b"\x7f" * 255 + b"."],
    "a name without an end": [b"\x80\2c" + b"x" * 100_000 + b"\ny\n."],
    "names a function by what is not text": [b"\x80\4NN\x93.", b"\x80\4]]\x93."],
    "appends to what is not a list": [b"\x80\4NNa.", b"\x80\4N(Ne."],
    "gives items to what is not a dict": [b"\x80\4NNNs.", b"\x80\4}(Nu.", b"\x80\4](NNu."],
    "a key that is neither": [
        b"\x80\4}" + key + b"Ns." for key in (b"]", b"N", doubling(40), array())],
    "table of names is not a dict": [in_dict(b"]", NAMES)],
    "tensor whose name is not text": [
        in_dict(b"}" + text("y") + b"Ns", NAMES, FOUR)],
    "surrogates not allowed": [in_list(b"X\3\0\0\0\xed\xb3\xa9" + array() + b"\x86")],
    "table of slices is not a dict": [in_dict(b"N", SLICES)],
    "it lacks a slice": [
        in_dict(table, SLICES, more) for table, more in (
            (b"}" + text("x") + b"Ns", b""), (cut(b""), b""), (cut(text("y")), b""),
            (cut(text("y")), text("y") + b"]s"), (cut(text("y") * 2), FOUR),
            (cut(text("y") + text("z")), FOUR + text("z") + SCALAR + dtype() + b"C\4abcd\x86Rs"))],
    "its shape contradicts": [in_dict(cut(text("y") + b"N"), SLICES, FOUR)],
}
# fmt: on

ATTACKS = {  # what a file does -> the file, what the sentence says
    **{
        f"array: {name}": (
            in_dict(value),
            "calls dtype|calls _reconstruct|plain numbers|without numbers|a part of an array"
            "|its shape contradicts|codec can't encode",
        )
        for name, value in POINTING.items()
    },
    **{
        f"shape: {name}": (in_dict(value), "its shape contradicts|too big|plain numbers")
        for name, value in SHAPES.items()
    },
    **{f"much: {name}": (data, "far more memory than its") for name, data in MUCH.items()},
    **{f"deep: {name}": (data, "more than 50 containers") for name, data in DEEP.items()},
    **{f"short: {name}": (data, "it is cut") for name, data in SHORT.items()},
    **{f"run: {name}": (data, "it wants to run '") for name, data in RUN.items()},
    **{f"call: {name}": (data, f"calls {name[:22]}") for name, data in CALLS.items()},
    **{
        f"opcode {name}": (b"\x80\4" + data + b".", "the opcode [0-9]+, which Paddle does not")
        for name, data in OPCODES.items()
    },
    **{
        f"damage: {message} {number}": (data, message)
        for message, files in DAMAGE.items()
        for number, data in enumerate(files)
    },
}
HARMLESS = {  # what a file does -> the file, what it holds
    "nine bytes that ask for a memory of 2**31 values": (b"\x80\4Nr\xff\xff\xff\x7f.", "None"),
    "bytes after the end": (in_list(b"N") + b"xyz", "[None]"),
    "a name table of what is not there": (in_dict(b"}" + text("y") * 2 + b"s", NAMES), "{}"),
    "a shape of no numbers": (
        in_list(text("n") + array(b"K\0" + int32(2**31 - 1) + b"\x86", numbers=b"C\0") + b"\x86"),
        "[Tensor(shape=[0, 2147483647]",
    ),
}

WORKER = r"""
import base64, json, resource, sys, time
from pathlib import Path
import numpy as np, paddle
from models.safe_load import safe_load

MEMORY, path = int(sys.argv[1]), Path(sys.argv[2])
PLAIN = (str, bytes, int, float, type(None), np.number, np.bool_, paddle.Tensor)

def is_plain(value):
    if isinstance(value, dict):
        return all(is_plain(part) for item in value.items() for part in item)
    if isinstance(value, (list, tuple)):
        return all(map(is_plain, value))
    if isinstance(value, np.ndarray):
        return value.dtype.kind in "biufc"
    return isinstance(value, PLAIN)

paddle.to_tensor(np.zeros(3)).numpy()  # once, so that Paddle has all that it needs
used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY, used + MEMORY))
resource.setrlimit(resource.RLIMIT_CPU, (60, 60))
for line in sys.stdin:
    name, data = json.loads(line)
    path.write_bytes(base64.b64decode(data))
    print(json.dumps([name]), flush=True)
    start = time.process_time()
    try:
        value = safe_load(path)
        end = time.process_time()
        outcome = ["plain" if is_plain(value) else "strange", repr(value)[:200]]
    except Exception as error:
        end = time.process_time()
        outcome = ["refused" if isinstance(error, ValueError) else "failed", str(error)[:500]]
    value = None
    print(json.dumps([name, *outcome, end - start]), flush=True)
"""


def outcomes(files, folder):
    """Read files in another process.

    Args:
        files: {name: bytes}.

    Returns:
        {name: ("refused", "plain", "failed" or "strange"; sentence or value; CPU seconds)}; a file
        that ended the process has ("crashed", exit status, inf), one behind it "not read".
    """
    command = [sys.executable, "-c", WORKER, str(MEMORY), str(folder / "file.pdparams")]
    lines = "".join(
        json.dumps([name, base64.b64encode(data).decode()]) + "\n" for name, data in files.items()
    )
    env = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        command, input=lines, cwd=ROOT, env=env, capture_output=True, text=True, timeout=600
    )
    found = {name: ("not read", "", float("inf")) for name in files}
    ours = [line for line in done.stdout.splitlines() if line.startswith('["')]  # not Paddle's
    for name, *outcome in map(json.loads, ours):
        found[name] = outcome or ("crashed", str(done.returncode), float("inf"))
    assert ours, done.stderr
    return found


@pytest.fixture(scope="module")
def attacked(tmp_path_factory):
    """Outcomes of ATTACKS and HARMLESS."""
    files = {name: data for name, (data, _) in (ATTACKS | HARMLESS).items()}
    return outcomes(files, tmp_path_factory.mktemp("attacks"))


@pytest.mark.parametrize("name", ATTACKS)
def test_harm_is_refused_in_a_second_and_little_memory(name, attacked):
    kind, message, seconds = attacked[name]
    assert kind == "refused" and re.search(ATTACKS[name][1], message), (kind, message)
    assert "\n" not in message and len(message) < 300
    assert seconds < 1


@pytest.mark.parametrize("name", HARMLESS)
def test_what_only_looks_harmful_is_read(name, attacked):
    kind, value, seconds = attacked[name]
    assert kind == "plain" and value.startswith(HARMLESS[name][1]) and seconds < 1


def small_files():
    """A small file of each form, less than 1,000 bytes: weights, and a nested state."""
    weights = {"a": paddle.ones([3, 2]), "b": paddle.zeros([], "int64")}
    state = {"model": OrderedDict(weights), "step": 3, "best": np.float64(0.5), "h": [{"x": "y"}]}
    for value in (weights, state):
        for protocol in PROTOCOLS:
            written = io.BytesIO()
            paddle.save(value, written, protocol=protocol)
            yield written.getvalue()


def test_every_cut_is_refused(tmp_path):
    path = tmp_path / "cut.pdparams"
    for data in list(small_files())[3:]:
        for end in range(len(data)):
            path.write_bytes(data[:end])
            with pytest.raises(ValueError):
                safe_load(path)


def mutations(count):
    """Small files with some bytes changed, taken out, doubled or put from another place."""
    rng, seeds = np.random.default_rng(0), list(small_files())
    for number in range(count):
        data = bytearray(seeds[number % len(seeds)])
        for _ in range(rng.integers(1, 5)):
            at, other = (int(place) for place in rng.integers(0, len(data), 2))
            size = int(rng.integers(1, 9))
            match rng.integers(4):
                case 0:
                    data[at] = rng.integers(256)
                case 1:
                    data[at] ^= 1 << rng.integers(8)
                case 2:
                    del data[at : at + size]
                case 3:
                    data[at:at] = data[other : other + size]
        yield bytes(data)


def test_mutations_are_refused_or_read(tmp_path):
    files = {str(number): data for number, data in enumerate(mutations(3000))}
    found = outcomes(files, tmp_path)
    assert {kind for kind, _, _ in found.values()} == {"plain", "refused"}
    assert max(seconds for _, _, seconds in found.values()) < 1
