"""What `predict` is pointed at: folders that cannot be listed have rows, and feature files are read piece by piece."""

import json
import os
from pathlib import Path

import numpy as np
import pytest

from stackcls import modelfile
from stackcls.printable import counted
from stackcls.store import Store
from tests.test_predict import model, new, predict

__all__ = ["model", "new", "predict"]  # fixtures


@pytest.mark.parametrize(("options", "expected"), [((), 0), (("--strict",), 1)])
@pytest.mark.parametrize("locked", ["green", "."])
def test_a_folder_that_cannot_be_listed_has_a_row(predict, new, monkeypatch, locked, options, expected):
    real = os.scandir

    def refuse(path):
        if Path(path) == new / locked:
            raise PermissionError(13, "Permission denied", str(path))
        return real(path)

    monkeypatch.setattr(os, "scandir", refuse)
    status, out, err = predict(new, "--format", "json", *options)
    assert status == expected
    rows = [(row["path"], row["error"]) for row in json.loads(out)]
    bad = ((new / locked).as_posix(), "cannot be listed (Permission denied)")
    assert bad in rows
    assert rows == sorted(rows)
    assert len(rows) == (7 if locked == "green" else 1)
    assert f"warning: 1 of {counted(len(rows), 'image')} could not be read" in err


def test_a_feature_file_is_read_piece_by_piece(predict, settings, model, monkeypatch):
    fitted = modelfile.load(model)
    with Store(settings.files.features) as store:
        whole = {name: np.empty((27, info.width), np.float32) for name, info in store.matrices.items()}
        for name, matrix in whole.items():
            store.read_into(name, matrix)
    expected = fitted.predict_proba_features(whole).max(axis=1)
    monkeypatch.setattr("stackcls.store.ROWS", 5)
    for holds_all in ("read_into", "read_rows"):
        monkeypatch.delattr(Store, holds_all)
    _, out, _ = predict(settings.files.features, "--format", "json")
    assert [row["probability"] for row in json.loads(out)] == pytest.approx(expected.tolist())
