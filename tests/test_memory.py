"""Memory does not grow with the number of batches; slow: a real network, a thousand times."""

import numpy as np
import psutil
import pytest

from stackcls import backbones, config, engines, extraction
from stackcls.backbones import Located
from stackcls.extraction import ImageInput
from stackcls.files import digest_file
from stackcls.matrices import bare

WARM_UP, BATCHES, BATCH = 200, 1000, 8


@pytest.mark.slow
@pytest.mark.parametrize("name", ["openvino", "tensorflow"])
def test_a_thousand_batches_take_no_more_memory_than_a_few(name):
    backbone = backbones.resolve(config.build({"features": {"backbones": ["mini_vgg"]}}).features)[0]
    located = Located(backbone, backbone.file, backbone.identity(digest_file(backbone.file), "float32"))
    extractor = engines.choose(name, "float32").engine.prepare(located, BATCH)
    image = np.random.default_rng(0).integers(0, 256, (200, 300, 3), dtype=np.uint8)
    inputs = (ImageInput(str(number), image) for number in range((WARM_UP + BATCHES) * BATCH))
    process, before = psutil.Process(), 0
    for number, _ in enumerate(extraction.extract(inputs, {"b": bare(extractor)}, BATCH)):
        if number == WARM_UP:
            before = process.memory_info().rss
    # A thousand batches of resized images are 25 MB, of decoded ones 1,440.
    assert process.memory_info().rss - before < 12 * 2**20
