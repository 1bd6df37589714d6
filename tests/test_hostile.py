"""What nobody has cleaned: sizes, names and files that were made to hurt, through whole commands."""

import csv
import io
import json
import os
import shutil
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from stackcls import images
from stackcls.errors import UnreadableImage
from stackcls.printable import printable
from stackcls.report import tables
from stackcls.settings import Limits
from stackcls.stages import features, fit
from stackcls.store import Store
from tests.conftest import make_settings, write_photo, write_photos


def png(width, height, body=b"", bits=8, colour=2):
    """A PNG whose header says what it likes."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", body) + chunk(b"IEND", b"")


def bmp(width, height):
    return b"BM" + struct.pack("<IHHI", 54, 0, 0, 54) + struct.pack("<IiiHHIIiiII", 40, width, height, 1, 24, *[0] * 6)


def gif(width, height):
    frame = b"," + struct.pack("<HHHHB", 0, 0, width, height, 0) + b"\x02\x02D\x01\0;"
    return b"GIF89a" + struct.pack("<HHBBB", width, height, 0x80, 0, 0) + b"\0\0\0\xff\xff\xff" + frame


def webp(width, height):
    size = struct.pack("<I", width - 1)[:3] + struct.pack("<I", height - 1)[:3]
    chunk = b"VP8X" + struct.pack("<I", 10) + b"\0\0\0\0" + size
    return b"RIFF" + struct.pack("<I", len(chunk) + 4) + b"WEBP" + chunk


def tiff(width, height):
    entries = [(256, width), (257, height), (258, 8), (259, 1), (262, 1), (273, 8), (278, height), (279, 8)]
    fields = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in entries)
    return b"II*\0\x08\0\0\0" + struct.pack("<H", len(entries)) + fields + b"\0\0\0\0"


def jpeg(width, height):
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8)).save(buffer, "JPEG")
    data = bytearray(buffer.getvalue())
    at = data.index(b"\xff\xc0") + 5
    data[at : at + 4] = struct.pack(">HH", height, width)
    return bytes(data)


BOMBS = {"png": png, "bmp": bmp, "gif": gif, "webp": webp, "tiff": tiff, "jpeg": jpeg}


@pytest.mark.parametrize("make", BOMBS.values(), ids=BOMBS)
@pytest.mark.parametrize("size", [(20_000, 20_000), (65_500, 65_500), (14_000, 12_783)])
def test_a_header_that_claims_too_much_is_refused_before_anything_is_decoded(make, size, monkeypatch):
    monkeypatch.setattr(Image.core, "new", None)  # what would allocate the pixels
    over = r"^bomb: (\d+x\d+ pixels are over|more than) 178956970( pixels)?: .*, or raise features\.max_pixels"
    with pytest.raises(UnreadableImage, match=over):
        images.decode(make(*size), "bomb")


# Of a WebP file Pillow wants more than the header, unless that claims more than Pillow's own limit.
WITHIN = {**BOMBS, "webp": lambda width, height: encoded(Image.new("RGB", (width, height)), "WEBP")}


@pytest.mark.parametrize("make", WITHIN.values(), ids=WITHIN)
def test_the_limit_on_pixels_can_be_set(make):
    with pytest.raises(UnreadableImage, match=r"^x: 101x100 pixels are over 10000: make it smaller, or raise"):
        images.decode(make(101, 100), "x", Limits(max_pixels=10_000))


@pytest.mark.parametrize("form", images.FORMATS)
def test_one_pixel_is_an_image(form):
    buffer = io.BytesIO()
    Image.new("RGB", (1, 1), (200, 30, 40)).save(buffer, form)
    found = images.resize(images.decode(buffer.getvalue(), "x", Limits(max_pixels=1)), 32)
    assert np.abs(found.astype(int) - [200, 30, 40]).max() < 12


@pytest.mark.parametrize("size", [(1, 5000), (5000, 1)])
def test_a_line_is_an_image(size):
    assert images.resize(images.decode(encoded(Image.new("L", size, 7)), "x"), 16).max() == 7


def encoded(image, form="PNG", **options):
    buffer = io.BytesIO()
    image.save(buffer, form, **options)
    return buffer.getvalue()


def test_a_picture_with_another_formats_suffix_is_read(tmp_path):
    (tmp_path / "x.jpg").write_bytes(encoded(Image.new("RGB", (5, 4))))
    assert images.decode(images.read_bytes(tmp_path / "x.jpg"), "x.jpg").size == (5, 4)


def test_a_file_larger_than_any_image_within_the_limit_is_not_read(tmp_path):
    with open(tmp_path / "x.jpg", "wb") as file:
        file.truncate(2**40)  # a hole: takes no space
    for read in (images.read_bytes, images.hash_file):
        with pytest.raises(UnreadableImage, match=r"x\.jpg: the file's 1099511627776 bytes are more than .*max_pixels"):
            read(tmp_path / "x.jpg", "x.jpg", Limits())


@pytest.mark.skipif(not Path("/dev/zero").exists(), reason="needs devices")
@pytest.mark.parametrize("device", ["/dev/zero", "/dev/tty", "/dev/random"])
def test_a_device_is_refused(tmp_path, device):
    (tmp_path / "x.jpg").symlink_to(device)
    with pytest.raises(UnreadableImage, match=r"x\.jpg: (is a folder or a device|file not found)"):
        images.hash_file(tmp_path / "x.jpg", "x.jpg", Limits())


def test_a_file_that_may_not_be_read_is_rejected(photos, tmp_path, fake_engine, monkeypatch):
    real = os.open

    def refuse(path, *arguments, **options):
        if str(path).endswith("00.png"):
            raise PermissionError(13, "Permission denied", path)
        return real(path, *arguments, **options)

    monkeypatch.setattr(os, "open", refuse)
    result = features.run(make_settings(photos, tmp_path / "artifacts"))
    assert result.rejected == {
        f"{name}/00.png": "cannot be read (Permission denied)" for name in ("blue", "green", "red")
    }


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_all_that_is_no_file_is_listed_and_stops_nothing(photos, tmp_path, fake_engine):
    (photos / "red" / "folder.jpg").mkdir()
    (photos / "red" / "circle.jpg").symlink_to("circle.jpg")
    (photos / "red" / "nowhere.jpg").symlink_to("gone")
    (photos / "red" / "up").symlink_to(photos)
    os.mkfifo(photos / "red" / "pipe.jpg")
    (photos / "red" / "empty.jpg").touch()
    result = features.run(make_settings(photos, tmp_path / "artifacts"))
    assert result.n_images == 27
    assert {name: reason.split(" (")[0] for name, reason in result.rejected.items()} == {
        "red/circle.jpg": "cannot be read",
        "red/empty.jpg": "the file is empty",
        "red/nowhere.jpg": "file not found",
        "red/pipe.jpg": "is a folder or a device, not a file",
    }


NAMES = [
    *("new\nline", "re\rturn", "\x1b[2J\x1b]0;title\x07", "a'b\"c`$(x)", "$\\frac{1}{0}$", "קבוצה", "عصفور"),
    *(
        "\u202egpj.exe",
        "=1+1",
        "-rf",
        "a,b;c\td",
        "%s %d {0}",
        "<b>&amp;",
        "| a | b |",
        "\u2028",
        "x" * 200,
        "猫\u0301",
    ),
]


@pytest.mark.skipif(sys.platform != "linux", reason="other systems refuse such names")
def test_names_that_act_are_shown_harmlessly_and_kept_exactly(tmp_path, fake_engine, stackcls):
    folder = write_photos(tmp_path / "photos", 3, NAMES)
    for name in NAMES:
        (folder / name / f"{name[:50]}.jpg").write_text("no image")
    settings = make_settings(folder, tmp_path / "artifacts", cv={"folds": 3})
    config = tmp_path / "c.yaml"
    config.write_text(json.dumps(settings.model_dump(mode="json", exclude={"weights"})))
    shown = []
    for arguments in (["features"], ["fit"], ["report"], ["predict", folder], ["evaluate", folder]):
        _, out, err = stackcls(*arguments, "-c", config)
        assert "Traceback" not in err
        shown.append(out + err)
    assert not [line for line in "".join(shown).split("\n") if line != printable(line)]
    assert "new\\nline/new\\nline.jpg: not an image" in shown[0]
    assert "קבוצה" in shown[0]
    with Store(settings.files.features) as store:
        assert store.table.class_names == tuple(sorted(NAMES))
    with open(settings.files.predictions, newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert {row["label"] for row in rows} == set(NAMES)
    assert {row["path"] for row in rows} == {f"{name}/{number:02d}.png" for name in NAMES for number in range(3)}
    paths = sorted(f"{folder}/{name}/{file}" for name in NAMES for file in os.listdir(folder / name))
    for form in ("json", "csv"):
        _, out, _ = stackcls("predict", folder, "-c", config, "--format", form)
        read = json.loads(out) if form == "json" else csv.DictReader(io.StringIO(out, newline=""))
        assert [row["path"] for row in read] == paths


def test_on_a_terminal_data_is_shown_harmlessly_too(photos, tmp_path, fake_engine, stackcls, monkeypatch):
    settings = make_settings(photos, tmp_path / "artifacts")
    features.run(settings)
    fit.run(settings)
    image = write_photo(tmp_path / "a\x1b[2J\x9b2J.png", (190, 70, 60), 1)
    for form in ("json", "csv", "table"):
        monkeypatch.setattr(type(sys.stdout), "isatty", lambda _: True, raising=False)
        _, out, _ = stackcls("predict", image, "--model", settings.files.model, "--format", form)
        assert not [line for line in out.split("\n") if line != printable(line)]
    odd = shutil.copy(settings.files.safe_model, tmp_path / "b\x9b2J\u202e.safetensors")
    for form in ("json", "text"):
        status, out, _ = stackcls("check", odd, "--format", form)
        assert (status, r"b\x9b2J\u202e.safetensors" in out) == (0, True)
        assert not [line for line in out.split("\n") if line != printable(line)]


@pytest.mark.parametrize("cell", ["a\rb", "a\nb", "a\r\nb", 'say "x"', "a,b", "=1+1", " x ", "\x1b[2J", "\u2028", ""])
def test_csv_gives_back_what_it_was_given(cell):
    rows = [["path", "label"], [cell, "x"], ["y", cell]]
    assert list(csv.reader(io.StringIO(tables.comma_separated(rows), newline=""))) == rows


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("a\nb", "a\\nb"),
        ("\x1b[2J", "\\x1b[2J"),
        ("\x9b2J", "\\x9b2J"),
        ("\u202egpj.exe", "\\u202egpj.exe"),
        ("\udcff", "\\udcff"),
        ("a\\nb", "a\\nb"),
        ("קבוצה 猫 é 👍🏽", "קבוצה 猫 é 👍🏽"),
    ],
)
def test_what_a_terminal_would_act_on_is_written_out(name, shown):
    assert printable(name) == shown


def test_errors_of_the_command_line_cannot_act_on_the_terminal(stackcls):
    status, _, err = stackcls("predict", "\x1b[2J\n", "--model", "a\nerror: b\x1b[0m")
    assert status == 1
    assert err == "error: a\\nerror: b\\x1b[0m: " + err.partition("\\x1b[0m: ")[2]
    assert err.count("\n") == 1


def test_many_bad_images_do_not_flood_memory_or_shift_rows(tmp_path, fake_engine):
    folder = write_photos(tmp_path / "photos", 4)
    for number in range(300):
        (folder / "red" / f"{number:03d}a.png").write_bytes(png(20_000, 20_000, bytes([number % 256])))
    result = features.run(make_settings(folder, tmp_path / "artifacts"))
    assert (result.n_images, len(result.rejected)) == (12, 300)


MEASURE = """
import re, sys
from pathlib import Path
from stackcls import extraction
from stackcls.settings import Limits
inputs = [extraction.ImageInput(name, Path(name)) for name in sys.argv[2:]]
limits = Limits(max_pixels=int(sys.argv[1]), seconds=600)
for loaded in extraction.load(inputs, (8,), 8, limits, workers=4):
    print("rejected" if isinstance(loaded, Exception) else loaded[8].mean())
print(int(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1]) // 1024)
"""


def measure(folder, max_pixels, *names):
    """Outcomes and the peak of memory, in MiB, of loading images in four threads of a process of their own."""
    command = [sys.executable, "-c", MEASURE, str(max_pixels), *names]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=folder, timeout=600)
    *outcomes, peak = done.stdout.split()
    return outcomes, int(peak)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="measures memory as Linux counts it")
def test_20000_by_20000_pixels_one_at_a_time(tmp_path):
    Image.new("1", (20_000, 20_000), 1).save(tmp_path / "x.png")
    names = ["x.png"] * 3
    outcomes, idle = measure(tmp_path, 178_956_970, *names)
    assert outcomes == ["rejected"] * 3
    assert idle < 300
    outcomes, peak = measure(tmp_path, 400_000_000, *names)
    assert outcomes == ["255.0"] * 3
    # One byte for each pixel as decoded, four as RGB, and what the allocator keeps; three at once would take 5.7 GiB.
    assert peak - idle < 1.5 * 5 * 400_000_000 / 2**20
