import json
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import pytest
from conftest import draw_portrait

import predict
from portraitnet import __main__ as portraitnet_command
from portraitnet import effects, parallel
from portraitnet.__main__ import make_command
from portraitnet.backgrounds import read_background
from portraitnet.effects import EFFECTS
from portraitnet.images import read_image
from portraitnet.predictor import Predictor
from training.checkpoints import open_predictor

ROOT = Path(__file__).parent.parent


def draw(path, seed=0, height=60, width=50):
    path.parent.mkdir(parents=True, exist_ok=True)
    image, _ = draw_portrait(np.random.default_rng(seed), height, width)
    path.write_bytes(cv2.imencode(path.suffix, image)[1])
    return path


def run(model_path, *arguments):
    return predict.main([*map(str, arguments), "--model_path", model_path])


def files(folder):
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file())


def test_one_photo_gets_its_overlay_and_a_line(model_path, tmp_path, capsys):
    photo = draw(tmp_path / "me.jpg")
    before, started = photo.read_bytes(), time.perf_counter()
    assert run(model_path, photo) == 0
    seconds = time.perf_counter() - started
    image = read_image(photo)
    probability = open_predictor(model_path).probability(image)
    written = cv2.imread(str(tmp_path / "me_overlay.png"))
    assert np.array_equal(written, effects.overlay(image, probability))
    message = capsys.readouterr()
    fraction = effects.mask_of(probability).mean()
    assert f"me_overlay.png: {fraction:.1%} person, " in message.out and message.out.endswith(
        " ms\n"
    )
    assert 0 <= float(message.out.split()[-2]) < 1000 * seconds
    assert photo.read_bytes() == before and files(tmp_path) == ["me.jpg", "me_overlay.png"]
    assert "photo/s" not in message.err, "a progress bar for one photo"


def test_two_photos_get_a_progress_bar(model_path, tmp_path, capsys):
    assert run(model_path, draw(tmp_path / "a.png"), draw(tmp_path / "b.png", 1)) == 0
    assert "2/2" in capsys.readouterr().err


def test_a_folder_is_searched_and_its_tree_kept(model_path, tmp_path, capsys):
    names = ["a.jpg", "b.PNG", "sub/a.png", "sub/deep/c.bmp", "фото.webp"]
    for seed, name in enumerate(names):
        draw(tmp_path / "in" / name, seed)
    draw(tmp_path / "in" / ".hidden.jpg")
    (tmp_path / "in" / "notes.txt").write_text("no photo")
    assert run(model_path, tmp_path / "in", "--output", tmp_path / "out", "--batch_size", 2) == 0
    expected = [str(Path(name).with_suffix("")) + "_overlay.png" for name in names]
    assert files(tmp_path / "out") == sorted(expected)
    assert "5/5" in capsys.readouterr().err


def test_results_do_not_depend_on_the_batch(model_path, tmp_path):
    photos = [draw(tmp_path / f"{i}.png", i, 60 + 9 * i) for i in range(5)]
    for size in (1, 4):
        run(model_path, *photos, "--output", tmp_path / str(size), "--batch_size", size)
    for photo in photos:
        one, four = (
            read_image(tmp_path / size / f"{photo.stem}_overlay.png").astype(int) for size in "14"
        )
        assert np.abs(one - four).max() <= 1


def test_a_second_run_passes_over_results_of_the_first(model_path, tmp_path):
    draw(tmp_path / "a.png"), draw(tmp_path / "my_blur.png")
    for _ in range(2):
        assert run(model_path, tmp_path) == 0
    assert files(tmp_path) == ["a.png", "a_overlay.png", "my_blur.png", "my_blur_overlay.png"]


@pytest.mark.parametrize("mode", EFFECTS)
def test_every_mode_writes_its_file(model_path, tmp_path, mode):
    photo = draw(tmp_path / "a.png")
    assert run(model_path, photo, "--mode", mode) == 0
    written = cv2.imread(str(tmp_path / f"a_{mode}.png"), cv2.IMREAD_UNCHANGED)
    channels = {"cutout": (4,), "mask": ()}.get(mode, (3,))
    assert written.shape == (60, 50, *channels)


