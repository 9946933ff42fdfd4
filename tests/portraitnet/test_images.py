import io
import os
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import cv2
import numpy as np
import PIL.Image
import pytest
from PIL import ImageCms

from portraitnet import images

# A TIFF header with one entry: orientation 6, "turn clockwise by 90 degrees to network input".
EXIF_TURNED = b"II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x06\0\0\0\0\0\0\0"

ROOT = Path(__file__).parents[2]


def save(path, picture, *options):
    path.write_bytes(cv2.imencode(path.suffix, picture, *options)[1])
    return path


def gradient(height=40, width=60):
    rows, columns = np.mgrid[:height, :width]
    return np.dstack([rows * 4, columns * 3, rows + columns]).astype(np.uint8)


def test_a_color_photo_is_read_as_bgr(tmp_path):
    assert np.array_equal(images.read_image(save(tmp_path / "a.png", gradient())), gradient())


def test_exif_orientation_of_a_jpeg_is_applied(tmp_path):
    image = cv2.GaussianBlur(gradient(), (0, 0), 3)
    jpeg = cv2.imencode(".jpg", image)[1].tobytes()
    block = b"Exif\0\0" + EXIF_TURNED
    path = tmp_path / "turned.jpg"
    path.write_bytes(jpeg[:2] + b"\xff\xe1" + struct.pack(">H", len(block) + 2) + block + jpeg[2:])
    read = images.read_image(path)
    expected = cv2.rotate(image, cv2.ROTATE_90_CLOCKWISE)
    assert read.shape == (60, 40, 3)
    assert np.abs(read.astype(int) - expected).mean() < 4


def test_exif_orientation_of_a_png_is_applied(tmp_path):
    png = cv2.imencode(".png", gradient())[1].tobytes()
    check = struct.pack(">I", zlib.crc32(b"eXIf" + EXIF_TURNED))
    chunk = struct.pack(">I", len(EXIF_TURNED)) + b"eXIf" + EXIF_TURNED + check
    path = tmp_path / "turned.png"
    path.write_bytes(png[:33] + chunk + png[33:])
    assert np.array_equal(images.read_image(path), cv2.rotate(gradient(), cv2.ROTATE_90_CLOCKWISE))


def test_grey_and_16_bit_photos_become_8_bit_bgr(tmp_path):
    grey = gradient()[:, :, 0]
    assert np.array_equal(
        images.read_image(save(tmp_path / "g.png", grey)), np.dstack([grey, grey, grey])
    )
    deep = gradient().astype(np.uint16) * 257
    assert np.array_equal(images.read_image(save(tmp_path / "d.png", deep)), gradient())


@pytest.mark.parametrize("depth, scale", [(np.uint8, 1), (np.uint16, 257)])
def test_transparency_is_shown_over_white(tmp_path, depth, scale):
    picture = np.zeros((1, 3, 4), depth)
    picture[0, :, 0] = 100 * scale
    picture[0, :, 3] = np.array([0, 51, 255]) * scale
    read = images.read_image(save(tmp_path / "a.png", picture))
    # 51 / 255 = a fifth of (100, 0, 0) and four fifths of white.
    assert read[0].tolist() == [[255, 255, 255], [224, 204, 204], [100, 0, 0]]


def test_names_beyond_ascii_work(tmp_path):
    path = tmp_path / "фото 照片 é.png"
    images.write_image(path, gradient())
    assert np.array_equal(images.read_image(path), gradient())


def test_one_pixel_and_a_hundred_megapixels(tmp_path):
    assert images.read_image(save(tmp_path / "1.png", gradient(1, 1))).shape == (1, 1, 3)
    flat = np.zeros((10_000, 10_000), np.uint8)
    assert images.read_image(save(tmp_path / "big.jpg", flat)).shape == (10_000, 10_000, 3)


def test_too_many_pixels_say_so(tmp_path):
    png = bytearray(cv2.imencode(".png", gradient())[1].tobytes())
    png[16:24] = struct.pack(">II", 60_000, 60_000)
    png[29:33] = struct.pack(">I", zlib.crc32(png[12:29]))
    (tmp_path / "bomb.png").write_bytes(png)
    with pytest.raises(ValueError, match="bomb.png has 60000x60000 pixels, over the limit of 200,"):
        images.read_image(tmp_path / "bomb.png")
    with pytest.raises(ValueError, match="bomb.png has too many pixels for OpenCV"):
        images.read_image(tmp_path / "bomb.png", max_pixels=60_000**2)


