"""The four small backbones of the package: their record, and whether they are as good as it says."""

import io
import json

import numpy as np
import pytest
from PIL import Image

from stackcls import backbones, config, engines, matrices
from stackcls.backbones import Located
from stackcls.files import digest_file
from tests.conftest import SHARED, needs_shared

RECORD = json.loads(backbones.bundled_file("training").with_suffix(".json").read_text())
BATCH = 500


@pytest.mark.parametrize("name", backbones.BUNDLED)
def test_each_is_small_and_was_trained_well(name):
    assert backbones.bundled_file(name).stat().st_size < 1_000_000
    assert RECORD[name]["test_accuracy"] >= 0.84


def photos(file: str, count: int) -> tuple[np.ndarray, np.ndarray]:
    data = np.load(SHARED / "data" / "cifar10" / file)
    jpeg, offsets = data["jpeg"].tobytes(), data["offsets"]
    decoded = [
        np.asarray(Image.open(io.BytesIO(jpeg[offsets[row] : offsets[row + 1]])).convert("RGB")) for row in range(count)
    ]
    return np.stack(decoded), data["labels"][:count]


@pytest.mark.slow
@needs_shared
@pytest.mark.parametrize("name", backbones.BUNDLED)
def test_a_linear_probe_reaches_what_the_record_says(name):
    """The head that was trained with a backbone is not shipped; one fitted on its features must do about as well."""
    from sklearn.linear_model import LogisticRegression

    settings = config.build({"features": {"backbones": [name]}})
    backbone = backbones.resolve(settings.features)[0]
    located = Located(backbone, backbone.file, backbone.identity(digest_file(backbone.file), "float32"))
    extractor = engines.choose("auto", "float32").engine.prepare(located, BATCH)
    pool = matrices.pool_of(located)
    assert (extractor.input_size, extractor.width) == (32, RECORD[name]["width"])

    def features(images: np.ndarray) -> np.ndarray:
        return np.concatenate([pool([extractor(images[row : row + BATCH])]) for row in range(0, len(images), BATCH)])

    (train, labels), (test, test_labels) = photos("train.npz", 20_000), photos("test.npz", 10_000)
    probe = LogisticRegression(max_iter=300).fit(features(train), labels)
    assert probe.score(features(test), test_labels) > RECORD[name]["test_accuracy"] - 0.015
