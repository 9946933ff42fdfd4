"""`paddle.load` for files from anywhere: a file is parsed as data, and nothing in it is run.

`paddle.save` writes a pickle: a program for a stack machine that may call any Python function. A
list of allowed functions is not enough, because NumPy's own functions follow pointers that a file
gives them, and a few bytes may ask for gigabytes. So Python's pickle machine never sees a file.
The few opcodes that Paddle writes are parsed here, every other is refused, and the file's size
bounds what it may cost.

Three steps: `Parser.parse` reads values that may refer to each other; `Parser.expand` copies them
into a plain tree; `with_tensors` makes tensors of the tree's arrays.

Source: Python's `pickletools` for the opcodes; NumPy's `dtype.__reduce__` and `ndarray.__reduce__`
for the states; `paddle.load` for what becomes a tensor.
"""

import gc
import math
import pickle
import struct
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import paddle

DTYPES = {"b1", "i1", "u1", "i2", "u2", "i4", "i8", "f2", "f4", "f8", "c8", "c16"}  # of tensors
MAX_RANK = 9  # of a tensor
MAX_DEPTH = 50  # containers in each other; a training state has 5

# A file of n bytes may cost START_COST + COST_PER_BYTE * n bytes of memory, by these estimates.
START_COST = 2**24
COST_PER_BYTE = 32  # weights need 17, the history of a training 26
OPCODE_COST = VALUE_COST = 64
CALL_COST = 512  # of an OrderedDict
TENSOR_COST = 4096  # without its numbers
NUMBER_COST = 8  # a byte of numbers, each time it may be copied; more than it takes

NAME_TABLE = "StructuredToParameterName@@"  # Paddle's: {key: name of the tensor}
SLICE_TABLE = "UnpackBigParamInfor@@"  # Paddle's: protocols 2 and 3 cut arrays of more than 1 GB

FUNCTIONS = {  # that a file may name; `call` says what they give
    ("_codecs", "encode"),
    ("__builtin__", "bytes"),  # protocol 2 names them as Python 2 did
    ("__builtin__", "tuple"),
    ("builtins", "tuple"),
    ("collections", "OrderedDict"),
    ("numpy", "dtype"),
    ("numpy", "ndarray"),
    ("numpy.core.multiarray", "_reconstruct"),  # before NumPy 2
    ("numpy.core.multiarray", "scalar"),
    ("numpy._core.multiarray", "_reconstruct"),
    ("numpy._core.multiarray", "scalar"),
}


@dataclass(slots=True)
class Function:
    """A function that the file names; it is never called."""

    name: str


@dataclass(slots=True)
class Dtype:
    """A NumPy dtype: a pickle makes one of a code, then sets the byte order."""

    dtype: np.dtype


@dataclass(slots=True)
class Array:
    """A NumPy array: a pickle makes an empty one, then sets shape, dtype and numbers."""

    array: np.ndarray | None = None


def call(function: object, arguments: object) -> object:
    """What a function would return that the file calls.

    Raises:
        ValueError: it is not one of FUNCTIONS with the arguments that Paddle and NumPy give it.
    """
    if not isinstance(function, Function):
        raise ValueError("it calls what is not a function")
    match function.name, arguments:
        case "encode", (str(text), "latin1"):  # protocol 2 writes bytes as text
            return text.encode("latin1")
        case "bytes", ():
            return b""
        case "tuple", ((str(), Array()) as pair,):  # a tensor: its name, its numbers
            return pair
        case "OrderedDict", ():
            return OrderedDict()
        case "dtype", (str(code), 0, 1) if code in DTYPES:
            return Dtype(np.dtype(code))
        case "_reconstruct", (Function("ndarray"), (0,), b"b" | "b"):
            return Array()
        case "scalar", (Dtype(dtype), numbers):
            return make_array((), dtype, False, numbers)[()]
    raise ValueError(f"it calls {function.name} in a way Paddle does not")


def set_state(value: object, state: object) -> None:
    """Complete a Dtype or an Array.

    Raises:
        ValueError: the state is not one that NumPy writes for plain numbers.
    """
    match value, state:
        case Dtype(), (3, "<" | ">" | "|" as order, None, None, None, -1, -1, 0):
            value.dtype = value.dtype.newbyteorder(order)
        case Array(), (1, tuple(shape), Dtype(dtype), 0 | 1 as fortran, numbers):
            value.array = make_array(shape, dtype, bool(fortran), numbers)
        case _:
            raise ValueError("it describes something else than arrays of plain numbers")


