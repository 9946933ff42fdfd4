"""Videos to disk, written with PyAV, else with the program ffmpeg, else with OpenCV."""

import os
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np

from apps.video import reading
from apps.video.reading import (
    EXACT,
    choose_track,
    decode,
    demux,
    open_video,
    video_stream,
    video_tracks,
)
from portraitnet.files import whole_file
from portraitnet.geometry import resize
from portraitnet.images import Image

if reading.av:
    import av
    from av.video.reformatter import Colorspace

TRANSPARENT = ".webm"  # suffix of a result with an alpha channel
AV_ERRORS = (av.FFmpegError,) if reading.av else ()
TICK = Fraction(1, 90000)  # time base of the written video, seconds
CODECS = {  # suffix of the written file -> video codec, pixel format and options
    ".mp4": ("libx264", "yuv420p", {"crf": "18", "preset": "veryfast"}),
    # VP9 is the only codec with an alpha channel that all browsers play
    ".webm": (
        "libvpx-vp9",
        "yuva420p",
        {"crf": "24", "b": "0", "deadline": "realtime", "cpu-used": "6", "row-mt": "1"},
    ),
}
SOUND_CODECS = {  # suffix -> sound codecs that are copied; other sound is encoded as the first one
    ".mp4": ("aac", "mp3", "ac3", "alac"),
    ".webm": ("opus", "vorbis"),
}
# Number of channels up to which a layout takes a sound; both encoders keep the order of these.
LAYOUTS = ((1, "mono"), (2, "stereo"), (6, "5.1"), (8, "7.1"))
# Layouts that FFmpeg cannot mix: single microphones, and a sphere, whose first channel is its sum.
UNPLACED = re.compile(r"\d+ channels|ambisonic .*")
ENCODERS = {"aac": "aac", "opus": "libopus"}


def choose_writer() -> str:
    """Name of the software that `open_writer` uses: "PyAV", "ffmpeg" or "OpenCV" (no sound)."""
    if reading.av:
        return "PyAV"
    return "ffmpeg" if shutil.which("ffmpeg") else "OpenCV"


@contextmanager
def open_writer(
    path: Path | str,
    shape: tuple[int, int, int],
    rate: float,
    source: Path | None = None,
    notices: list[str] | None = None,
) -> Iterator[Callable[[float, Image], None]]:
    """Write a video under a temporary name, renamed to `path` when the video is complete.

    Odd sides grow by one pixel, because the codecs need even sides. After Ctrl-C in the block the
    video with the frames until then gets its name too, and KeyboardInterrupt goes on; PyAV then
    ends the sound with the pictures.

    Args:
        path: .mp4, or .webm if the frames have an alpha channel; a missing folder is made.
        shape: (H, W, 3) of BGR frames or (H, W, 4) of BGRA frames.
        rate: frames/s; only PyAV keeps uneven times between frames.
        source: video whose default sound track is kept, if there is one.
        notices: list that gets a sentence if other tracks or subtitles of the source are left out;
            without PyAV nothing is known of them.

    Yields:
        function write(seconds, picture), called with the frames in order of time; see `fit` for
        pictures of another size.

    Raises:
        ValueError: OpenCV alone cannot write an alpha channel, or the file cannot be written.
    """
    kind = {"PyAV": _AvWriter, "ffmpeg": _FfmpegWriter, "OpenCV": _OpencvWriter}[choose_writer()]
    height, width = (length + length % 2 for length in shape[:2])

    interrupted, count = None, 0

    def write(seconds, picture):
        nonlocal count
        picture = fit(picture, shape)  # the frame size of a stream may change
        margins = height - shape[0], width - shape[1]
        if any(margins):
            down, right = margins
            picture = cv2.copyMakeBorder(picture, 0, down, 0, right, cv2.BORDER_REPLICATE)
        writer.write(seconds, picture)
        count += 1

    try:
        with whole_file(path) as temporary:
            notices = [] if notices is None else notices
            writer = kind(temporary, (height, width, shape[2]), rate, source, notices)
            try:
                yield write
            except KeyboardInterrupt as error:
                if not count:
                    raise
                writer.end_sound()
                interrupted = error
            finally:
                writer.close()
        if interrupted is not None:
            raise interrupted
    except AV_ERRORS as error:
        if isinstance(error, OSError):  # for example a full disk
            raise
        raise ValueError(
            f"{path} cannot be written ({error.strerror}): give another --output."
        ) from None