@pytest.mark.parametrize("height, width", [(40, 60), (1, 1), (301, 7)])
def test_a_header_tells_the_size_that_opencv_decodes(height, width):
    picture = np.random.default_rng(0).integers(0, 256, (height, width, 4), np.uint8)
    for suffix, channels, *options in (
        (".png", 4),
        (".jpg", 3),
        (".jpg", 3, cv2.IMWRITE_JPEG_PROGRESSIVE, 1),
        (".webp", 3, cv2.IMWRITE_WEBP_QUALITY, 60),
        (".webp", 4, cv2.IMWRITE_WEBP_QUALITY, 60),
        (".webp", 3, cv2.IMWRITE_WEBP_QUALITY, 101),  # lossless
        (".bmp", 3),
        (".tiff", 3),
    ):
        data = cv2.imencode(suffix, picture[:, :, :channels], options)[1].tobytes()
        assert images.picture_size(data) == (width, height), (suffix, options)
        for end in range(0, len(data), 7):  # cut short: the same, or nothing
            assert images.picture_size(data[:end]) in (None, (width, height)), (suffix, end)
    assert images.picture_size(b"GIF89a" + bytes(5)) is None


def saved_by_pillow(kind, height=40, width=60):
    """A picture file of a format that Pillow writes; HEIF where pillow-heif is installed."""
    if kind == "HEIF":
        pytest.importorskip("pillow_heif").register_heif_opener()
    file, picture = io.BytesIO(), np.random.default_rng(0).integers(0, 256, (height, width, 3))
    PIL.Image.fromarray(picture.astype(np.uint8)).save(file, kind)
    return file.getvalue()


@pytest.mark.parametrize("kind", ["GIF", "AVIF", "HEIF", "JPEG2000", "PPM"])
def test_no_format_is_decoded_before_its_size_is_known(kind, monkeypatch):
    data = saved_by_pillow(kind)
    assert images.picture_size(data) == (60, 40)
    assert images.decode_image(data, "a", max_pixels=2400).shape == (40, 60, 3)
    monkeypatch.setattr(images.cv2, "imdecode", None)  # a call would fail
    monkeypatch.setattr(images, "_decode_with_pillow", None)
    with pytest.raises(ValueError, match="a has 60x40 pixels, over the limit of 2,399"):
        images.decode_image(data, "a", max_pixels=2399)
    with pytest.raises(ValueError, match="a is not a readable picture"):
        images.decode_image(
            data[:5] if kind == "PPM" else data[:11], "a"
        )  # a size that nobody can read may be any


def test_the_size_in_the_oldest_header_of_a_bmp_is_read():
    """BITMAPCOREHEADER: 12 bytes, sides of 16 bits."""
    pixels = bytes(range(18))
    header = b"BM" + (26 + 24).to_bytes(4, "little") + bytes(4) + (26).to_bytes(4, "little")
    core = b"".join(n.to_bytes(size, "little") for n, size in ((12, 4), (3, 2), (2, 2)))
    data = header + core + b"\1\0\x18\0" + pixels[:9] + bytes(3) + pixels[9:] + bytes(3)
    assert images.picture_size(data) == (3, 2)
    assert images.decode_image(data, "a.bmp").shape == (2, 3, 3)


@pytest.mark.parametrize("kind, number", [(3, ">Hxx"), (4, ">I")])
def test_the_sides_of_a_big_endian_tiff_are_short_or_long(kind, number):
    entries = [
        struct.pack(">HHI", 256 + i, kind, 1) + struct.pack(number, side)
        for i, side in enumerate((60, 40))
    ]
    data = b"MM\0*" + struct.pack(">IH", 8, 2) + b"".join(entries) + bytes(4)
    assert images.picture_size(data) == (60, 40)


def test_another_riff_file_is_no_picture():
    assert images.picture_size(b"RIFF\x40\0\0\0WAVEfmt " + bytes(64)) is None


def segments(jpeg):
    """The marker segments of a JPEG before its first scan, and the rest from the scan on."""
    found, place = [], 2
    while jpeg[place + 1] != 0xDA:
        length = 2 + int.from_bytes(jpeg[place + 2 : place + 4], "big")
        found.append(jpeg[place : place + length])
        place += length
    return found, jpeg[place:]