def make_array(shape: tuple, dtype: np.dtype, fortran: bool, numbers: object) -> np.ndarray:
    """A read-only array in this machine's byte order; numbers in another are copied, others not."""
    if isinstance(numbers, str):  # of Python 2
        numbers = numbers.encode("latin1")
    if not isinstance(numbers, (memoryview, bytes)):
        raise ValueError("it has an array without numbers")
    is_shape = len(shape) <= MAX_RANK and all(type(n) is int and n >= 0 for n in shape)
    if not is_shape or math.prod(shape) * dtype.itemsize != len(numbers):
        raise ValueError(f"it has an array of {len(numbers)} bytes, which its shape contradicts")
    array = np.ndarray(shape, dtype, numbers, order="F" if fortran else "C")
    return array.astype(dtype.newbyteorder("="), copy=False)


class Parser:
    """Reads one pickle.

    Attributes:
        data: bytes of the file.
        view: the same; its slices are not copied.
        at: index of the next byte.
        stack: values since the last mark.
        marks: the stacks below it.
        memo: {number: value} that later opcodes may refer to.
        allowance: what the file may still cost, bytes.
    """

    def __init__(self, data: bytes):
        self.data, self.view, self.at = data, memoryview(data), 0
        self.stack, self.marks, self.memo = [], [], {}
        self.allowance = START_COST + COST_PER_BYTE * len(data)

    def charge(self, cost: int) -> None:
        self.allowance -= cost
        if self.allowance < 0:
            raise ValueError(f"it would take far more memory than its {len(self.data)} bytes")

    def parse(self) -> object:
        """The value of the pickle, made of containers, plain values and `Array`s."""
        try:
            while (opcode := self.data[self.at]) != STOP:
                if opcode not in OPCODES:
                    raise ValueError(f"it has the opcode {opcode}, which Paddle does not write")
                self.at += 1
                self.charge(OPCODE_COST)
                method, argument = OPCODES[opcode]
                method(self, argument)
        except (IndexError, KeyError, struct.error):  # of data, stack, marks, memo
            raise ValueError("it is cut, or refers to a value that it does not hold") from None
        if self.marks or len(self.stack) != 1:
            raise ValueError("it does not end with one value")
        return self.stack[0]

    def take(self, count: int) -> memoryview:
        """The next bytes; if the file ends within them, `parse` finds no opcode behind them."""
        start, self.at = self.at, self.at + count
        return self.view[start : self.at]

    def number(self, form: struct.Struct) -> int | float:
        (number,) = form.unpack_from(self.data, self.at)
        self.at += form.size
        return number

    def line(self) -> str:
        """The next line: the name of a module or a function."""
        end = self.data.find(b"\n", self.at, self.at + 100)
        if end < 0:
            raise ValueError("it has a name without an end")
        return str(self.take(end + 1 - self.at)[:-1], "latin1")

    def since_mark(self) -> list:
        """Take the values since the last mark from the stack, and the mark."""
        values, self.stack = self.stack, self.marks.pop()
        return values

    # One method for each kind of opcode; its argument is in WRITTEN.

    def skip(self, form: struct.Struct) -> None:
        self.number(form)

    def push(self, constant: object) -> None:
        self.stack.append(constant)

    def push_empty(self, kind: type) -> None:
        self.stack.append(kind())

    def push_number(self, form: struct.Struct) -> None:
        self.stack.append(self.number(form))

    def push_long(self, form: struct.Struct) -> None:
        digits = self.take(self.number(form))
        if len(digits) > 9:
            raise ValueError("it holds an integer of more than 64 bits")
        self.stack.append(int.from_bytes(digits, "little", signed=True))

    def push_text(self, form: struct.Struct) -> None:
        # Python has surrogates in the names of files that are not UTF-8.
        self.stack.append(str(self.take(self.number(form)), "utf-8", "surrogatepass"))

    def push_latin1(self, form: struct.Struct) -> None:
        self.stack.append(str(self.take(self.number(form)), "latin1"))

    def push_bytes(self, form: struct.Struct) -> None:
        self.stack.append(self.take(self.number(form)))

    def memoize(self, _: None) -> None:
        self.memo[len(self.memo)] = self.stack[-1]

    def put(self, form: struct.Struct) -> None:
        self.memo[self.number(form)] = self.stack[-1]

    def get(self, form: struct.Struct) -> None:
        self.stack.append(self.memo[self.number(form)])

    def mark(self, _: None) -> None:
        self.marks.append(self.stack)
        self.stack = []

    def join(self, count: int) -> None:
        values = tuple(self.stack[-count:])
        if len(values) < count:
            raise IndexError
        self.stack[-count:] = [values]

    def join_marked(self, _: None) -> None:
        values = tuple(self.since_mark())
        self.stack.append(values)

    def append(self, one: bool) -> None:
        values = [self.stack.pop()] if one else self.since_mark()
        if not isinstance(self.stack[-1], list):
            raise ValueError("it appends to what is not a list")
        self.stack[-1].extend(values)

    def set_item(self, one: bool) -> None:
        values = [self.stack.pop(-2), self.stack.pop()] if one else self.since_mark()
        if not isinstance(self.stack[-1], dict) or len(values) % 2:
            raise ValueError("it gives items to what is not a dict")
        if not all(isinstance(key, (str, int)) for key in values[::2]):
            raise ValueError("it has a key that is neither text nor an integer")
        self.stack[-1].update(zip(values[::2], values[1::2]))

    def name_function(self, in_lines: bool) -> None:
        if in_lines:
            module, name = self.line(), self.line()
        else:
            name, module = self.stack.pop(), self.stack.pop()
        if not (isinstance(module, str) and isinstance(name, str)):
            raise ValueError("it names a function by what is not text")
        if (module, name) not in FUNCTIONS:
            raise ValueError(f"it wants to run {f'{module}.{name}'[:80]!r}")
        self.stack.append(Function(name))

    def reduce(self, _: None) -> None:
        arguments, function = self.stack.pop(), self.stack.pop()
        value = call(function, arguments)
        self.charge(CALL_COST + (NUMBER_COST * len(value) if isinstance(value, bytes) else 0))
        self.stack.append(value)

    def build(self, _: None) -> None:
        state = self.stack.pop()
        value = self.stack[-1]
        set_state(value, state)
        self.charge(NUMBER_COST * value.array.nbytes if isinstance(value, Array) else 0)

    def expand(self, value: object, depth: int = 0) -> object:
        """Copy what `parse` gave into a tree, in which no container has two places.

        References make a tree of any size from a few bytes, so its values are charged.
        """
        if depth > MAX_DEPTH:
            raise ValueError(f"it has more than {MAX_DEPTH} containers in each other")
        self.charge(VALUE_COST)
        match value:
            case None | bool() | int() | float() | np.generic():
                return value
            case str():
                self.charge(len(value))
                return value
            case memoryview() | bytes():
                self.charge(len(value))
                return bytes(value)
            case Array(np.ndarray() as array):
                self.charge(TENSOR_COST + NUMBER_COST * array.nbytes)
                return array
            case list() | tuple():
                return type(value)([self.expand(item, depth + 1) for item in value])
            case dict():
                deeper = depth + 1
                items = [(self.expand(k, deeper), self.expand(v, deeper)) for k, v in value.items()]
                return type(value)(items)
        raise ValueError("it has a part of an array where a value should be")


