"""Videos to and from disk, with PyAV if it is installed, else ffmpeg's program, else OpenCV alone.

Frames are upright images with square pixels, whatever the file's rotation and pixel shape.
"""

import os
import shutil
import subprocess
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np

try:
    import av
    from av.video.reformatter import Colorspace
except ImportError:
    av = None

SUFFIXES = (".mp4", ".mov", ".m4v", ".mkv", ".webm", ".avi", ".gif")
# FFmpeg's SWS_BILINEAR, SWS_FULL_CHR_H_INT and SWS_ACCURATE_RND: without the last two, every
# conversion between RGB and YUV darkens by two levels. PyAV before 18 has no names for them.
EXACT = 0x2 | 0x2000 | 0x40000
TICK = Fraction(1, 90000)  # of the clock in a written file, seconds
CODECS = {  # of a written file: suffix -> codec, pixel format and options
    ".mp4": ("libx264", "yuv420p", {"crf": "18", "preset": "veryfast"}),
    # VP9 is the one codec with an alpha channel that browsers play
    ".webm": (
        "libvpx-vp9",
        "yuva420p",
        {"crf": "24", "b": "0", "deadline": "realtime", "cpu-used": "6", "row-mt": "1"},
    ),
}

SOUNDS = {  # of a written file: suffix -> codecs every player knows, the first for what is encoded
    ".mp4": ("aac", "mp3", "ac3", "alac"),
    ".webm": ("opus", "vorbis"),
}
ENCODERS = {"aac": "aac", "opus": "libopus"}


def way_of_writing():
    """What `open_writer` will use: "PyAV", "ffmpeg" or "OpenCV" (which keeps no sound)."""
    if av:
        return "PyAV"
    return "ffmpeg" if shutil.which("ffmpeg") else "OpenCV"


def probe(path):
    """Frames a second and number of frames (None if the file does not tell) of a video.

    Raises:
        FileNotFoundError, ValueError: there is no such file, or it is no video.
    """
    if av:
        with _open(path) as container:
            stream = container.streams.video[0]
            rate = float(stream.average_rate or stream.guessed_rate or 30)
            seconds = container.duration / av.time_base if container.duration else 0
            return rate, stream.frames or round(seconds * rate) or None
    capture = _capture(path)
    rate, count = (capture.get(name) for name in (cv2.CAP_PROP_FPS, cv2.CAP_PROP_FRAME_COUNT))
    return rate or 30.0, round(count) if count > 0 else None


def read_video(path):
    """The frames of a video, one at a time.

    Yields:
        (seconds, image): time since the start of the file, (H, W, 3) uint8 BGR.

    Raises:
        FileNotFoundError, ValueError: as `probe`.
    """
    if not av:
        capture = _capture(path)  # OpenCV turns frames upright by itself
        rate = capture.get(cv2.CAP_PROP_FPS) or 30.0
        index = 0
        while True:
            read, image = capture.read()
            if not read:
                return
            yield index / rate, image
            index += 1
    with _open(path) as container:
        stream = container.streams.video[0]
        stream.thread_type = "AUTO"
        ratio = stream.sample_aspect_ratio or 1
        for frame in _decoded(container, stream):
            width = max(1, round(frame.width * ratio))
            image = frame.reformat(width=width, format="bgr24", interpolation=EXACT).to_ndarray()
            yield frame.time, np.ascontiguousarray(np.rot90(image, round(frame.rotation / 90)))


def _open(path):
    if not Path(path).is_file():
        raise FileNotFoundError(f"There is no file {path}: check its name.")
    try:
        container = av.open(str(path))
    except av.FFmpegError as error:
        raise ValueError(f"{path} is not a readable video ({error.strerror}).") from None
    if not container.streams.video:
        container.close()
        raise ValueError(f"{path} holds no pictures, only sound: give a video.")
    return container


def _decoded(container, stream):
    """The frames of a stream; like a player, pass over what a damaged file cannot give."""
    packets = container.demux(stream)
    while True:
        try:
            yield from next(packets).decode()
        except StopIteration:
            return
        except av.InvalidDataError:
            continue


def _capture(path):
    if not Path(path).is_file():
        raise FileNotFoundError(f"There is no file {path}: check its name.")
    capture = cv2.VideoCapture(str(path))
    if not capture.isOpened():
        raise ValueError(f"{path} is not a readable video: give one that OpenCV can open.")
    return capture


