"""Kills, full disks and folders that cannot be written: what was done before is kept, what is half
done is gone, and `--resume` ends with the same weights.

`pytest -m slow tests/test_faults.py -s` kills fifty times and prints what was hit.
"""

import json
import multiprocessing
import os
import resource
import subprocess
import sys
import time
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path

import cv2
import numpy as np
import pytest
from conftest import draw_data_root, draw_portrait, save_random_weights

import evaluate
import export
import label
import predict
import train
from data.cache import PhotoCache, decode
from models.weights import read_state
from portraitnet.files import whole_file, write_whole

ROOT = Path(__file__).parent.parent
SMALL = "--width 0.25 --size 64 --batch_size 4 --log_iter 3 --lr 0.002".split()


def run_silently(arguments):
    with open(os.devnull, "w") as nowhere, redirect_stdout(nowhere), redirect_stderr(nowhere):
        train.default_workers = lambda _: int(os.environ.get("WORKERS", 0))
        raise SystemExit(train.main(arguments))


def partials(folder):
    return [path for path in Path(folder).rglob(".*") if ".part" in path.name]


def start(context, arguments):
    process = context.Process(target=run_silently, args=(arguments,))
    process.start()
    return process


def kill_when(process, happens, seconds):
    """Kill a process when something happens, or after some seconds; whether it still ran."""
    deadline = time.perf_counter() + seconds
    while process.is_alive() and not happens() and time.perf_counter() < deadline:
        time.sleep(0.0005)
    alive = process.is_alive()
    process.kill()
    process.join()
    return alive


class Counting:
    """Whether a folder has seen so many partial files; the last of them is there now."""

    def __init__(self, folder, count):
        self.folder, self.left, self.there = folder, count, False

    def __call__(self):
        there = bool(partials(self.folder))
        self.left -= there and not self.there
        self.there = there
        return there and self.left <= 0


def scores_in(lists):
    """(list, score, value as text) of a log line's validation; as text, because nan is not nan."""
    return [
        (name, score, repr(value))
        for name, scores in lists.items()
        for score, value in scores.items()
    ]


@pytest.mark.slow
@pytest.mark.parametrize("workers", ["0", "1"])
def test_a_training_that_is_killed_again_and_again_ends_the_same(tmp_path, monkeypatch, workers):
    kills, inside, epochs = (20, 10, 80) if workers == "1" else (30, 15, 80)
    monkeypatch.setenv("PYTHONPATH", f"{ROOT}:{ROOT / 'tests'}")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["test_faults"])
    root = draw_data_root(tmp_path / "drawn", train=24, val=2)
    flags = [*SMALL, "--epoch", str(epochs), "--data_root", str(root), "--output"]
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("WORKERS", workers)  # `start` gives them to train.py
    rng, killed, hit, runs = np.random.default_rng(0), 0, 0, tmp_path / "killed"
    while killed < kills:
        again = ["--resume"] if (runs / "resume.pdstate").exists() else []
        process = start(context, [*flags, str(runs), *again])
        if hit < inside:  # after some writes, in the midst of the next
            alive = kill_when(process, Counting(runs, int(rng.integers(1, 12))), 20)
        else:
            alive = kill_when(process, lambda: False, rng.uniform(0.1, 4))
        hit += bool(alive and partials(runs))
        killed += alive
        if not alive:
            break
    process = start(context, [*flags, str(runs), "--resume"])
    process.join()
    assert process.exitcode == 0
    process = start(context, [*flags, str(tmp_path / "whole")])
    process.join()
    assert process.exitcode == 0
    logs = []
    for folder in ("whole", "killed"):
        lines = (tmp_path / folder / "log.jsonl").read_text().splitlines()
        lines = [json.loads(line) for line in lines]
        logs.append([(line["epoch"], line["loss"], line["val"]) for line in lines])
    for one, other in zip(*logs):
        assert one[:2] == other[:2], "the training differs"
        differing = [
            pair for pair in zip(scores_in(one[2]), scores_in(other[2])) if pair[0] != pair[1]
        ]
        assert not differing, f"the validation of epoch {one[0]} differs: {differing}"
    assert logs[0] == logs[1] and [epoch for epoch, _, _ in logs[0]] == list(range(epochs))
    for name in [f"model_{epoch}.pdparams" for epoch in range(epochs)] + ["best.pdparams"]:
        one, other = (read_state(tmp_path / folder / name) for folder in ("whole", "killed"))
        assert all(np.array_equal(one[each].numpy(), other[each].numpy()) for each in one), name
    assert not partials(runs) and sorted(os.listdir(runs)) == sorted(os.listdir(tmp_path / "whole"))
    print(f"\nkills: {killed} survived, {hit} inside a write, {workers} workers")
    assert killed > kills // 2


