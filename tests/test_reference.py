"""Accuracy and features on real photos with real weights, against the plain script and its figures."""

import shutil
import sys
from pathlib import Path

import numpy as np
import pytest

from stackcls.stages import features, fit
from stackcls.store import Store
from tests.conftest import SHARED, needs_shared
from tests.reference import MOBILENETS, settings_for
from tests.test_benchmarks import label_suspects

pytestmark = [pytest.mark.slow, needs_shared]

FIGURES = {
    "flowers17": (0.9338, 0.9221, 0.9147, 0.9235, 0.9530),
    "birds20": (0.9502, 0.9468, 0.9189, 0.9443, 0.9654),
}


@pytest.mark.parametrize("data", FIGURES)
def test_the_published_figures_are_reproduced(extracted, data):
    scores = fit.run(extracted[data]).report.scores
    names = [name for name, *_ in MOBILENETS]
    for name, figure in zip([*names, "stack"], FIGURES[data], strict=True):
        assert scores[name].mean == pytest.approx(figure, abs=0.005), name
    assert scores["stack"].mean > max(scores[name].mean for name in names)


@pytest.mark.parametrize(("data", "images", "wanted"), [("flowers17", "", 0.83), ("birds20", "images", 0.93)])
def test_flipped_labels_are_found(extracted, tmp_path, data, images, wanted):
    manifest = tmp_path / "flipped.csv"
    wrong = label_suspects.write_flipped(SHARED / "data" / data / images, manifest, seed=0)
    settings = extracted[data].model_copy(update={"images": manifest, "artifacts": tmp_path / "artifacts"})
    shutil.copytree(extracted[data].artifacts, settings.artifacts)
    assert not any(features.run(settings, offline=True).computed.values())
    precision, flagged, right = label_suspects.found(settings, wrong)
    assert precision >= wanted
    assert right / flagged > 0.75
    assert right / len(wrong) > 0.85


def test_features_agree_with_the_plain_script(extracted, monkeypatch):
    monkeypatch.syspath_prepend(str(SHARED / "reference"))
    monkeypatch.setattr(sys, "argv", ["article.py"])
    import article

    with Store(extracted["flowers17"].files.features) as store:
        files = [SHARED / "data" / "flowers17" / path for path in store.table.paths[::4]]
        for name, theirs in article.extract(files, "mobilenets").items():
            ours = np.empty((len(store.table.paths), store.matrices[name].width), np.float32)
            store.read_into(name, ours)
            ours = ours[::4]
            cosine = (ours * theirs).sum(1) / np.linalg.norm(ours, axis=1) / np.linalg.norm(theirs, axis=1)
            assert cosine.min() > 0.9999, name


def test_the_cub_layout_gives_the_rows_of_its_class_folders(extracted, tmp_path):
    folders = settings_for(SHARED / "data" / "birds20" / "images", tmp_path)
    features.run(folders, offline=True)
    with Store(extracted["birds20"].files.features) as cub, Store(folders.files.features) as plain:
        assert cub.table.paths == plain.table.paths
        assert cub.table.sha256 == plain.table.sha256
        assert cub.table.class_names == plain.table.class_names
        assert np.array_equal(cub.table.labels, plain.table.labels)
        assert set(cub.table.splits) == {"train", "test"}
        assert set(plain.table.splits) == {""}
        for name in cub.matrices:
            one, other = (np.empty((len(cub.table.paths), cub.matrices[name].width), np.float32) for _ in range(2))
            cub.read_into(name, one)
            plain.read_into(name, other)
            assert np.array_equal(one, other)


def test_classes_left_out_are_told_from_the_others(extracted, monkeypatch):
    # The largest of the averaged probabilities gives 0.931 for these five.
    monkeypatch.syspath_prepend(str(Path(__file__).resolve().parent.parent / "benchmarks"))
    import left_out

    with Store(extracted["birds20"].files.features) as store:
        data = left_out.load(store, None, extracted["birds20"])
        areas = left_out.measure(data, np.arange(15, 20), extracted["birds20"])
    averaged, *_, ours = areas
    assert ours >= 0.95
    assert ours > averaged + 0.015


@pytest.mark.parametrize("data", FIGURES)
def test_what_the_report_says_of_rejecting_is_what_happens(extracted, monkeypatch, data):
    # Five classes and a quarter of the known images, apart from all fits. How hard classes are differs more from one
    # draw to another than the mean of three may be off.
    monkeypatch.syspath_prepend(str(Path(__file__).resolve().parent.parent / "benchmarks"))
    import left_out

    with Store(extracted[data].files.features) as store:
        rows = left_out.load(store, None, extracted[data])
        found = [left_out.apart(rows, 5, extracted[data], seed, 0.5) for seed in range(3)]
    for what, once, mean in [("labelled", 0.1, 0.05), ("rejected", 0.2, 0.08)]:
        gaps = [item[f"{what}, apart"] - item[f"{what}, said"] for item in found]
        assert np.abs(gaps).max() < once, what
        assert abs(np.mean(gaps)) < mean, what
    assert np.mean([item["area, apart"] - item["of the largest probability"] for item in found]) > 0.005
