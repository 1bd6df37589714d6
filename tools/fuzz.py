"""Feeds damaged input to stackcls: `python tools/fuzz.py WHAT COUNT [SEED]`; success or its own errors, nothing else.

WHAT is one of images, stores, manifests, configurations, models. Run in a process of its own: memory is limited there,
a case that takes too long ends it with a traceback, and a crash of a library is seen as the process's end. Before each
case its number is written to standard error's last line, and that number with the seed makes the case again.
"""

import faulthandler
import io
import json
import os
import random
import re
import resource
import sys
import tempfile
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from mutations import mutate
from PIL import Image

from stackcls import config, images, modelfile, sources, storeformat, storewriter
from stackcls.backbones import Backbone
from stackcls.errors import StackclsError
from stackcls.files import digest_file
from stackcls.settings import Settings
from stackcls.stages import fit
from stackcls.store import ImageTable, MatrixInfo, Store

MEMORY = 6 * 2**30
SECONDS = 60
ROWS, WIDTH = 24, 6

Case = Callable[[random.Random], None]


def main() -> None:
    """Run so many cases, and say how they ended."""
    what, count = sys.argv[1], int(sys.argv[2])
    seed = int(sys.argv[3]) if len(sys.argv) > 3 else 0
    warnings.simplefilter("ignore")
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    outcomes: Counter[str] = Counter()
    with tempfile.TemporaryDirectory() as name:
        case = CASES[what](Path(name))
        for number in range(count):
            os.write(2, b"%d\n" % number)
            faulthandler.dump_traceback_later(SECONDS, exit=True)
            try:
                case(random.Random(f"{what} {seed} {number}"))  # noqa: S311
                outcomes["success"] += 1
            except StackclsError as error:
                outcomes[type(error).__name__] += 1
        faulthandler.cancel_dump_traceback_later()
    # ru_maxrss would count the process that started this one.
    peak = re.search(r"VmHWM:\s+(\d+)", Path("/proc/self/status").read_text())
    print(json.dumps({"cases": sum(outcomes.values()), "peak_MiB": int(peak[1]) // 1024 if peak else 0, **outcomes}))


def pictures() -> Iterator[bytes]:
    """Every format in many modes."""
    rng = np.random.default_rng(0)
    picture = Image.fromarray(rng.integers(0, 256, (24, 31, 3), dtype=np.uint8)).resize((93, 72))
    exif = Image.Exif()
    exif[0x0112] = 6
    grey16 = Image.fromarray(rng.integers(0, 65536, (24, 31), dtype=np.uint16))
    rgba = picture.convert("RGBA")
    rgba.putalpha(picture.convert("L"))
    frames = {"save_all": True, "append_images": [picture.rotate(90), picture.rotate(180)]}
    ways: list[tuple[Image.Image, str, dict[str, object]]] = [
        *((picture.convert(mode), "JPEG", {"exif": exif}) for mode in ("RGB", "L", "CMYK")),
        (picture, "JPEG", {"progressive": True}),
        *((picture.convert(mode), "PNG", {"exif": exif}) for mode in ("RGB", "L", "P", "1")),
        *((image, "PNG", {}) for image in (rgba, grey16, rgba.convert("LA"))),
        (picture.convert("P"), "PNG", {"transparency": bytes(range(256))}),
        (picture, "PNG", frames),
        *((picture, "WEBP", options) for options in ({"lossless": True}, {"quality": 50, "exif": exif}, frames)),
        (rgba, "WEBP", {"lossless": True}),
        *((picture.convert(mode), "BMP", {}) for mode in ("RGB", "L", "P", "1")),
        *((picture.convert(mode), "TIFF", {"exif": exif}) for mode in ("RGB", "L", "CMYK", "1", "F")),
        *(
            (picture, "TIFF", {"compression": name})
            for name in ("tiff_lzw", "tiff_deflate", "jpeg", "packbits", "tiff_adobe_deflate")
        ),
        (picture.convert("1"), "TIFF", {"compression": "group4"}),
        (rgba, "TIFF", {}),
        (grey16, "TIFF", {}),
        (picture, "TIFF", frames),
        *((picture.convert("P"), "GIF", options) for options in ({}, {"transparency": 3}, {"interlace": 1}, frames)),
    ]
    for image, form, options in ways:
        buffer = io.BytesIO()
        image.save(buffer, form, **options)  # type: ignore[arg-type]
        yield buffer.getvalue()


def image_case(_: Path) -> Case:
    """Decode and resize."""
    good = list(pictures())

    def case(rng: random.Random) -> None:
        pixels = images.resize(images.decode(mutate(rng.choice(good), good, rng), "x"), 32)
        if pixels.shape != (32, 32, 3) or pixels.dtype != np.uint8:
            raise AssertionError(pixels.shape)

    return case


def write_store(path: Path) -> None:
    """Write a feature file of two matrices that a stack can be fitted on."""
    rng = np.random.default_rng(0)
    labels = np.arange(ROWS, dtype=np.int32) % 3
    hashes = tuple(f"{row:064x}" for row in range(ROWS))
    paths, classes, none = tuple(f"{row:03d}.png" for row in range(ROWS)), ("a", "b", "c"), np.full(ROWS, -1)
    bad = {"bad.png": "the file is empty"}
    table = ImageTable(paths, hashes, ("",) * ROWS, labels, none, classes, (), bad, "photos")
    features = (rng.normal(size=(ROWS, WIDTH)) + labels[:, None]).astype(np.float32)
    infos, rows = {}, {}
    for seed, name in enumerate(("one", "two")):
        backbone = Backbone(name, "MobileNet", (), 32, "random", seed, None, "average", "keras")
        made = {"engine": "fake", "configured": backbone.to_dict()}
        infos[name] = MatrixInfo(backbone.identity(f"random:{seed}", "float32"), made, WIDTH)
        rows[name] = [(np.arange(ROWS), features + seed)]
    storewriter.write(path, table, infos, rows, {"numpy": "2"})


def store_case(folder: Path) -> Case:
    """Open, read and fit, also with a checksum made to fit the damage: flips in texts of the description alone."""
    settings = Settings(artifacts=folder / "artifacts")
    target = settings.files.features
    write_store(target)
    good = target.read_bytes()

    def case(rng: random.Random) -> None:
        target.write_bytes(mutate(good, [good], rng))
        if rng.random() < 0.3:
            target.write_bytes(reseal(good, rng))
        with Store(target) as opened:
            for name, info in opened.matrices.items():
                opened.read_into(name, np.empty((len(opened.table.paths), info.width), np.float32))
        fit.run(settings)

    return case


def reseal(good: bytes, rng: random.Random) -> bytes:
    """Change a stored text and make the checksum hold again, as someone with intent could."""
    words = (b"weights", b"MobileNet", b'"a"', b"average", b"photos", b"random:", b"identity", b"keras", b"000.png")
    changed = bytearray(good)
    word = rng.choice(words)
    if (at := good.find(word)) >= 0:
        changed[at + rng.randrange(len(word))] ^= 1 << rng.randrange(7)
    with tempfile.NamedTemporaryFile() as file:
        file.write(changed)
        file.flush()
        digest = digest_file(Path(file.name), storeformat.USER_BLOCK)
        header = f"{storeformat.FORMAT} {storeformat.VERSION} sha256={digest}\n".encode()
    return header.ljust(storeformat.USER_BLOCK, b"\0") + bytes(changed[storeformat.USER_BLOCK :])


def manifest_case(folder: Path) -> Case:
    """List a manifest in each format, or a CUB folder's lists."""
    from pyarrow import parquet, table

    columns = {
        "path": [f"a/{row}.jpg" for row in range(9)],
        "label": list("abcabcabc"),
        "group": [None, "é猫"] * 4 + [""],
    }
    parquet.write_table(table(columns), folder / "m.parquet")
    text = b'path,label,group,split\n"a, b.jpg",x,,train\n\xe7\x8c\xab.jpg,"say ""y""",g,test\n' + b"c.jpg,z,g,\n"
    good = {".csv": text, ".tsv": text.replace(b",", b"\t"), ".parquet": (folder / "m.parquet").read_bytes()}
    lists = {"images": b"1 a/x.jpg\n2 b/y.jpg\n", "image_class_labels": b"1 1\n2 2\n", "classes": b"1 a\n2 b\n"}
    (folder / "cub" / "images").mkdir(parents=True)

    def case(rng: random.Random) -> None:
        kind = rng.choice([*good, "cub"])
        if kind == "cub":
            for name, data in lists.items():
                damaged = mutate(data, list(lists.values()), rng) if rng.random() < 0.5 else data
                (folder / "cub" / f"{name}.txt").write_bytes(damaged)
            sources.scan(folder / "cub")
        else:
            (folder / f"m{kind}").write_bytes(mutate(good[kind], list(good.values()), rng))
            sources.scan(folder / f"m{kind}")

    return case


def configuration_case(folder: Path) -> Case:
    """Read a file and an override."""
    from stackcls.stages import init

    entry = "  - {name: a, architecture: MobileNet, arguments: {alpha: 1.0}, weights: random, seed: 3}\n"
    more = f"features:\n  backbones:\n{entry}cv: &c {{folds: 3}}\nweights: {{timeout: 3}}\n"
    good = [init.template().encode(), more.encode(), b"a: &a [x]\nb: [*a, *a]\n<<: {c: d}\n"]

    def case(rng: random.Random) -> None:
        (folder / "pipeline.yaml").write_bytes(mutate(rng.choice(good), good, rng))
        override = mutate(b"features.backbones.0.seed=3", good, rng).decode("latin-1")
        config.read(folder / "pipeline.yaml", [override] if rng.random() < 0.5 else [])

    return case


def model_case(folder: Path) -> Case:
    """Load a model of which either file is damaged; what the checksum does not cover is not to be opened at all."""
    settings = Settings(artifacts=folder / "artifacts")
    write_store(settings.files.features)
    fit.run(settings)
    files = [settings.files.model, settings.files.safe_model, settings.files.model_card]
    good = {path: path.read_bytes() for path in files}

    def case(rng: random.Random) -> None:
        for path, data in good.items():
            path.write_bytes(data)
        damaged = rng.choice(files)
        if rng.random() < 0.9:
            damaged.write_bytes(mutate(good[damaged], list(good.values()), rng))
        path = rng.choice(files[:2])
        fitted = modelfile.load(path)
        if path.read_bytes() != good[path]:
            raise AssertionError("a model with a wrong checksum was opened")
        fitted.predict_features({name: np.zeros((2, WIDTH), np.float32) for name in ("one", "two")})

    return case


CASES: dict[str, Callable[[Path], Case]] = {
    "images": image_case,
    "stores": store_case,
    "manifests": manifest_case,
    "configurations": configuration_case,
    "models": model_case,
}

if __name__ == "__main__":
    main()