@contextmanager
def open_writer(path, shape, rate, source=None):
    """Write a video under a temporary name that becomes `path` when all went well.

    Sides that are odd grow by one pixel, for the codecs want even ones.

    Args:
        path: .mp4, or .webm if the frames have an alpha channel; its folder is made when missing.
        shape: of the frames, (H, W, 3) BGR or (H, W, 4) BGRA.
        rate: frames a second; only PyAV keeps frames that are unevenly spaced in time.
        source: video whose (first) sound is taken over, if it has one.

    Yields:
        function write(seconds, picture), frames in order of time.

    Raises:
        ValueError: OpenCV alone cannot write an alpha channel, or the file cannot be written.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.stem}.{os.getpid()}{path.suffix}")
    writer = {"PyAV": _AvWriter, "ffmpeg": _FfmpegWriter, "OpenCV": _OpencvWriter}[way_of_writing()]
    height, width = (length + length % 2 for length in shape[:2])
    writer = writer(temporary, (height, width, shape[2]), rate, source)

    def write(seconds, picture):
        if picture.shape != shape:  # a stream may change its size on the way
            picture = cv2.resize(picture, shape[1::-1])
        margins = height - shape[0], width - shape[1]
        if any(margins):
            down, right = margins
            picture = cv2.copyMakeBorder(picture, 0, down, 0, right, cv2.BORDER_REPLICATE)
        writer.write(seconds, picture)

    complete = False
    try:
        yield write
        complete = True
    finally:
        try:
            writer.close()
        finally:
            if complete and temporary.exists():
                temporary.replace(path)
            else:
                temporary.unlink(missing_ok=True)


class _AvWriter:
    def __init__(self, path, shape, rate, source):
        codec, pixels, options = CODECS[path.suffix]
        self.output = av.open(str(path), "w")
        self.video = self.output.add_stream(codec, Fraction(rate).limit_denominator(1001))
        self.video.height, self.video.width, channels = shape
        self.video.pix_fmt = pixels
        self.video.options = options
        self.video.codec_context.time_base = TICK
        # Said, or players guess the colours' meaning from the size of the picture.
        self.video.codec_context.colorspace = Colorspace.ITU709
        self.sounds = SOUNDS[path.suffix]
        self.format = "bgra" if channels == 4 else "bgr24"
        self.tick = -1
        self.sound = self._sound(_open(source)) if source else iter(())
        self.packet = next(self.sound, None)  # the first: before it the header is not complete

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

    def _mux_sound(self):
        self.output.mux(self.packet)
        self.packet = next(self.sound, None)

    def _sound(self, source):
        """Packets of the source's first sound track, encoded anew only where they must be."""
        with source:
            if not source.streams.audio:
                return
            track = source.streams.audio[0]
            if track.codec_context.codec.canonical_name in self.sounds:
                stream = self.output.add_stream_from_template(track)
                for packet in source.demux(track):
                    if packet.pts is not None:
                        packet.stream = stream
                        yield packet
                return
            stream = self.output.add_stream(ENCODERS[self.sounds[0]], rate=48000)
            for frame in _decoded(source, track):
                yield from stream.encode(frame)
            yield from stream.encode()


class _FfmpegWriter:
    def __init__(self, path, shape, rate, source):
        height, width, channels = shape
        frames = f"-f rawvideo -pix_fmt {'bgra' if channels == 4 else 'bgr24'}".split()
        frames += ["-s", f"{width}x{height}", "-r", str(rate), "-i", "-"]
        sound = ["-i", str(source), "-map", "0:v", "-map", "1:a:0?"] if source else []
        codec, pixels, options = CODECS[path.suffix]
        encode = ["-c:v", codec, "-pix_fmt", pixels]
        encode += [word for name, value in options.items() for word in (f"-{name}", value)]
        self.process = subprocess.Popen(
            ["ffmpeg", "-loglevel", "error", "-y", *frames, *sound, *encode, str(path)],
            stdin=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )

    def write(self, seconds, picture):
        try:
            self.process.stdin.write(np.ascontiguousarray(picture).data)
        except BrokenPipeError:
            raise ValueError(f"ffmpeg failed: {self.process.stderr.read().decode()}") from None

    def close(self):
        _, told = self.process.communicate()
        if self.process.returncode:
            raise ValueError(f"ffmpeg failed: {told.decode().strip()}")


class _OpencvWriter:
    def __init__(self, path, shape, rate, source):
        height, width, channels = shape
        if channels == 4:
            raise ValueError(f"{path.suffix} with transparency needs PyAV: run `pip install av`.")
        code = cv2.VideoWriter_fourcc(*"mp4v")
        self.writer = cv2.VideoWriter(str(path), code, rate, (width, height))
        if not self.writer.isOpened():
            raise ValueError(f"OpenCV cannot write {path}: run `pip install av`.")

    def write(self, seconds, picture):
        self.writer.write(picture)

    def close(self):
        self.writer.release()
