import os
import struct
from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np
import pytest

from apps.video import __main__ as videos
from apps.video import reading, writing
from apps.video.reading import probe, read_video
from apps.video.writing import open_writer

av = pytest.importorskip("av")
RATE = 10


def pictures(count=6, height=48, width=64, channels=3):
    """Random blocks of flat colour, large enough to survive the codecs."""
    rng = np.random.default_rng(0)
    blocks = rng.integers(0, 256, (count, 3, 4, channels), np.uint8)
    size = (width, height)
    return [cv2.resize(block, size, interpolation=cv2.INTER_NEAREST) for block in blocks]


def write(path, frames, source=None, times=None):
    with open_writer(path, frames[0].shape, RATE, source) as write_frame:
        for seconds, frame in zip(times or np.arange(len(frames)) / RATE, frames):
            write_frame(seconds, frame)
    return path


def add_sound(video, path, codec="aac", seconds=0.6):
    """Add a tone of 440 Hz to a video."""
    with av.open(str(video)) as source, av.open(str(path), "w") as output:
        track = source.streams.video[0]
        copy = output.add_stream_from_template(track)
        sound = output.add_stream(codec, rate=48000, layout="mono")
        for packet in source.demux(track):
            if packet.pts is not None:
                packet.stream = copy
                output.mux(packet)
        wave = np.sin(2 * np.pi * 440 * np.arange(int(48000 * seconds)) / 48000)
        frame = av.AudioFrame.from_ndarray((20000 * wave).astype(np.int16)[None], "s16", "mono")
        frame.sample_rate, frame.pts, frame.time_base = 48000, 0, Fraction(1, 48000)
        output.mux(sound.encode(frame))
        output.mux(sound.encode())
    return path


def loudest_tone(path):
    """Codec, length in seconds and loudest frequency in Hz of a file's sound."""
    with av.open(str(path)) as container:
        track = container.streams.audio[0]
        frames = list(container.decode(track))
        wave = np.concatenate([frame.to_ndarray().astype(float)[0] for frame in frames])
        spectrum = np.abs(np.fft.rfft(wave))
        rate = frames[0].sample_rate
        name = track.codec_context.codec.canonical_name
        return name, len(wave) / rate, spectrum.argmax() * rate / len(wave)


@pytest.fixture(params=["PyAV", "ffmpeg", "OpenCV"])
def way(request, monkeypatch):
    """Run a test with each reader and writer that is installed."""
    if request.param != "PyAV":
        monkeypatch.setattr(reading, "av", None)
    if request.param == "OpenCV":
        monkeypatch.setattr(writing.shutil, "which", lambda name: None)
    if writing.choose_writer() != request.param:
        pytest.skip(f"no {request.param}")
    return request.param


def test_frames_come_back_in_order_at_their_times(way, tmp_path):
    frames = pictures()
    path = write(tmp_path / "sub" / "a.mp4", frames)
    rate, count = probe(path)
    assert rate == pytest.approx(RATE) and count == len(frames)
    seconds, read = zip(*read_video(path))
    assert seconds == pytest.approx(np.arange(len(frames)) / RATE)
    for before, after in zip(frames, read):
        assert after.dtype == np.uint8 and after.shape == before.shape
        # The middle of a block, because codecs halve the resolution of colours.
        differences = np.abs(after.astype(int) - before)[8::16, 8::16]
        assert differences.mean() < 12
    assert [p.name for p in path.parent.iterdir()] == ["a.mp4"]


def test_odd_sides_grow_by_one(way, tmp_path):
    path = write(tmp_path / "a.mp4", pictures(height=47, width=63))
    assert next(read_video(path))[1].shape == (48, 64, 3)


def test_uneven_times_are_kept(tmp_path):
    times = [0, 0.04, 0.3, 0.35, 1, 2]
    path = write(tmp_path / "a.mp4", pictures(), times=times)
    assert [seconds for seconds, _ in read_video(path)] == pytest.approx(times, abs=1e-3)


