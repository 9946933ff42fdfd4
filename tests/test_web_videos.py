"""Videos and recordings of the page, in a real browser (slow tests); PyAV reads the results."""

import re
import time

import av
import cv2
import numpy as np
import pytest
from conftest import far_person
from test_video_files import set_display_matrix
from test_web import address, browser, choose, clip, page, pictures  # noqa: F401, fixtures

from benchmarks.web_speed import EXAMPLE
from portraitnet.images import read_image
from portraitnet.predictor import Predictor

pytestmark = pytest.mark.slow
RATE, SOUND_RATE = 25, 48000
SCREEN = (0x3F, 0x7D, 0x5C)  # the page's colour tile, RGB


def write_video(path, seconds=2, size=(320, 240), sound="aac", codec="libx264", turn=None):
    """Write a swaying portrait; its sound is a tone that begins after half of the time."""
    width, height = size
    side = min(size)
    photo = cv2.resize(read_image(EXAMPLE)[:, :, ::-1], (side, side))
    with av.open(str(path), "w") as container:
        video = container.add_stream(codec, rate=RATE)
        stored = size if turn is None else size[::-1]
        video.width, video.height, video.pix_fmt = *stored, "yuv420p"
        if sound:
            audio = container.add_stream("libopus" if sound == "opus" else sound, rate=SOUND_RATE)
            audio.layout = "mono"
        for i in range(round(seconds * RATE)):
            frame = np.full((height, width, 3), 120, np.uint8)
            left = (width - side) // 2 + round(0.3 * (width - side) * np.sin(i / 5))
            frame[height - side :, left : left + side] = photo
            if turn is not None:
                frame = cv2.rotate(frame, turn)
            container.mux(video.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(video.encode())
        if sound:
            time = np.arange(round(seconds * SOUND_RATE)) / SOUND_RATE
            tone = 0.5 * np.sin(2 * np.pi * 440 * time) * (time >= seconds / 2)
            step = 960
            for at in range(0, len(tone), step):
                part = tone[None, at : at + step].astype(np.float32)
                frame = av.AudioFrame.from_ndarray(part, format="fltp", layout="mono")
                frame.sample_rate, frame.pts = SOUND_RATE, at
                container.mux(audio.encode(frame))
            container.mux(audio.encode())


def read_result(path):
    """(frames as RGB, their times, duration in the header, sound and its times), all in seconds."""
    with av.open(str(path)) as container:
        frames = [
            (frame.to_ndarray(format="rgb24"), frame.time) for frame in container.decode(video=0)
        ]
        length = container.duration / av.time_base if container.duration else None
    sound = []
    with av.open(str(path)) as container:
        if container.streams.audio:
            for part in container.decode(audio=0):
                values = part.to_ndarray().astype(np.float64)
                values = values[0] if part.format.is_planar else values.ravel()
                values = values[:: 1 if part.format.is_planar else len(part.layout.channels)]
                times = part.time + np.arange(len(values)) / part.sample_rate
                sound.append(np.stack([values, times]))
    pictures, times = zip(*frames)
    return pictures, np.array(times), length, np.concatenate(sound, axis=1) if sound else None


def make_video(page, path, folder):  # noqa: F811
    """Drop a video into the page and make it; returns the result's path and the last message."""
    page.set_input_files("#files", path)
    page.wait_for_selector("#save:not([disabled])", timeout=60_000)
    assert page.inner_text("#save") == "Make video"
    with page.expect_download(timeout=300_000) as download:
        page.click("#save")
    result = folder / download.value.suggested_filename
    download.value.save_as(result)
    page.wait_for_selector("#status:has-text('is ready')")
    return result, page.inner_text("#status")


def begins(sound):
    """When the tone begins, seconds."""
    values, times = sound
    return times[np.abs(values) > 0.2 * np.abs(values).max()][0]


@pytest.mark.parametrize(
    "name, sound, ending",
    [
        ("a.mp4", "aac", "mp4"),
        ("a.webm", "opus", "webm"),
        ("a.mov", None, "mp4"),
        ("a.mkv", "aac", "mp4"),
    ],
)
def test_a_video_keeps_its_frames_times_and_sound(page, tmp_path, name, sound, ending):  # noqa: F811
    write_video(tmp_path / name, sound=sound, codec="libvpx-vp9" if sound == "opus" else "libx264")
    choose(page, "replace")
    page.click("#color")
    page.keyboard.press("Escape")
    result, message = make_video(page, tmp_path / name, tmp_path)
    assert result.name == f"a_replace.{ending}"
    assert re.fullmatch(rf"a_replace\.{ending} is ready, \d+\.\d MB\.", message)
    frames, times, length, heard = read_result(result)
    assert len(frames) == 2 * RATE and frames[0].shape == (240, 320, 3)
    assert np.allclose(np.diff(times), 1 / RATE, atol=0.002) and times[0] < 0.05
    assert length == pytest.approx(2, abs=0.1)
    # The wall became the colour: the browser converts to BT.601 or BT.709, so within some levels.
    corners = np.array([frame[:40, :20].mean(axis=(0, 1)) for frame in frames])
    assert np.abs(corners - SCREEN).max() < 12
    person = [(np.abs(frame.astype(int) - SCREEN).max(axis=2) > 30).mean() for frame in frames]
    assert 0.2 < min(person) <= max(person) < 0.8, "a person in each frame"
    if sound:
        assert begins(heard) == pytest.approx(1, abs=0.05)
    else:
        assert heard is None


def test_a_small_person_in_a_video_is_looked_at_closer(page, tmp_path):  # noqa: F811
    image, _ = far_person()
    with av.open(str(tmp_path / "far.mp4"), "w") as container:
        video = container.add_stream("libx264", rate=RATE)
        video.width, video.height, video.pix_fmt = 650, 600, "yuv420p"
        for _ in range(5):
            container.mux(video.encode(av.VideoFrame.from_ndarray(image, format="bgr24")))
        container.mux(video.encode())
    choose(page, "replace")
    page.click("#color")
    page.keyboard.press("Escape")
    result, _ = make_video(page, tmp_path / "far.mp4", tmp_path)
    looks = [Predictor(refine=refine).probability(image) > 0.5 for refine in (False, True)]
    for shown in read_result(result)[0]:
        person = np.abs(shown.astype(int) - SCREEN).max(axis=2) > 60
        one, two = ((person & look).sum() / (person | look).sum() for look in looks)
        assert two > max(0.8, one), (one, two)


def test_a_turned_video_with_odd_sizes_stands_upright(page, tmp_path):  # noqa: F811
    turn = cv2.ROTATE_90_COUNTERCLOCKWISE
    write_video(tmp_path / "a.mp4", seconds=0.4, size=(242, 322), turn=turn)
    set_display_matrix(tmp_path / "a.mp4", tmp_path / "b.mp4", 0, 1, -1, 0)
    choose(page, "grey")
    frames, *_ = read_result(make_video(page, tmp_path / "b.mp4", tmp_path)[0])
    assert frames[0].shape == (322, 242, 3) and len(frames) == 10
    upright = cv2.rotate(read_result(tmp_path / "a.mp4")[0][0], cv2.ROTATE_90_CLOCKWISE)
    coloured = np.ptp(frames[0].astype(int), axis=2) > 40  # the person
    assert coloured.mean() > 0.05
    assert np.abs(frames[0].astype(int) - upright)[coloured].mean() < 12


def test_a_long_video_can_be_cancelled_and_made_again(page, tmp_path):  # noqa: F811
    write_video(tmp_path / "a.mp4", seconds=20)
    page.set_input_files("#files", tmp_path / "a.mp4")
    page.wait_for_selector("#save:not([disabled])", timeout=60_000)
    assert page.inner_text("#status") == "a.mp4, 320 × 240 pixels, 0:20"
    page.click("#save")
    page.wait_for_selector("#status:has-text('left')", timeout=60_000)
    assert re.fullmatch(r"\d+ %, \d+:\d\d left", page.inner_text("#status"))
    assert page.inner_text("#save") == "Cancel" and page.is_visible("#busy")
    assert page.get_attribute("#busy", "aria-valuenow") is not None
    page.click("#save")
    page.wait_for_selector("#status:has-text('Cancelled: no video was made.')")
    assert page.inner_text("#save") == "Make video" and not page.is_visible("#busy")
    drawn = page.evaluate("window.drawn")
    page.wait_for_timeout(1000)
    assert page.evaluate("window.drawn") == drawn, "the cancelled video goes on"


def test_what_is_no_video_is_one_sentence(page, tmp_path):  # noqa: F811
    (tmp_path / "a.mp4").write_bytes(b"no video")
    page.set_input_files("#files", tmp_path / "a.mp4")
    page.wait_for_selector("#status.wrong")
    sentence = "a.mp4 can't be opened as a video: choose an MP4 or WebM."
    assert page.inner_text("#status") == sentence


def record(page, seconds, folder, meanwhile=lambda: None):  # noqa: F811
    """Record the camera; returns the file's path and how long the recording ran."""
    choose(page, "camera")
    choose(page, "grey")
    with pictures(page, 2):
        page.click("#start")
    page.click("#record")
    page.wait_for_selector("#record:has-text('Stop')")
    assert page.is_disabled("#size") and page.is_disabled("#sound")
    begun = time.monotonic()
    page.wait_for_timeout(500 * seconds)
    meanwhile()
    page.wait_for_timeout(500 * seconds)
    assert re.fullmatch(r"Stop · 0:\d\d", page.inner_text("#record"))
    with page.expect_download() as download:
        page.click("#record")
    passed = time.monotonic() - begun
    path = folder / download.value.suggested_filename
    download.value.save_as(path)
    page.wait_for_selector("#record:has-text('Record a video')")
    return path, passed


def is_complete(path, passed, sound):
    """Check a recording's size, colour, duration and sound."""
    frames, times, length, heard = read_result(path)
    assert frames[0].shape == (480, 640, 3)
    assert np.ptp(frames[-1].astype(int), axis=2).max() > 60, "no colour"
    assert length == pytest.approx(passed, abs=0.6), "the header's duration"
    assert times[-1] == pytest.approx(passed, abs=0.6) and len(frames) > 2 * passed
    assert np.diff(times).max() < 1.5, "a gap"
    assert (heard is not None) == sound
    if sound:
        assert heard[1][-1] == pytest.approx(passed, abs=0.6)
        assert np.abs(heard[0]).max() > 0.05, "the fake microphone beeps every second"


@pytest.mark.parametrize("sound", [False, True])
def test_a_recording_has_its_duration_and_the_microphone_if_wanted(page, tmp_path, sound):  # noqa: F811
    page.context.grant_permissions(["camera", "microphone"])
    if sound:
        choose(page, "camera")
        page.check("#sound")
    path, passed = record(page, 4, tmp_path)
    # This Chromium encodes no AAC, so that sound needs WebM.
    assert path.name == ("camera_grey.webm" if sound else "camera_grey.mp4")
    is_complete(path, passed, sound)
    page.click("#record")  # turning the camera off ends the recording
    page.wait_for_selector("#record:has-text('Stop')")
    with pictures(page, 3):
        pass
    with page.expect_download():
        page.click("#stop")
    assert page.is_disabled("#record")


HIDE = """
Object.defineProperty(document, "hidden", { value: true, configurable: true });
window.requestAnimationFrame = () => 0; // hidden tabs draw nothing
document.dispatchEvent(new Event("visibilitychange"));
"""


def test_a_recording_goes_on_in_a_hidden_tab(page, tmp_path):  # noqa: F811
    path, passed = record(page, 4, tmp_path, lambda: page.evaluate(HIDE))
    is_complete(path, passed, sound=False)


def without(page, *names):  # noqa: F811
    """Load the page again in a browser without these interfaces."""
    for name in names:
        page.add_init_script(f"delete window.{name};")
    page.reload()
    page.wait_for_selector("#runtime:not(:empty)", state="attached", timeout=90_000)


def test_without_track_processor_a_hidden_tab_ends_and_saves_the_recording(page, tmp_path):  # noqa: F811
    without(page, "MediaStreamTrackProcessor")
    choose(page, "camera")
    with pictures(page, 2):
        page.click("#start")
    page.click("#record")
    page.wait_for_selector("#record:has-text('Stop')")
    with pictures(page, 8):
        pass
    with page.expect_download() as download:
        page.evaluate(HIDE)
    assert page.inner_text("#status").startswith("The recording ended and was saved because")
    download.value.save_as(tmp_path / "a.mp4")
    assert len(read_result(tmp_path / "a.mp4")[0]) >= 6


def test_without_webcodecs_a_recording_has_its_duration_too(page, tmp_path):  # noqa: F811
    page.context.grant_permissions(["camera", "microphone"])
    without(page, "VideoEncoder")
    choose(page, "camera")
    page.check("#sound")
    path, passed = record(page, 4, tmp_path)
    assert path.name == "camera_grey.webm"
    is_complete(path, passed, sound=True)


def test_without_webcodecs_a_video_is_played_and_recorded_with_its_sound(page, tmp_path):  # noqa: F811
    without(page, "VideoEncoder")
    write_video(tmp_path / "a.mp4", seconds=4)
    choose(page, "grey")
    result, _ = make_video(page, tmp_path / "a.mp4", tmp_path)
    frames, times, length, heard = read_result(result)
    assert result.name == "a_grey.webm" and frames[0].shape == (240, 320, 3)
    assert length == pytest.approx(4, abs=0.7) and len(frames) > 8
    assert begins(heard) == pytest.approx(2, abs=0.4)