def test_a_jpegs_size_is_in_its_frame_header_and_no_other_segment():
    """Huffman tables (DHT, 0xC4), which look like a frame's marker, may come before the frame."""
    picture = np.random.default_rng(0).integers(0, 256, (40, 60, 3), np.uint8)
    found, scan = segments(cv2.imencode(".jpg", picture)[1].tobytes())
    tables = [each for each in found if each[1] == 0xC4]
    others = [each for each in found if each[1] != 0xC4]
    arithmetic = b"\xff\xcc\x00\x04\x00\x10"  # DAC
    jpeg = b"\xff\xd8" + b"".join([*tables, *others]) + scan
    assert tables and cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR) is not None
    assert images.picture_size(jpeg) == (60, 40)
    assert images.picture_size(jpeg[:2] + arithmetic + jpeg[2:]) == (60, 40)
    reserved = b"\xff\xbf\x00\x04\x00\x10"
    assert images.picture_size(jpeg[:2] + reserved + jpeg[2:]) == (60, 40)
    last = jpeg.replace(b"\xff\xc0\x00\x11", b"\xff\xcf\x00\x11")  # the last kind of frame
    assert last != jpeg and images.picture_size(last) == (60, 40)
    padded = jpeg[:2] + b"\xff\xff" + jpeg[2:]
    assert images.picture_size(padded) == (60, 40)


@pytest.mark.parametrize("content", [b"", b"not a picture", b"\xff\xd8\xff\xe0cut"])
@pytest.mark.parametrize("read", [images.read_image, images.read_mask])
def test_unreadable_files_are_named(tmp_path, content, read):
    path = tmp_path / "bad.jpg"
    path.write_bytes(content)
    with pytest.raises(ValueError, match="bad.jpg is not a readable picture"):
        read(path)


def test_heic_without_its_package_says_which(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    images._register_heic.cache_clear()
    path = tmp_path / "a.heic"
    path.write_bytes(b"\0\0\0\x18ftypheic" + bytes(40))
    with pytest.raises(ValueError, match="HEIC needs `pip install pillow-heif`"):
        images.read_image(path)
    images._register_heic.cache_clear()


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="none.jpg"):
        images.read_image(tmp_path / "none.jpg")


MASK = np.zeros((32, 48), np.uint8)
MASK[8:24, 8:40] = 1
OPAQUE, CLEAR = np.full_like(MASK, 255), np.zeros_like(MASK)
ENCODINGS = {
    "0/1": MASK,
    "0/255": MASK * 255,
    "16 bit": MASK.astype(np.uint16) * 65535,
    "16 bit, dark background": np.where(MASK, 65535, 10_000).astype(np.uint16),
    "16 bit 0/1": MASK.astype(np.uint16),
    "three channels": np.dstack([MASK * 255] * 3),
    "colored class": np.dstack([CLEAR, CLEAR, MASK * 128]),
    "cut-out": np.dstack([CLEAR, CLEAR, CLEAR, MASK * 255]),
    "opaque RGBA": np.dstack([MASK * 255] * 3 + [OPAQUE]),
    "opaque red": np.dstack([CLEAR, CLEAR, MASK * 255, OPAQUE]),
}


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_every_mask_encoding_reads_the_same(tmp_path, encoding):
    read = images.read_mask(save(tmp_path / "m.png", ENCODINGS[encoding]))
    assert read.dtype == np.uint8 and np.array_equal(read, MASK)


def test_the_ringing_of_a_jpeg_mask_is_no_person(tmp_path):
    mask = cv2.circle(np.zeros((64, 64), np.uint8), (32, 32), 20, 1, -1)
    path = save(tmp_path / "m.jpg", mask * 255, [cv2.IMWRITE_JPEG_QUALITY, 90])
    assert (cv2.imread(str(path), 0)[mask == 0] > 1).any(), "the file holds no ringing to ignore"
    assert np.array_equal(images.read_mask(path), mask)


def test_empty_and_full_masks(tmp_path):
    assert images.read_mask(save(tmp_path / "e.png", CLEAR)).max() == 0
    assert images.read_mask(save(tmp_path / "f.png", OPAQUE)).min() == 1