def test_colours_are_those_of_the_source(tmp_path):
    """Frames are flat, so that only the conversion between colour spaces can change them."""
    for color in ((200, 60, 30), (20, 180, 70), (40, 50, 220)):
        frame = np.full((64, 64, 3), color, np.uint8)
        path = write(tmp_path / "a.mp4", [frame] * 3)
        again = write(tmp_path / "b.mp4", [image for _, image in read_video(path)])
        for video in (path, again):
            for _, image in read_video(video):
                assert np.abs(image.astype(int) - frame).max() <= 3


@pytest.mark.parametrize(
    "source, codec, result, expected",
    [("a.mp4", "aac", "b.mp4", "aac"), ("a.mkv", "pcm_s16le", "b.mp4", "aac")]
    + [("a.mp4", "aac", "b.webm", "opus")],
)
def test_sound_is_kept(tmp_path, source, codec, result, expected):
    frames = pictures()
    source = add_sound(write(tmp_path / "silent.mp4", frames), tmp_path / source, codec)
    result = write(tmp_path / result, frames, source)
    name, seconds, tone = loudest_tone(result)
    assert name == expected
    assert seconds == pytest.approx(0.62, abs=0.03) and tone == pytest.approx(440, abs=5)


def test_ffmpeg_keeps_sound(way, tmp_path):
    if way != "ffmpeg":
        pytest.skip("a test of ffmpeg alone")
    source = write(tmp_path / "silent.mp4", pictures())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(reading, "av", av)
        source = add_sound(source, tmp_path / "a.mp4")
    result = write(tmp_path / "b.mp4", pictures(), source)
    assert loudest_tone(result)[2] == pytest.approx(440, abs=5)


def test_a_video_without_sound_gets_none(tmp_path):
    source = write(tmp_path / "a.mp4", pictures())
    with av.open(str(write(tmp_path / "b.mp4", pictures(), source))) as container:
        assert not container.streams.audio


def test_transparency_is_kept_in_webm(tmp_path):
    frame = np.full((64, 64, 4), (40, 50, 220, 255), np.uint8)
    frame[:, :32, 3] = 0
    path = write(tmp_path / "a.webm", [frame] * 3)
    with av.open(str(path)) as container:
        context = av.CodecContext.create("libvpx-vp9", "r")
        packets = container.demux(container.streams.video[0])
        shown = [f for packet in packets for f in context.decode(packet)][0]
        alpha = shown.to_ndarray(format="bgra")[:, :, 3]
    assert alpha[:, :28].max() < 10 and alpha[:, 36:].min() > 245


def rotate_header(path, result):
    """Copy a video; its track header now says: show a quarter turn clockwise."""
    data = bytearray(path.read_bytes())
    matrix = data.index(b"tkhd") + 4 + 40
    one = 1 << 16
    struct.pack_into(">9i", data, matrix, 0, one, 0, -one, 0, 0, 48 * one, 0, 1 << 30)
    result.write_bytes(data)
    return result


def test_a_rotated_video_is_read_upright(way, tmp_path):
    frames = pictures()
    path = rotate_header(write(tmp_path / "a.mp4", frames), tmp_path / "turned.mp4")
    image = next(read_video(path))[1]
    upright = np.rot90(frames[0], -1)
    assert image.shape == upright.shape == (64, 48, 3)
    assert np.abs(image.astype(int) - upright)[8::16, 8::16].mean() < 12


def test_a_file_that_is_no_video_is_reported(way, tmp_path):
    with pytest.raises(FileNotFoundError, match="There is no file .*none.mp4"):
        probe(tmp_path / "none.mp4")
    bad = tmp_path / "bad.mp4"
    bad.write_bytes(b"no video\0" * 99)
    with pytest.raises(ValueError, match="bad.mp4 is not a readable video"):
        next(read_video(bad))


def test_a_name_that_is_not_utf8_is_reported(way, tmp_path):
    path = tmp_path / os.fsdecode(b"caf\xe9.mp4")
    path.write_bytes(b"no video")
    with pytest.raises(ValueError, match="not UTF-8: rename the file"):
        next(read_video(path))


