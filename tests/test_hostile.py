"""What a stranger's folder may hold. Whatever it is, no command ends in a traceback, what is good
is done, what is bad is named, the exit code is 0, 1 or 2, and nothing is left half-written.

The quick tests take a few files of each kind; `pytest -m slow tests/test_hostile.py -s` takes
hundreds and prints how many.
"""

import codecs
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import paddle
import pytest
from conftest import draw_data_root, draw_portrait

import check
import evaluate
import label
import predict
import train
from models import PortraitNet

ROOT = Path(__file__).parent.parent
FEW_AND_MANY = [2, pytest.param(60, marks=pytest.mark.slow)]
SMALL = "--width 0.25 --size 64 --batch_size 4 --epoch 1".split()
# root may read everything: it gives that up for a while
AS_USER = ["setpriv", "--bounding-set=-dac_override,-dac_read_search"] if os.getuid() == 0 else []


def damage(data, rng, count):
    """Ways to damage a file: cut short, bytes changed, a hole, something after it."""
    yield from (b"", b"\0", b"no such file", data[:3], data + data)
    for _ in range(count):
        place = int(rng.integers(1, len(data)))
        yield data[:place]
        changed = bytearray(data)
        for at in rng.integers(0, len(data), 5):
            changed[at] = rng.integers(256)
        yield bytes(changed)
        yield data[:place] + bytes(min(100, len(data) - place)) + data[place + 100 :]
        head = bytearray(data)
        head[int(rng.integers(min(64, len(data))))] ^= 1 << int(rng.integers(8))
        yield bytes(head)


def damaged_photos(folder, rng, count):
    """Damaged photos of every format in a folder; the number of files."""
    folder.mkdir(parents=True)
    number = 0
    for suffix in (".jpg", ".png", ".webp", ".bmp", ".tif", ".ppm"):
        image = draw_portrait(rng, 40, 30)[0]
        for data in damage(cv2.imencode(suffix, image)[1].tobytes(), rng, count):
            kind = ".png" if suffix == ".ppm" else suffix
            (folder / f"{number:05}{kind}").write_bytes(data)
            number += 1
    return number


def leftovers(folder):
    return [str(path) for path in Path(folder).rglob(".*part*")]


def finished(capsys, code):
    """Assert that a command ended as it should; what it wrote to stderr."""
    message = capsys.readouterr()
    assert code in (0, 1) and "Traceback" not in message.err + message.out
    assert code == 0 or message.err.strip()
    return message.err


@pytest.mark.parametrize("count", FEW_AND_MANY)
def test_damaged_photos(model_path, tmp_path, capsys, count):
    rng = np.random.default_rng(count)
    number = damaged_photos(tmp_path / "in", rng, count)
    good = [tmp_path / "in" / name for name in ("00000-good.png", "zz-good.jpg")]
    for path in good:
        cv2.imwrite(str(path), draw_portrait(rng, 40, 30)[0])
    flags = ["--model_path", model_path, "--output"]
    code = predict.main([str(tmp_path / "in"), *flags, str(tmp_path / "out")])
    message = finished(capsys, code)
    done = {path.name for path in (tmp_path / "out").iterdir()}
    assert code == 1 and {f"{path.stem}_overlay.png" for path in good} <= done
    for path in (tmp_path / "in").iterdir():  # done or named
        assert (f"{path.stem}_overlay.png" in done) != (f"{path}" in message), path
    assert all(cv2.imread(str(tmp_path / "out" / name)) is not None for name in done)
    finished(capsys, label.main([str(tmp_path / "in"), *flags, str(tmp_path / "drafts")]))
    assert not leftovers(tmp_path)
    with capsys.disabled():
        print(f"\nphotos: {number} damaged files, {len(done) - 2} of them could still be read")


