"""What a stack has learned predicts as scikit-learn does, without it."""

import subprocess
import sys

import numpy as np

from stackcls import load
from tests import test_safemodel

fitted = test_safemodel.fitted


def test_more_than_two_classes_are_predicted_without_scikit_learn_and_to_the_bit(fitted):
    safe, pickled = load(fitted.files.safe_model), load(fitted.files.model)
    rng = np.random.default_rng(0)
    matrices = {item.backbone.name: rng.random((50, item.width), np.float32) for item in safe.backbones}
    np.testing.assert_array_equal(safe.predict_proba_features(matrices), pickled.predict_proba_features(matrices))
    code = (
        "import sys, numpy; from stackcls import load; model = load(sys.argv[1]); "
        "model.predict_features({item.backbone.name: numpy.zeros((1, item.width)) for item in model.backbones}); "
        "raise SystemExit('sklearn' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code, str(fitted.files.safe_model)], check=False).returncode == 0