@pytest.mark.parametrize("top", [1, 255])
def test_masks_of_real_numbers(tmp_path, top):
    alpha = np.linspace(0, 1, 60, dtype=np.float32).reshape(6, 10)
    path = tmp_path / "soft.tif"
    cv2.imwrite(str(path), top * alpha)
    assert np.abs(images.read_alpha(path) - alpha).max() <= 0.5 / 255 + 1e-6
    assert np.array_equal(images.read_mask(path), alpha > 127.5 / 255)


@pytest.mark.parametrize("value", [-0.5, 256, np.nan, np.inf])
def test_a_mask_of_impossible_numbers_is_refused(tmp_path, value):
    picture = np.full((6, 10), 0.5, np.float32)
    picture[2, 3] = value
    cv2.imwrite(str(tmp_path / "soft.tif"), picture)
    with pytest.raises(ValueError, match=r"soft.tif holds values from .*: save the mask as a PNG"):
        images.read_alpha(tmp_path / "soft.tif")


def test_a_mask_of_other_values_is_refused(tmp_path):
    with pytest.raises(ValueError, match="largest value is 7; save it as 0/1 or 0/255"):
        images.read_mask(save(tmp_path / "m.png", MASK * 7))


def test_an_input_is_never_overwritten(tmp_path):
    path = save(tmp_path / "photo.png", gradient())
    (tmp_path / "link.png").symlink_to(path)
    before = path.read_bytes()
    for name in ("photo.png", "link.png"):
        with pytest.raises(ValueError, match=f"{name} is an input and is not overwritten"):
            images.write_image(tmp_path / name, MASK, keep=[path])
    assert path.read_bytes() == before


def test_an_unknown_suffix_is_refused(tmp_path):
    with pytest.raises(ValueError, match="out.xyz has no picture suffix"):
        images.write_image(tmp_path / "out.xyz", MASK)
    assert not list(tmp_path.iterdir())


def test_writing_makes_the_folder_and_leaves_no_temporary_file(tmp_path):
    images.write_image(tmp_path / "new" / "m.png", MASK * 255)
    assert [p.name for p in (tmp_path / "new").iterdir()] == ["m.png"]


def test_opencv_that_cannot_be_loaded_is_one_sentence(tmp_path):
    (tmp_path / "cv2.py").write_text("raise ImportError('libGL.so.1: cannot open shared object')")

    def run(*command):
        environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
        return subprocess.run(
            [sys.executable, *command], cwd=ROOT, env=environment, capture_output=True, text=True
        )

    done = run("predict.py", "--help")
    assert done.returncode == 1 and len(done.stderr.splitlines()) == 1
    assert "predict.py: OpenCV cannot be loaded (libGL.so." in done.stderr
    # A notebook gets an exception that it can catch.
    script = "try: import portraitnet\nexcept ImportError as error: print(error)"
    assert "pip install opencv-python-headless" in run("-c", script).stdout


def test_a_jpeg_never_loses_a_transparent_background_in_silence(tmp_path):
    with pytest.raises(ValueError, match="cannot hold a transparent background: use .png"):
        images.write_image(tmp_path / "a.jpg", np.zeros((4, 4, 4), np.uint8))
    assert not (tmp_path / "a.jpg").exists()


def with_profile(image, name):
    """The pixels of an image, (H, W, 3) uint8 BGR, as a JPEG that claims another colour space."""
    profile = ImageCms.createProfile("sRGB") if name == "sRGB" else ADOBE_LIKE
    buffer = io.BytesIO()
    if name == "sRGB":
        profile = ImageCms.ImageCmsProfile(profile).tobytes()
    PIL.Image.fromarray(image[:, :, ::-1]).save(buffer, "PNG", icc_profile=profile)
    return buffer.getvalue()