@pytest.mark.parametrize("count", FEW_AND_MANY)
def test_damaged_data_sets(model_path, tmp_path, capsys, count):
    """A photo or a mask of each part is damaged: evaluation scores the others, training says so."""
    rng, tried = np.random.default_rng(count), 0
    for number in range(count):
        root = draw_data_root(tmp_path / str(number), train=4, val=2, test=3, seed=number)
        for folder, name in (("Images", "00007"), ("Labels", "00008"), ("Images", "00001")):
            path = root / folder / f"{name}.png"
            path.write_bytes(list(damage(path.read_bytes(), rng, 1))[number % 9])
        flags = ["--data_root", str(root)]
        code = evaluate.main([*flags, "--model_path", model_path])
        message = finished(capsys, code)
        assert f"{code} " in "0 1 " and (code == 0 or "00007" in message or "00008" in message)
        finished(capsys, check.main(flags))
        finished(capsys, train.main([*SMALL, *flags, "--output", str(tmp_path / f"{number}.run")]))
        tried += 3
    assert not leftovers(tmp_path)
    with capsys.disabled():
        print(f"\ndata sets: {tried} files damaged, by three commands")


def test_lists(model_path, tmp_path, capsys):
    root = draw_data_root(tmp_path / "drawn", train=3, val=2, test=2)
    good = "Images/00000.png Labels/00000.png\nImages/00001.png Labels/00001.png\n"
    contents = {
        "utf-8 with a mark": codecs.BOM_UTF8 + good.encode(),
        "utf-16": good.encode("utf-16"),
        "utf-16 of the other end": codecs.BOM_UTF16_BE + good.encode("utf-16-be"),
        "Windows' line ends": good.replace("\n", "\r\n").encode(),
        "latin-1": good.encode() + "Images/café.png Labels/café.png\n".encode("latin-1"),
        "nothing": b"",
        "blank lines": b"\n\n \n",
        "zeros": bytes(50),
        "random": np.random.default_rng(0).bytes(500),
        "one word": b"Images/00000.png\n",
        "missing files": b"a.png b.png\n",
        "a folder": b"Images Labels\n",
        "a long line": b"x" * 100_000 + b" y\n",
        "itself": b"train_list.txt train_list.txt\n",
        "half utf-16": good.encode("utf-16")[:-1],
    }
    for path in root.glob("eg1800_*.txt"):
        path.unlink()
    for message, content in contents.items():
        for split in ("train", "val", "test"):
            (root / f"{split}_list.txt").write_bytes(content)
        flags, works = ["--data_root", str(root)], message in list(contents)[:4]
        codes = [
            check.main(flags),
            evaluate.main([*flags, "--model_path", model_path]),
            train.main([*SMALL, *flags, "--output", str(tmp_path / message)]),
        ]
        err = capsys.readouterr()
        assert "Traceback" not in err.err + err.out, message
        # Both photos twice in two lists: check.py has that to say.
        assert codes == ([1, 0, 0] if works else [1, 1, 1]), (message, codes, err.err)
    (root / "train_list.txt").write_bytes(contents["latin-1"])
    assert check.main(flags) == 1
    assert "train_list.txt line 3 is not in UTF-8: save the list" in capsys.readouterr().err
    (root / "train_list.txt").write_bytes(b"")
    (root / "val_list.txt").write_text(good)
    (root / "test_list.txt").unlink()
    assert check.main(flags) == 1
    assert f"{root} train: empty list, no pairs" in capsys.readouterr().out


def states(rng, count):
    """Weights that are none: name -> what `paddle.save` is given."""
    weights = {k: v.numpy() for k, v in PortraitNet(width=0.25).state_dict().items()}
    last, head = "encoder.stages.6.0.project.conv.weight", "mask_head.weight"
    yield "nan", {k: v * np.nan for k, v in weights.items()}
    yield "infinite", weights | {head: weights[head] + np.inf}
    yield "whole numbers", {k: v.astype(np.int64) for k, v in weights.items()}
    yield "three classes", PortraitNet(n_class=3, width=0.25).state_dict()
    yield "4 TB", weights | {last: np.zeros((10**7, 1, 1, 1), np.float32)}
    yield "no channels", weights | {last: np.zeros((0, 1, 1, 1), np.float32)}
    yield "a number", weights | {last: np.float32(3).reshape(())}
    yield "an odd width", weights | {last: np.zeros((81, 60, 1, 1), np.float32)}
    yield "one missing", {k: v for k, v in weights.items() if k != head}
    yield "a list", [1, 2]
    yield "empty", {}
    yield "words", {"weight": "word", last: "x", head: "y"}
    for i in range(count):
        name = list(weights)[int(rng.integers(len(weights)))]
        yield f"misshapen {i}", weights | {name: weights[name][..., None]}