def test_save_mask_writes_a_mask_of_0_and_255_too(model_path, tmp_path):
    photo = draw(tmp_path / "a.png")
    assert run(model_path, photo, "--mode", "grey", "--save_mask") == 0
    mask = cv2.imread(str(tmp_path / "a_mask.png"), cv2.IMREAD_UNCHANGED)
    expected = effects.mask_of(open_predictor(model_path).probability(read_image(photo)))
    assert np.array_equal(mask, 255 * expected)
    assert files(tmp_path) == ["a.png", "a_grey.png", "a_mask.png"]


def test_background_takes_names_codes_and_photos(tmp_path):
    assert read_background("red").tolist() == [0, 0, 255]
    assert read_background("#0a1420").tolist() == [32, 20, 10]
    photo = draw(tmp_path / "wall.png")
    assert np.array_equal(read_background(str(photo)), read_image(photo))


def test_a_background_that_is_neither_colour_nor_photo_is_named(capsys):
    for text in ("mauve", "#12345g"):
        with pytest.raises(SystemExit) as stop:
            portraitnet_command.parse_args(["a.png", "--mode", "replace", "--background", text])
        assert stop.value.code == 2
        assert f"neither colour nor photo: There is no file {text}" in capsys.readouterr().err


def test_refinement_can_be_switched_off(model_path, tmp_path):
    photo = draw(tmp_path / "a.png", height=120, width=100)
    assert run(model_path, photo, "--mode", "mask", "--no-refine") == 0
    probability = open_predictor(model_path, refine=False).probability(read_image(photo))
    mask = cv2.imread(str(tmp_path / "a_mask.png"), cv2.IMREAD_UNCHANGED)
    assert np.array_equal(mask, 255 * effects.mask_of(probability))


@pytest.mark.parametrize("mode", ["cutout", "replace", "blur", "grey"])
def test_matting_gives_the_effects_its_alpha(model_path, tmp_path, mode):
    photo = draw(tmp_path / "a.png", height=120, width=100)
    image, predictor = read_image(photo), open_predictor(model_path)
    pictures = []
    for matting in ("none", "fast", "hair"):
        assert run(model_path, photo, "--mode", mode, "--matting", matting) == 0
        pictures.append(cv2.imread(str(tmp_path / f"a_{mode}.png"), cv2.IMREAD_UNCHANGED))
        options = effects.Options(
            read_background("green"), 0.02, alpha=predictor.alpha(image, matting)
        )
        assert np.array_equal(pictures[-1], effects.EFFECTS[mode](image, None, options))
    assert run(model_path, photo, "--mode", mode) == 0
    usual = cv2.imread(str(tmp_path / f"a_{mode}.png"), cv2.IMREAD_UNCHANGED)
    assert np.array_equal(usual, pictures[1])
    assert not np.array_equal(pictures[0], usual) and not np.array_equal(pictures[2], usual)


def test_matting_without_refinement_is_wrong_usage(capsys):
    flags = ["a.png", "--mode", "cutout", "--matting", "hair", "--no-refine"]
    with pytest.raises(SystemExit) as stop:
        portraitnet_command.parse_args(flags)
    assert stop.value.code == 2
    assert "--no-refine means --matting none" in capsys.readouterr().err


def test_blur_is_given_in_percent(model_path, tmp_path):
    photo = draw(tmp_path / "a.png")
    assert run(model_path, photo, "--mode", "blur", "--blur", 5) == 0
    image = read_image(photo)
    expected = effects.blur(image, open_predictor(model_path).probability(image), 0.05)
    assert np.array_equal(read_image(tmp_path / "a_blur.png"), expected)


def test_skip_existing_leaves_results_as_they_are(model_path, tmp_path, capsys):
    photos = [draw(tmp_path / f"{name}.png") for name in "abc"]
    (tmp_path / "a_overlay.png").write_text("done before")
    (tmp_path / "c_overlay.png").touch()  # what a power cut can leave
    assert run(model_path, *photos, "--skip_existing") == 0
    assert (tmp_path / "a_overlay.png").read_text() == "done before"
    for name in "bc":
        assert (tmp_path / f"{name}_overlay.png").stat().st_size > 0
    assert "1 photos skipped" in capsys.readouterr().out


def test_a_bad_file_is_named_and_the_others_are_done(model_path, tmp_path, capsys):
    good = [draw(tmp_path / f"{i}.png", i) for i in range(3)]
    bad = tmp_path / "bad.jpg"
    bad.write_bytes(b"no picture")
    assert run(model_path, good[0], bad, tmp_path / "none.png", *good[1:]) == 1
    message = capsys.readouterr().err
    assert "bad.jpg is not a readable picture" in message
    assert "There is no file" in message and "none.png" in message
    assert "2 of 5 photos failed." in message and "Traceback" not in message
    assert all((tmp_path / f"{i}_overlay.png").exists() for i in range(3))


