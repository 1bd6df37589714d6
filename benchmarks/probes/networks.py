"""Multiply-adds of the article's networks, counted from the Keras models. Prints JSON.

Convolutions and dense layers count; batch normalisation, activations and pooling do not: they are less than 1 %, and a
good engine folds them in.
"""

import json
import math
import os
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

NETWORKS = {"vgg19": ("VGG19", 224), "resnet50": ("ResNet50", 224), "inception_v3": ("InceptionV3", 299)}
NETWORKS |= {"xception": ("Xception", 299)}


def multiply_adds(layer: Any) -> int:
    """Multiply-adds of one layer for one image."""
    kind = type(layer).__name__
    if kind == "Dense":
        return math.prod(layer.kernel.shape)
    if kind not in {"Conv2D", "DepthwiseConv2D", "SeparableConv2D"}:
        return 0
    _, height, width, _ = layer.output.shape
    # Each weight of a convolution is used once per position of its output, per-channel ones too.
    return height * width * sum(math.prod(weight.shape) for weight in layer.weights if len(weight.shape) == 4)


def main() -> None:
    """Count all networks."""
    from keras import applications

    counts = {}
    for name, (function, size) in NETWORKS.items():
        model = getattr(applications, function)(weights=None, include_top=False, input_shape=(size, size, 3))
        counts[name] = sum(multiply_adds(layer) for layer in model.layers)
    print(json.dumps(counts))


if __name__ == "__main__":
    main()
