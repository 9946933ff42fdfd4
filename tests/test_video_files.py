import os
import struct
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest

from apps.video import __main__ as videos
from apps.video import reading, writing
from apps.video.reading import decode, open_video, probe, read_video
from apps.video.tone_mapping import tone_map
from apps.video.writing import fit, open_writer

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


def set_display_matrix(path, result, a, b, c, d):
    """Copy a video; its track header now says: show the pixel (x, y) at (a x + c y, b x + d y)."""
    data = bytearray(path.read_bytes())
    matrix = data.index(b"tkhd") + 4 + 40
    a, b, c, d = (value << 16 for value in (a, b, c, d))
    struct.pack_into(">9i", data, matrix, a, b, 0, c, d, 0, 0, 0, 1 << 30)
    result.write_bytes(data)
    return result


def test_a_rotated_video_is_read_upright(way, tmp_path):
    frames = pictures()
    path = write(tmp_path / "a.mp4", frames)
    path = set_display_matrix(path, tmp_path / "turned.mp4", 0, 1, -1, 0)
    image = next(read_video(path))[1]
    upright = np.rot90(frames[0], -1)
    assert image.shape == upright.shape == (64, 48, 3)
    assert np.abs(image.astype(int) - upright)[8::16, 8::16].mean() < 12


@pytest.mark.parametrize(
    "matrix, shown",
    [
        ((1, 0, 0, 1), lambda image: image),
        ((-1, 0, 0, 1), lambda image: image[:, ::-1]),
        ((1, 0, 0, -1), lambda image: image[::-1]),
        ((-1, 0, 0, -1), lambda image: image[::-1, ::-1]),
        ((0, 1, 1, 0), lambda image: image.swapaxes(0, 1)),
        ((0, 1, -1, 0), lambda image: np.rot90(image, -1)),
        ((0, -1, 1, 0), lambda image: np.rot90(image)),
        ((0, -1, -1, 0), lambda image: np.rot90(image.swapaxes(0, 1), 2)),
    ],
)
def test_all_eight_display_matrices_are_applied(tmp_path, matrix, shown):
    """FFmpeg's angle of a mirroring matrix is that of a rotation, which shows upside down."""
    frames = pictures(1)
    path = set_display_matrix(write(tmp_path / "a.mp4", frames), tmp_path / "b.mp4", *matrix)
    image, expected = next(read_video(path))[1], shown(frames[0])
    assert image.shape == expected.shape
    assert np.abs(image.astype(int) - expected)[8::16, 8::16].mean() < 12


def encode(path, frames, codec, rate=RATE, times=None, **tags):
    """Write VideoFrames with FFmpeg; `tags` are attributes of the codec, such as colorspace."""
    with av.open(str(path), "w") as output:
        stream = output.add_stream(codec, rate)
        stream.width, stream.height, stream.pix_fmt = (
            frames[0].width,
            frames[0].height,
            frames[0].format.name,
        )
        for name, value in tags.items():
            setattr(stream.codec_context, name, value)
        for index, frame in enumerate(frames):
            frame.time_base, frame.pts = Fraction(1, rate), index if times is None else times[index]
            output.mux(stream.encode(frame))
        output.mux(stream.encode())
    return path


@pytest.mark.parametrize("height, red", [(718, (0, 0, 255)), (720, (0, 24, 255))])
def test_colours_without_a_tag_are_those_of_hd_from_720_lines_on(tmp_path, height, red):
    """(Y, Cb, Cr) = (81, 90, 240) is pure red in BT.601 and (255, 24, 0) in BT.709."""
    frame = av.VideoFrame(64, height, "yuv420p")
    for plane, value in zip(frame.planes, (81, 90, 240)):
        plane.update(bytes([value]) * plane.buffer_size)
    path = encode(tmp_path / "a.mkv", [frame] * 2, "ffv1")
    image = next(read_video(path))[1]
    assert np.abs(image.astype(int) - red).max() <= 2


