"""Frames from a video, read with PyAV if installed, else with OpenCV.

Frames are upright images with square pixels, whatever the video's rotation and pixel aspect ratio.
"""

import os
import re
import struct
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np

from apps.video.tone_mapping import tone_map
from portraitnet.geometry import resize
from portraitnet.images import MAX_PIXELS, Image, over_white

try:
    import av
except ImportError:
    av = None

SUFFIXES = (".mp4", ".mov", ".m4v", ".mkv", ".webm", ".avi", ".gif")
# FFmpeg's flags SWS_BILINEAR, SWS_FULL_CHR_H_INT and SWS_ACCURATE_RND. Without the last two every
# conversion between RGB and YUV darkens by two levels. PyAV before 18 has no names for the flags.
EXACT = 0x2 | 0x2000 | 0x40000
UNTAGGED, BT709 = 2, 1  # FFmpeg's numbers of colour spaces
HD_HEIGHT = 720  # lines from which a video without colour tags is BT.709, as in players
HDR = {16: "PQ", 18: "HLG"}  # FFmpeg's number of a transfer function -> its name
BACK = Fraction(1, 10)  # seconds back that are a join; FFmpeg's program takes the same
# Of WebM with alpha, which FFmpeg's own decoders of the same codecs skip.
ALPHA_DECODERS = {"vp8": "libvpx", "vp9": "libvpx-vp9"}
NO_TIMESTAMPS = 0x80  # FFmpeg's flag AVFMT_NOTIMESTAMPS of a format
MAX_RATE = 1000  # frames/s; FFmpeg gives the cover picture of a sound file a rate of 90,000
# How playlists begin, and what a DASH manifest contains: texts that name other files.
PLAYLISTS = (b"#EXTM3U", b"ffconcat", b"[playlist]")
MANIFEST = b"<MPD"
HEAD = 1024  # bytes that tell a text from a video


def probe(path: Path | str) -> tuple[float, int | None]:
    """Frame rate (frames/s) and number of frames of a video; None if the number is unknown.

    Raises:
        FileNotFoundError: the file does not exist.
        ValueError: the file is not a readable video.
    """
    if av:
        with open_video(path) as container:
            stream = video_stream(container)
            rate = float(frame_rate(stream))
            seconds = _seconds(container, stream) or (container.duration or 0) / av.time_base
            return rate, stream.frames or round(seconds * rate) or None
    capture = _capture(path)
    rate, count = (capture.get(name) for name in (cv2.CAP_PROP_FPS, cv2.CAP_PROP_FRAME_COUNT))
    return rate or 30.0, round(count) if count > 0 else None


def read_video(
    path: Path | str, faults: list[str] | None = None, notices: list[str] | None = None
) -> Iterator[tuple[float, Image]]:
    """Read the frames of a video, one at a time.

    Args:
        path: video file.
        faults: list that gets a sentence if the video is damaged or ends too early.
        notices: list that gets a sentence if the video is converted in a way that one may see.

    Yields:
        (seconds, image): time since the start of pictures and sound; (H, W, 3) uint8 BGR.

    Raises:
        FileNotFoundError: the file does not exist.
        ValueError: the file is not a readable video or has no frame, or a frame is too large.
    """
    read = _read_with_pyav if av else _read_with_opencv
    expected, broken, count, start, length = None, [], 0, 0.0, 0.0
    notices = [] if notices is None else notices
    for expected, step, seconds, image in read(path, broken, notices):  # noqa: B007
        start = start if count else seconds
        count, length = count + 1, seconds + step - start
        yield seconds, image
    if not count:  # the second cause is that of an animated WebP, for example
        raise ValueError(
            f"{path} has no frame that can be decoded, damaged or in a format unknown to FFmpeg:"
            " give an MP4."
        )
    if faults is not None and (broken or (expected and length < expected - max(1, expected / 10))):
        whole = f" of {expected:.1f}" if expected else ""
        faults.append(
            f"{path} is damaged or cut short: the result has the {count} frames that could be read,"
            f" {length:.1f}{whole} seconds."
        )


def _read_with_opencv(path, broken, notices):
    """Yield (the video's length, a frame's length, its time: seconds; image) for each frame."""
    capture = _capture(path)  # OpenCV rotates the frames upright
    rate = capture.get(cv2.CAP_PROP_FPS) or 30.0
    expected = max(0, capture.get(cv2.CAP_PROP_FRAME_COUNT)) / rate
    names = cv2.CAP_PROP_SAR_NUM, cv2.CAP_PROP_SAR_DEN
    across, down = (capture.get(name) or 1 for name in names)  # a pixel's sides before the rotation
    turned = capture.get(cv2.CAP_PROP_ORIENTATION_META) % 180 == 90
    stretch = (across / down, 1) if turned else (1, across / down)
    index = 0
    while True:
        read, image = capture.read()
        if not read:
            return
        if stretch != (1, 1):
            image = resize(image, *(max(1, round(a * b)) for a, b in zip(image.shape, stretch)))
        yield expected, 1 / rate, index / rate, image
        index += 1