def test_weights(model_path, tmp_path, capsys):
    """None of the damaged weights gives a result, each is one line."""
    photo, rng = tmp_path / "a.png", np.random.default_rng(0)
    cv2.imwrite(str(photo), draw_portrait(rng)[0])
    paths = []
    for name, state in states(rng, 3):
        paths.append(tmp_path / f"{name}.pdparams")
        if isinstance(state, dict):
            state = {
                k: paddle.to_tensor(v) if isinstance(v, np.ndarray) else v for k, v in state.items()
            }
        paddle.save(state, str(paths[-1]))
    files = {".pdparams": Path(model_path)}
    if (ROOT / "weights" / "portraitnet.onnx").exists():
        files[".onnx"] = ROOT / "weights" / "portraitnet.onnx"
    for suffix, path in files.items():
        data = path.read_bytes()
        for i, damaged in enumerate([b"", b"x", data[:1000], data[: len(data) // 2], data[9:]]):
            paths.append(tmp_path / f"{i}{suffix}")
            paths[-1].write_bytes(damaged)
    for path in paths:
        code = predict.main([str(photo), "--model_path", str(path)])
        message = capsys.readouterr()
        assert code == 1 and message.err.count("\n") == 1, (path, message.err)
        assert str(path) in message.err or "numbers that are not finite" in message.err, (
            path,
            message.err,
        )
        assert not (tmp_path / "a_overlay.png").exists()


def test_an_onnx_network_that_answers_no_number_is_named(tmp_path, capsys):
    onnx = pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    nodes = [
        onnx.helper.make_node("ReduceMean", ["batch"], ["mean"], axes=[1], keepdims=0),
        onnx.helper.make_node("Sub", ["mean", "mean"], ["nought"]),
        onnx.helper.make_node("Div", ["nought", "nought"], ["probability"]),
    ]
    kind = onnx.TensorProto.FLOAT
    graph = onnx.helper.make_graph(
        nodes,
        "nothing",
        [onnx.helper.make_tensor_value_info("batch", kind, ["n", 3, "h", "w"])],
        [onnx.helper.make_tensor_value_info("probability", kind, ["n", "h", "w"])],
    )
    opset = [onnx.helper.make_opsetid("", 13)]
    path, photo = tmp_path / "nan.onnx", tmp_path / "a.png"
    onnx.save(onnx.helper.make_model(graph, opset_imports=opset, ir_version=8), path)
    cv2.imwrite(str(photo), draw_portrait(np.random.default_rng(0))[0])
    assert predict.main([str(photo), "--model_path", str(path), "--backend", "onnx"]) == 1
    assert "The network's answer is not finite" in capsys.readouterr().err
    assert not (tmp_path / "a_overlay.png").exists()


@pytest.mark.parametrize(
    "form", ["{} *{}", "{}  {}", "\n{}  {}\n\n", "{}  ./{}", "SHA256 ({1}) = {0}"]
)
def test_sums_are_checked_in_every_form(model_path, tmp_path, capsys, form):
    path, photo = tmp_path / "net.pdparams", tmp_path / "a.png"
    shutil.copy(model_path, path)
    cv2.imwrite(str(photo), draw_portrait(np.random.default_rng(0))[0])
    done = subprocess.run(["sha256sum", path], capture_output=True, text=True, check=True)
    right = done.stdout.split()[0]
    for sum_, code in ((right, 0), (right.upper(), 0), ("0" * 64, 1)):
        (tmp_path / "SHA256SUMS").write_text(form.format(sum_, path.name))
        assert predict.main([str(photo), "--model_path", str(path)]) == code
    assert "SHA-256 differs" in capsys.readouterr().err
    (tmp_path / "SHA256SUMS").write_text("net.pdparams is fine\n")
    assert predict.main([str(photo), "--model_path", str(path)]) == 1
    assert "write it anew with sha256sum" in capsys.readouterr().err


def test_every_file_in_weights_is_listed():
    lines = (ROOT / "weights" / "SHA256SUMS").read_text().splitlines()
    listed = {line.split()[1] for line in lines}
    shipped = {p.name for p in (ROOT / "weights").iterdir() if p.suffix in (".onnx", ".pdparams")}
    assert shipped <= listed


def odd_files(folder, rng):
    """A folder with odd names and files; the names of the photos that can be read."""
    folder.mkdir()
    image = cv2.imencode(".png", draw_portrait(rng, 40, 30)[0])[1].tobytes()
    names = [os.fsdecode(b"caf\xe9.png"), "-v.png", "--help.jpg", "a b.png", "a\nb.png", "a\tb.png"]
    names += ["'.png", '".png', "*.png", "$HOME.png", "%s.png", "{0}.png", "\x1b[31m.png", "🙂.png"]
    names += ["mask.png", "_blur.png", "a.b.c.PNG", " .png", "x" * 231 + ".png"]
    for name in names:
        (folder / name).write_bytes(image)
    (folder / "folder.png").mkdir()
    os.mkfifo(folder / "pipe.png")
    (folder / "loop.png").symlink_to("loop.png")
    (folder / "broken.png").symlink_to("nowhere")
    (folder / "self").symlink_to(".")
    (folder / ("y" * 247 + ".png")).write_bytes(image)  # its result's name would be too long
    return names


def test_odd_names_and_files(model_path, tmp_path, capsys):
    names = odd_files(tmp_path / "in", np.random.default_rng(0))
    out = tmp_path / "out"
    code = predict.main([str(tmp_path / "in"), "--model_path", model_path, "--output", str(out)])
    message = finished(capsys, code)
    assert (
        code == 1 and "4 of 23 photos failed" in message and "(File name too long): give" in message
    )
    assert {path.name for path in out.iterdir()} == {Path(n).stem + "_overlay.png" for n in names}
    code = label.main([str(tmp_path / "in"), "--model_path", model_path, "--output", str(out)])
    finished(capsys, code)


def test_links_in_a_circle(model_path, tmp_path, capsys):
    (tmp_path / "loop").symlink_to("loop")
    loop = str(tmp_path / "loop")
    codes = (
        predict.main([loop, "--model_path", model_path]),
        predict.main([loop, "--model_path", loop]),
        evaluate.main(["--data_root", loop, "--model_path", model_path]),
        label.main([loop, "--model_path", model_path, "--output", str(tmp_path / "out")]),
        check.main(["--data_root", loop]),
        train.main([*SMALL, "--data_root", loop, "--output", str(tmp_path / "run")]),
    )
    assert codes == (1, 1, 1, 1, 1, 1) and finished(capsys, 1).count("\n") > 5


@pytest.mark.skipif(bool(AS_USER) and not shutil.which("setpriv"), reason="root without setpriv")
def test_what_may_not_be_read_is_named(model_path, tmp_path):
    rng = np.random.default_rng(0)
    for name in ("a.png", "closed/b.png", "c.png"):
        path = tmp_path / "in" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(path), draw_portrait(rng)[0])
    weights = tmp_path / "net.pdparams"
    shutil.copy(model_path, weights)

    def run(model):
        command = [sys.executable, "predict.py", tmp_path / "in", "--model_path", model]
        command += ["--output", tmp_path / "out"]
        return subprocess.run([*AS_USER, *command], cwd=ROOT, capture_output=True, text=True)

    for path in (tmp_path / "in" / "closed", tmp_path / "in" / "c.png", weights):
        path.chmod(0)
    try:
        done, closed = run(model_path), run(weights)
    finally:
        (tmp_path / "in" / "closed").chmod(0o700)
    assert done.returncode == 1 and "2 of 3 photos failed" in done.stderr
    for name in ("closed", "c.png"):
        assert f"{name} cannot be used (Permission denied): change its" in done.stderr
    assert (tmp_path / "out" / "a_overlay.png").exists()
    assert closed.returncode == 1 and closed.stderr.count("\n") == 1
    assert f"{weights} cannot be used (Permission denied): change" in closed.stderr


def test_a_photo_of_a_billion_pixels_is_refused_before_it_is_decoded(model_path, tmp_path, capsys):
    photo = tmp_path / "a.png"
    cv2.imwrite(str(photo), np.zeros((40, 50), np.uint8))
    flags = [str(photo), "--model_path", model_path, "--max_pixels"]
    assert predict.main([*flags, "1999"]) == 1
    message = capsys.readouterr().err
    assert "has 50x40 pixels, over the limit of 1,999" in message and "--max_pixels" in message
    assert predict.main([*flags, "2000"]) == 0


@pytest.mark.parametrize("count", FEW_AND_MANY)
def test_damaged_videos(model_path, tmp_path, capsys, count):
    av = pytest.importorskip("av")
    from apps.video import __main__ as videos

    rng, tried = np.random.default_rng(count), 0
    paths = []
    for suffix, code in ((".mp4", "libx264"), (".mkv", "mpeg4"), (".webm", "libvpx-vp9")):
        video_path = tmp_path / f"video{suffix}"
        with av.open(str(video_path), "w") as output:
            stream = output.add_stream(code, 10)
            stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
            for _ in range(6):
                picture = rng.integers(0, 256, (48, 64, 3), np.uint8)
                output.mux(stream.encode(av.VideoFrame.from_ndarray(picture, "bgr24")))
            output.mux(stream.encode())
        for data in damage(video_path.read_bytes(), rng, max(1, count // 12)):
            paths.append(tmp_path / f"{tried}{suffix}")
            paths[-1].write_bytes(data)
            tried += 1
    paths.append(video_path)
    flags = ["--model_path", model_path, "--output", str(tmp_path / "out")]
    code = videos.main([*map(str, paths), *flags])
    finished(capsys, code)
    assert code == 1 and (tmp_path / "out" / "video_overlay.mp4").exists()
    assert not leftovers(tmp_path)
    with capsys.disabled():
        print(f"\nvideos: {tried} damaged files")


def test_ctrl_c_ends_a_command_in_one_line(model_path, tmp_path):
    photo = cv2.imencode(".jpg", draw_portrait(np.random.default_rng(0), 900, 700)[0])[1]
    (tmp_path / "in").mkdir()
    for i in range(200):
        (tmp_path / "in" / f"{i}.jpg").write_bytes(photo)
    command = [sys.executable, "predict.py", tmp_path / "in", "--model_path", model_path, "--json"]
    process = subprocess.Popen(
        [*command, "--output", tmp_path / "out"],
        cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        pipesize=4096,  # the command waits in it, and cannot end before the signal
    )  # fmt: skip
    first = json.loads(process.stdout.readline())
    assert first
    process.send_signal(signal.SIGINT)
    message = process.communicate(timeout=60)[1]
    assert process.returncode == 130
    assert message.splitlines()[-1].startswith("predict.py: Interrupted")
    assert "Traceback" not in message and not leftovers(tmp_path)


def test_sums_of_an_onnx_file_are_checked(tmp_path, capsys):
    shipped = ROOT / "weights" / "portraitnet.onnx"
    if not shipped.exists():
        pytest.skip("no weights in weights/")
    shutil.copy(shipped, tmp_path / "net.onnx")
    (tmp_path / "SHA256SUMS").write_text(f"{'0' * 64}  net.onnx\n")
    photo = tmp_path / "a.png"
    cv2.imwrite(str(photo), draw_portrait(np.random.default_rng(0))[0])
    assert predict.main([str(photo), "--model_path", str(tmp_path / "net.onnx")]) == 1
    assert "SHA-256 differs" in capsys.readouterr().err