# R, G, B of BT.2020 on a screen, 0..1 -> the SDR image's. A grey of 203 nits, reference white, is
# 0.75 in HLG and 0.5807 in PQ; the curve makes (1 + 0.203**2) / 2 of its light, 191 in sRGB. A
# BT.709 red of 203 nits is (127.4, 14.0, 3.3) nits: the curve keeps 0.6304 of its light, 208.
HDR = [
    ("HLG", 18, (0.75, 0.75, 0.75), (191, 191, 191)),
    ("HLG", 18, (1, 1, 1), (255, 255, 255)),
    ("PQ", 16, (0.5807, 0.5807, 0.5807), (191, 191, 191)),
    ("PQ", 16, (0.7518, 0.7518, 0.7518), (255, 255, 255)),
    ("PQ", 16, (0.5325, 0.3270, 0.2201), (208, 0, 0)),
]


@pytest.mark.parametrize("name, transfer, signal, expected", HDR)
def test_hdr_becomes_sdr(tmp_path, name, transfer, signal, expected):
    signal = np.rint(65535 * np.array(signal)).astype(np.uint16)
    image = tone_map(np.tile(signal[::-1], (2, 3, 1)), name)
    assert image.shape == (2, 3, 3) and image.dtype == np.uint8
    assert np.abs(image.astype(int) - expected[::-1]).max() <= 1
    rgb = av.VideoFrame.from_ndarray(np.tile(signal, (48, 64, 1)), "rgb48le")
    frame = rgb.reformat(format="yuv444p10le", dst_colorspace=9)
    tags = {"color_trc": transfer, "color_primaries": 9, "colorspace": 9}
    notices = []
    frames = list(
        read_video(encode(tmp_path / "a.mkv", [frame] * 2, "ffv1", **tags), None, notices)
    )
    # One level of 10 bits is up to 3 levels of SDR.
    assert np.abs(frames[0][1].astype(int) - expected[::-1]).max() <= 4
    assert len(notices) == 1 and f"a.mkv is an HDR video ({name})" in notices[0]


def test_hdr_is_said_once(model_path, tmp_path, capsys):
    grey = av.VideoFrame.from_ndarray(np.full((48, 64, 3), 40000, np.uint16), "rgb48le")
    frame = grey.reformat(format="yuv444p10le", dst_colorspace=9)
    path = encode(tmp_path / "a.mkv", [frame] * 5, "ffv1", color_trc=18, colorspace=9)
    assert videos.main([str(path), "--model_path", model_path]) == 0
    assert capsys.readouterr().out.count("HDR") == 1


def shift_times(source, path, seconds):
    """Copy a file's packets with later times, as MPEG-TS or Matroska."""
    with av.open(str(source)) as given, av.open(str(path), "w") as output:
        copies = {each: output.add_stream_from_template(each) for each in given.streams}
        for packet in given.demux():
            if packet.dts is not None:
                packet.pts += round(seconds / packet.time_base)
                packet.dts += round(seconds / packet.time_base)
                packet.stream = copies[packet.stream]
                output.mux(packet)
    return path


@pytest.mark.parametrize("suffix, codec", [(".ts", "aac"), (".ts", "ac3"), (".mkv", "mp2")])
def test_a_stream_that_starts_late_is_moved_to_zero(tmp_path, suffix, codec):
    """Pictures and sound start after 3,600 s, together, and stay together."""
    frames = pictures(12)
    source = add_sound(write(tmp_path / "a.mp4", frames), tmp_path / "b.mp4", codec, seconds=1.2)
    source = shift_times(source, tmp_path / f"late{suffix}", 3600)
    with av.open(str(source)) as container:
        assert container.start_time > 3590 * av.time_base, "the test would check nothing"
    faults = []
    seconds, images = zip(*read_video(source, faults))
    assert seconds == pytest.approx(np.arange(12) / RATE, abs=0.05) and not faults
    result = write(tmp_path / "result.mp4", images, source, seconds)
    with av.open(str(result)) as container:
        assert container.duration / av.time_base == pytest.approx(1.2, abs=0.15)
        for stream in (*container.streams.video, *container.streams.audio):
            assert stream.start_time * stream.time_base == pytest.approx(0, abs=0.07)
    _, length, tone = loudest_tone(result)
    assert length == pytest.approx(1.2, abs=0.1) and tone == pytest.approx(440, abs=5)


