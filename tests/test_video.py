import re
import sys
from glob import glob
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
from conftest import draw_portrait
from PIL import Image

from apps.video import __main__ as video
from apps.video import live, reading, writing
from apps.video.drawing import Background, Frame, process_frames
from apps.video.reading import read_video
from apps.video.smoothing import Smoother
from apps.video.writing import open_writer
from portraitnet import effects
from portraitnet.images import write_image
from portraitnet.predictor import Predictor
from training.checkpoints import open_predictor

pytest.importorskip("av")


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    """Seven frames of a portrait that moves to the right."""
    path = tmp_path_factory.mktemp("clips") / "clip.mp4"
    image, _ = draw_portrait(np.random.default_rng(0), 48, 64)
    with open_writer(path, image.shape, 10) as write:
        for index in range(7):
            write(index / 10, np.roll(image, 2 * index, axis=1))
    return path


def run(model_path, *arguments):
    return video.main([*map(str, arguments), "--model_path", model_path])


def difference(one, other):
    return np.abs(one.astype(int) - other).mean()


def test_a_video_gets_its_result_beside_it(model_path, clip, tmp_path, capsys):
    mine = tmp_path / "mine.mov"
    mine.write_bytes(clip.read_bytes())
    assert run(model_path, mine, "--mode", "mask", "--no-smooth") == 0
    predictor = open_predictor(model_path)
    images = [image for _, image in read_video(mine)]
    expected = [255 * effects.mask_of(each) for each in predictor.probabilities(images)]
    result = tmp_path / "mine_mask.mp4"
    written = [image for _, image in read_video(result)]
    assert len(written) == len(expected) == 7
    for one, other in zip(written, expected):
        assert difference(one, other[:, :, None]) < 12
    message = capsys.readouterr()
    fraction = np.mean([mask.mean() / 255 for mask in expected])
    assert 0.1 < fraction < 0.9, "the test would check nothing"
    assert f"{result}: 7 frames, {fraction:.1%} person, " in message.out and "7/7" in message.err
    assert mine.read_bytes() == clip.read_bytes()


@pytest.mark.parametrize("mode", effects.EFFECTS)
def test_every_mode_writes_its_video(model_path, clip, tmp_path, mode):
    assert run(model_path, clip, "--mode", mode, "--output", tmp_path) == 0
    suffix = ".webm" if mode == "cutout" else ".mp4"
    frames = list(read_video(tmp_path / f"clip_{mode}{suffix}"))
    assert len(frames) == 7 and frames[0][1].shape == (48, 64, 3)


def test_without_pyav_the_loss_of_sound_is_reported(
    model_path, clip, tmp_path, monkeypatch, capsys
):
    monkeypatch.setattr(reading, "av", None)
    monkeypatch.setattr(writing.shutil, "which", lambda name: None)
    assert run(model_path, clip, "--output", tmp_path) == 0
    assert "Sound is lost" in capsys.readouterr().out
    assert len(list(read_video(tmp_path / "clip_overlay.mp4"))) == 7


def test_smoothing_follows_the_order_of_the_frames(model_path, clip):
    predictor = open_predictor(model_path)
    frames = [Frame(seconds, image, "mask", None) for seconds, image in read_video(clip)]
    smoother = Smoother()
    found = process_frames(frames, predictor, lambda frame, probability: probability)
    for frame, (given, result) in zip(frames, found, strict=True):
        network_input = predictor.prepare(frame.image)
        smoothed = smoother(network_input, predictor.run([network_input], [frame.image])[0])
        assert given is frame
        expected = predictor.restore(smoothed, frame.image)
        assert np.allclose(result, expected, atol=1e-5)


@pytest.mark.parametrize("look_closer", [True, False])
def test_small_people_of_a_file_are_looked_at_closer(look_closer):
    """A bright square, a tenth of the frame, is a person that only a large input shows."""

    def bright(batch):
        return np.float32((batch[:, 1] > 1) & (batch.shape[2] > 64))

    predictor = Predictor.of(bright, size=64)
    image = np.zeros((100, 100, 3), np.uint8)
    image[30:60, 30:60] = 255
    frames = [Frame(index / 10, image, "mask", None) for index in range(3)]
    found = process_frames(frames, predictor, lambda _, p: p[45, 45], look_closer=look_closer)
    assert [value > 0.5 for _, value in found] == [look_closer] * 3