UINT8, UINT16, UINT32, UINT64 = (struct.Struct(f"<{code}") for code in "BHIQ")
INT32, FLOAT64 = struct.Struct("<i"), struct.Struct(">d")
WRITTEN = {  # all opcodes that Paddle writes, besides STOP: method, its argument
    pickle.PROTO: (Parser.skip, UINT8),
    pickle.FRAME: (Parser.skip, UINT64),
    pickle.NONE: (Parser.push, None),
    pickle.NEWTRUE: (Parser.push, True),
    pickle.NEWFALSE: (Parser.push, False),
    pickle.BININT: (Parser.push_number, INT32),
    pickle.BININT1: (Parser.push_number, UINT8),
    pickle.BININT2: (Parser.push_number, UINT16),
    pickle.BINFLOAT: (Parser.push_number, FLOAT64),
    pickle.LONG1: (Parser.push_long, UINT8),
    pickle.SHORT_BINUNICODE: (Parser.push_text, UINT8),
    pickle.BINUNICODE: (Parser.push_text, UINT32),
    pickle.SHORT_BINBYTES: (Parser.push_bytes, UINT8),
    pickle.BINBYTES: (Parser.push_bytes, UINT32),
    pickle.BINBYTES8: (Parser.push_bytes, UINT64),
    pickle.SHORT_BINSTRING: (Parser.push_latin1, UINT8),  # of Python 2
    pickle.BINSTRING: (Parser.push_latin1, UINT32),  # of Python 2
    pickle.MEMOIZE: (Parser.memoize, None),
    pickle.BINPUT: (Parser.put, UINT8),
    pickle.LONG_BINPUT: (Parser.put, UINT32),
    pickle.BINGET: (Parser.get, UINT8),
    pickle.LONG_BINGET: (Parser.get, UINT32),
    pickle.MARK: (Parser.mark, None),
    pickle.EMPTY_TUPLE: (Parser.push_empty, tuple),
    pickle.EMPTY_LIST: (Parser.push_empty, list),
    pickle.EMPTY_DICT: (Parser.push_empty, dict),
    pickle.TUPLE1: (Parser.join, 1),
    pickle.TUPLE2: (Parser.join, 2),
    pickle.TUPLE3: (Parser.join, 3),
    pickle.TUPLE: (Parser.join_marked, None),
    pickle.APPEND: (Parser.append, True),
    pickle.APPENDS: (Parser.append, False),
    pickle.SETITEM: (Parser.set_item, True),
    pickle.SETITEMS: (Parser.set_item, False),
    pickle.GLOBAL: (Parser.name_function, True),
    pickle.STACK_GLOBAL: (Parser.name_function, False),
    pickle.REDUCE: (Parser.reduce, None),
    pickle.BUILD: (Parser.build, None),
}
STOP, OPCODES = pickle.STOP[0], {opcode[0]: work for opcode, work in WRITTEN.items()}