@pytest.mark.parametrize("with_pyav", [True, False])
def test_a_text_is_no_video(with_pyav, tmp_path, monkeypatch):
    """FFmpeg would render the text as pictures."""
    if not with_pyav:
        monkeypatch.setattr(reading, "av", None)
    path = tmp_path / "notes.txt"
    path.write_text("a line of plain text\n" * 200)
    with pytest.raises(ValueError, match="notes.txt is a text file"):
        reading.probe(path)
    with pytest.raises(ValueError, match="notes.txt is a text file"):
        next(reading.read_video(path))


def playlist_of(path, kind):
    """Text of a playlist that names a video by its absolute path."""
    return {
        "m3u8": f"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\n{path}\n#EXT-X-ENDLIST\n",
        "ffconcat": f"ffconcat version 1.0\nfile '{path}'\n",
        "mpd": f'<?xml version="1.0"?>\n<MPD><Period><BaseURL>{path}</BaseURL></Period></MPD>\n',
    }[kind]


@pytest.mark.parametrize("kind", ["m3u8", "ffconcat", "mpd"])
def test_a_playlist_reads_no_other_file(way, tmp_path, kind):
    secret = write(tmp_path / "secret.mp4", pictures())
    with av.open(str(secret)) as source, av.open(str(tmp_path / "secret.ts"), "w") as output:
        copy = output.add_stream("mpeg2video", RATE)
        copy.width, copy.height, copy.pix_fmt = 64, 48, "yuv420p"
        for frame in source.decode(video=0):
            output.mux(copy.encode(frame.reformat(format="yuv420p")))
        output.mux(copy.encode())
    path = tmp_path / f"list.{kind}"
    path.write_text(playlist_of(tmp_path / "secret.ts", kind))
    for read in (probe, lambda path: next(read_video(path))):
        with pytest.raises(ValueError, match=f"list.{kind} is a playlist of other files"):
            read(path)


def test_ffmpeg_itself_may_open_no_other_file(tmp_path, monkeypatch):
    """A playlist that begins like none would still be stopped by the whitelist of protocols."""
    test_a_playlist_reads_no_other_file("PyAV", tmp_path, "m3u8")
    with av.open(str(tmp_path / "list.m3u8")) as container:
        assert next(container.decode(video=0)), "the test would check nothing"
    monkeypatch.setattr(reading, "_check", lambda path: None)
    with pytest.raises(ValueError, match="list.m3u8 is not a readable video"):
        probe(tmp_path / "list.m3u8")


def test_a_colon_in_a_name_is_no_protocol(way, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    frames = pictures()
    sound = add_sound if way == "PyAV" else lambda path, result: path.rename(result)
    source = sound(write(tmp_path / "silent.mp4", frames), tmp_path / "10:30.mp4")
    assert source.name == "10:30.mp4" and probe("10:30.mp4")[1] == len(frames)
    result = write(
        Path("talk: part 1.mp4"), [image for _, image in read_video("10:30.mp4")], Path("10:30.mp4")
    )
    assert len(list(read_video(result))) == len(frames)
    if way == "PyAV":
        assert loudest_tone(f"file:{result}")[2] == pytest.approx(440, abs=5)


def test_cover_art_is_no_video(way, tmp_path):
    path = tmp_path / "song.m4a"
    with av.open(str(path), "w", format="mp4") as output:
        sound = output.add_stream("aac", rate=48000, layout="mono")
        cover = output.add_stream("mjpeg", RATE)
        cover.width, cover.height, cover.pix_fmt = 64, 48, "yuvj420p"
        cover.disposition = av.stream.Disposition.attached_pic
        picture = av.VideoFrame.from_ndarray(pictures()[0], "bgr24")
        output.mux(cover.encode(picture.reformat(format="yuvj420p", dst_color_range="JPEG")))
        output.mux(cover.encode())
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 48000), np.int16), "s16", "mono")
        frame.sample_rate = 48000
        output.mux(sound.encode(frame))
        output.mux(sound.encode())
    with av.open(str(path)) as container:
        assert len(container.streams.video) == 1, "the test would check nothing"
    with pytest.raises(ValueError, match="song.m4a has no video, only sound"):
        probe(path)


