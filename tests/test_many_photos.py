"""examples/many_photos.py on a local Ray of two workers, killed on the way."""

import os
import re
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import cv2
import numpy as np
import pytest
from conftest import draw_portrait

pytest.importorskip("ray")
dataset = pytest.importorskip("pyarrow.dataset")

ROOT = Path(__file__).parent.parent
COUNT = 500
pytestmark = pytest.mark.slow


@pytest.fixture
def photos(tmp_path):
    """A folder of drawn portraits in two folders, and two files that are none."""
    folder, rng = tmp_path / "photos", np.random.default_rng(0)
    (folder / "more").mkdir(parents=True)
    for i in range(COUNT - 2):
        image = draw_portrait(rng, 240, 200)[0]
        cv2.imwrite(str(folder / ("more" if i % 3 else ".") / f"{i}.jpg"), image)
    (folder / "bad.png").write_bytes(b"no picture")
    (folder / "empty.jpg").touch()
    (folder / "notes.txt").write_text("no photo")
    return folder


def start(photos, output):
    env = {**os.environ, "PYTHONPATH": str(ROOT), "MANY_PHOTOS": str(output)}
    script = ROOT / "examples" / "many_photos.py"
    return subprocess.Popen(
        [sys.executable, script, photos, output, "--workers", "2"],
        cwd=output.parent, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip


def processes(output, library=""):
    """Numbers of the processes of a run; only those that have loaded a library, if one is named."""
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        try:
            ours = f"MANY_PHOTOS={output}\0" in (path / "environ").read_text(errors="replace")
            if ours and library in (path / "maps").read_text(errors="replace"):
                found.append(int(path.name))
        except OSError:  # it has ended
            pass
    return found


def kill(numbers):
    for number in numbers:
        with suppress(ProcessLookupError):
            os.kill(number, signal.SIGKILL)


def wait_until(condition, process, seconds=600):
    """The first true value of a condition, while a run lasts."""
    end = time.monotonic() + seconds
    while time.monotonic() < end and process.poll() is None:
        if value := condition():
            return value
        time.sleep(0.1)
    raise AssertionError(process.communicate()[0])


def check(photos, output):
    rows = dataset.dataset(output).to_table().to_pylist()
    paths = sorted(str(path) for path in photos.rglob("*") if path.suffix in (".jpg", ".png"))
    assert sorted(row["path"] for row in rows) == paths and len(paths) == COUNT
    errors = {Path(row["path"]).name: row["error"] for row in rows if row["error"]}
    assert set(errors) == {"bad.png", "empty.jpg"}
    assert all("is not a readable picture" in error for error in errors.values())
    for row in rows:
        if not row["error"]:
            mask = cv2.imdecode(np.frombuffer(row["mask"], np.uint8), cv2.IMREAD_UNCHANGED)
            assert mask.shape == (240, 200) and set(np.unique(mask)) <= {0, 255}
            assert row["person"] == pytest.approx((mask > 0).mean(), abs=1e-6)


def test_a_killed_worker_costs_no_photo_and_doubles_none(photos, tmp_path):
    output = tmp_path / "masks"
    process = start(photos, output)
    # A worker has loaded ONNX Runtime; the driver has not. The first file tells that all work.
    wait_until(lambda: list(output.glob("*.parquet")), process)
    kill(wait_until(lambda: processes(output, "onnxruntime"), process)[:1])
    out = process.communicate(timeout=300)[0]
    assert process.returncode == 0, out
    assert "0 of 500 photos are done" in out
    assert "died" in out or "restart" in out, out
    check(photos, output)


def test_a_killed_run_continues(photos, tmp_path):
    output = tmp_path / "masks"
    process = start(photos, output)
    wait_until(lambda: list(output.glob("*.parquet")), process)
    kill(processes(output))  # all of Ray at once, as when the machine loses its power
    process.communicate()
    process = start(photos, output)
    out = process.communicate(timeout=300)[0]
    assert process.returncode == 0, out
    done = int(re.search(r"(\d+) of 500 photos are done", out)[1])
    assert done < 500
    check(photos, output)
    again = start(photos, output).communicate(timeout=60)[0]
    assert "500 of 500 photos are done" in again