def test_a_background_is_a_color_or_a_photo_cut_to_fill(tmp_path):
    assert Background("red").at(0, (4, 4, 3)).tolist() == [0, 0, 255]
    write_image(tmp_path / "wall.png", np.full((30, 80, 3), 7, np.uint8))
    wall = Background(str(tmp_path / "wall.png"))
    for shape in ((48, 64, 3), (20, 20, 3)):
        assert wall.at(0, shape).shape == shape


def test_a_background_video_runs_in_time_and_starts_again(tmp_path):
    path = tmp_path / "waves.mp4"
    with open_writer(path, (48, 64, 3), 10) as write:
        for index in range(4):
            write(index / 10, np.full((48, 64, 3), 60 * index, np.uint8))
    waves = Background(str(path))
    seen = [waves.at(seconds, (24, 32, 3)).mean() / 60 for seconds in np.arange(0, 1.2, 0.05)]
    # each picture lasts for two steps of 0.05 s; the first follows the last
    assert np.rint(seen[::2]).tolist() == [0, 1, 2, 3] * 3


@pytest.mark.parametrize("name", ["waves.mpg", "waves"])
def test_a_background_is_a_video_by_its_content(clip, tmp_path, name):
    path = tmp_path / name
    path.write_bytes(clip.read_bytes())
    assert Background(str(path)).frames is not None