def _read_with_pyav(path, broken, notices):
    """As `_read_with_opencv`; the list `broken` gets an error for each undecodable packet."""
    with open_video(path) as container:
        stream = video_stream(container)
        stream.thread_type = "AUTO"
        ratio = stream.sample_aspect_ratio or 1
        step = float(1 / frame_rate(stream))
        expected, is_hdr = _seconds(container, stream), False
        # Uncompressed pixels of 32 bits seldom mean alpha by their fourth byte, and it is often 0.
        has_alpha = getattr(stream.codec_context, "name", None) != "rawvideo"
        seconds = following = 0.0  # of a frame, and of the next one if it names no time
        try:
            for frame in deinterlace(decode(container, stream, broken)):
                width = max(1, round(frame.width * ratio))
                if width * frame.height > MAX_PIXELS:
                    raise ValueError(
                        f"{path} has frames of {width}x{frame.height} pixels, over the limit of"
                        f" {MAX_PIXELS:,}: scale the video down."
                    )
                if (transfer := HDR.get(frame.color_trc)) and not is_hdr:
                    is_hdr = True
                    notices.append(
                        f"{path} is an HDR video ({transfer}): its brightness and colours were"
                        " converted to SDR."
                    )
                image = _to_bgr(frame, width)
                if has_alpha and any(each.is_alpha for each in frame.format.components):
                    bgra = frame.reformat(width=width, format="bgra", interpolation=EXACT)
                    image = over_white(image, bgra.to_ndarray()[:, :, 3])
                image = _upright(image, frame)
                timed = frame.pts is not None and not has_no_timestamps(container)
                time = float(frame.pts * frame.time_base) if timed else following
                seconds = max(seconds, time)  # behind a gap decoders return older frames late
                following = seconds + step
                yield expected, step, seconds, np.ascontiguousarray(image)
        except av.FFmpegError as error:
            raise ValueError(
                f"{path} cannot be decoded ({error.strerror}): convert the video to H.264."
            ) from None


def deinterlace(frames: "Iterable[av.VideoFrame]") -> "Iterator[av.VideoFrame]":
    """Turn each interlaced frame into a progressive one; progressive frames stay unchanged."""
    graph = layout = None
    for frame in frames:
        if graph is None and not frame.interlaced_frame:
            yield frame
            continue
        if layout != (frame.width, frame.height, frame.format.name):
            yield from _filtered(graph, None)
            graph, layout = _filter_graph(frame), (frame.width, frame.height, frame.format.name)
        yield from _filtered(graph, frame)
    yield from _filtered(graph, None)


def _filter_graph(frame):
    graph = av.filter.Graph()
    source = graph.add_buffer(
        width=frame.width, height=frame.height, format=frame.format.name, time_base=frame.time_base
    )
    # FFmpeg's filter; it makes one frame of two fields, and does not change progressive frames.
    filters = graph.add("bwdif", "mode=send_frame:deint=interlaced"), graph.add("buffersink")
    graph.link_nodes(source, *filters).configure()
    return graph


def _filtered(graph, frame):
    """The frames that a filter graph returns for a frame, or at the end for None."""
    if graph is None:
        return
    graph.push(frame)
    while True:
        try:
            result = graph.vpull()
        except (av.BlockingIOError, av.EOFError):  # the graph needs more frames; or has no more
            return
        yield result


def _to_bgr(frame, width):
    """The frame as an sRGB image, (H, width, 3) uint8 BGR."""
    space = None  # that of the frame's tag; without a tag FFmpeg takes BT.601
    if frame.colorspace == UNTAGGED and not frame.format.is_rgb and frame.height >= HD_HEIGHT:
        space = BT709
    how = {"width": width, "interpolation": EXACT, "src_colorspace": space}
    if transfer := HDR.get(frame.color_trc):
        # Planes, because FFmpeg with EXACT writes wrong values into interleaved samples of 16 bits.
        rgb = frame.reformat(format="gbrp16le", **how).to_ndarray()
        return tone_map(np.ascontiguousarray(rgb[:, :, ::-1]), transfer)
    return frame.reformat(format="bgr24", **how).to_ndarray()


