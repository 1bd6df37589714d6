"""Train the four small backbones of the demo on CIFAR-10, and write them as package data.

    python tools/train_demo_backbones.py CIFAR10_FOLDER [--only NAME] [--epochs N] [--out FOLDER]

CIFAR10_FOLDER holds `train.npz` and `test.npz`: `jpeg` (the files' bytes, joined), `offsets`, `labels`, `classes`.
Each network is a 32x32 miniature of a family that stackcls ships by name: VGG, ResNet, Inception, Xception. A linear
head is trained with it and thrown away; what is saved is the backbone up to its last feature map. A backbone that is
already there is left alone, so an interrupted run goes on with the next one. Beside the models, `training.json` keeps
the seed, the epochs, the parameters and the test accuracy reached. On two cores it takes about an hour.
"""

import argparse
import io
import json
import os
import time
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
import tensorflow as tf
from keras import layers
from PIL import Image

SIZE = 32
PADDING = 4
BATCH = 128
PEAK_RATE = 0.01
WEIGHT_DECAY = 0.02
SEED = 0

Tensor = tf.Tensor


def conv(x: Tensor, width: int, kernel: int = 3, strides: int = 1) -> Tensor:
    """Convolve, normalise, rectify."""
    x = layers.Conv2D(width, kernel, strides=strides, padding="same", use_bias=False)(x)
    return layers.ReLU()(layers.BatchNormalization()(x))


def separable(x: Tensor, width: int) -> Tensor:
    """Rectify, convolve each channel by itself, mix the channels, normalise."""
    x = layers.SeparableConv2D(width, 3, padding="same", use_bias=False)(layers.ReLU()(x))
    return layers.BatchNormalization()(x)


def vgg(x: Tensor) -> Tensor:
    """Plain pairs of 3x3 convolutions between poolings."""
    for narrow, wide in ((16, 32), (64, 64)):
        x = layers.MaxPooling2D()(conv(conv(x, narrow), wide))
    return conv(conv(x, 96), 96)


def resnet(x: Tensor) -> Tensor:
    """Basic residual blocks."""
    x = conv(x, 16)
    for width, strides in ((16, 1), (32, 2), (32, 1), (80, 2), (80, 1)):
        shortcut = x
        if strides > 1:
            shortcut = layers.Conv2D(width, 1, use_bias=False)(layers.AveragePooling2D(2)(x))
            shortcut = layers.BatchNormalization()(shortcut)
        x = conv(x, width, strides=strides)
        x = layers.Conv2D(width, 3, padding="same", use_bias=False)(x)
        x = layers.ReLU()(layers.BatchNormalization()(x) + shortcut)
    return x


def inception(x: Tensor) -> Tensor:
    """Parallel branches of 1x1, 3x3, two 3x3 and pooling, concatenated."""
    x = conv(conv(x, 16), 32, strides=2)
    for width, pool in ((16, False), (32, True), (32, False), (32, False)):
        branches = [
            conv(x, width, 1),
            conv(conv(x, width, 1), 2 * width),
            conv(conv(conv(x, width, 1), width), width),
            conv(layers.AveragePooling2D(3, strides=1, padding="same")(x), width, 1),
        ]
        x = layers.Concatenate()(branches)
        x = layers.MaxPooling2D()(x) if pool else x
    return x


def xception(x: Tensor) -> Tensor:
    """Depthwise separable convolutions with residual connections."""
    x = conv(conv(x, 16), 48, strides=2)
    for width, strides in ((96, 2), (128, 1), (128, 1), (128, 1)):
        shortcut = x
        if width != x.shape[-1]:
            shortcut = layers.Conv2D(width, 1, strides=strides, use_bias=False)(x)
            shortcut = layers.BatchNormalization()(shortcut)
        x = separable(separable(x, width), width)
        x = layers.MaxPooling2D(3, strides=strides, padding="same")(x) if strides > 1 else x
        x = x + shortcut
    return layers.ReLU()(separable(x, 192))


FAMILIES: dict[str, Callable[[Tensor], Tensor]] = {
    "mini_vgg": vgg,
    "mini_resnet": resnet,
    "mini_inception": inception,
    "mini_xception": xception,
}