def test_wrong_backgrounds_are_reported(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty.mp4").touch()
    (tmp_path / "folder").mkdir()
    (tmp_path / "notes.txt").write_text("no photo\n")
    (tmp_path / "photo.png").write_bytes(b"no photo")
    for name, reason in (
        ("mauve", "mauve is neither a colour nor a file: give #rrggbb, black, white, red,"),
        ("x.mp4", "x.mp4 is neither a colour nor a file"),
        ("empty.mp4", "empty.mp4 is empty"),
        ("folder", "folder is a folder"),
        ("notes.txt", "notes.txt is a text file"),
        ("photo.png", "photo.png is not a readable picture"),
    ):
        with pytest.raises(SystemExit) as stop:
            video.parse_args(["a.mp4", "--background", name])
        assert stop.value.code == 2 and reason in capsys.readouterr().err


def test_keys_change_the_look():
    look = live.Look("blur")
    assert live.press(look, -1, 3) == look, "no key"
    assert live.press(look, ord("x"), 3) == look, "a key without meaning"
    assert live.press(look, ord("q"), 3) is None and live.press(look, 27, 3) is None
    assert live.press(look, ord("f"), 3).mirror is False
    assert live.press(look, ord("h"), 3).help is False
    for number, mode in enumerate(live.EFFECT_KEYS, 1):
        assert live.press(look, ord(str(number)), 3).mode == mode
    assert set(live.EFFECT_KEYS) - {"none"} <= set(effects.EFFECTS) and len(live.EFFECT_KEYS) == 6


def test_key_m_goes_through_all_effects_and_b_through_all_backgrounds():
    look = live.Look("blur")
    modes = []
    for _ in live.EFFECT_KEYS:
        modes.append(look.mode)
        look = live.press(look, ord("m"), 3)
    assert modes == live.EFFECT_KEYS and look.mode == "blur"
    places = []
    for _ in range(4):
        look = live.press(look, ord("b"), 3)
        places.append((look.mode, look.background))
    assert places == [("replace", 0), ("replace", 1), ("replace", 2), ("replace", 0)]


def test_a_caption_is_drawn_on_a_copy():
    picture = np.full((60, 200, 3), 128, np.uint8)
    assert (live.caption(picture, ["a line"]) != picture).any() and (picture == 128).all()


def test_a_camera_takes_the_faster_network_by_default():
    assert video.parse_args(["--camera", "0"]).model_path == "lite"
    assert video.parse_args(["a.mp4"]).model_path == "full"
    assert video.parse_args(["--camera", "0", "--model_path", "full"]).model_path == "full"


@pytest.mark.skipif(sys.platform != "linux", reason="other systems always have a screen")
def test_without_a_screen_is_one_sentence(model_path, monkeypatch, capsys):
    for name in ("DISPLAY", "WAYLAND_DISPLAY", "QT_QPA_PLATFORM"):
        monkeypatch.delenv(name, raising=False)
    assert run(model_path, "--camera", 99) == 1  # Qt has not ended the test process
    message = r"apps\.video: No window can be opened: [^\n]*\n"
    assert re.fullmatch(message, capsys.readouterr().err)


def test_no_camera_is_one_sentence(model_path, capfd):
    assert run(model_path, "--camera", 99, "--virtual_camera") == 1
    message = r"apps\.video: Camera 99 gives no picture: [^\n]*\n"
    assert re.fullmatch(message, capfd.readouterr().err), "OpenCV printed lines of its own"


@pytest.fixture
def camera(clip, monkeypatch):
    """A camera that plays the clip once; returns the clip's images."""
    capture = cv2.VideoCapture
    monkeypatch.setattr(cv2, "VideoCapture", lambda number: capture(str(clip)))
    video_file = capture(str(clip))
    return [video_file.read()[1] for _ in range(7)]


class Device:
    """Stands in for pyvirtualcam.Camera: keeps the pictures that a call would show."""

    device = "/dev/video9"

    def __init__(self, width, height, fps, fmt):
        self.size, self.rate, self.format, self.sent = (width, height), fps, fmt, []
        Device.last = self

    def send(self, picture):
        assert picture.shape == (*self.size[::-1], 3) and picture.dtype == np.uint8
        self.sent.append(picture)

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.closed = True


def test_a_virtual_camera_gets_every_frame(model_path, camera, monkeypatch, capsys):
    stand_in = SimpleNamespace(Camera=Device, PixelFormat=SimpleNamespace(BGR="bgr"))
    monkeypatch.setitem(sys.modules, "pyvirtualcam", stand_in)
    flags = ["--virtual_camera", "--no-smooth", "--mode", "grey"]
    assert run(model_path, "--camera", 0, *flags) == 1  # the clip ends
    message = capsys.readouterr()
    assert "Choose the camera /dev/video9 in your call" in message.out
    assert message.err.startswith("apps.video: Camera 0 gives no picture")
    device = Device.last
    assert (device.size, device.rate, device.format, device.closed) == ((64, 48), 10, "bgr", True)
    images = camera[2:]  # opening the camera read two images
    predictor = open_predictor(model_path)
    assert 1 <= len(device.sent) <= len(images)  # frames in progress at the end are dropped
    for image, picture in zip(images, device.sent):
        expected = effects.grey(image, predictor.probability(image))
        assert difference(picture, expected) < 1, "a different frame, or a mirrored one"


def test_a_virtual_camera_keeps_its_size(monkeypatch):
    stand_in = SimpleNamespace(Camera=Device, PixelFormat=SimpleNamespace(BGR="bgr"))
    monkeypatch.setitem(sys.modules, "pyvirtualcam", stand_in)
    with live.virtual_camera((48, 64, 3), 10) as show:
        show(np.full((64, 48, 3), 200, np.uint8), live.Look("none"))  # the phone was turned
    [picture] = Device.last.sent
    assert (picture[:, 14:50] == 200).all() and not picture[:, :14].any()
    assert not picture[:, 50:].any()


def test_a_missing_virtual_camera_is_one_sentence(model_path, camera, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "pyvirtualcam", None)
    assert run(model_path, "--camera", 0, "--virtual_camera") == 1
    message = "apps.video: --virtual_camera needs pyvirtualcam: run `pip install pyvirtualcam`.\n"
    assert capsys.readouterr().err == message


@pytest.mark.skipif(
    sys.platform != "linux" or glob("/dev/video*"), reason="a virtual camera may exist"
)
def test_without_v4l2loopback_is_one_sentence(model_path, camera, capsys):
    pytest.importorskip("pyvirtualcam")
    assert run(model_path, "--camera", 0, "--virtual_camera") == 1
    message = r"apps\.video: No virtual camera was found \([^\n]*\): on Linux run [^\n]*\n"
    assert re.fullmatch(message, capsys.readouterr().err)


def test_bad_videos_are_named_and_the_others_done(model_path, clip, tmp_path, capsys):
    bad = tmp_path / "bad.mp4"
    bad.write_bytes(b"no video\0")
    webp = tmp_path / "animated.webp"
    red, blue = (Image.new("RGB", (64, 48), color) for color in ("red", "blue"))
    red.save(webp, save_all=True, append_images=[blue])
    assert (
        run(model_path, bad, webp, clip, tmp_path / "none.mp4", "--output", tmp_path / "out") == 1
    )
    message = capsys.readouterr().err
    assert "bad.mp4 is not a readable video" in message and "There is no file" in message
    assert f"{webp} has no frame that can be decoded, damaged or in a format unknown" in message
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["clip_overlay.mp4"]


def test_an_input_is_never_overwritten_and_no_result_twice(model_path, clip, tmp_path, capsys):
    mine, second = tmp_path / "a.mp4", tmp_path / "a_overlay.mp4"
    mine.write_bytes(clip.read_bytes()), second.write_bytes(clip.read_bytes())
    assert run(model_path, mine, second) == 1
    assert second.read_bytes() == clip.read_bytes()
    assert "a_overlay.mp4 is an input and is kept: give another --output" in capsys.readouterr().err
    assert run(model_path, mine, clip, mine, "--output", tmp_path / "out") == 1
    assert f"a_overlay.mp4 is already that of {mine}" in capsys.readouterr().err


def test_a_background_is_not_overwritten(model_path, clip, tmp_path, capsys):
    mine, wall = tmp_path / "a.mp4", tmp_path / "a_replace.mp4"
    mine.write_bytes(clip.read_bytes()), wall.write_bytes(clip.read_bytes())
    assert run(model_path, mine, "--mode", "replace", "--background", wall) == 1
    assert wall.read_bytes() == clip.read_bytes()
    assert "a_replace.mp4 is an input and is kept" in capsys.readouterr().err


def test_output_may_name_the_result(model_path, clip, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("my.mp4", "folder/Mine.MP4", "my.webm"):
        assert run(model_path, clip, "-o", name) == 0
        assert len(list(read_video(tmp_path / name))) == 7
    (tmp_path / "old.mp4").mkdir()  # a folder stays a folder
    assert run(model_path, clip, "--output", "old.mp4") == 0
    assert [path.name for path in (tmp_path / "old.mp4").iterdir()] == ["clip_overlay.mp4"]


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["a.mp4", "b.mp4", "-o", "c.mp4"], "--output c.mp4 is one file: give a folder"),
        (["a.mp4", "-o", "c.avi"], r"\.avi cannot be written: give --output a name ending in .mp4"),
        (["a.mp4", "-o", "c.mp4", "--mode", "cutout"], r"\.mp4 cannot hold a transparent"),
        (["--camera", "0", "-o", "c.mp4"], "--output has no effect with --camera"),
        (["a.mp4", "--background", "red"], "--background: has an effect with --mode replace alone"),
        (
            ["a.mp4", "--blur", "3", "--mode", "grey"],
            "--blur: has an effect with --mode blur alone",
        ),
    ],
)
def test_a_flag_that_cannot_have_its_effect_is_wrong_usage(arguments, message, capsys):
    with pytest.raises(SystemExit) as stop:
        video.parse_args(arguments)
    assert stop.value.code == 2 and re.search(message, capsys.readouterr().err)