def _upright(image, frame):
    """The image as the frame's display matrix shows it: rotated, mirrored or both.

    The matrix has the rows (a, b, u), (c, d, v), (x, y, w): a pixel at (p, q) is shown at
    (a p + c q, b p + d q), and one of both products is 0 in each coordinate.
    """
    try:
        data = frame.side_data.get("DISPLAYMATRIX")
    except ValueError:  # PyAV does not know other side data of the frame; it knows the angle
        return np.rot90(image, round(frame.rotation / 90))
    if data is None:
        return image
    a, b, _, c, d = struct.unpack_from("=5i", bytes(data))
    if abs(a) >= abs(b):
        return image[:: -1 if d < 0 else 1, :: -1 if a < 0 else 1]
    return image.swapaxes(0, 1)[:: -1 if b < 0 else 1, :: -1 if c < 0 else 1]


def frame_rate(stream: "av.video.VideoStream") -> Fraction:
    """Frames/s of a video stream; FFmpeg's average is 25 without timestamps, and 60,000 for DV."""
    rates = stream.average_rate, stream.guessed_rate
    rates = rates[::-1] if has_no_timestamps(stream.container) else rates
    return next((rate for rate in rates if rate and rate <= MAX_RATE), Fraction(30))


def has_no_timestamps(container: "av.container.InputContainer") -> bool:
    """Whether a file is a raw stream of pictures, such as .h264; FFmpeg makes times for it."""
    return bool(container.format.flags & NO_TIMESTAMPS)


def start_of(container: "av.container.InputContainer") -> Fraction:
    """Time in seconds at which a file's pictures or sound start; not 0 in most MPEG-TS files."""
    streams = [video_stream(container), *container.streams.audio]
    starts = [each.start_time * each.time_base for each in streams if each.start_time is not None]
    return min(starts, default=Fraction(0))


class Timeline:
    """Times of a file's packets: they start at 0, and go on where a joined recording begins.

    All streams of a recording are moved by one shift, so that pictures and sound stay together.
    Packets are what shows a join: their decoding times rise, even where frames come back late.

    Args:
        start: time of the file's start, seconds.
        step: length of a packet that does not name its own, seconds.
    """

    def __init__(self, start: Fraction, step: Fraction):
        self.step = step
        self.shifts = [-start]  # of each recording, seconds
        self.last = {}  # index of a stream -> its recording, begin and end there, last packet

    def move(self, packet: "av.Packet") -> None:
        """Give a packet its time; call this with the packets of all streams, in their order."""
        index, unit, newest = packet.stream.index, packet.time_base, len(self.shifts) - 1
        number = self.last[index][0] if index in self.last else newest
        if packet.dts is not None:
            decoded, duration = packet.dts * unit, (packet.duration or 0) * unit or self.step
            shown = decoded if packet.pts is None else packet.pts * unit
            _, begin, end, last = self.last.get(index, (newest, shown, shown, decoded))
            if number < newest:  # another stream has begun the next recording
                if not 0 < decoded - last < 2 * duration:  # else a late packet of the one before
                    shift = self.shifts[number] + end - shown
                    self.shifts[newest] = max(self.shifts[newest], shift)
                    number, begin, end = newest, shown, shown
            elif decoded < last - BACK:
                # After the longest stream, each of them beginning as in the recording before.
                ends = [self.shifts[n] + end - begin for n, begin, end, _ in self.last.values()]
                self.shifts.append(max(ends) + begin - shown)
                number, begin, end = newest + 1, shown, shown
            self.last[index] = number, begin, max(end, shown + duration), decoded
            packet.dts += round(self.shifts[number] / unit)
        if packet.pts is not None:
            packet.pts += round(self.shifts[number] / unit)


def _seconds(container, stream):
    """Length of the pictures in seconds, None if unknown; the sound may be longer."""
    if stream.duration:
        return float(stream.duration * stream.time_base)
    start = float((stream.start_time or 0) * stream.time_base)
    tag = re.fullmatch(r"(\d+):(\d+):(\d+\.\d+)", stream.metadata.get("DURATION", ""))
    if tag:  # of Matroska: the time of the end
        return int(tag[1]) * 3600 + int(tag[2]) * 60 + float(tag[3]) - start
    if len(container.streams) > 1 or not container.duration:
        return None
    matroska = container.format.name.startswith("matroska")
    return container.duration / av.time_base - (start if matroska else 0)