def matrix_profile(gamma=2.2):
    """A small RGB profile with wide primaries (those of Display P3, D50), made by hand.

    Source: ICC.1:2022, matrix-based display profiles: header, tag table, XYZ and curve tags.
    """

    def fixed(number):
        return int(round(number * 65536)).to_bytes(4, "big", signed=True)

    def xyz(*values):
        return b"XYZ \0\0\0\0" + b"".join(map(fixed, values))

    curve = b"curv\0\0\0\0" + (1).to_bytes(4, "big") + int(gamma * 256).to_bytes(2, "big") + b"\0\0"
    text = b"Wide"
    described = b"desc\0\0\0\0" + (len(text) + 1).to_bytes(4, "big") + text + b"\0" + bytes(78)
    tags = {
        b"desc": described + bytes(-len(described) % 4),
        b"wtpt": xyz(0.9642, 1.0, 0.8249),
        b"rXYZ": xyz(0.5151, 0.2412, -0.0011),
        b"gXYZ": xyz(0.2920, 0.6922, 0.0419),
        b"bXYZ": xyz(0.1571, 0.0666, 0.7841),
        b"rTRC": curve,
        b"gTRC": curve,
        b"bTRC": curve,
    }
    place, table, body = 128 + 4 + 12 * len(tags), b"", b""
    for name, data in tags.items():
        offset = place + len(body)
        table += name + offset.to_bytes(4, "big") + len(data).to_bytes(4, "big")
        body += data
    content = len(tags).to_bytes(4, "big") + table + body
    header = (
        (128 + len(content)).to_bytes(4, "big") + b"\0\0\0\0" + b"\x02\x10\0\0" + b"mntrRGB XYZ "
    )
    header += bytes(12) + b"acsp" + bytes(28) + fixed(0.9642) + fixed(1.0) + fixed(0.8249)
    return header + bytes(128 - len(header)) + content


ADOBE_LIKE = matrix_profile()


def test_colors_of_another_profile_become_srgb(tmp_path):
    """Display P3's green is more green than any of sRGB: red and blue fall, grey stays."""
    image = np.zeros((8, 24, 3), np.uint8)
    image[:, :8], image[:, 8:16], image[:, 16:] = (128, 128, 128), (60, 200, 60), (30, 60, 220)
    (tmp_path / "wide.png").write_bytes(with_profile(image, "wide"))
    (tmp_path / "plain.png").write_bytes(with_profile(image, "sRGB"))
    assert np.array_equal(images.read_image(tmp_path / "plain.png"), image)
    grey, green, red = images.read_image(tmp_path / "wide.png")[0, [2, 10, 20]].astype(int)
    assert np.ptp(grey) <= 2 and abs(grey[0] - 128) <= 4
    assert green[0] < 45 and green[2] < 45 and abs(green[1] - 200) <= 6
    assert red[2] > 228


def as_stored(upright, orientation):
    """A picture as a camera that was held otherwise has stored it."""
    stored = {
        1: upright,
        2: upright[:, ::-1],
        3: upright[::-1, ::-1],
        4: upright[::-1],
        5: upright.transpose(1, 0, 2),
        6: upright.transpose(1, 0, 2)[::-1],
        7: upright.transpose(1, 0, 2)[::-1, ::-1],
        8: upright.transpose(1, 0, 2)[:, ::-1],
    }[orientation]
    return np.ascontiguousarray(stored)


def with_orientation(picture, orientation, kind, **options):
    """A file of a picture, RGB or RGBA, that is to be turned: by EXIF, an AVIF by irot and imir."""
    exif, file = PIL.Image.Exif(), io.BytesIO()
    exif[0x0112] = orientation
    stored = PIL.Image.fromarray(as_stored(picture, orientation))
    stored.save(file, kind, exif=exif, **options)
    return file.getvalue()


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied_with_alpha_too(orientation, kind):
    upright = np.arange(6 * 4 * 4, dtype=np.uint8).reshape(6, 4, 4)
    upright[:, :, 3] = 255
    upright[0, 0, 3] = 9
    colors, alpha = images.decode_layers(with_orientation(upright, orientation, kind), "a")
    assert np.array_equal(colors[:, :, ::-1], upright[:, :, :3])
    assert np.array_equal(alpha, upright[:, :, 3])


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF", "AVIF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_every_format_is_upright(kind, orientation):
    upright = gradient()
    data = with_orientation(upright, orientation, kind, quality=95)
    read = images.decode_image(data, "a")[:, :, ::-1]
    assert read.shape == upright.shape and np.abs(read.astype(int) - upright).mean() < 4


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "TIFF", "AVIF", "HEIF"])
@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_every_format_keeps_straight_colors_and_alpha(kind, mode):
    """Dark grey, hidden, half hidden and shown: a reader may mix with black, or drop the alpha."""
    if kind == "HEIF":
        pytest.importorskip("pillow_heif").register_heif_opener()
    picture, file = np.full((32, 96, 4), 60, np.uint8), io.BytesIO()
    for i, alpha in enumerate((0, 128, 255)):
        picture[:, 32 * i : 32 * i + 32, 3] = alpha
    stored = PIL.Image.fromarray(picture).convert(mode)
    stored.save(file, kind, quality=95, **{"exact": True} if kind == "WEBP" else {})
    colors, alpha = images.decode_layers(file.getvalue(), "a")
    assert np.abs(colors.astype(int) - 60).max() <= 2
    assert np.abs(alpha.astype(int) - picture[:, :, 3])[:, 4::32].max() <= 2
    shown = images.decode_image(file.getvalue(), "a")[16, [4, 48, 92]]
    assert np.abs(shown - [[255], [157], [60]]).max() <= 3  # before white