def test_a_folder_that_cannot_be_written_is_named(model_path, tmp_path, capsys):
    (tmp_path / "out").write_text("a file, no folder")
    assert run(model_path, draw(tmp_path / "a.png"), "--output", tmp_path / "out") == 1
    assert f"{tmp_path / 'out'}" in capsys.readouterr().err


def test_an_input_is_never_overwritten(model_path, tmp_path, capsys):
    photos = [draw(tmp_path / "a.png"), draw(tmp_path / "a_overlay.png", 1)]
    before = photos[1].read_bytes()
    assert run(model_path, *photos) == 1
    assert photos[1].read_bytes() == before
    assert "a_overlay.png is an input and is kept: give another --output" in capsys.readouterr().err


def test_two_photos_never_have_one_result(model_path, tmp_path, capsys):
    photos = [draw(tmp_path / "a.png"), draw(tmp_path / "a.jpg", 1)]
    assert run(model_path, *photos) == 1
    message = capsys.readouterr().err
    assert f"{photos[1]}: its result" in message and f"already that of {photos[0]}" in message
    assert (tmp_path / "a_overlay.png").exists()


def test_an_empty_folder_and_missing_weights_are_one_sentence(tmp_path, capsys):
    assert predict.main([str(tmp_path)]) == 1
    assert "No photo in" in capsys.readouterr().err
    photo = draw(tmp_path / "a.png")
    assert run(str(tmp_path / "none.pdparams"), photo) == 1
    assert "none.pdparams" in capsys.readouterr().err


@pytest.mark.parametrize("flags", [["--batch_size", "0"], ["--blur", "-1"], ["--mode", "x"], []])
def test_wrong_usage_exits_with_2(flags):
    with pytest.raises(SystemExit) as stop:
        portraitnet_command.parse_args(["a.png", *flags] if flags else [])
    assert stop.value.code == 2


def test_a_name_that_is_not_utf8_is_a_name(model_path, tmp_path, capsys):
    named = tmp_path / "in" / os.fsdecode(b"caf\xe9.png")
    draw(tmp_path / "in" / "a.png").rename(named)
    draw(tmp_path / "in" / "z.png")
    (tmp_path / "in" / os.fsdecode(b"bad\xff.png")).write_bytes(b"no picture")
    assert run(model_path, tmp_path / "in", "--output", tmp_path / "out") == 1
    message = capsys.readouterr()
    assert r"caf\udce9_overlay.png: " in message.out
    assert r"bad\udcff.png is not a readable picture" in message.err
    assert sorted(os.listdir(os.fsencode(tmp_path / "out"))) == [
        b"caf\xe9_overlay.png",
        b"z_overlay.png",
    ]


def test_photos_may_be_called_as_results_end(model_path, tmp_path):
    names = ["mask.png", "grey.jpg", "_blur.png", "in.png"]
    for name in names:
        draw(tmp_path / "in" / name)
    draw(tmp_path / "in.png")  # beside the folder: "in/mask" is no result of it
    assert run(model_path, tmp_path, "--output", tmp_path / "out") == 0
    stems = [Path(name).stem for name in names]
    expected = [f"in/{stem}_overlay.png" for stem in stems] + ["in_overlay.png"]
    assert files(tmp_path / "out") == sorted(expected)


def test_a_background_is_not_overwritten(model_path, tmp_path, capsys):
    photo, wall = draw(tmp_path / "a.png"), draw(tmp_path / "a_replace.png", 1)
    before = wall.read_bytes()
    assert run(model_path, photo, "--mode", "replace", "--background", wall) == 1
    assert wall.read_bytes() == before
    assert "a_replace.png is an input and is kept" in capsys.readouterr().err


def test_processes_share_the_list(model_path, tmp_path, monkeypatch):
    for i in range(5):
        draw(tmp_path / "in" / f"{i}.png", i)
    done = []
    for rank in range(2):
        monkeypatch.setenv("PADDLE_TRAINER_ID", str(rank))
        monkeypatch.setenv("PADDLE_TRAINERS_NUM", "2")
        assert run(model_path, tmp_path / "in", "--output", tmp_path / str(rank)) == 0
        done.append(files(tmp_path / str(rank)))
    assert list(map(len, done)) == [3, 2] and not set(done[0]) & set(done[1])


