"""Reading and writing pictures: the only place that does.

OpenCV decodes and encodes. Pillow reads what OpenCV does not look at: colour profiles, the
orientation of AVIF and of pictures with an alpha channel, HEIC, and the transparency of TIFF.
"""

import io
import re
import struct
import zlib
from collections.abc import Iterable
from functools import cache
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from portraitnet.files import refuse_inputs, write_whole

cv2.utils.logging.setLogLevel(0)  # its lines on damaged photos: errors here are one sentence

# What a name in a signature means; the docstrings tell the shapes.
Image = NDArray[np.uint8]  # (H, W, 3) BGR, 0..255; a network input is an image too
Mask = NDArray[np.uint8]  # (H, W) 0 background, 1 person; an edge is 0/1 alike
Probability = NDArray[np.float32]  # (H, W) 0..1, of person

THRESHOLD = 0.5  # a pixel is person where its probability is above

# Endings that claim a picture.
SUFFIXES = tuple(
    ".jpg .jpeg .jpe .jfif .png .webp .bmp .tif .tiff .gif .avif .heic .heif .jp2".split()
)
# Endings of photos that nothing here reads: raw files of cameras, and formats of other programs.
UNREAD_SUFFIXES = tuple(
    """.3fr .arw .cr2 .cr3 .crw .dng .erf .iiq .kdc .mrw .nef .nrw .orf .pef .raf .rw2 .rwl .sr2
    .srf .srw .x3f .exr .hdr .jxl .jxr .psd .tga""".split()
)
OPAQUE = (".jpg", ".jpeg", ".jpe", ".jfif", ".bmp", ".jp2")  # OpenCV writes these without alpha
JPEG_START = b"\xff\xd8"
TIFF_STARTS = (b"II", b"MM")  # and no other picture
DAMAGED = (OSError, ValueError, SyntaxError, RuntimeError)  # what Pillow raises for such a file
MAX_CLASS = 20  # of an index mask; 255 beside such values alone means "ignore" (VOC, PaddleSeg)
# A larger photo takes 20 bytes a pixel on its way; the largest sensor of a phone has 200 million.
MAX_PIXELS = 200_000_000


def picture_size(data: bytes) -> tuple[int, int] | None:
    """Width and height that the header of a picture file claims, or None.

    A small file may claim a size beyond any memory, and OpenCV tells it only when it is decoded.
    Pillow opens what has no line here (GIF, AVIF, HEIC, JPEG 2000), and decodes nothing for it.

    Source: each format's specification.
    """
    try:
        if data.startswith(b"\x89PNG"):
            return struct.unpack_from(">II", data, 16)
        if data.startswith(JPEG_START):
            return _jpeg_size(data)
        if data.startswith(b"BM"):
            (header,) = struct.unpack_from("<I", data, 14)  # its length; 12 in the oldest files
            width, height = struct.unpack_from("<HH" if header == 12 else "<ii", data, 18)
            return abs(width), abs(height)  # a negative one: from top to bottom
        if data[:4] == b"RIFF" and data[8:15] == b"WEBPVP8":
            return _webp_size(data)
        if data[:4] in (b"II*\0", b"MM\0*"):
            return _tiff_size(data, "<" if data.startswith(b"I") else ">")
        _register_heic()
        with _open(data) as picture:
            return picture.size
    except struct.error:  # it ends within its header
        return None
    except DAMAGED:
        return None


def _jpeg_size(data):
    place = 2
    while True:
        mark, kind, length = struct.unpack_from(">BBH", data, place)
        if mark != 0xFF:
            return None
        if kind in range(0xC0, 0xD0) and kind not in (0xC4, 0xC8, 0xCC):  # a frame begins
            return struct.unpack_from(">xHH", data, place + 4)[::-1]
        place += 1 if kind == 0xFF else 2 + length  # padding, or a segment