@pytest.mark.parametrize("dtype", [np.float32, np.int32])
@pytest.mark.parametrize("channels", [1, 3])
def test_samples_of_32_bits_are_named(dtype, channels):
    data = cv2.imencode(".tiff", np.ones((4, 6, channels), dtype))[1].tobytes()
    message = (
        rf"a.tif has 32-bit samples \({np.dtype(dtype)}\): convert it to 8 or 16 bits, such as"
    )
    with pytest.raises(ValueError, match=message):
        images.decode_image(data, "a.tif")


@pytest.mark.parametrize("kind", ["JPEG2000", "TIFF", "HEIF", "AVIF", "WEBP", "PNG"])
def test_a_file_cut_short_is_one_line(kind, capfd):
    data = saved_by_pillow(kind)
    with pytest.raises(ValueError) as refused:
        images.decode_image(data[: len(data) // 2], "a")
    assert "\n" not in str(refused.value) and capfd.readouterr().err == ""


def test_a_raw_file_is_not_read_as_its_preview():
    written = io.BytesIO()
    PIL.Image.new("RGB", (16, 12), "red").save(written, "TIFF", tiffinfo={254: 1})
    canon = b"II*\0\x10\0\0\0CR\2\0" + bytes(100)
    for data in (written.getvalue(), canon):
        with pytest.raises(ValueError, match="a.dng begins with a small preview"):
            images.decode_image(data, "a.dng")


def test_a_png_with_another_bit_is_one_line(capfd):
    """libpng would write a line of its own past the error."""
    data = bytearray(saved_by_pillow("PNG"))
    data[len(data) // 2] ^= 1
    with pytest.raises(ValueError, match="a is not a readable picture"):
        images.decode_image(bytes(data), "a")
    assert capfd.readouterr().err == ""


def test_a_png_whose_text_has_another_bit_is_read():
    text = PIL.PngImagePlugin.PngInfo()
    text.add_text("Author", "nobody")
    written = io.BytesIO()
    PIL.Image.new("RGB", (7, 5), "red").save(written, "PNG", pnginfo=text)
    data = written.getvalue().replace(b"nobody", b"nobodx")
    assert images.decode_image(data, "a").shape == (5, 7, 3)


@pytest.mark.parametrize("classes", [(0, 1, 255), (0, 15, 255), (0, 1, 2, 20, 255), (1, 255)])
def test_an_index_mask_with_an_ignored_value_is_refused(tmp_path, classes):
    mask = np.resize(np.array(classes, np.uint8), (8, 8))
    images.write_image(tmp_path / "m.png", mask)
    with pytest.raises(ValueError, match="mostly means 'ignore'"):
        images.read_mask(tmp_path / "m.png")


def test_a_pipe_is_read_like_a_file(tmp_path):
    image = np.full((4, 6, 3), 90, np.uint8)
    reading, writing = os.pipe()
    os.write(writing, images.encode_image("a.png", image))
    os.close(writing)
    assert np.array_equal(images.read_image(f"/dev/fd/{reading}"), image)
    os.close(reading)


@pytest.mark.parametrize(
    "ending", [".jpg", ".png", ".webp", ".bmp", ".tiff", ".gif", ".avif", ".jp2", ".ppm"]
)
def test_a_picture_is_known_by_its_content(tmp_path, ending):
    if not images.can_write(f"a{ending}"):
        pytest.skip(f"this OpenCV writes no {ending}")
    data = images.encode_image(f"a{ending}", np.full((64, 64, 3), 90, np.uint8))
    assert images.is_picture(data)
    assert not images.is_picture(b"# a text of some length\n")
    assert not images.is_picture(b"P1 is a pawn at its start")
    assert images.decode_image(data, "no ending").shape == (64, 64, 3)