def fit(picture: Image, shape: tuple[int, ...]) -> Image:
    """Scale a picture into a shape without changing its proportions.

    Args:
        picture: (h, w, 3) BGR or (h, w, 4) BGRA, uint8.
        shape: (H, W, channels) of the result.

    Returns:
        the picture itself if it has the shape; else the scaled picture, centred, with black or
        transparent margins.
    """
    if picture.shape == shape:
        return picture
    ratio = min(shape[0] / picture.shape[0], shape[1] / picture.shape[1])
    height, width = (max(1, round(length * ratio)) for length in picture.shape[:2])
    top, left = (shape[0] - height) // 2, (shape[1] - width) // 2
    fitted = np.zeros(shape, np.uint8)
    fitted[top : top + height, left : left + width] = resize(picture, height, width)
    return fitted


def choose_sound(source: "av.container.InputContainer") -> "av.audio.AudioStream | None":
    """The sound track that players choose, among those that FFmpeg can decode."""
    return choose_track([each for each in source.streams.audio if each.codec_context])


def left_out(source: "av.container.InputContainer") -> str | None:
    """Words for the tracks of a video that a result does not keep, None if none."""
    kept = video_stream(source), choose_sound(source)
    names = [f"video track{_label(each)}" for each in video_tracks(source) if each not in kept]
    names += [f"sound track{_label(each)}" for each in source.streams.audio if each not in kept]
    names += [f"subtitles{_label(each)}" for each in source.streams.subtitles]
    return ", ".join(names) or None


def _label(track):
    """Title and language of a track in brackets, if it has any."""
    words = [track.metadata.get(name) for name in ("title", "language")]
    words = [word for word in words if word and word != "und"]
    return f" ({', '.join(words)})" if words else ""


def _first_channel(track, frames):
    """The first channel of a track's decoded frames, as frames of one channel."""
    graph = av.filter.Graph()
    source, choice = graph.add_abuffer(template=track), graph.add("pan", "mono|c0=c0")
    source.link_to(choice)
    choice.link_to(graph.add("abuffersink"))
    graph.configure()
    for frame in frames:
        graph.push(frame)
        yield graph.pull()  # the filter keeps no frame back


