"""Pooled features by thingsvision's Keras extractors, as its documentation says; runs in its own environment.

    python thingsvision_features.py FOLDER [--backbones vgg19 ...] [--save X.npz] [--report X.json]

The folder holds images and no folders: with class folders, thingsvision 2.7.3 cannot be told which images to take.
The last feature map is averaged over its positions, as the other sides do. thingsvision builds its networks with
their classification layers; the layers asked for come before these, so their arithmetic is not done.
"""

import argparse
import contextlib
import json
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

# Name in thingsvision, and the layer whose average over positions is what `pooling="avg"` gives elsewhere.
NETWORKS = {
    "vgg19": ("VGG19", "block5_pool"),
    "resnet50": ("ResNet50", "avg_pool"),
    "inception_v3": ("InceptionV3", "avg_pool"),
    "xception": ("Xception", "avg_pool"),
}
BATCH = 32


class Clocked:
    """Batches of a loader, with the seconds spent on making them."""

    def __init__(self, batches: Any) -> None:
        self._batches = batches
        self.seconds = 0.0

    def __len__(self) -> int:
        """Number of batches, which thingsvision's progress bar asks for."""
        return len(self._batches)

    def __iter__(self) -> Iterator[Any]:
        """Yield the batches."""
        iterator = iter(self._batches)
        while True:
            start = time.perf_counter()
            batch = next(iterator, None)
            self.seconds += time.perf_counter() - start
            if batch is None:
                return
            yield batch


def extract(name: str, images: Path, order: str) -> tuple[Any, dict[str, float]]:
    """Build one extractor and run all images through it; return features and seconds per stage."""
    from thingsvision import get_extractor
    from thingsvision.utils.data import DataLoader, ImageDataset

    network, layer = NETWORKS[name]
    begin = time.perf_counter()
    extractor = get_extractor(model_name=network, source="keras", device="cpu", pretrained=False)
    built = time.perf_counter()
    dataset = ImageDataset(
        root=str(images),
        out_path=order,
        backend=extractor.get_backend(),
        transforms=extractor.get_transformations(),
    )
    batches = Clocked(DataLoader(dataset=dataset, batch_size=BATCH, backend=extractor.get_backend()))
    features = extractor.extract_features(batches=batches, module_name=layer, flatten_acts=False)
    if features.ndim == 4:
        features = features.mean(axis=(1, 2))
    end = time.perf_counter()
    inference = end - built - batches.seconds
    return features, {"build": built - begin, "decode": batches.seconds, "inference": inference}


def main() -> None:
    """Extract, say how long it took, and save."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("images", type=Path, nargs="?")
    parser.add_argument("--backbones", nargs="+", choices=list(NETWORKS), default=list(NETWORKS))
    parser.add_argument("--save", type=Path)
    parser.add_argument("--report", type=Path)
    parser.add_argument("--check", action="store_true", help="only try whether thingsvision can be imported")
    arguments = parser.parse_args()
    begin = time.perf_counter()
    with contextlib.redirect_stdout(sys.stderr):
        import thingsvision
    seconds = {"import": time.perf_counter() - begin}
    if arguments.check:
        print(f"thingsvision {thingsvision.__version__}")
        return
    matrices, per_backbone = {}, {}
    with tempfile.TemporaryDirectory() as order:
        for name in arguments.backbones:
            with contextlib.redirect_stdout(sys.stderr):
                matrices[name], spent = extract(name, arguments.images, order)
            per_backbone[name] = spent["inference"]
            for stage, value in spent.items():
                seconds[stage] = seconds.get(stage, 0.0) + value
            print(f"{name:16s} {matrices[name].shape} {sum(spent.values()):8.1f} s", flush=True)
    if arguments.save:
        import numpy

        start = time.perf_counter()
        numpy.savez(arguments.save, **matrices)
        seconds["write"] = time.perf_counter() - start
    if arguments.report:
        count = len(next(iter(matrices.values())))
        rates = {name: count / value for name, value in per_backbone.items()}
        arguments.report.write_text(json.dumps({"stages": seconds, "rates": rates}))


if __name__ == "__main__":
    main()
