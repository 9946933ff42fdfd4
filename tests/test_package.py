"""The wheel, in an environment of its own without Paddle."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import cv2
import pytest

import portraitnet

ROOT = Path(__file__).parent.parent


def test_the_version_stands_in_one_place_and_others_agree():
    changes, citation = ((ROOT / name).read_text() for name in ("CHANGELOG.md", "CITATION.cff"))
    assert re.search(r"^## (.*)$", changes, re.M)[1] == portraitnet.__version__
    assert re.search(r"^version: (.*)$", citation, re.M)[1] == portraitnet.__version__


@pytest.fixture(scope="module")
def environment(tmp_path_factory):
    """Folder of a fresh virtual environment into which the wheel of this tree was installed."""
    folder = tmp_path_factory.mktemp("package")
    source = folder / "source"  # a copy, because the build writes beside its sources
    for name in ("portraitnet", "weights"):
        shutil.copytree(ROOT / name, source / name)
    for name in ("pyproject.toml", "README.md", "LICENSE", "NOTICE"):
        shutil.copy(ROOT / name, source)
    wheel = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "-w", folder, source]
    subprocess.run(wheel, check=True)
    subprocess.run([sys.executable, "-m", "venv", folder / "venv"], check=True)
    pip = folder / "venv" / "bin" / "pip"
    subprocess.run([pip, "install", "-q", *folder.glob("*.whl")], check=True)
    return folder / "venv"


def run(environment, folder, *words):
    """Run a program of the environment in a folder outside of the tree."""
    return subprocess.run(
        [environment / "bin" / words[0], *words[1:]], cwd=folder, capture_output=True, text=True
    )


def test_the_licence_and_the_notice_are_installed(environment):
    for name in ("LICENSE", "NOTICE"):
        [held] = environment.glob(f"lib/*/site-packages/portraitnet-*.dist-info/licenses/{name}")
        assert held.read_text() == (ROOT / name).read_text()


def test_the_command_cuts_a_person_out(environment, tmp_path):
    photo = ROOT / "examples" / "portrait.jpg"
    done = run(environment, tmp_path, "portraitnet", photo, "-o", "person.png", "--mode", "cutout")
    assert done.returncode == 0, done.stderr
    picture = cv2.imread(str(tmp_path / "person.png"), cv2.IMREAD_UNCHANGED)
    assert picture.shape == (*cv2.imread(str(photo)).shape[:2], 4)
    assert 0.2 < (picture[:, :, 3] > 127).mean() < 0.8


def test_the_five_lines_of_the_readme_run_and_nothing_needs_paddle(environment, tmp_path):
    photo = ROOT / "examples" / "portrait.jpg"
    script = f"""
import sys
from portraitnet import Predictor, cut_out, read_image, write_image

image = read_image({str(photo)!r})
write_image("person.png", cut_out(image, Predictor().probability(image)))
assert not {{"paddle", "models", "transforms"}} & set(sys.modules)
"""
    done = run(environment, tmp_path, "python", "-c", script)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "person.png").stat().st_size > 10_000


def test_a_checkpoint_is_refused_with_what_to_do(environment, tmp_path):
    (tmp_path / "best.pdparams").write_bytes(b"weights")
    photo = ROOT / "examples" / "portrait.jpg"
    done = run(environment, tmp_path, "portraitnet", photo, "--model_path", "best.pdparams")
    assert done.returncode == 1 and len(done.stderr.splitlines()) == 1
    assert "python export.py" in done.stderr or "pip install paddlepaddle" in done.stderr


def test_the_wheel_has_the_server_and_says_what_it_needs(environment, tmp_path):
    done = run(environment, tmp_path, "portraitnet", "serve", "--help")
    assert done.returncode == 0 and "usage: portraitnet serve" in done.stdout, done.stderr
    done = run(environment, tmp_path, "portraitnet", "serve", "--port", "0")
    assert done.returncode == 1 and len(done.stderr.splitlines()) == 1
    assert "pip install 'portraitnet[server]'" in done.stderr
