"""Decoding: every kind of image becomes upright 8-bit RGB by the stated rule, or is refused with a reason."""

import io
import os
import struct
import zlib

import numpy as np
import pytest
from PIL import Image, PngImagePlugin

from stackcls import images
from stackcls.errors import UnreadableImage

ORIENTATION = 0x0112
# What a camera that writes this orientation did to the upright picture.
UNDO = {
    1: None,
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_90,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_270,
}


def encoded(image, form, **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, form, **options)
    return buffer.getvalue()


def pixels(data: bytes) -> np.ndarray:
    image = images.decode(data, "x")
    assert image.mode == "RGB"
    return np.asarray(image)


@pytest.fixture
def picture() -> Image.Image:
    """Wider than high, no two corners alike: any flip or turn shows."""
    rng = np.random.default_rng(0)
    ramp = np.add.outer(np.linspace(0, 120, 30), np.linspace(0, 60, 44))[..., None] * [1.0, 0.7, 0.4]
    return Image.fromarray((ramp + rng.integers(0, 40, (30, 44, 3))).astype(np.uint8))


@pytest.mark.parametrize("form", ["PNG", "BMP", "TIFF"])
def test_lossless_formats_come_back_exactly(picture, form):
    assert np.array_equal(pixels(encoded(picture, form)), np.asarray(picture))


def test_lossless_webp_comes_back_exactly(picture):
    assert np.array_equal(pixels(encoded(picture, "WEBP", lossless=True)), np.asarray(picture))


@pytest.mark.parametrize("form", ["JPEG", "WEBP"])
def test_lossy_formats_come_back_nearly(picture, form):
    smooth = picture.resize((88, 60))
    difference = pixels(encoded(smooth, form, quality=95)).astype(int) - np.asarray(smooth)
    assert np.abs(difference).mean() < 6


@pytest.mark.parametrize("form", ["GIF", "WEBP", "TIFF", "PNG"])
def test_the_first_frame_of_several_counts(form):
    red, blue = (Image.new("RGB", (12, 8), colour) for colour in ((250, 0, 0), (0, 0, 250)))
    data = encoded(red, form, save_all=True, append_images=[blue, blue])
    assert Image.open(io.BytesIO(data)).n_frames > 1
    assert np.abs(pixels(data).astype(int) - [250, 0, 0]).max() < 8


def test_the_first_picture_of_an_mpo_counts(picture):
    data = encoded(picture, "MPO", save_all=True, append_images=[picture.rotate(90, expand=True)], quality=95)
    assert pixels(data).shape == (30, 44, 3)
    assert np.abs(pixels(data).astype(int) - np.asarray(picture)).mean() < 10


@pytest.mark.parametrize("form", ["PNG", "TIFF", "WEBP"])
@pytest.mark.parametrize("orientation", UNDO)
def test_exif_orientation_is_undone(picture, orientation, form):
    lying = picture if UNDO[orientation] is None else picture.transpose(UNDO[orientation])
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    options = {"lossless": True} if form == "WEBP" else {}
    assert np.array_equal(pixels(encoded(lying, form, exif=exif, **options)), np.asarray(picture))


@pytest.mark.parametrize("orientation", UNDO)
def test_exif_orientation_of_a_jpeg_is_undone(picture, orientation):
    lying = picture if UNDO[orientation] is None else picture.transpose(UNDO[orientation])
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    upright = pixels(encoded(lying, "JPEG", exif=exif, quality=100, subsampling=0)).astype(int)
    assert upright.shape == (30, 44, 3)
    assert np.abs(upright - np.asarray(picture)).mean() < 2


@pytest.mark.parametrize("orientation", [0, 9, 77])
def test_an_orientation_that_does_not_exist_says_nothing(picture, orientation):
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    assert np.array_equal(pixels(encoded(picture, "PNG", exif=exif)), np.asarray(picture))


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data")
def test_a_broken_exif_block_says_nothing(picture):
    data = encoded(picture, "JPEG", exif=b"Exif\0\0MM\0*\0\0\0\x08\xff\xff\x01\x12\0\x03")
    assert pixels(data).shape == (30, 44, 3)


def test_grey_becomes_three_equal_channels(picture):
    grey = picture.convert("L")
    assert np.array_equal(pixels(encoded(grey, "PNG")), np.stack([np.asarray(grey)] * 3, axis=2))