def test_what_a_killed_process_was_writing_goes_with_the_next_write(tmp_path):
    context = multiprocessing.get_context("fork")

    def half(path):
        with whole_file(path) as temporary:
            temporary.write_bytes(b"half")
            os.kill(os.getpid(), 9)

    process = context.Process(target=half, args=(tmp_path / "a.png",))
    process.start()
    process.join()
    assert len(partials(tmp_path)) == 1
    living = tmp_path / partials(tmp_path)[0].name.replace(f"-{process.pid}-", f"-{os.getppid()}-")
    living.write_bytes(b"of a process that lives")
    (tmp_path / ".photo.2020.part.png").write_bytes(b"a user's")
    second = context.Process(target=write_one, args=(tmp_path / "b.png",))
    second.start()
    second.join()
    kept = {living.name, ".photo.2020.part.png", "b.png"}
    assert {path.name for path in tmp_path.iterdir()} == kept


def write_one(path):
    with whole_file(path) as temporary:
        temporary.write_bytes(b"whole")


@contextmanager
def file_limit(size, folder):
    """No file may grow beyond `size` bytes: C and Python fail as on a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@contextmanager
def tmpfs(options, folder, fill=False):
    """A small or read-only file system at a folder; only root can make one."""
    folder.mkdir(exist_ok=True)
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", options, "none", folder], capture_output=True
    )
    if mounted.returncode:
        pytest.skip("no right to mount a file system")
    if fill:
        (folder / "filling").write_bytes(bytes(4096))
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", folder], check=True)


def commands(root, photo, weights, out):
    """Every kind of file that the commands write: name -> its command."""
    model, drawn = ["--model_path", weights], ["--data_root", str(root)]
    training = [*SMALL, *drawn, "--epoch", "1"]
    return {
        "picture": (predict, [photo, *model, "--output", out]),
        "mask": (label, [photo, *model, "--output", out, "--min_agreement", "0"]),
        "scores": (evaluate, [*drawn, *model, "--json", f"{out}/scores.json"]),
        "sheet": (evaluate, [*drawn, *model, "--save_dir", out]),
        "checkpoint": (train, [*training, "--output", out]),
        "onnx": (export, ["--formats", "onnx", *model, "--output", out, "--photos", photo]),
        "inference": (
            export,
            ["--formats", "inference", *model, "--output", out, "--photos", photo],
        ),
    }


KINDS = list(commands("", "", "", ""))
OBSTACLES = {
    "a limit": lambda out: file_limit(600, out),
    "a full disk": lambda out: tmpfs("size=4k", out, fill=True),
    "read-only": lambda out: tmpfs("ro", out),
}


@pytest.mark.parametrize("obstacle", OBSTACLES)
@pytest.mark.parametrize("kind", KINDS)
def test_what_cannot_be_written_is_named_and_leaves_nothing(tmp_path, capsys, kind, obstacle):
    if (kind, obstacle) == ("inference", "a limit"):
        pytest.skip("Paddle tells of no failed write; export.py asks the disk for its room")
    root = draw_data_root(tmp_path / "drawn", train=4, val=2, test=2)
    photo, weights, out = str(tmp_path / "a.png"), str(tmp_path / "net.pdparams"), tmp_path / "out"
    save_random_weights(weights, gain=-1)  # nearly all of the photo is person
    cv2.imwrite(photo, draw_portrait(np.random.default_rng(0), 400, 300)[0])
    module, arguments = commands(root, photo, weights, str(out))[kind]
    with OBSTACLES[obstacle](out):
        code = module.main(arguments)
        left = [path for path in out.rglob("*") if path.is_file()] if out.exists() else []
    message = capsys.readouterr().err
    assert code == 1 and "Traceback" not in message
    reasons = "File too large", "No space left", "No space for", "Read-only file system"
    assert any(reason in message for reason in reasons) and str(out) in message, message
    assert not [path for path in left if ".part" in path.name]
    names = {path.name for path in left}
    assert names <= {"filling", "lock", "args.json"} or kind == "checkpoint"


def test_a_failed_save_keeps_the_last_one(tmp_path, capsys):
    root = draw_data_root(tmp_path / "drawn", train=8, val=2)
    flags = [*SMALL, "--data_root", str(root), "--output"]
    assert train.main([*flags, str(tmp_path / "full"), "--epoch", "1"]) == 0
    before = (tmp_path / "full" / "resume.pdstate").read_bytes()
    with file_limit(100_000, tmp_path):
        assert train.main([*flags, str(tmp_path / "full"), "--epoch", "2", "--resume"]) == 1
    assert "File too large" in capsys.readouterr().err
    assert (tmp_path / "full" / "resume.pdstate").read_bytes() == before
    assert not partials(tmp_path)


def test_the_cache_keeps_no_half_photo(tmp_path):
    photo = tmp_path / "a.png"
    cv2.imwrite(str(photo), draw_portrait(np.random.default_rng(0))[0])
    cache = PhotoCache(tmp_path / "cache")
    with file_limit(200, tmp_path):
        assert np.array_equal(cache.photo(str(photo)), decode(str(photo)))
    assert os.listdir(tmp_path / "cache") == []


def test_a_file_is_on_the_disk_before_it_has_its_name(tmp_path, monkeypatch):
    named, sync = [], os.fsync

    def noting(number):
        named.append((tmp_path / "a").exists())
        sync(number)

    monkeypatch.setattr(os, "fsync", noting)
    write_whole(tmp_path / "a", b"data")
    assert named == [False, True] and (tmp_path / "a").exists()


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="no Linux")
def test_workers_end_with_their_training(tmp_path):
    root = draw_data_root(tmp_path / "drawn", train=64, val=2)
    flags = [
        *SMALL,
        "--epoch",
        "90",
        "--data_root",
        str(root),
    ]
    # One worker, whatever the number of cores.
    script = "import sys, train; train.default_workers = lambda _: 1; sys.exit(train.main())"
    command = [sys.executable, "-c", script, *flags, "--output", str(tmp_path / "out")]
    with open(tmp_path / "log", "w") as log:
        process = subprocess.Popen(command, cwd=ROOT, stdout=log, stderr=log)
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    deadline = time.time() + 300  # the kernels may have to be built first
    while not (tmp_path / "out" / "resume.pdstate").exists():
        assert time.time() < deadline and process.poll() is None, (tmp_path / "log").read_text()
        time.sleep(0.02)
    while not (workers := children.read_text().split()):  # anew in each epoch
        assert time.time() < deadline, "no worker was started"
        time.sleep(0.001)
    process.kill()
    process.wait()
    deadline = time.time() + 60  # who waits for work that nobody gives waits for ever
    while left := [pid for pid in workers if state_of(pid) not in ("gone", "Z")]:
        if time.time() > deadline:
            for pid in left:
                os.kill(int(pid), 9)
            pytest.fail(f"{left} outlive their training")
        time.sleep(0.02)


def state_of(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return "gone"