def read(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Decode one archive to images scaled to -1..1 and integer labels."""
    data = np.load(path)
    jpeg, offsets = data["jpeg"].tobytes(), data["offsets"]
    images = [
        np.asarray(Image.open(io.BytesIO(jpeg[a:b])).convert("RGB")) for a, b in zip(offsets, offsets[1:], strict=False)
    ]
    return np.stack(images).astype("float32") / 127.5 - 1, data["labels"].astype("int64")


def augmented(images: np.ndarray, rng: np.random.Generator) -> Iterator[np.ndarray]:
    """Yield batch after batch of one epoch: indices shuffled, images shifted and mirrored at random."""
    padded = np.pad(images, ((0, 0), (PADDING, PADDING), (PADDING, PADDING), (0, 0)), mode="reflect")
    order = rng.permutation(len(images))
    for start in range(0, len(order) - BATCH + 1, BATCH):
        rows = order[start : start + BATCH]
        tops, lefts = rng.integers(0, 2 * PADDING + 1, (2, BATCH))
        batch = np.stack([padded[r, t : t + SIZE, c : c + SIZE] for r, t, c in zip(rows, tops, lefts, strict=True)])
        mirrored = rng.random(BATCH) < 0.5
        batch[mirrored] = batch[mirrored, :, ::-1]
        yield rows, batch


def one_cycle(steps: int) -> Callable[[int], float]:
    """Warm up over the first fifth of the steps, then fall to zero along a cosine."""
    warm = max(1, steps // 5)

    def rate(step: int) -> float:
        if step < warm:
            return PEAK_RATE * (0.05 + 0.95 * step / warm)
        return PEAK_RATE * 0.5 * (1 + float(np.cos(np.pi * (step - warm) / (steps - warm))))

    return rate


def train(name: str, train_set: tuple, test_set: tuple, epochs: int) -> tuple[keras.Model, dict]:
    """Train one network with its head, and return the backbone and what it reached."""
    keras.utils.set_random_seed(SEED)
    rng = np.random.default_rng(SEED)
    inputs = keras.Input((SIZE, SIZE, 3))
    backbone = keras.Model(inputs, FAMILIES[name](inputs), name=name)
    logits = layers.Dense(10)(layers.GlobalAveragePooling2D()(backbone.output))
    model = keras.Model(inputs, logits)
    optimizer = keras.optimizers.AdamW(PEAK_RATE, weight_decay=WEIGHT_DECAY)
    optimizer.exclude_from_weight_decay(var_names=["gamma", "beta", "bias"])
    loss = keras.losses.CategoricalCrossentropy(from_logits=True, label_smoothing=0.05)
    model.compile(optimizer, loss, metrics=["accuracy"])
    (images, labels), (test_images, test_labels) = train_set, test_set
    targets = np.eye(10, dtype="float32")
    rate = one_cycle(epochs * (len(images) // BATCH))
    step, start = 0, time.perf_counter()
    for epoch in range(epochs):
        for rows, batch in augmented(images, rng):
            optimizer.learning_rate = rate(step)
            logs = model.train_on_batch(batch, targets[labels[rows]], return_dict=True)
            step += 1
        model.reset_metrics()
        print(f"{name} epoch {epoch + 1}/{epochs} {logs} {time.perf_counter() - start:.0f} s", flush=True)
    predicted = model.predict(test_images, batch_size=500, verbose=0).argmax(1)
    accuracy = float((predicted == test_labels).mean())
    return backbone, {
        "test_accuracy": round(accuracy, 4),
        "width": int(backbone.output.shape[-1]),
        "parameters": backbone.count_params(),
        "epochs": epochs,
        "seed": SEED,
    }


def compress(path: Path) -> None:
    """Pack a saved model anew: Keras leaves the archive uncompressed."""
    with zipfile.ZipFile(path) as archive:
        members = {item.filename: archive.read(item) for item in archive.infolist()}
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members.items():
            archive.writestr(zipfile.ZipInfo(name), content, zipfile.ZIP_DEFLATED, 9)


def main() -> None:
    """Train what is missing and keep the record."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cifar10", type=Path)
    parser.add_argument("--only", choices=list(FAMILIES), action="append")
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent.parent / "stackcls" / "data")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    record = args.out / "training.json"
    train_set, test_set = read(args.cifar10 / "train.npz"), read(args.cifar10 / "test.npz")
    for name in args.only or FAMILIES:
        target = args.out / f"{name}.keras"
        if target.exists():
            continue
        backbone, reached = train(name, train_set, test_set, args.epochs)
        backbone.save(target)
        compress(target)
        known = json.loads(record.read_text()) if record.exists() else {}
        record.write_text(json.dumps({**known, name: reached}, indent=2) + "\n")
        print(f"{name}: {reached}, {target.stat().st_size / 1e6:.2f} MB", flush=True)


if __name__ == "__main__":
    main()