@pytest.mark.parametrize("form", ["PNG", "TIFF", "BMP"])
def test_one_bit_becomes_black_and_white(form):
    bits = np.random.default_rng(1).integers(0, 2, (9, 13)).astype(bool)
    found = pixels(encoded(Image.fromarray(bits), form))
    assert np.array_equal(found, np.stack([bits.astype(np.uint8) * 255] * 3, axis=2))


def test_a_palette_is_looked_up():
    palette = Image.new("P", (2, 1))
    palette.putpalette([10, 20, 30, 200, 100, 50])
    palette.putdata([0, 1])
    assert pixels(encoded(palette, "PNG")).tolist() == [[[10, 20, 30], [200, 100, 50]]]


@pytest.mark.parametrize("form", ["PNG", "GIF"])
def test_transparent_palette_entries_become_white(form):
    palette = Image.new("P", (2, 1))
    palette.putpalette([10, 20, 30, 200, 100, 50])
    palette.putdata([0, 1])
    assert pixels(encoded(palette, form, transparency=0)).tolist() == [[[255, 255, 255], [200, 100, 50]]]


def test_half_transparent_palette_entries_mix_with_white():
    palette = Image.new("P", (2, 1))
    palette.putpalette([0, 0, 0, 200, 100, 50])
    palette.putdata([0, 1])
    found = pixels(encoded(palette, "PNG", transparency=bytes([128, 255])))
    assert found[0, 0].tolist() == [127, 127, 127]
    assert found[0, 1].tolist() == [200, 100, 50]


@pytest.mark.parametrize("form", ["PNG", "TIFF", "WEBP"])
def test_rgba_is_laid_over_white(form):
    image = Image.new("RGBA", (3, 1))
    image.putdata([(200, 0, 100, 255), (200, 0, 100, 128), (200, 0, 100, 0)])
    options = {"lossless": True, "exact": True} if form == "WEBP" else {}
    opaque, half, clear = pixels(encoded(image, form, **options))[0].tolist()
    assert (opaque, clear) == ([200, 0, 100], [255, 255, 255])
    assert half == pytest.approx([227.4, 127, 177.2], abs=1)


def test_grey_with_alpha_is_laid_over_white():
    image = Image.new("LA", (3, 1))
    image.putdata([(40, 255), (40, 128), (40, 0)])
    opaque, half, clear = pixels(encoded(image, "PNG"))[0, :, 0].tolist()
    assert (opaque, clear) == (40, 255)
    assert half == pytest.approx(147, abs=1)


@pytest.mark.parametrize(("mode", "clear", "other"), [("RGB", (9, 8, 7), (1, 2, 3)), ("L", 9, 3), ("1", 0, 1)])
def test_a_colour_declared_transparent_becomes_white(mode, clear, other):
    image = Image.new(mode, (2, 1), clear)
    image.putpixel((1, 0), other)
    found = pixels(encoded(image, "PNG", transparency=clear))[0]
    opaque = np.asarray(image.convert("RGB"))[0, 1]
    assert found.tolist() == [[255, 255, 255], opaque.tolist()]


@pytest.mark.parametrize("form", ["JPEG", "TIFF"])
def test_cmyk_becomes_rgb(form):
    image = Image.new("CMYK", (16, 16), (0, 255, 255, 0))
    assert np.abs(pixels(encoded(image, form)).astype(int) - [255, 0, 0]).max() < 4


@pytest.mark.parametrize("form", ["PNG", "TIFF"])
def test_sixteen_bit_grey_is_scaled_not_clipped(form):
    values = np.array([[0, 128, 129, 257, 25_700, 32_768, 65_535]], dtype=np.uint16)
    expected = np.rint(values * (255 / 65535)).astype(np.uint8)
    assert expected.tolist() == [[0, 0, 1, 1, 100, 128, 255]]
    assert np.array_equal(pixels(encoded(Image.fromarray(values), form)), np.stack([expected] * 3, axis=2))


def test_sixteen_bit_grey_of_the_other_byte_order_is_the_same():
    values = np.array([[0, 25_700, 65_535]], dtype=np.uint16)
    big = Image.frombytes("I;16B", (3, 1), values.astype(">u2").tobytes())
    assert pixels(encoded(big, "TIFF"))[0, :, 0].tolist() == [0, 100, 255]


