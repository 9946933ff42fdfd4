import argparse
import os
import subprocess
import sys
from pathlib import Path

import pytest

from portraitnet.cli import (
    ROOT,
    Help,
    command,
    float_range,
    height_by_width,
    int_range,
    make_parser,
    sentence,
)


@pytest.mark.parametrize(
    ("kind", "text", "value"),
    [
        (int_range(1), "1", 1),
        (int_range(), "+7", 7),
        (int_range(-5, 5), "-5", -5),
        (int_range(32, multiple=32), "96", 96),
        (float_range(), "0", 0.0),
        (float_range(above=0), "1e-3", 0.001),
        (float_range(0, 1), "1", 1.0),
    ],
)
def test_numbers_in_range(kind, text, value):
    assert kind(text) == value and type(kind(text)) is type(value)


@pytest.mark.parametrize(
    ("kind", "text", "message"),
    [
        (int_range(1), "0", "a whole number from 1, not '0'"),
        (int_range(1), "1.5", "a whole number"),
        (int_range(1), "", "a whole number"),
        (int_range(), "--5", "a whole number"),
        (int_range(), str(2**31), "a whole number"),
        (int_range(0, 65535), "99999", "from 0 to 65535, not '99999'"),
        (int_range(32, multiple=32), "100", "a multiple of 32, not '100'"),
        (int_range(32, multiple=32), "-32", "a multiple of 32"),
        (float_range(above=0), "0", "a number above 0, not '0'"),
        (float_range(0, 1), "1.1", "from 0 to 1, not '1.1'"),
        (float_range(), "nan", "a number from 0, not 'nan'"),
        (float_range(), "inf", "a number"),
        (float_range(), "-1", "a number"),
        (float_range(), "abc", "a number"),
    ],
)
def test_everything_else_is_named(kind, text, message):
    with pytest.raises(argparse.ArgumentTypeError, match="must be .*") as error:
        kind(text)
    assert message in str(error.value)


@pytest.mark.parametrize("text", ["0x32", "32x0", "16x32", "33x32", "32x48", "32", "32x32x32"])
def test_a_network_inputs_sides_are_multiples_of_32(text):
    assert height_by_width("256x32") == (256, 32)
    with pytest.raises(argparse.ArgumentTypeError, match="height x width in multiples of 32"):
        height_by_width(text)


@pytest.mark.parametrize(
    "example, name",
    [
        ("python -m data.composites cutouts/", "python -m data.composites"),
        ("python train.py --lite", "train.py"),
        ("portraitnet photo.jpg", "portraitnet"),
    ],
)
def test_a_usage_line_names_the_command_as_its_example_calls_it(example, name):
    assert make_parser("It works.", example).prog == name


def test_help_shows_a_default_where_there_is_one():
    parser = argparse.ArgumentParser(formatter_class=Help)
    parser.add_argument("--size", default=3, help="side")
    parser.add_argument("--model_path", help="file")
    parser.add_argument("--amp", action="store_true", help="half")
    parser.add_argument("--formats", nargs="+", default=["onnx", "fp16"], help="kinds")
    parser.add_argument("--weights", default=ROOT / "weights" / "a.onnx", help="file")
    message = " ".join(parser.format_help().split())
    assert "side (default: 3)" in message and message.count("default") == 3
    assert "kinds (default: onnx fp16)" in message and "file (default: weights/a.onnx)" in message


@pytest.mark.parametrize(
    "error, code, message",
    [
        (ValueError("the file is bad: mend it."), 1, "x.py: the file is bad: mend it.\n"),
        (PermissionError(13, "Permission denied", "a"), 1, "x.py: a cannot be used (Permission de"),
        (OSError(5, "Input/output error", "a"), 1, "x.py: a cannot be used (Input/output error): "),
        (
            OSError("The port is taken: give another."),
            1,
            "x.py: The port is taken: give another.\n",
        ),
        (MemoryError(), 1, "x.py: MemoryError\n"),
        (ModuleNotFoundError("No module", name="onnx"), 1, "x.py: this needs onnx: run `pip"),
        (KeyboardInterrupt(), 130, "x.py: Interrupted"),
    ],
)
def test_a_command_ends_in_one_line(error, code, message, capsys):
    @command("x.py")
    def main(argv=None):
        raise error

    assert main([]) == code
    err = capsys.readouterr().err
    assert err.startswith(message) and err.count("\n") == 1


def test_an_error_of_the_system_names_its_path_and_what_to_do(tmp_path):
    (tmp_path / "file").touch()
    for call, advice in (
        (tmp_path.unlink, "name a file"),
        ((tmp_path / "none").read_bytes, "check its name"),
        ((tmp_path / "file").mkdir, "a folder is needed there, so give another path"),
        ((tmp_path / "file" / "a").read_bytes, "a folder is needed there, so give another path"),
        ((tmp_path / ("n" * 300)).touch, "give a shorter name"),
    ):
        with pytest.raises(OSError) as raised:
            call()
        message = sentence(raised.value)
        assert message.startswith(f"{tmp_path}") and message.endswith(f"): {advice}.")
        assert "Errno" not in message


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_a_stream_that_the_shell_has_closed_is_empty(tmp_path, closed):
    script = "import os, sys\nfrom portraitnet.cli import command\n"
    script += "@command('x.py')\ndef main(argv=None):\n    assert sys.stdin.read() == ''\n"
    script += "    print('a')\n    print('b', file=sys.stderr)\n"
    script += "    return os.open('x.py', os.O_RDONLY)\n"  # no number of a stream
    (tmp_path / "x.py").write_text(script + "sys.exit(main())\n")
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    done = subprocess.run(
        ["bash", "-c", f"{sys.executable} x.py {closed}"],
        cwd=tmp_path, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode >= 3 and "Traceback" not in done.stderr
    assert done.stdout == "" if " >&-" in f" {closed}" else done.stdout == "a\n"


def test_a_bug_keeps_its_traceback():
    @command("x.py")
    def main(argv=None):
        raise KeyError("ours")

    with pytest.raises(KeyError):
        main([])


def test_a_closed_pipe_ends_a_command_quietly_with_code_1(tmp_path):
    script = "import sys\nfrom portraitnet.cli import command\n"
    script += "@command('x.py')\ndef main(argv=None):\n    while True:\n        print('y' * 9999)\n"
    (tmp_path / "x.py").write_text(script + "sys.exit(main())\n")
    pipe = f"{sys.executable} {tmp_path / 'x.py'} | head -n 1 | wc -c; echo ${{PIPESTATUS[0]}}"
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    done = subprocess.run(["bash", "-c", pipe], env=environment, capture_output=True, text=True)
    assert (done.stdout.split(), done.stderr) == (["10000", "1"], "")