def _webp_size(data):
    if data[15:16] == b"X":
        low, high, low2, high2 = struct.unpack_from("<HBHB", data, 24)
        sides = (low + (high << 16) + 1, low2 + (high2 << 16) + 1)
    elif data[15:16] == b"L":
        bits = struct.unpack_from("<I", data, 21)[0]
        sides = ((bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1)
    else:
        sides = (side & 0x3FFF for side in struct.unpack_from("<HH", data, 26))
    return tuple(sides)


def _tiff_size(data, order):
    tags = _tiff_tags(data, order)
    return (tags[256], tags[257]) if {256, 257} <= tags.keys() else None


def _tiff_tags(data, order):
    """Kind (254), width (256) and length (257) of a TIFF's first picture, those that it has."""
    (directory,) = struct.unpack_from(f"{order}I", data, 4)
    (count,) = struct.unpack_from(f"{order}H", data, directory)
    tags = {}
    for entry in range(directory + 2, directory + 2 + 12 * count, 12):
        tag, kind = struct.unpack_from(f"{order}HH", data, entry)
        if tag in (254, 256, 257):  # SHORT or LONG
            (tags[tag],) = struct.unpack_from(order + ("H" if kind == 3 else "I"), data, entry + 8)
    return tags


def _begins_with_preview(data):
    """Whether the first picture of a TIFF is a preview of another, as in raw files of cameras.

    Source: TIFF 6.0, NewSubfileType; Canon's raw files have CR after the header instead.
    """
    if data[:4] not in (b"II*\0", b"MM\0*"):
        return False
    if data[8:10] == b"CR":
        return True
    try:
        tags = _tiff_tags(data, "<" if data.startswith(b"I") else ">")
    except struct.error:
        return False
    return bool(tags.get(254, 0) & 1)


def _is_damaged_png(data):
    """Whether a PNG ends before its last chunk, or a chunk that is needed has another sum.

    libpng would write a line of its own for these. Source: PNG specification, 5.3 and 5.4.
    """
    if not data.startswith(b"\x89PNG"):
        return False
    place = 8
    while len(data) >= place + 12:
        length, kind = struct.unpack_from(">I4s", data, place)
        end = place + 8 + length
        if kind[:1].isupper():  # needed
            sum_of_chunk = zlib.crc32(memoryview(data)[place + 4 : end])
            if data[end : end + 4] != struct.pack(">I", sum_of_chunk):
                return True
        if kind == b"IEND":
            return False
        place = end + 4
    return True


def is_picture(data: bytes) -> bool:
    """Whether a file that begins with these bytes, 16 at least, is a picture, whatever its name.

    Source: each format's specification.
    """
    starts = (JPEG_START, b"\x89PNG", b"GIF8", b"BM", b"II*\0", b"MM\0*", b"\0\0\0\x0cjP  ")
    brands = (b"avif", b"avis", b"heic", b"heix", b"mif1", b"msf1", b"hevc")
    return (
        data.startswith(starts)
        or (data[:4] == b"RIFF" and data[8:12] == b"WEBP")
        or (data[4:8] == b"ftyp" and data[8:12] in brands)
        or re.match(rb"P[1-6]\s[\d#]", data) is not None
    )


def _decode(data, flags, path, max_pixels=MAX_PIXELS):
    size = picture_size(data)  # what claims none is not decoded: it may have any
    width, height = size or (0, 0)
    if width * height > max_pixels:
        raise ValueError(
            f"{path} has {width}x{height} pixels, over the limit of {max_pixels:,}: shrink it, or "
            "raise the limit (--max_pixels of predict.py and of the server)."
        )
    if _begins_with_preview(data):
        raise ValueError(
            f"{path} begins with a small preview of the photo, as raw files of cameras do: save "
            "the photo as a JPEG or PNG."
        )
    readable = size and not _is_damaged_png(data)
    try:
        picture = cv2.imdecode(np.frombuffer(data, np.uint8), flags) if readable else None
    except cv2.error as error:
        # OpenCV refuses 2**30 pixels and more: a small file may claim a size beyond any memory.
        reason = "has too many pixels for OpenCV" if "PIXELS" in str(error) else "cannot be decoded"
        raise ValueError(
            f"{path} {reason} ({error.err}): shrink it or save it as a JPEG or PNG."
        ) from None
    if picture is None:
        heic = data[4:8] == b"ftyp" and data[8:11] in (b"hei", b"hev", b"mif")
        if heic and size and _register_heic():
            return _decode_with_pillow(data, path)
        raise ValueError(
            f"{path} is not a readable picture ({len(data)} bytes): "
            + (
                "HEIC needs `pip install pillow-heif`."
                if heic and not _register_heic()
                else "it is empty, truncated or of an unknown format; give a whole JPEG, PNG, "
                "WebP, BMP, TIFF, GIF, AVIF or JPEG 2000."
            )
        )
    return picture


@cache
def _register_heic():
    """Let Pillow read HEIC where pillow-heif is installed; whether it is."""
    try:
        import pillow_heif
    except ImportError:
        return False
    pillow_heif.register_heif_opener()
    return True


def _decode_with_pillow(data, path):
    """(H, W, 4) uint8 BGRA, straight, upright."""
    from PIL import ImageOps

    try:
        with _open(data) as picture:
            upright = ImageOps.exif_transpose(picture).convert("RGBA")
    except DAMAGED as error:
        reason = " ".join(str(error).split())  # libheif's has a line break
        raise ValueError(f"{path} cannot be decoded ({reason}): save it as a JPEG.") from None
    return np.asarray(upright)[:, :, [2, 1, 0, 3]]


def _header(data):
    """What a picture file says of itself: its colour profile, bytes or None; its EXIF orientation,
    1..8; whether it has transparency.

    Pillow reads the header alone. A file that Pillow does not know has none of them.
    """
    try:
        with _open(data) as picture:
            orientation = picture.getexif().get(0x0112, 1)
            return picture.info.get("icc_profile"), orientation, picture.has_transparency_data
    except DAMAGED:
        return None, 1, False


def _open(data):
    """A file's picture of Pillow, whose header has been read and nothing else."""
    from PIL import Image

    Image.MAX_IMAGE_PIXELS = None  # MAX_PIXELS bounds what is decoded
    return Image.open(io.BytesIO(data))


def _upright(picture, orientation):
    """A picture as its EXIF orientation, 1..8, wants it to be seen; (H, W, C).

    Source: EXIF 2.32, tag 0x0112.
    """
    if orientation in (5, 6, 7, 8):
        picture = picture.transpose(1, 0, 2)
    if orientation in (2, 3, 6, 7):
        picture = picture[:, ::-1]
    if orientation in (3, 4, 7, 8):
        picture = picture[::-1]
    return np.ascontiguousarray(picture)


def _to_srgb(image, profile, path):
    """Colours of another profile, such as Display P3, as sRGB; (H, W, 3) uint8 BGR.

    A profile that is damaged, or not one of RGB pictures, is refused rather than passed over.
    """
    from PIL import Image, ImageCms

    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        name = ImageCms.getProfileDescription(source).strip()
        if "sRGB" in name and "linear" not in name.lower():
            return image
        if source.profile.xcolor_space.strip() != "RGB":
            return image  # grey and CMYK pictures were converted by OpenCV
        rgb = Image.fromarray(np.ascontiguousarray(image[:, :, ::-1]))
        target = ImageCms.createProfile("sRGB")
        converted = ImageCms.profileToProfile(rgb, source, target, outputMode="RGB")
    except (ImageCms.PyCMSError, OSError, ValueError) as error:
        raise ValueError(
            f"{path} has a colour profile that cannot be used ({error}): save it as sRGB."
        ) from None
    return np.ascontiguousarray(np.asarray(converted)[:, :, ::-1])


def is_opened(path: str | Path) -> bool:
    """Whether a path is what a shell opened, such as /dev/fd/63, which is no name for a result."""
    return str(path).startswith(("/dev/fd/", "/proc/self/fd/", "/dev/stdin"))


def read_bytes(path: str | Path) -> bytes:
    """The content of a file, or of a pipe that a shell opened, as in `predict.py <(cat photo.jpg)`.

    Raises:
        FileNotFoundError: there is no such file. A folder, a device and a named pipe, which may
            never have a writer, are no files.
    """
    path = Path(path)
    if not (path.is_file() or (is_opened(path) and path.is_fifo())):
        raise FileNotFoundError(f"There is no file {path}: check its name.")
    return path.read_bytes()


def read_image(path: str | Path, max_pixels: int = MAX_PIXELS) -> Image:
    """A photo as a viewer shows it: upright, in sRGB, transparency over white.

    Grey photos get three equal channels; 16-bit ones keep their upper 8 bits.

    Args:
        path: file in any format OpenCV decodes, or HEIC with pillow-heif; any name.
        max_pixels: that the photo may have.

    Returns:
        image (H, W, 3) uint8, BGR, 0..255, sRGB.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is no whole picture, or has more than `max_pixels` (or 2**30).
    """
    return decode_image(read_bytes(path), path, max_pixels)


def decode_image(data: bytes, name: str | Path, max_pixels: int = MAX_PIXELS) -> Image:
    """As `read_image`, from the content of a file; `name` is what errors call it."""
    colors, alpha = decode_layers(data, name, max_pixels)
    return colors if alpha is None else over_white(colors, alpha)


def decode_layers(
    data: bytes, name: str | Path, max_pixels: int = MAX_PIXELS
) -> tuple[Image, NDArray[np.uint8] | None]:
    """As `decode_image`, with the transparency apart instead of over white.

    Returns:
        colors: (H, W, 3) uint8 BGR, straight: not mixed with any background.
        alpha: (H, W) uint8 0..255; None where the picture is opaque.
    """
    profile, orientation, transparent = _header(data)
    if data.startswith((JPEG_START, *TIFF_STARTS)):
        orientation = 1  # OpenCV turns these
    colors, alpha, flags = None, None, cv2.IMREAD_COLOR
    if not data.startswith(JPEG_START):  # a JPEG has no alpha: spare the second decoding
        raw = _decode(data, cv2.IMREAD_UNCHANGED, name, max_pixels)
        if raw.dtype not in (np.uint8, np.uint16):
            raise ValueError(
                f"{name} has {8 * raw.itemsize}-bit samples ({raw.dtype}): convert it to 8 or 16 "
                f"bits, such as with `magick {name} -depth 16 photo.png`."
            )
        if transparent and data.startswith(TIFF_STARTS):
            raw = _decode_with_pillow(data, name)  # OpenCV mixes with black, or drops the alpha
        if raw.ndim == 3 and raw.shape[2] == 4:
            if raw.dtype == np.uint16:
                raw = (raw >> 8).astype(np.uint8)
            raw = _upright(raw, orientation)
            colors, alpha = np.ascontiguousarray(raw[:, :, :3]), raw[:, :, 3]
            alpha = None if alpha.min() == 255 else np.ascontiguousarray(alpha)
        flags |= cv2.IMREAD_IGNORE_ORIENTATION  # of which OpenCV passes over AVIF's
    if colors is None:
        colors = _upright(_decode(data, flags, name, max_pixels), orientation)
    if profile:
        colors = _to_srgb(colors, profile, name)
    return colors, alpha


def over_white(colors: Image, alpha: NDArray[np.uint8]) -> Image:
    """Straight colours (H, W, 3) uint8 with an alpha (H, W) uint8, before white."""
    weight = alpha[:, :, None].astype(np.uint16)
    return ((colors * weight + 255 * (255 - weight) + 127) // 255).astype(np.uint8)


def read_mask(path: str | Path) -> Mask:
    """A mask file in any of the usual encodings.

    0/1, 0/255 (threshold 127, so that the ringing of a JPEG is no person), 8 or 16 bits; one
    channel, three (the brightest counts, so that a coloured class is a person) or four (the alpha
    channel where it is not constant, else the colours).

    Args:
        path: file in any format OpenCV decodes.

    Returns:
        mask (H, W) uint8, 0 background, 1 person.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: not a picture, or its values are neither 0/1 nor 0/255.
    """
    picture = _read_grey(path)
    levels = np.flatnonzero(np.bincount(picture.ravel(), minlength=256))
    top = int(levels[-1])
    classes = levels[(levels > 0) & (levels < 255)]
    if top == 255 and len(classes) and classes[-1] <= MAX_CLASS:
        raise ValueError(
            f"{path} holds classes {', '.join(map(str, classes))} and 255, which mostly means "
            "'ignore': save the person as 255 and everything else as 0."
        )
    if 1 < top <= 127:
        raise ValueError(
            f"{path} is not a person mask: its largest value is {top}; save it as 0/1 or 0/255."
        )
    return (picture > (0 if top == 1 else 127)).astype(np.uint8)


def read_alpha(path: str | Path) -> Probability:
    """A soft mask: grey levels 0..255 (or 0..65535) are the person's fraction of each pixel.

    Files, channels and errors are those of `read_mask`, but every level is allowed.

    Returns:
        (H, W) float32 0..1.
    """
    return _read_grey(path) / np.float32(255)


def _read_grey(path):
    """The one channel of a mask's file that counts, (H, W) uint8."""
    picture = _decode(read_bytes(path), cv2.IMREAD_UNCHANGED, path)
    if picture.ndim == 3 and picture.shape[2] == 4:
        alpha = picture[:, :, 3]
        picture = alpha if alpha.min() < alpha.max() else picture[:, :, :3]
    if picture.ndim == 3:
        picture = picture.max(axis=2)
    if picture.dtype == np.uint16 and picture.max() > 255:
        picture = picture >> 8
    if picture.dtype not in (np.uint8, np.uint16):  # TIFF holds real numbers too, mostly 0..1
        low, high = float(picture.min()), float(picture.max())
        if not (low >= 0 and high <= 255):  # or not a number
            raise ValueError(
                f"{path} holds values from {low:g} to {high:g}, not from 0 to 1 or to 255: save "
                "the mask as a PNG of 8 bits."
            )
        picture = np.rint(picture * (255 if picture.dtype.kind == "f" and high <= 1 else 1))
    return picture.astype(np.uint8)


def mask_of(probability: np.ndarray) -> Mask:
    """The mask of a probability or an alpha: person where it exceeds one half.

    Args:
        probability: (H, W) float32 0..1, or uint8 0..255.

    Returns:
        (H, W) uint8 0/1.
    """
    if probability.dtype == np.uint8:
        return cv2.threshold(probability, 127, 1, cv2.THRESH_BINARY)[1]
    return (probability > THRESHOLD).astype(np.uint8)


def write_image(path: str | Path, image: Image, keep: Iterable[str | Path] = ()) -> None:
    """Encode in memory, then `write_whole`.

    Args:
        path: the suffix names the format; its folder is made when missing.
        image: (H, W), (H, W, 3) BGR or (H, W, 4) BGRA, uint8.
        keep: paths that must not be overwritten, such as the photo that was read.

    Raises:
        ValueError: `path` is one of `keep`, or the format of its suffix cannot hold the picture.
    """
    path = Path(path)
    refuse_inputs(path, keep)
    # The disk is not waited for, which would take longer than the photo: after a power cut the file
    # may be empty, and --skip_existing takes an empty result for none.
    write_whole(path, encode_image(path, image), durable=False)


def can_write(path: str | Path) -> bool:
    """Whether OpenCV can write pictures with the ending of a path."""
    suffix = Path(path).suffix
    # The ending alone is asked for: a name that is not UTF-8 ends the process there.
    return suffix.isascii() and cv2.haveImageWriter(f"picture{suffix}")


def encode_image(path: str | Path, image: Image) -> bytes:
    """The content of a picture file; the suffix of `path` names the format. See `write_image`."""
    path = Path(path)
    if not can_write(path):
        raise ValueError(f"{path} has no picture suffix OpenCV can write: use .png or .jpg.")
    if image.ndim == 3 and image.shape[2] == 4 and path.suffix.lower() in OPAQUE:
        raise ValueError(f"{path} cannot hold a transparent background: use .png.")
    encoded, data = cv2.imencode(path.suffix, image)
    if not encoded:
        raise ValueError(f"{path} cannot hold a picture of shape {image.shape}: use .png.")
    return data.tobytes()