@contextmanager
def open_video(path: Path | str) -> "Iterator[av.container.InputContainer]":
    """Open a video in PyAV.

    FFmpeg gets the open file instead of its name. So a colon in the name is no protocol, and with
    the whitelist of protocols FFmpeg cannot open any other file or address that the video names.

    Yields:
        open container with at least one video stream.

    Raises:
        FileNotFoundError: the file does not exist.
        ValueError: the file is not a readable video.
    """
    _check(path)
    with open(path, "rb") as file:
        try:
            container = av.open(file, options={"protocol_whitelist": "none"})
        except (av.FFmpegError, ValueError) as error:
            reason = getattr(error, "strerror", None) or error
            raise ValueError(
                f"{path} is not a readable video ({reason}): give another file."
            ) from None
        with container:
            if video_stream(container) is None or container.format.name == "tty":  # letters
                raise ValueError(f"{path} has no video, only sound: give a video file.")
            yield container


def video_stream(container: "av.container.InputContainer") -> "av.video.VideoStream | None":
    """The video track that players choose."""
    return choose_track(video_tracks(container))


def video_tracks(container: "av.container.InputContainer") -> "list[av.video.VideoStream]":
    """The video tracks without the cover pictures of sound files."""
    cover = av.stream.Disposition.attached_pic
    return [each for each in container.streams.video if not each.disposition & cover]


def choose_track(tracks: "Iterable[av.stream.Stream]") -> "av.stream.Stream | None":
    """The track that players choose: the first one marked as default, else the first one."""
    marked = [each for each in tracks if each.disposition & av.stream.Disposition.default]
    return next(iter([*marked, *tracks]), None)


def demux(
    container: "av.container.InputContainer", stream: "av.stream.Stream"
) -> "Iterator[av.Packet]":
    """The packets of a stream, at their times since the start of pictures and sound."""
    pictures = video_stream(container)
    timeline, end = Timeline(start_of(container), 1 / frame_rate(pictures)), None
    for packet in container.demux(pictures, *container.streams.audio):
        timeline.move(packet)
        if packet.stream.index != stream.index:
            continue
        if stream.type == "audio" and packet.pts is not None:
            duration = packet.duration or 0
            if end is not None and packet.pts < end - duration / 2:
                continue  # joined recordings overlap, and no file takes sound that goes back
            end = packet.pts + duration
        yield packet


def decode(
    container: "av.container.InputContainer", stream: "av.stream.Stream", broken: list[Exception]
) -> "Iterator[av.frame.Frame]":
    """Decode the frames of a stream; like players, skip damaged packets.

    Args:
        container: open file.
        stream: one of its video or audio streams.
        broken: list that gets the error of each damaged packet.
    """
    packets, context = demux(container, stream), None
    decoder = ALPHA_DECODERS.get(getattr(stream.codec_context, "name", None))
    if decoder and stream.metadata.get("alpha_mode") == "1":
        context = av.CodecContext.create(decoder, "r")
    while True:
        try:
            packet = next(packets)
            # An empty packet repeats the last frame, but for decoders it is the end.
            if packet.size or packet.dts is None:
                yield from context.decode(packet) if context else packet.decode()
        except StopIteration:
            return
        except av.InvalidDataError as error:
            broken.append(error)


def _capture(path):
    _check(path)
    # An absolute path, because FFmpeg takes the text before a colon for a protocol.
    capture = cv2.VideoCapture(os.path.abspath(path))
    if not capture.isOpened():
        raise ValueError(f"{path} is not a readable video: give a file that OpenCV can open.")
    if capture.get(cv2.CAP_PROP_FPS) > MAX_RATE:
        raise ValueError(f"{path} has no video, only sound: give a video file.")
    return capture


def _check(path):
    """Raise an error unless the path is a file that begins like a video, not like a text."""
    if Path(path).is_dir():
        raise IsADirectoryError(f"{path} is a folder: give the video files in it.")
    if not Path(path).exists():
        raise FileNotFoundError(f"There is no file {path}: check the name.")
    if not Path(path).is_file():  # a pipe can be read once, and FFmpeg reads more often
        raise ValueError(f"{path} is a pipe or a device: give a video file.")
    if str(path) != str(path).encode(errors="replace").decode():
        raise ValueError(f"{path} has a name that is not UTF-8: rename the file.")
    with open(path, "rb") as file:
        head = file.read(HEAD)
    if not head:
        raise ValueError(f"{path} is empty: give a video file.")
    start = head.removeprefix(b"\xef\xbb\xbf")  # a UTF-8 mark of byte order
    if start.startswith(PLAYLISTS) or MANIFEST in head:
        raise ValueError(f"{path} is a playlist of other files, not a video: give a video file.")
    is_text = not any(byte < 32 and byte not in b"\t\n\r\f\x1b" for byte in head)
    if is_text and not head.startswith(b"YUV4MPEG2"):  # raw video with a text header
        raise ValueError(f"{path} is a text file, not a video: give a video file.")