class _AvWriter:
    def __init__(self, path, shape, rate, source, notices):
        codec, pixels, options = CODECS[path.suffix.lower()]
        self.output = av.open(os.path.abspath(path), "w")
        self.video = self.output.add_stream(codec, Fraction(rate).limit_denominator(1001))
        self.video.height, self.video.width, channels = shape
        self.video.pix_fmt = pixels
        self.video.options = options
        self.video.codec_context.time_base = TICK
        # Without this tag players guess the colour space from the size of the picture.
        self.video.codec_context.colorspace = Colorspace.ITU709
        self.sound_codecs = SOUND_CODECS[path.suffix.lower()]
        self.format = "bgra" if channels == 4 else "bgr24"
        self.tick = -1
        self.sound = self._sound(source, notices) if source else iter(())
        self.packet = next(self.sound, None)  # adds the sound stream, before the header is written

    def write(self, seconds, picture):
        frame = av.VideoFrame.from_ndarray(picture, self.format)
        frame = frame.reformat(
            format=self.video.pix_fmt, dst_colorspace=Colorspace.ITU709, interpolation=EXACT
        )
        self.tick = max(self.tick + 1, round(seconds / TICK))
        frame.pts, frame.time_base = self.tick, TICK
        self.output.mux(self.video.encode(frame))
        while self.packet and self.packet.pts * self.packet.time_base <= seconds:
            self._mux_sound()

    def close(self):
        self.output.mux(self.video.encode())
        while self.packet:
            self._mux_sound()
        self.output.close()

    def end_sound(self):
        """Leave out the sound that follows the last frame."""
        self.packet = None

    def _mux_sound(self):
        self.output.mux(self.packet)
        self.packet = next(self.sound, None)

    def _sound(self, path, notices):
        """Packets of the default sound track, copied if the result can hold their codec."""
        with open_video(path) as source:
            if names := left_out(source):
                notices.append(f"{path}: the result does not keep: {names}.")
            track = choose_sound(source)
            if track is None:
                return
            if track.codec_context.codec.canonical_name in self.sound_codecs:
                stream = self.output.add_stream_from_template(track)
                for packet in demux(source, track):
                    if packet.pts is not None:
                        packet.dts = packet.pts
                        packet.stream = stream
                        yield packet
                return
            channels = track.codec_context.layout.nb_channels
            layout = next((name for limit, name in LAYOUTS if channels <= limit), "stereo")
            frames = decode(source, track, [])
            if UNPLACED.fullmatch(track.codec_context.layout.name):
                layout, frames = "mono", _first_channel(track, frames)
                notices.append(
                    f"{path}: the result keeps the first of {channels} sound channels: the file "
                    "does not say which of them are left and right."
                )
            encoder = ENCODERS[self.sound_codecs[0]]
            stream = self.output.add_stream(encoder, rate=48000, layout=layout)
            for frame in frames:
                yield from stream.encode(frame)
            yield from stream.encode()


class _FfmpegWriter:
    def __init__(self, path, shape, rate, source, notices):
        height, width, channels = shape
        frames = f"-f rawvideo -pix_fmt {'bgra' if channels == 4 else 'bgr24'}".split()
        frames += ["-s", f"{width}x{height}", "-r", str(rate), "-i", "-"]
        only_sound = "-protocol_whitelist file -vn -sn -dn".split()  # its default track
        sound = [*only_sound, "-i", os.path.abspath(source)] if source else []
        codec, pixels, options = CODECS[path.suffix.lower()]
        encode = ["-c:v", codec, "-pix_fmt", pixels]
        encode += [word for name, value in options.items() for word in (f"-{name}", value)]
        self.process = subprocess.Popen(
            ["ffmpeg", "-loglevel", "error", "-y", *frames, *sound, *encode, os.path.abspath(path)],
            stdin=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,  # a terminal's Ctrl-C would end ffmpeg too
        )

    def write(self, seconds, picture):
        try:
            self.process.stdin.write(np.ascontiguousarray(picture).data)
        except BrokenPipeError:
            raise ValueError(f"ffmpeg failed: {self.process.stderr.read().decode()}") from None

    def end_sound(self):
        """Do nothing: ffmpeg copies all of the sound."""

    def close(self):
        _, message = self.process.communicate()
        if self.process.returncode:
            raise ValueError(f"ffmpeg failed: {message.decode().strip()}")


class _OpencvWriter:
    def __init__(self, path, shape, rate, source, notices):
        height, width, channels = shape
        if channels == 4:
            raise ValueError(f"{path.suffix} with transparency needs PyAV: run `pip install av`.")
        code = cv2.VideoWriter_fourcc(*"mp4v")
        self.writer = cv2.VideoWriter(os.path.abspath(path), code, rate, (width, height))
        if not self.writer.isOpened():
            raise ValueError(f"OpenCV cannot write {path}: run `pip install av`.")

    def write(self, seconds, picture):
        self.writer.write(picture)

    def end_sound(self):
        """Do nothing: there is no sound."""

    def close(self):
        self.writer.release()