@pytest.mark.parametrize("codec", ["aac", "mp2"])
def test_joined_recordings_follow_each_other(tmp_path, codec):
    """Both begin at the same time: the second one was as short as a blink."""
    source = add_sound(write(tmp_path / "a.mp4", pictures(12)), tmp_path / "b.mp4", codec, 1.2)
    part = shift_times(source, tmp_path / "part.ts", 0)
    joined = tmp_path / "joined.ts"
    joined.write_bytes(2 * part.read_bytes())
    seconds, images = zip(*read_video(joined))
    # AAC is longer than its tone: 1,024 samples before it, and up to 1,023 after it.
    assert seconds == pytest.approx(np.arange(24) / RATE, abs=0.065)
    result = write(tmp_path / "result.mp4", images, joined, seconds)
    _, length, tone = loudest_tone(result)
    assert length == pytest.approx(2.4, abs=0.15) and tone == pytest.approx(440, abs=5)


@pytest.mark.parametrize("codec", ["aac", "mp2"])
def test_joined_recordings_keep_sound_and_pictures_together(tmp_path, codec):
    """Sound of the first 0.5 s of 1.2 s: that of the second recording waits for its pictures."""
    source = add_sound(write(tmp_path / "a.mp4", pictures(12)), tmp_path / "b.mp4", codec, 0.5)
    part = shift_times(source, tmp_path / "part.ts", 0)
    joined = tmp_path / "joined.ts"
    joined.write_bytes(3 * part.read_bytes())
    seconds, images = zip(*read_video(joined))
    assert seconds == pytest.approx(np.arange(36) / RATE, abs=0.05)
    with av.open(str(write(tmp_path / "result.mp4", images, joined, seconds))) as container:
        times = [frame.time for frame in container.decode(audio=0)]
    [second, third] = np.array(times[1:])[np.diff(times) > 0.3]
    assert [second, third] == pytest.approx([seconds[12], seconds[24]], abs=0.05)


def test_sound_that_overlaps_is_left_out(tmp_path):
    """Segments of one recording; of the second one, 30 ms of sound are in the first one too."""
    source = add_sound(write(tmp_path / "a.mp4", pictures(12)), tmp_path / "b.mp4", "mp2", 1.2)
    parts = [shift_times(source, tmp_path / f"{start}.ts", start) for start in (0, 1.37)]
    joined = tmp_path / "joined.ts"
    joined.write_bytes(b"".join(part.read_bytes() for part in parts))
    with av.open(str(joined)) as container:
        times = [packet.pts for packet in container.demux(audio=0) if packet.pts is not None]
    assert -3000 < min(np.diff(times)) < 0, "the test would check nothing"
    seconds, images = zip(*read_video(joined))
    _, length, tone = loudest_tone(write(tmp_path / "result.mp4", images, joined, seconds))
    assert length == pytest.approx(2.39, abs=0.03) and tone == pytest.approx(440, abs=5)


def moved(*given, start=0, duration=1):
    """Times of packets, given as (index of the stream, decoding time), after Timeline.move."""
    timeline, packets = reading.Timeline(Fraction(start), Fraction(1)), []
    for index, time in given:
        stream = SimpleNamespace(index=index)
        packets.append(
            SimpleNamespace(
                stream=stream, dts=time, pts=time, duration=duration, time_base=Fraction(1)
            )
        )
        timeline.move(packets[-1])
    assert all(packet.dts == packet.pts for packet in packets)
    return [packet.pts for packet in packets]


def test_times_that_go_back_go_on():
    assert moved((0, 100), (0, 101), (0, 100), (0, 101), start=100) == [0, 1, 2, 3]
    # Stream 1 is shorter and comes first, and the last packet of stream 0 comes late.
    given = [(1, 0), (0, 0), (1, 1), (0, 1), (1, 0), (0, 2), (0, 0), (1, 1), (0, 1)]
    assert moved(*given) == [0, 0, 1, 1, 2, 2, 3, 4, 4]
    # Stream 1 is missing in the second recording of three.
    assert moved((0, 0), (1, 0), (0, 1), (0, 0), (0, 1), (0, 0), (1, 5)) == [0, 0, 1, 2, 3, 4, 9]


def test_packets_without_a_decoding_time_move_along():
    packet = SimpleNamespace(
        stream=SimpleNamespace(index=0), dts=None, pts=7, time_base=Fraction(1)
    )
    reading.Timeline(Fraction(5), Fraction(1)).move(packet)
    assert packet.pts == 2 and packet.dts is None


