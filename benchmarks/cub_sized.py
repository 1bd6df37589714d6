"""Seeded stand-ins for features of CUB-200-2011: its numbers of images and classes, and the article's four widths.

The images cannot be shipped, but time and memory of a fit depend on the features through their size, their spectrum and
how well they separate the classes, and these can be copied. Pooled activations of the MobileNets on real photos showed:
no negative values, a fifth to a third zeros, a standard deviation of 1.5 times the mean, variances along the principal
directions that fall about as 1/i over the first hundred and faster after that, most of it within classes. Here each
image has latent coordinates of such a spectrum, its class's centre plus its own deviation; each backbone sees them
turned by a random matrix, with a deviation of its own, through a rectifier.

    python benchmarks/cub_sized.py [--shared ../shared] [--folder F] [--skip-script]

runs `stackcls fit --cv 3` and then the plain script (one BLAS thread) on the same features, and prints the time of
fitting alone, processor time, accuracies, and how much memory fitting takes on top of what the imports take.
"""

import argparse
import json
import math
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from against_script import ROOT, measure
from numpy.typing import NDArray

N_IMAGES, N_CLASSES = 11_788, 200
WIDTHS = {"inception_v3": 2048, "resnet50": 2048, "vgg19": 512, "xception": 2048}
MEANS = {"inception_v3": 0.40, "resnet50": 0.45, "vgg19": 0.60, "xception": 0.25}
LATENT = 600
BETWEEN = 0.085  # share of the variance that lies between classes, in the directions that tell them apart
OWN = 0.35  # share of an image's deviation that each backbone sees in its own way
FEATURES = {"backbones": [{"name": name, "weights": "random", "seed": 0} for name in WIDTHS]}
# VmHWM begins with the program; `ru_maxrss` would begin with what the parent had, which wrote all matrices.
FIT = """
import json, resource, sys, time
import matplotlib.backends.backend_agg, matplotlib.pyplot, mlxtend.evaluate, tabulate
from stackcls.settings import Settings
from stackcls.stages import fit
def mib(field):
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith(field)) / 1024
imported = mib("VmRSS")
report = fit.run(Settings(**json.loads(sys.argv[1]))).report
usage = resource.getrusage(resource.RUSAGE_SELF)
scores = {name: score.mean for name, score in report.scores.items()}
print(json.dumps({"seconds": report.seconds, "processor": usage.ru_utime + usage.ru_stime, "accuracy": scores,
                  "imported": imported, "peak": mib("VmHWM")}))
"""

Features = NDArray[np.float32]