def test_shards_are_disjoint_and_complete_wherever_the_folder_is(model_path, tmp_path):
    names = [f"{i}.png" for i in range(6)] + ["sub/0.png", "sub/1.png"]
    for i, name in enumerate(names):
        draw(tmp_path / "in" / name, i)
    shutil.copytree(tmp_path / "in", tmp_path / "mounted elsewhere")
    done = []
    for i, folder in enumerate(("in", "mounted elsewhere", "in")):
        flags = ["--output", tmp_path / str(i), "--shard", f"{i + 1}/3"]
        assert run(model_path, tmp_path / folder, *flags) == 0
        done += files(tmp_path / str(i))
    expected = [name.replace(".png", "_overlay.png") for name in names]
    assert sorted(done) == sorted(expected)


@pytest.mark.parametrize("text", ["0/3", "4/3", "3", "1/0", "-1/3", "a/b"])
def test_a_shard_that_does_not_exist_is_wrong_usage(text, capsys):
    with pytest.raises(SystemExit):
        portraitnet_command.parse_args(["a.png", f"--shard={text}"])
    assert f"such as 3/16, not '{text}'" in capsys.readouterr().err


def test_many_photos_take_all_cores_and_have_the_same_results(tmp_path, monkeypatch, capsys):
    for i in range(5):
        draw(tmp_path / "in" / f"{i}.png", i)
    (tmp_path / "in" / "bad.png").write_bytes(b"no picture")
    flags = [str(tmp_path / "in"), "--json", "--output"]
    assert predict.main([*flags, str(tmp_path / "one")]) == 1
    alone = capsys.readouterr()
    monkeypatch.setattr(portraitnet_command, "PROCESS_PHOTOS", 3)
    monkeypatch.setattr(portraitnet_command, "core_count", lambda: 2)
    processes = []
    made = parallel.ProcessPoolExecutor
    monkeypatch.setattr(
        parallel, "ProcessPoolExecutor", lambda n, *rest: processes.append(n) or made(n, *rest)
    )
    assert predict.main([*flags, str(tmp_path / "two")]) == 1
    assert processes == [2]
    together = capsys.readouterr()
    assert [json.loads(line).get("person") for line in together.out.splitlines()] == [
        json.loads(line).get("person") for line in alone.out.splitlines()
    ]
    assert "bad.png is not a readable picture" in together.err
    for name in files(tmp_path / "one"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()


def test_a_process_that_is_killed_is_one_sentence(tmp_path, monkeypatch, capsys):
    """As when the machine has no memory left; --skip_existing continues."""
    for i in range(4):
        draw(tmp_path / "in" / f"{i}.png", i)
    monkeypatch.setattr(portraitnet_command, "PROCESS_PHOTOS", 2)
    monkeypatch.setattr(portraitnet_command, "core_count", lambda: 2)
    monkeypatch.setattr(portraitnet_command, "open_process", killed)
    assert predict.main([str(tmp_path / "in"), "--output", str(tmp_path / "out")]) == 1
    assert "A process was ended while it worked" in capsys.readouterr().err
    assert not multiprocessing.active_children()


def killed(*arguments):
    os.kill(os.getpid(), signal.SIGKILL)


def test_the_script_runs_from_another_folder(model_path, tmp_path):
    draw(tmp_path / "a.png")
    command = [sys.executable, str(ROOT / "predict.py"), "a.png", "--model_path", model_path]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, env=os.environ)
    assert done.returncode == 0, done.stderr
    assert "\na_overlay.png: " in done.stdout


@pytest.mark.parametrize("name", ["me.png", "new/me.webp", "me.JPG"])
def test_output_may_name_the_one_result(model_path, tmp_path, name):
    photo = draw(tmp_path / "a.png")
    flags = ["--mode", "blur", "--save_mask", "-o", tmp_path / "out" / name]
    assert run(model_path, photo, *flags) == 0
    mask = str(Path(name).with_name("me_mask.png"))
    assert files(tmp_path / "out") == sorted([name, mask])
    assert cv2.imread(str(tmp_path / "out" / name)).shape == (60, 50, 3)


def test_a_folder_called_like_a_picture_is_a_folder(model_path, tmp_path):
    (tmp_path / "out.png").mkdir()
    assert run(model_path, draw(tmp_path / "a.png"), "-o", tmp_path / "out.png") == 0
    assert files(tmp_path / "out.png") == ["a_overlay.png"]


