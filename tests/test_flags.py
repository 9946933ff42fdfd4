import argparse
import os
import subprocess
import sys
from pathlib import Path

import pytest

from flags import ROOT, Help, command, real, whole


@pytest.mark.parametrize(
    ("kind", "text", "value"),
    [
        (whole(1), "1", 1),
        (whole(), "+7", 7),
        (whole(-5, 5), "-5", -5),
        (whole(32, multiple=32), "96", 96),
        (real(), "0", 0.0),
        (real(above=0), "1e-3", 0.001),
        (real(0, 1), "1", 1.0),
    ],
)
def test_numbers_in_range(kind, text, value):
    assert kind(text) == value and type(kind(text)) is type(value)


@pytest.mark.parametrize(
    ("kind", "text", "told"),
    [
        (whole(1), "0", "a whole number from 1, not '0'"),
        (whole(1), "1.5", "a whole number"),
        (whole(1), "", "a whole number"),
        (whole(), "--5", "a whole number"),
        (whole(), str(2**31), "a whole number"),
        (whole(0, 65535), "99999", "from 0 to 65535, not '99999'"),
        (whole(32, multiple=32), "100", "a multiple of 32, not '100'"),
        (whole(32, multiple=32), "-32", "a multiple of 32"),
        (real(above=0), "0", "a number above 0, not '0'"),
        (real(0, 1), "1.1", "from 0 to 1, not '1.1'"),
        (real(), "nan", "a number from 0, not 'nan'"),
        (real(), "inf", "a number"),
        (real(), "-1", "a number"),
        (real(), "abc", "a number"),
    ],
)
def test_everything_else_is_named(kind, text, told):
    with pytest.raises(argparse.ArgumentTypeError, match="must be .*") as error:
        kind(text)
    assert told in str(error.value)


def test_help_shows_a_default_where_there_is_one():
    parser = argparse.ArgumentParser(formatter_class=Help)
    parser.add_argument("--size", default=3, help="side")
    parser.add_argument("--model_path", help="file")
    parser.add_argument("--amp", action="store_true", help="half")
    parser.add_argument("--formats", nargs="+", default=["onnx", "fp16"], help="kinds")
    parser.add_argument("--weights", default=ROOT / "weights" / "a.onnx", help="file")
    told = " ".join(parser.format_help().split())
    assert "side (default: 3)" in told and told.count("default") == 3
    assert "kinds (default: onnx fp16)" in told and "file (default: weights/a.onnx)" in told


@pytest.mark.parametrize(
    "error, code, told",
    [
        (ValueError("the file is bad: mend it."), 1, "x.py: the file is bad: mend it.\n"),
        (PermissionError(13, "Permission denied", "a"), 1, "x.py: [Errno 13] Permission denied"),
        (MemoryError(), 1, "x.py: MemoryError\n"),
        (ModuleNotFoundError("No module", name="onnx"), 1, "x.py: this needs onnx: run `pip"),
        (KeyboardInterrupt(), 130, "x.py: Stopped"),
    ],
)
def test_a_command_ends_in_one_line(error, code, told, capsys):
    @command("x.py")
    def main(argv=None):
        raise error

    assert main([]) == code
    err = capsys.readouterr().err
    assert err.startswith(told) and err.count("\n") == 1


def test_a_bug_keeps_its_traceback():
    @command("x.py")
    def main(argv=None):
        raise KeyError("ours")

    with pytest.raises(KeyError):
        main([])


def test_a_reader_that_has_seen_enough_ends_a_command_quietly(tmp_path):
    script = "from flags import command\n"
    script += "@command('x.py')\ndef main(argv=None):\n    while True:\n        print('y' * 9999)\n"
    (tmp_path / "x.py").write_text(script + "main()\n")
    pipe = f"{sys.executable} {tmp_path / 'x.py'} | head -n 1 | wc -c"
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent.parent)}
    done = subprocess.run(pipe, shell=True, env=environment, capture_output=True, text=True)
    assert (done.stdout.strip(), done.stderr) == ("10000", "")
