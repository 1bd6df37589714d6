"""`cv_predictions.csv` and `cv_probabilities.npy`: a row per image, in agreement with the report."""

import numpy as np

from stackcls.stages import fit
from stackcls.store import Store
from tests.conftest import read_csv


def test_scores_agree_with_the_predictions_file(hard):
    report = fit.run(hard).report
    rows = read_csv(hard.files.predictions)
    for learner, column in (("stack", "predicted"), ("one", "one"), ("two", "two")):
        folds = [[row["label"] == row[column] for row in rows if row["fold"] == str(number)] for number in range(3)]
        np.testing.assert_allclose(report.scores[learner].folds, [np.mean(fold) for fold in folds])
    counts = np.zeros((4, 4), dtype=int)
    for row in rows:
        counts[report.classes.index(row["label"]), report.classes.index(row["predicted"])] += 1
    assert report.confusion == counts.tolist()
    assert {name: score.support for name, score in report.per_class.items()} == dict.fromkeys(report.classes, 15)


def test_predictions_file_has_a_row_for_each_image(hard):
    fit.run(hard)
    header = hard.files.predictions.read_text("utf-8")
    assert header.splitlines()[0] == "path,label,fold,predicted,probability,one,two"
    rows = read_csv(hard.files.predictions)
    with Store(hard.files.features) as store:
        assert [row["path"] for row in rows] == list(store.table.paths)
    assert all(row["path"].split("/")[0] == row["label"] for row in rows)
    assert all(0.25 <= float(row["probability"]) <= 1 for row in rows)


def test_probabilities_belong_to_the_rows_of_the_predictions_file(hard):
    report = fit.run(hard).report
    shares, rows = np.load(hard.files.probabilities), read_csv(hard.files.predictions)
    assert shares.dtype == np.float32
    assert shares.shape == (60, 4)
    assert [report.classes[best] for best in shares.argmax(axis=1)] == [row["predicted"] for row in rows]
    np.testing.assert_allclose(shares.max(axis=1), [float(row["probability"]) for row in rows], atol=1e-6)