def test_a_named_result_does_not_overwrite_its_photo(model_path, tmp_path, capsys):
    photo = draw(tmp_path / "a.png")
    before = photo.read_bytes()
    assert run(model_path, photo, "-o", photo) == 1
    assert photo.read_bytes() == before and "is an input and is kept" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["a.png", "b.png", "-o", "c.png"], "--output c.png is one file"),
        ([".", "-o", "c.png"], "--output c.png is one file"),
        (["a.png", "--mode", "cutout", "-o", "c.JPG"], "cannot hold a transparent background"),
        (["-", "a.png"], "give no other photo"),
        (["-", "-o", "folder"], "not the folder folder"),
        (["/dev/stdin", "-o", "folder"], "not the folder folder"),
        (["/dev/fd/63"], "a photo from /dev/fd/63 has no name: give --output a file"),
        (["-", "--json"], "goes to stdout and nothing else can"),
        (["a.png", "-o", "-", "--save_mask"], "goes to stdout and nothing else can"),
    ],
)
def test_photos_and_output_that_do_not_fit_are_usage_errors(arguments, message, capsys):
    with pytest.raises(SystemExit) as stop:
        portraitnet_command.parse_args(arguments)
    assert stop.value.code == 2 and message in capsys.readouterr().err


def test_no_picture_goes_to_a_terminal(monkeypatch, capsys):
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    assert predict.main(["-"]) == 2
    assert "stdout is a terminal: redirect it" in capsys.readouterr().err


def test_a_photo_goes_from_stdin_to_stdout_and_nothing_else_does(model_path, tmp_path):
    photo = draw(tmp_path / "a.png")
    command = [sys.executable, str(ROOT / "predict.py"), "-", "--model_path", model_path]
    done = subprocess.run(
        [*command, "--mode", "cutout"], input=photo.read_bytes(), cwd=tmp_path, capture_output=True
    )
    assert done.returncode == 0, done.stderr
    picture = cv2.imdecode(np.frombuffer(done.stdout, np.uint8), cv2.IMREAD_UNCHANGED)
    image = read_image(photo)
    expected = effects.cut_out(image, open_predictor(model_path).probability(image))
    assert np.array_equal(picture, expected)
    assert done.stdout == cv2.imencode(".png", expected)[1].tobytes(), "more than a picture"
    assert files(tmp_path) == ["a.png"] and b"\nstdout: " in done.stderr
    named = [*command[:2], "/dev/stdin", *command[3:], "--mode", "cutout", "-o", "/dev/stdout"]
    again = subprocess.run(named, input=photo.read_bytes(), cwd=tmp_path, capture_output=True)
    assert again.stdout == done.stdout and files(tmp_path) == ["a.png"]
    closed = subprocess.run(
        ["bash", "-c", '"$@" <&-', "bash", *command], cwd=tmp_path, capture_output=True
    )
    assert closed.returncode == 1 and b"stdin is not a readable picture (0" in closed.stderr
    broken = subprocess.run(command, input=b"no picture", cwd=tmp_path, capture_output=True)
    assert broken.returncode == 1 and broken.stdout == b""
    assert b"stdin is not a readable picture" in broken.stderr


def test_json_is_a_line_a_photo_and_all_of_stdout(model_path, tmp_path, capsys):
    good, bad = draw(tmp_path / "a.png"), tmp_path / "bad.jpg"
    bad.write_bytes(b"no picture")
    assert run(model_path, good, bad, "--json", "--save_mask") == 1
    message = capsys.readouterr()
    first, second = map(json.loads, message.out.splitlines())
    assert first.pop("milliseconds") > 0
    fraction = effects.mask_of(open_predictor(model_path).probability(read_image(good))).mean()
    results = [str(tmp_path / f"a_{mode}.png") for mode in ("overlay", "mask")]
    assert first == {"photo": str(good), "results": results, "person": round(float(fraction), 4)}
    assert second.keys() == {"photo", "error"} and "not a readable picture" in second["error"]
    assert "bad.jpg is not a readable picture" in message.err and "a_overlay" not in message.err


def test_paddle_alone_names_what_is_faster(monkeypatch, tmp_path, capsys):
    photo = draw(tmp_path / "a.png")
    paddle = open_predictor(backend="paddle")
    monkeypatch.setattr(predict, "main", make_command("predict.py", lambda *args, **flags: paddle))
    assert predict.main([str(photo)]) == 0
    assert "apps.txt` makes it about seven times as fast" in capsys.readouterr().out