def class_sizes(n_images: int = N_IMAGES, n_classes: int = N_CLASSES) -> NDArray[np.int64]:
    """Nearly equal numbers of images per class, as in CUB."""
    return np.full(n_classes, n_images // n_classes) + (np.arange(n_classes) < n_images % n_classes)


def labels(n_images: int = N_IMAGES, n_classes: int = N_CLASSES) -> NDArray[np.int64]:
    """Class of each image, sorted, as a folder of classes lists them."""
    return np.repeat(np.arange(n_classes), class_sizes(n_images, n_classes))


def matrices(n_images: int = N_IMAGES, n_classes: int = N_CLASSES, seed: int = 0) -> Iterator[tuple[str, Features]]:
    """Yield each backbone's name and features, shape (n_images, width)."""
    rng = np.random.default_rng(seed)
    place = np.arange(1, LATENT + 1)
    spread = (place**-0.5 * (1 + place / 100) ** -0.5).astype(np.float32)
    centres = rng.standard_normal((n_classes, LATENT), np.float32) * math.sqrt(BETWEEN)
    centres[:, :3] *= 0.5  # the strongest directions are pose and background, not species
    shared = rng.standard_normal((n_images, LATENT), np.float32)
    for name, width in WIDTHS.items():
        own = rng.standard_normal((n_images, LATENT), np.float32)
        deviation = math.sqrt(1 - OWN) * shared + math.sqrt(OWN) * own
        latent = (centres[labels(n_images, n_classes)] + math.sqrt(1 - BETWEEN) * deviation) * spread
        turned = latent @ rng.standard_normal((LATENT, width), np.float32)
        turned /= turned.std()
        turned += 0.5 + 0.5 * rng.standard_normal(width, np.float32)
        turned += 0.15 * rng.standard_normal(turned.shape, np.float32)
        np.maximum(turned, 0, out=turned)
        turned *= np.exp(0.5 * rng.standard_normal(width, np.float32))
        turned *= MEANS[name] / turned.mean()
        yield name, turned


def write_inputs(folder: Path) -> tuple[Path, Path]:
    """Write the script's input, a folder of empty images and an npz file, and stackcls's, a store."""
    from stackcls import backbones, store, storewriter
    from stackcls.settings import Settings

    classes = [f"{number:03d}" for number in range(N_CLASSES)]
    paths = [f"{classes[label]}/{row:05d}.jpg" for row, label in enumerate(labels())]
    for path in paths:
        (folder / "images" / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / "images" / path).touch()
    features = dict(matrices())
    np.savez(folder / "features.npz", **features)
    count = len(paths)
    table = store.ImageTable(
        tuple(paths),
        tuple(f"{row:064x}" for row in range(count)),
        ("",) * count,
        labels().astype(np.int32),
        np.full(count, -1),
        tuple(classes),
        (),
        {},
        "images",
    )
    infos = {}
    for backbone in backbones.resolve(Settings(features=FEATURES).features):
        identity = backbone.identity("random:0", "float32")
        infos[backbone.name] = store.MatrixInfo(identity, {"configured": backbone.to_dict()}, WIDTHS[backbone.name])
    chunks = {name: [(np.arange(count), matrix)] for name, matrix in features.items()}
    (folder / "artifacts").mkdir(exist_ok=True)
    storewriter.write(folder / "artifacts" / "features.h5", table, infos, chunks, {})
    return folder / "images", folder / "features.npz"


def compare(shared: Path, folder: Path, with_script: bool) -> None:
    """Fit on both sides, one after the other, and print what it took."""
    images, saved = write_inputs(folder)
    settings = {"images": str(images), "artifacts": str(folder / "artifacts"), "features": FEATURES}
    settings["report"] = {"depth": "quick"}  # the work that the script does, and no more
    _, _, text = measure([sys.executable, "-c", FIT, json.dumps(settings)])
    ours = json.loads(text.strip().splitlines()[-1])
    largest = N_IMAGES * max(WIDTHS.values()) * 4 / 2**20
    added = ours["peak"] - ours["imported"]
    print(f"stackcls: {ours['seconds']:.1f} s, of processors {ours['processor']:.1f} s")
    print(
        f"memory: peak {ours['peak']:.0f} MiB, after imports {ours['imported']:.0f}, so {added:.0f} MiB for fitting: "
        f"{added / largest:.2f} times the largest matrix ({largest:.0f} MiB)"
    )
    if not with_script:
        print(ours["accuracy"])
        return
    script = [
        sys.executable,
        str(shared / "reference" / "article.py"),
        str(images),
        "--stage",
        "fit",
        "--save",
        str(saved),
    ]
    _, memory, text = measure(script, {"OMP_NUM_THREADS": "1"})
    theirs = json.loads(text.strip().splitlines()[-1])
    print(f"script: {theirs['fit_seconds']:.1f} s, peak {memory:.0f} MiB")
    for name, accuracy in theirs["accuracy"].items():
        print(f"  {name:14s} stackcls {ours['accuracy'][name]:.4f} script {accuracy:.4f}")
    print(f"fit at CUB's size: ratio {theirs['fit_seconds'] / ours['seconds']:.2f}")


def main() -> None:
    """Run the comparison."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shared", type=Path, default=ROOT.parent / "shared")
    parser.add_argument("--folder", type=Path, help="where to keep the features; by default a temporary folder")
    parser.add_argument("--skip-script", action="store_true", help="it takes many minutes")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = arguments.folder or Path(name)
        compare(arguments.shared.resolve(), folder.resolve(), not arguments.skip_script)


if __name__ == "__main__":
    main()
