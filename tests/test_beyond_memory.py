"""A matrix of four times the memory allowed is fitted within that, as well as in memory."""

import json
import subprocess
import sys

import numpy as np
import pytest

from stackcls import backbones, storewriter, trainingdata, validation
from stackcls.listener import Silent
from stackcls.settings import Settings
from stackcls.store import ImageTable, MatrixInfo, Store

N_IMAGES, WIDTH, N_CLASSES = 51_200, 2048, 4
ALLOWED = 100  # MiB; the matrix has 400
FEATURES = {"backbones": [{"name": "resnet50", "weights": "random"}]}
FIT = """
import json, sys
import matplotlib.backends.backend_agg, matplotlib.pyplot, mlxtend.evaluate, tabulate
from stackcls.report import html
from stackcls.settings import Settings
from stackcls.stages import fit
def mib(field):
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith(field)) / 1024
before = mib("VmRSS")
report = fit.run(Settings(**json.loads(sys.argv[1]))).report
print(json.dumps({"taken": mib("VmHWM") - before, **{name: score.mean for name, score in report.scores.items()}}))
"""


def write_store(path):
    """Classes that overlap, drawn a thousand rows at a time."""
    y = np.arange(N_IMAGES) * N_CLASSES // N_IMAGES
    centres = 0.03 * np.random.default_rng(0).standard_normal((N_CLASSES, WIDTH), np.float32)

    def chunks():
        for start in range(0, N_IMAGES, 1024):
            rows = np.arange(start, start + 1024)
            yield rows, centres[y[rows]] + np.random.default_rng(start + 1).standard_normal((1024, WIDTH), np.float32)

    (backbone,) = backbones.resolve(Settings(features=FEATURES).features)
    info = MatrixInfo(backbone.identity("random:0", "float32"), {"configured": backbone.to_dict()}, WIDTH)
    paths, digests = (tuple(text.format(row) for row in range(N_IMAGES)) for text in ("{:06d}.jpg", "{:064x}"))
    names = tuple("abcd")
    table = ImageTable(
        paths, digests, ("",) * N_IMAGES, y.astype(np.int32), np.full(N_IMAGES, -1), names, (), {}, "images"
    )
    path.parent.mkdir()
    storewriter.write(path, table, {"resnet50": info}, {"resnet50": chunks()}, {})


def settings(folder, memory):
    return {
        "images": str(folder / "images"),
        "artifacts": str(folder / "artifacts"),
        "features": FEATURES,
        "stack": {"memory": memory},
        "cv": {"folds": 2},
    }


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads the largest memory as Linux says it")
def test_four_times_the_memory_allowed_is_fitted_within_it(tmp_path):
    write_store(tmp_path / "artifacts" / "features.h5")
    assert 4 * N_IMAGES * WIDTH >= 4 * ALLOWED * 2**20
    done = subprocess.run(
        [sys.executable, "-c", FIT, json.dumps(settings(tmp_path, ALLOWED))],
        check=True,
        stdout=subprocess.PIPE,
        text=True,
    )
    found = json.loads(done.stdout)
    assert found["taken"] < ALLOWED
    roomy = Settings(**settings(tmp_path, 10_000))
    with Store(roomy.files.features) as opened:
        data = trainingdata.load(opened, ["resnet50"], roomy, Silent()).data
        assert not data.streamed
        predictions = validation.cross_validate(data, roomy, False, Silent()).predictions
    for name in ("resnet50", "stack"):
        assert 0.5 < found[name] < 0.9
        assert found[name] == pytest.approx(predictions.correct(name).mean(), abs=0.003)