def test_no_person_is_reported_and_an_error_only_if_one_is_required(
    model_path, tmp_path, capsys, monkeypatch
):
    photos = draw(tmp_path / "me.png"), draw(tmp_path / "wall.png", height=61)
    restore = Predictor.restore

    def no_person_on_the_wall(self, probability, image):
        return restore(self, probability * (len(image) != 61), image)

    monkeypatch.setattr(Predictor, "restore", no_person_on_the_wall)
    assert run(model_path, *photos) == 0
    message = capsys.readouterr()
    assert message.err.count("no person was found") == 1
    assert f"{photos[1]}: no person was found." in message.err and "0.0% person" in message.out
    assert run(model_path, *photos, "--require_person") == 3
    assert run(model_path, photos[0], "--require_person") == 0
    missing = tmp_path / "none.png"
    assert run(model_path, *photos, missing, "--require_person") == 1


def test_an_unsure_network_shows_its_person_with_a_sentence(tmp_path, capsys):
    """A network whose training has just begun is never sure; its person is not lost."""
    unsure = Predictor.of(lambda batch: 0.45 + 0.1 * (batch[:, 2] > 0), size=64)
    unsure.model_path, unsure.backend = "unsure.pdparams", "paddle"
    main = make_command("predict.py", lambda *args, **flags: unsure)
    photo = draw(tmp_path / "me.png")
    assert main([str(photo), "--mode", "mask"]) == 0
    assert "unsure of its person (mean probability 0.55)" in capsys.readouterr().err
    assert 0.1 < (cv2.imread(str(tmp_path / "me_mask.png"), 0) > 0).mean() < 0.9


def test_a_folders_pictures_are_known_by_their_content(model_path, tmp_path, capsys):
    photo = draw(tmp_path / "in" / "a.png").read_bytes()
    (tmp_path / "in" / "no_ending").write_bytes(photo)
    (tmp_path / "in" / "b.JFIF").write_bytes(photo)
    (tmp_path / "in" / "c.heic").write_bytes(b"no picture at all")
    (tmp_path / "in" / "notes.txt").write_bytes(b"a text that is no picture")
    assert run(model_path, tmp_path / "in", "--output", tmp_path / "out") == 1
    assert files(tmp_path / "out") == ["a_overlay.png", "b_overlay.png", "no_ending_overlay.png"]
    message = capsys.readouterr().err
    assert "c.heic is not a readable picture" in message and "notes" not in message
    assert "1 of 4 photos failed" in message


@pytest.mark.parametrize(
    "flags",
    [["--background", "white"], ["--mode", "grey", "--blur", "3"], ["--matting", "hair"]],
)
def test_a_flag_without_effect_is_wrong_usage(flags, capsys):
    with pytest.raises(SystemExit) as stop:
        portraitnet_command.parse_args(["a.png", *flags])
    assert stop.value.code == 2 and "has an effect with --mode" in capsys.readouterr().err


@pytest.mark.parametrize("suffix", [".heic", ".pdf", ".svg", ".ppm", ".MP4", ".wmv"])
def test_a_picture_that_cannot_be_written_is_wrong_usage(suffix, capsys):
    with pytest.raises(SystemExit):
        portraitnet_command.parse_args(["a.png", "-o", f"person{suffix}"])
    message = capsys.readouterr().err
    assert f"cannot write {suffix} files: name a folder, or a file ending in .jpg" in message


def test_the_default_of_shard_is_a_value_of_it(capsys):
    with pytest.raises(SystemExit):
        portraitnet_command.parse_args(["--help"])
    assert "such as 3/16 (default: 1/1)" in " ".join(capsys.readouterr().out.split())
    assert portraitnet_command.parse_args(["a.png"]).shard == (0, 1)


def test_an_error_of_the_system_is_a_sentence_in_json_too(model_path, tmp_path, capsys):
    (tmp_path / "own.mp4").touch()
    photo, output = draw(tmp_path / "a.png"), tmp_path / "own.mp4" / "b.png"
    assert run(model_path, photo, "-o", output, "--json") == 1
    message = capsys.readouterr()
    expected = f"{tmp_path / 'own.mp4'} cannot be used (File exists): a folder is needed there"
    assert expected in message.err and expected in json.loads(message.out)["error"]
