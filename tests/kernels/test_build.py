"""The cache of compiled kernels; compiling itself is `load_operators` in every kernel test."""

import shutil
import subprocess
import sys

import pytest

from kernels import build


@pytest.fixture
def compiled(tmp_path, monkeypatch):
    """A stand-in for the compiler: it writes a 'library' and counts how often it was asked."""
    calls = []

    def compile_library(arguments, **options):
        if "-c" not in arguments:
            return real_run(arguments, **options)
        calls.append(arguments)
        folder = build.pathlib.Path(arguments[5]) / build.NAME
        folder.mkdir(parents=True)
        (folder / f"{build.NAME}.so").write_bytes(b"library" * 1000)
        return subprocess.CompletedProcess(arguments, 0, "", "")

    real_run = subprocess.run
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("CXX", sys.executable)  # any program that answers --version
    monkeypatch.setattr(build.subprocess, "run", compile_library)
    monkeypatch.setattr(build, "_import", build._library)
    return calls


def harm_nothing(library):
    pass


def empty(library):
    library.write_bytes(b"")


def cut_short(library):
    library.write_bytes(library.read_bytes()[:100])


def change_a_byte(library):
    library.write_bytes(b"x" + library.read_bytes()[1:])


def remove(library):
    library.unlink()


def remove_the_folder(library):
    shutil.rmtree(library.parent)


def remove_the_sum(library):
    (library.parent.parent / build.SUM).unlink()


HARMS = (empty, cut_short, change_a_byte, remove, remove_the_folder, remove_the_sum)


@pytest.mark.skipif(shutil.which("g++") is None, reason="no compiler")
@pytest.mark.parametrize("harm", [harm_nothing, *HARMS])
def test_a_damaged_library_is_built_again_with_a_sentence(compiled, harm, capsys):
    library = build.load_operators()
    assert len(compiled) == 1 and "once: half a minute" in capsys.readouterr().err
    harm(library)
    assert build.load_operators() == library
    assert library.read_bytes() == b"library" * 1000
    said = capsys.readouterr().err
    assert len(compiled) == (1 if harm is harm_nothing else 2)
    assert ("are damaged" in said) == (harm is not harm_nothing)