def test_sound_alone_is_reported(tmp_path):
    with av.open(str(tmp_path / "a.mp4"), "w") as output:
        sound = output.add_stream("aac", rate=48000, layout="mono")
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 4800), np.int16), "s16", "mono")
        frame.sample_rate = 48000
        output.mux(sound.encode(frame))
        output.mux(sound.encode())
    with pytest.raises(ValueError, match="has no video, only sound"):
        probe(tmp_path / "a.mp4")


def test_a_damaged_video_gives_the_frames_that_remain(tmp_path):
    path = write(tmp_path / "a.mp4", pictures(40))
    data = bytearray(path.read_bytes())
    middle = data.index(b"mdat") + data.index(b"moov") // 2
    data[middle : middle + 1000] = bytes(1000)
    path.write_bytes(data)
    assert 20 < len(list(read_video(path))) < 40


def test_a_failure_leaves_neither_file_nor_the_old_one_changed(tmp_path):
    path = write(tmp_path / "a.mp4", pictures())
    before = path.read_bytes()
    with (
        pytest.raises(RuntimeError, match="stop"),
        open_writer(path, (48, 64, 3), RATE) as write_frame,
    ):
        write_frame(0, pictures()[0])
        raise RuntimeError("stop")
    assert path.read_bytes() == before and [p.name for p in tmp_path.iterdir()] == ["a.mp4"]


def test_opencv_alone_cannot_write_transparency(tmp_path, monkeypatch):
    monkeypatch.setattr(reading, "av", None)
    monkeypatch.setattr(writing.shutil, "which", lambda name: None)
    with pytest.raises(ValueError, match="needs PyAV: run `pip install av`"):
        write(tmp_path / "a.webm", pictures(channels=4))


def test_a_video_cut_short_is_reported_and_its_frames_are_kept(model_path, tmp_path, capsys):
    whole = write(tmp_path / "whole.mp4", pictures(40))
    cut = tmp_path / "cut.mkv"
    with av.open(str(whole)) as source, av.open(str(cut), "w") as output:
        track = source.streams.video[0]
        copy = output.add_stream_from_template(track)
        for packet in source.demux(track):
            if packet.pts is not None:
                packet.stream = copy
                output.mux(packet)
    flags = ["--model_path", model_path, "--output", str(tmp_path / "out")]
    assert videos.main([str(cut), *flags]) == 0  # complete
    cut.write_bytes(cut.read_bytes()[: cut.stat().st_size // 3])
    capsys.readouterr()
    assert videos.main([str(cut), *flags]) == 1
    message = capsys.readouterr()
    assert "cut.mkv is damaged or cut short: " in message.err and "of 4.0 seconds" in message.err
    frames = len(list(read_video(tmp_path / "out" / "cut_overlay.mp4")))
    assert f"the {frames} frames that could be read" in message.err and 0 < frames < 36


def test_a_video_with_an_unknown_codec_is_one_sentence(model_path, tmp_path, capsys):
    path = tmp_path / "a.avi"
    with av.open(str(path), "w") as output:
        stream = output.add_stream("mpeg4", RATE)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for picture in pictures():
            output.mux(stream.encode(av.VideoFrame.from_ndarray(picture, "bgr24")))
        output.mux(stream.encode())
    data = path.read_bytes()
    assert (code := b"FMP4") in data
    path.write_bytes(data.replace(code, b"XQZW"))
    flags = ["--model_path", model_path, "--output", str(tmp_path / "out")]
    assert videos.main([str(path), *flags]) == 1
    message = capsys.readouterr().err.splitlines()[-1]
    assert message.startswith(f"apps.video: {path}") and "cannot be decoded" in message
    assert not (tmp_path / "out").exists()