def test_floating_point_is_refused():
    with pytest.raises(UnreadableImage, match=r"x\.tif: floating-point pixels are not supported"):
        images.decode(encoded(Image.new("F", (4, 4), 0.5), "TIFF"), "x.tif")


@pytest.mark.parametrize("form", images.FORMATS)
@pytest.mark.parametrize("share", [0.02, 0.3, 0.6, 0.97])
@pytest.mark.filterwarnings("ignore:Truncated File Read")
def test_a_file_cut_short_is_refused(picture, form, share):
    data = encoded(picture, form)
    with pytest.raises(UnreadableImage, match=r"cut\.jpg: (damaged or cut short|not an image)"):
        images.decode(data[: int(len(data) * share)], "cut.jpg")


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "the file is empty"),
        (b"this is text", "not an image that can be read"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "not an image that can be read"),
        (b"%PDF-1.4 \n", "not an image that can be read"),
    ],
)
def test_what_is_no_image_is_refused(data, reason):
    with pytest.raises(UnreadableImage, match=rf"^x\.jpg: {reason}") as caught:
        images.decode(data, "x.jpg")
    assert caught.value.path == "x.jpg"


@pytest.mark.parametrize("form", ["PPM", "ICO", "TGA"])
def test_formats_beside_the_stated_ones_are_refused(picture, form):
    with pytest.raises(UnreadableImage, match="not an image that can be read"):
        images.decode(encoded(picture, form), "x")


def test_a_size_beyond_the_limit_is_refused_before_it_is_decoded():
    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", 20_000, 20_000, 8, 2, 0, 0, 0)
    with pytest.raises(UnreadableImage, match="178956970"):
        images.decode(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", b""), "bomb.png")


def test_colour_profiles_and_comments_do_not_disturb(picture):
    info = PngImagePlugin.PngInfo()
    info.add_text("comment", "猫")
    assert np.array_equal(pixels(encoded(picture, "PNG", pnginfo=info, dpi=(300, 300))), np.asarray(picture))


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(UnreadableImage, match=r"cats/1\.jpg: file not found"):
        images.read_bytes(tmp_path / "1.jpg", "cats/1.jpg")


def test_a_folder_with_an_image_name_is_refused(tmp_path):
    (tmp_path / "x.jpg").mkdir()
    with pytest.raises(UnreadableImage, match="a folder or a device"):
        images.read_bytes(tmp_path / "x.jpg")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_a_pipe_is_refused_instead_of_waited_for(tmp_path):
    os.mkfifo(tmp_path / "x.jpg")
    with pytest.raises(UnreadableImage, match="a folder or a device"):
        images.read_bytes(tmp_path / "x.jpg")


def test_arrays_are_taken_as_they_are():
    array = np.random.default_rng(2).integers(0, 256, (5, 7, 3), dtype=np.uint8)
    for form in (array, array[:, ::-1][:, ::-1], np.asfortranarray(array)):
        assert np.array_equal(np.asarray(images.from_array(form, "x")), array)


@pytest.mark.parametrize(
    "array",
    [np.zeros((4, 4, 3)), np.zeros((4, 4), np.uint8), np.zeros((4, 4, 4), np.uint8), np.zeros((0, 4, 3), np.uint8)],
)
def test_other_arrays_are_refused(array):
    with pytest.raises(UnreadableImage, match=r"input 3: an array must be uint8 of shape \(height, width, 3\), not"):
        images.from_array(array, "input 3")


@pytest.mark.parametrize("size", [16, 29, 75])
def test_resize_is_pillows_bilinear_squash(picture, size):
    expected = picture.resize((size, size), Image.Resampling.BILINEAR)
    found = images.resize(picture, size)
    assert found.shape == (size, size, 3)
    assert np.array_equal(found, np.asarray(expected))


@pytest.mark.slow
def test_resize_is_what_keras_documents(picture, tmp_path):
    from keras.utils import img_to_array, load_img

    picture.save(tmp_path / "x.png")
    expected = img_to_array(load_img(tmp_path / "x.png", target_size=(24, 24), interpolation="bilinear"))
    assert np.array_equal(images.resize(images.decode((tmp_path / "x.png").read_bytes(), "x"), 24), expected)