def test_ctrl_c_keeps_the_frames_until_then(model_path, clip, tmp_path, monkeypatch, capsys):
    draw_frames = video.draw_frames

    def interrupted(*arguments):
        for index, picture in enumerate(draw_frames(*arguments)):
            if index == 3:
                raise KeyboardInterrupt
            yield picture

    monkeypatch.setattr(video, "draw_frames", interrupted)
    other = tmp_path / "other.mp4"
    other.write_bytes(clip.read_bytes())
    assert run(model_path, clip, other, "--output", tmp_path / "out") == 130
    result = tmp_path / "out" / "clip_overlay.mp4"
    sentence = f"apps.video: Interrupted: {result} has the 3 frames until then.\n"
    assert capsys.readouterr().err.endswith(sentence)
    assert len(list(read_video(result))) == 3
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["clip_overlay.mp4"]


@pytest.mark.parametrize(
    "arguments",
    [[], ["a.mp4", "--camera", "0"], ["a.mp4", "--blur", "-1"], ["--camera", "0", "--mode"]]
    + [
        ["a.mp4", "--virtual_camera"],
        ["--camera", "0", "--mode", "cutout"],
        ["a.mp4", "--background", "red", "blue"],
    ],
)
def test_wrong_usage_exits_with_2(arguments):
    with pytest.raises(SystemExit) as stop:
        video.parse_args(arguments)
    assert stop.value.code == 2


def test_missing_weights_are_one_sentence(clip, tmp_path, capsys):
    assert run(str(tmp_path / "none.pdparams"), clip) == 1
    assert "none.pdparams" in capsys.readouterr().err