def is_named(value: object) -> bool:
    """Whether a value is (name, array), as which Paddle writes a tensor."""
    return (
        isinstance(value, tuple)
        and len(value) == 2
        and isinstance(value[0], str)
        and isinstance(value[1], np.ndarray)
    )


def holds_named(value: object) -> bool:
    """Whether a (name, array) is anywhere in a tree."""
    items = value.values() if isinstance(value, dict) else value
    return is_named(value) or (
        isinstance(value, (dict, list, tuple)) and any(holds_named(item) for item in items)
    )


def to_tensor(array: np.ndarray, name: object = "") -> paddle.Tensor:
    """A tensor with a copy of an array's numbers, on Paddle's current device."""
    if not isinstance(name, str):
        raise ValueError("it has a tensor whose name is not text")
    tensor = paddle.to_tensor(array)
    if name:
        tensor.name = name
    return tensor


def join_slices(state: dict) -> None:
    """Put the arrays of SLICE_TABLE together, in place; each slice is used once."""
    table = state.pop(SLICE_TABLE)
    if not isinstance(table, dict):
        raise ValueError("its table of slices is not a dict")
    for key, entry in table.items():
        match entry:
            case {"slices": list(keys), "OriginShape": tuple(shape)}:
                slices = [state.pop(part, None) for part in keys if isinstance(part, str)]
            case _:
                slices = []
        dtypes = {part.dtype if isinstance(part, np.ndarray) else None for part in slices}
        if len(dtypes) != 1 or None in dtypes:
            raise ValueError(f"it lacks a slice of {str(key)[:80]!r}")
        joined = np.concatenate(slices, axis=None)
        state[key] = make_array(shape, joined.dtype, False, joined.tobytes())


def with_tensors(tree: object) -> object:
    """Make tensors of a tree's arrays, where `paddle.load` does.

    They are the arrays that a NAME_TABLE names; or without one, all (name, array); or without these
    too, all arrays. Other arrays stay arrays, read-only.
    """
    if isinstance(tree, dict) and SLICE_TABLE in tree:
        join_slices(tree)
    if isinstance(tree, dict) and NAME_TABLE in tree:
        return with_named_tensors(tree, tree.pop(NAME_TABLE))
    pairs = holds_named(tree)

    def convert(value: object) -> object:
        if pairs and is_named(value):
            return to_tensor(value[1], value[0])
        if not pairs and isinstance(value, np.ndarray):
            return to_tensor(value)
        if isinstance(value, dict):
            return type(value)((key, convert(item)) for key, item in value.items())
        if isinstance(value, (list, tuple)):
            return type(value)(convert(item) for item in value)
        return value

    return convert(tree)


def with_named_tensors(state: dict, names: object) -> dict:
    """Make tensors of the arrays that {key: name} names, in place."""
    if not isinstance(names, dict):
        raise ValueError("its table of names is not a dict")
    for key, name in names.items():
        if isinstance(state.get(key), np.ndarray):
            state[key] = to_tensor(state[key], name)
    return state


def safe_load(path: str | Path) -> object:
    """What `paddle.save` wrote, as `paddle.load` gives it.

    Args:
        path: a file of `paddle.save`, of any protocol, Python and NumPy.

    Raises:
        OSError: the file cannot be read.
        ValueError: it is damaged, names a function or would take far more memory than its size.
    """
    parser = Parser(Path(path).read_bytes())
    # Python would look for garbage among a hostile file's million values again and again.
    collects = gc.isenabled()
    gc.disable()
    try:
        return with_tensors(parser.expand(parser.parse()))
    finally:
        if collects:
            gc.enable()