def test_a_hole_does_not_delay_the_pictures_behind_it(tmp_path):
    """Behind it the decoder still returns a frame from before, which is no joined recording."""
    path = write(tmp_path / "a.mp4", pictures(60))
    with av.open(str(path)) as container:
        places = [packet.pos for packet in container.demux(video=0) if packet.pts is not None]
    data = bytearray(path.read_bytes())
    data[places[9] : places[26]] = bytes(places[26] - places[9])
    path.write_bytes(data)
    with open_video(path) as container:
        frames = list(decode(container, container.streams.video[0], []))
        assert (np.diff([frame.time for frame in frames]) < 0).any(), "it would check nothing"
    seconds = [seconds for seconds, _ in read_video(path)]
    assert seconds[-1] == pytest.approx(5.9) and (np.diff(seconds) >= 0).all()


def test_a_late_stream_cut_short_is_noticed(tmp_path):
    late = shift_times(write(tmp_path / "a.mp4", pictures(40)), tmp_path / "late.mkv", 3600)
    late.write_bytes(late.read_bytes()[: late.stat().st_size // 3])
    faults = []
    list(read_video(late, faults))
    assert len(faults) == 1 and "of 4.0 seconds" in faults[0]


def test_a_picture_of_another_size_is_fitted_and_padded():
    picture = np.full((2, 4, 3), 9, np.uint8)
    assert fit(picture, (2, 4, 3)) is picture
    expected = np.zeros((4, 4, 3), np.uint8)
    expected[1:3] = 9
    assert np.array_equal(fit(picture, (4, 4, 3)), expected)
    tall = np.full((8, 4, 4), (9, 9, 9, 255), np.uint8)
    fitted = fit(tall, (4, 6, 4))  # a quarter of the size: 4 x 2 in the middle
    assert (fitted[:, 2:4] == (9, 9, 9, 255)).all()
    assert not fitted[:, :2].any() and not fitted[:, 4:].any()


def test_a_video_that_changes_its_size_is_not_stretched(model_path, tmp_path):
    """MPEG-TS: 64x48 frames of one colour, then 48x64 frames of another."""
    parts = []
    for size, color in (((48, 64), (40, 180, 60)), ((64, 48), (200, 60, 40))):
        picture = av.VideoFrame.from_ndarray(np.full((*size, 3), color, np.uint8), "bgr24")
        frames = [picture.reformat(format="yuv420p") for _ in range(5)]
        times = np.arange(5) + 5 * len(parts)
        parts.append(
            encode(tmp_path / f"{len(parts)}.ts", frames, "mpeg2video", 25, times.tolist())
        )
    path = tmp_path / "a.ts"
    path.write_bytes(b"".join(part.read_bytes() for part in parts))
    shapes = [image.shape[:2] for _, image in read_video(path)]
    assert set(shapes) == {(48, 64), (64, 48)}, "the test would check nothing"
    assert videos.main([str(path), "--model_path", model_path, "--mode", "mask"]) == 0
    assert {image.shape for _, image in read_video(tmp_path / "a_mask.mp4")} == {(48, 64, 3)}
    written = [
        image
        for _, image in read_video(write(tmp_path / "b.mp4", [i for _, i in read_video(path)]))
    ]
    last = written[-1].astype(int)
    assert np.abs(last[:, 18:46] - (200, 60, 40)).max() < 12
    assert last[:, :12].max() < 12 and last[:, 52:].max() < 12


def add_tracks(video, path, tones):
    """A Matroska file with a sound track for each (tone in Hz, is default, language)."""
    with av.open(str(video)) as source, av.open(str(path), "w") as output:
        copy = output.add_stream_from_template(source.streams.video[0])
        sounds = []
        for _, is_default, language in tones:
            sound = output.add_stream("aac", rate=48000, layout="mono")
            sound.disposition = av.stream.Disposition.default if is_default else 0
            sound.metadata["language"] = language
            sounds.append(sound)
        output.start_encoding()
        for packet in source.demux(source.streams.video[0]):
            if packet.pts is not None:
                packet.stream = copy
                output.mux(packet)
        for sound, (tone, _, _) in zip(sounds, tones):
            wave = np.sin(2 * np.pi * tone * np.arange(28800) / 48000)
            frame = av.AudioFrame.from_ndarray((20000 * wave).astype(np.int16)[None], "s16", "mono")
            frame.sample_rate, frame.pts, frame.time_base = 48000, 0, Fraction(1, 48000)
            output.mux(sound.encode(frame))
            output.mux(sound.encode())
    return path


@pytest.mark.parametrize("default", [0, 1])
def test_the_default_sound_is_kept_and_the_other_one_named(way, tmp_path, default):
    if way == "OpenCV":
        pytest.skip("OpenCV writes no sound")
    tones = [(440, default == 0, "eng"), (880, default == 1, "deu")]
    source = add_tracks(write(tmp_path / "silent.mp4", pictures()), tmp_path / "a.mkv", tones)
    notices = []
    result = tmp_path / "b.mp4"
    with open_writer(result, (48, 64, 3), RATE, source, notices) as write_frame:
        for index, frame in enumerate(pictures()):
            write_frame(index / RATE, frame)
    assert loudest_tone(result)[2] == pytest.approx(tones[default][0], abs=5)
    if way == "PyAV":
        other = tones[1 - default][2]
        assert notices == [f"{source}: the result does not keep: sound track ({other})."]


def test_sound_with_an_unknown_codec_is_left_out_and_named(tmp_path):
    source = add_sound(write(tmp_path / "a.mp4", pictures()), tmp_path / "a.mkv")
    data = source.read_bytes()
    assert data.count(b"A_AAC") == 1
    source.write_bytes(data.replace(b"A_AAC", b"A_XYZ"))
    with open_video(source) as container:
        assert writing.left_out(container) == "sound track"
    with av.open(str(write(tmp_path / "b.mp4", pictures(), source))) as container:
        assert not container.streams.audio


@pytest.mark.parametrize("default", [0, 1])
def test_the_default_pictures_are_read_and_the_other_ones_named(tmp_path, default):
    path, levels = tmp_path / "a.mkv", (60, 200)
    with av.open(str(path), "w") as output:
        tracks = [output.add_stream("ffv1", RATE) for _ in levels]
        for index, track in enumerate(tracks):
            track.width, track.height, track.pix_fmt = 64, 48, "yuv420p"
            track.disposition = av.stream.Disposition.default if index == default else 0
            track.metadata["title"] = f"angle {index}"
        for level, track in zip(levels, tracks):
            frame = av.VideoFrame.from_ndarray(np.full((48, 64, 3), level, np.uint8), "bgr24")
            output.mux(track.encode(frame.reformat(format="yuv420p")))
        for track in tracks:
            output.mux(track.encode())
    [(_, image)] = read_video(path)
    assert image.mean() == pytest.approx(levels[default], abs=3)
    with open_video(path) as container:
        assert writing.left_out(container) == f"video track (angle {1 - default})"


@pytest.mark.parametrize(
    "name, codec, pixels",
    [("a.mov", "png", "rgba"), ("a.mov", "prores_ks", "yuva444p10le"), ("a.apng", "apng", "rgba")]
    + [("a.webm", "libvpx-vp9", "yuva420p"), ("a.avi", "rawvideo", "bgra")],
)
def test_transparency_is_over_white(tmp_path, name, codec, pixels):
    """Blue, its left half transparent; the fourth byte of an uncompressed AVI means nothing."""
    bgra = np.full((64, 64, 4), (200, 30, 20, 255), np.uint8)
    bgra[:, :32, 3] = 0
    frame = av.VideoFrame.from_ndarray(bgra, "bgra").reformat(format=pixels)
    image = next(read_video(encode(tmp_path / name, [frame], codec)))[1].astype(int)
    left = (200, 30, 20) if codec == "rawvideo" else (255, 255, 255)
    assert np.abs(image[8:-8, 8:24] - left).max() <= 6
    assert np.abs(image[8:-8, 40:-8] - (200, 30, 20)).max() <= 6


def test_empty_packets_repeat_the_frame_before(tmp_path, monkeypatch):
    """Theora's way; FFmpeg's decoders take an empty packet for the end."""
    path = write(tmp_path / "a.mp4", pictures())

    def demux(container, stream):
        for packet in container.demux(stream):
            yield packet
            if packet.dts is not None:
                empty = av.Packet(0)
                empty.pts, empty.dts, empty.time_base = packet.pts, packet.dts, packet.time_base
                yield empty

    monkeypatch.setattr(reading, "demux", demux)
    assert len(list(read_video(path))) == 6


@pytest.mark.parametrize("name, codec", [("a.h264", "libx264"), ("a.m2v", "mpeg2video")])
def test_a_raw_stream_keeps_its_rate(tmp_path, name, codec):
    """Without timestamps FFmpeg gives 25 frames/s."""
    frames = [av.VideoFrame.from_ndarray(image, "bgr24") for image in pictures(12)]
    frames = [frame.reformat(format="yuv420p") for frame in frames]
    path = encode(tmp_path / name, frames, codec, 30)
    assert probe(path)[0] == 30
    assert [seconds for seconds, _ in read_video(path)] == pytest.approx(np.arange(12) / 30)


def test_an_average_rate_that_no_camera_has_is_not_taken():
    """FFmpeg's for the DV of cassettes."""
    container = SimpleNamespace(format=SimpleNamespace(flags=0))
    rates = {"average_rate": Fraction(60000), "guessed_rate": Fraction(25)}
    assert reading.frame_rate(SimpleNamespace(container=container, **rates)) == 25


@pytest.mark.parametrize("turned", [False, True])
def test_pixels_become_square(way, tmp_path, turned):
    if way == "ffmpeg":
        pytest.skip("it does not read")
    frame = av.VideoFrame.from_ndarray(pictures(1)[0], "bgr24").reformat(format="yuv420p")
    aspect = {"sample_aspect_ratio": Fraction(4, 3)}
    path = encode(tmp_path / "a.mp4", [frame] * 3, "libx264", **aspect)
    if turned:
        path = set_display_matrix(path, tmp_path / "turned.mp4", 0, 1, -1, 0)
    assert next(read_video(path))[1].shape[:2] == ((85, 48) if turned else (48, 85))


@pytest.mark.parametrize("suffix", [".mp4", ".webm"])
@pytest.mark.parametrize("given, kept", [("mono", "mono"), ("5.1(side)", "5.1"), ("7.1", "7.1")])
def test_encoded_sound_keeps_its_channels(tmp_path, suffix, given, kept):
    source = tmp_path / "a.mkv"
    silent = str(write(tmp_path / "a.mp4", pictures()))
    with av.open(silent) as video, av.open(str(source), "w") as output:
        copy = output.add_stream_from_template(video.streams.video[0])
        sound = output.add_stream("flac", rate=48000, layout=given)
        for packet in video.demux(video.streams.video[0]):
            if packet.pts is not None:
                packet.stream = copy
                output.mux(packet)
        frame = av.AudioFrame("s16", given, 4096)
        frame.sample_rate, frame.pts, frame.time_base = 48000, 0, Fraction(1, 48000)
        for plane in frame.planes:
            plane.update(bytes(plane.buffer_size))
        output.mux(sound.encode(frame))
        output.mux(sound.encode())
    with av.open(str(write(tmp_path / f"b{suffix}", pictures(), source))) as container:
        assert container.streams.audio[0].codec_context.layout.name == kept


@pytest.mark.parametrize("codec, given", [("pcm_s16le", "9 channels"), ("libopus", "ambisonic 1")])
def test_sound_without_left_and_right_keeps_its_first_channel(tmp_path, codec, given):
    """FFmpeg mixes neither; the first channel of a sphere is what one microphone hears."""
    source, notices = tmp_path / "a.mkv", []
    with av.open(str(source), "w") as output:
        options = {"mapping_family": "2"} if codec == "libopus" else {}
        sound = output.add_stream(codec, rate=48000, layout=given, options=options)
        picture = output.add_stream("libx264", 10, width=64, height=48, pix_fmt="yuv420p")
        wave = np.rint(8000 * np.sin(np.arange(48000) * 2 * np.pi * 440 / 48000)).astype(np.int16)
        samples = np.zeros((48000, sound.codec_context.layout.nb_channels), np.int16)
        samples[:, 0] = wave
        frame = av.AudioFrame.from_ndarray(samples.reshape(1, -1), "s16", given)
        frame.sample_rate, frame.pts, frame.time_base = 48000, 0, Fraction(1, 48000)
        output.mux(picture.encode(av.VideoFrame.from_ndarray(pictures(1)[0], "bgr24")))
        for stream, last in ((sound, frame), (sound, None), (picture, None)):
            output.mux(stream.encode(last))
    with open_writer(tmp_path / "b.mp4", (48, 64, 3), RATE, source, notices) as write_frame:
        write_frame(0, pictures(1)[0])
    with av.open(str(tmp_path / "b.mp4")) as container:
        kept = np.concatenate([each.to_ndarray()[0] for each in container.decode(audio=0)])
        assert container.streams.audio[0].codec_context.layout.name == "mono"
    assert kept[4800:43200].std() == pytest.approx(8000 / 2**15 / 2**0.5, rel=0.1)
    assert "first of" in notices[0] and "left and right" in notices[0]


def combs(images):
    """Mean difference of neighbouring rows; large where two fields show two times."""
    return np.mean([np.abs(np.diff(image.astype(int), axis=0)).mean() for image in images])


@pytest.mark.parametrize("codec, suffix", [("mpeg2video", ".mpg"), ("libx264", ".mkv")])
def test_an_interlaced_video_is_deinterlaced(tmp_path, codec, suffix):
    """A white bar moves by 4 pixels from field to field over a tagged colour."""
    combed, whole = [], []
    for time in range(8):
        fields = []
        for place in (8 * time, 8 * time + 4):
            image = np.full((64, 96, 3), (60, 40, 160), np.uint8)
            image[:, place : place + 16] = 255
            fields.append(image)
        whole.append(fields[0].copy())
        fields[0][1::2] = fields[1][1::2]
        frame = av.VideoFrame.from_ndarray(fields[0], "bgr24")
        combed.append(frame.reformat(format="yuv420p", dst_colorspace="ITU709"))
    options = (
        {"flags": "+ildct+ilme", "qscale": "2"} if codec == "mpeg2video" else {"flags": "+ildct"}
    )
    options |= {"x264-params": "tff=1"} if codec == "libx264" else {}
    path = encode(tmp_path / f"a{suffix}", combed, codec, 25, options=options, colorspace=1)
    with av.open(str(path)) as container:
        raw = list(container.decode(video=0))
        assert all(frame.interlaced_frame for frame in raw), "the test would check nothing"
    seconds, images = zip(*read_video(path))
    assert len(images) == len(combed)
    assert np.diff(seconds) == pytest.approx(1 / 25, abs=1e-3)
    assert combs(images) < 0.2 * combs(frame.to_ndarray(format="bgr24") for frame in raw)
    assert np.abs(images[4][:, :8].astype(int) - (60, 40, 160)).mean() < 6, "other colours"


def test_a_progressive_video_is_not_filtered(tmp_path, monkeypatch):
    monkeypatch.setattr(reading, "_filter_graph", None)
    assert len(list(read_video(write(tmp_path / "a.mp4", pictures())))) == 6


def test_a_file_that_is_no_video_is_reported(way, tmp_path):
    with pytest.raises(FileNotFoundError, match="There is no file .*none.mp4"):
        probe(tmp_path / "none.mp4")
    with pytest.raises(OSError, match=r"is a folder: give the video files in it"):
        probe(tmp_path)
    (tmp_path / "empty.mp4").touch()
    with pytest.raises(ValueError, match=r"empty\.mp4 is empty: give a video file"):
        probe(tmp_path / "empty.mp4")
    if hasattr(os, "mkfifo"):
        os.mkfifo(tmp_path / "pipe.mp4")
        with pytest.raises(ValueError, match="pipe.mp4 is a pipe or a device"):
            probe(tmp_path / "pipe.mp4")
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


def test_ctrl_c_keeps_the_frames_until_then_and_their_sound(way, tmp_path):
    frames = pictures(30)
    source = write(tmp_path / "a.mp4", frames)
    source = add_sound(source, tmp_path / "b.mp4", seconds=3) if way == "PyAV" else source
    for count in (0, 10):
        with (
            pytest.raises(KeyboardInterrupt),
            open_writer(tmp_path / "c.mp4", (48, 64, 3), RATE, source) as write_frame,
        ):
            for index in range(count):
                write_frame(index / RATE, frames[index])
            raise KeyboardInterrupt
        assert (tmp_path / "c.mp4").exists() == bool(count)
    assert len(list(read_video(tmp_path / "c.mp4"))) == 10
    if way == "PyAV":
        assert loudest_tone(tmp_path / "c.mp4")[1] == pytest.approx(1, abs=0.1)


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
