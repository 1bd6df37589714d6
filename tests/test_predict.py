"""`stackcls predict`: one row per input, in order, in three formats."""

import csv
import io
import json
import sys

import joblib
import pytest
import yaml

from stackcls import engines
from stackcls.stages import features, fit
from tests.conftest import FAKE_BACKBONES, make_settings, write_photo, write_photos


@pytest.fixture
def model(settings, fake_engine):
    """Path of a fitted model."""
    features.run(settings)
    fit.run(settings)
    return settings.files.model


@pytest.fixture
def new(tmp_path):
    """Three new photos of each class."""
    return write_photos(tmp_path / "new", 3, seed=5)


@pytest.fixture
def predict(stackcls, model):
    """`stackcls predict` with the model; gives status, standard output and standard error."""
    return lambda *arguments: stackcls("predict", *arguments, "--model", model)


def write_broken(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"no image")
    return path


def test_json_is_as_promised(predict, model, new, tmp_path):
    image, broken = new / "red" / "01.png", write_broken(tmp_path / "broken.png")
    status, out, err = predict(image, broken, "--format", "json")
    assert status == 0
    assert out.endswith("]\n")
    good, bad = json.loads(out)
    assert list(good) == list(bad) == ["path", "label", "probability", "top", "error"]
    shares = joblib.load(model).predict_proba([image])[0]
    ranked = sorted(zip(["blue", "green", "red"], shares.tolist(), strict=True), key=lambda pair: -pair[1])
    assert good == {
        "path": str(image),
        "label": "red",
        "probability": pytest.approx(shares[2]),
        "top": [{"label": label, "probability": pytest.approx(share)} for label, share in ranked],
        "error": None,
    }
    assert (bad["path"], bad["label"], bad["probability"], bad["top"]) == (str(broken), None, None, [])
    assert bad["error"].startswith("not an image that can be read")
    assert err == "warning: 1 of 2 images could not be read\n"


def test_csv_is_as_promised(predict, model, new, tmp_path):
    image, broken = new / "red" / "01.png", write_broken(tmp_path / 'a "b", c.png')
    status, out, _ = predict(image, broken, "--format", "csv")
    assert status == 0
    rows = list(csv.reader(io.StringIO(out)))
    assert rows[0] == ["path", "label", "probability", "error"]
    assert rows[1] == [str(image), "red", f"{joblib.load(model).predict_proba([image])[0, 2]:.6f}", ""]
    assert rows[2][:3] == [str(broken), "", ""]
    assert rows[2][3].startswith("not an image that can be read")
    assert len(rows) == 3


def test_table_is_for_reading(predict, new, tmp_path):
    broken = write_broken(tmp_path / "a|b.png")
    status, out, _ = predict(new / "red" / "01.png", broken)
    assert status == 0
    lines = out.splitlines()
    assert [cell.strip() for cell in lines[0].split("|")[1:-1]] == ["image", "label", "probability", "next"]
    assert f"| {new / 'red' / '01.png'}" in lines[2]
    assert [cell.strip() for cell in lines[2].split("|")[2:4]] == ["red", "1.000"]
    assert "error: not an image" in lines[3]
    assert "a\\|b.png" in lines[3]
    assert {line.replace("\\|", "").count("|") for line in lines if line} == {5}


def test_a_folder_is_searched_in_order(predict, new):
    (new / "notes.txt").write_text("no image")
    (new / ".hidden.png").write_text("no image")
    _, out, _ = predict(new, "--format", "json")
    rows = json.loads(out)
    assert [row["path"] for row in rows] == sorted(path.as_posix() for path in new.glob("*/*.png"))
    assert [row["label"] for row in rows] == ["blue"] * 3 + ["green"] * 3 + ["red"] * 3


def test_inputs_keep_the_order_given(predict, new):
    given = [new / "red" / "02.png", new / "blue", new / "red" / "00.png", new / "red" / "02.png"]
    _, out, _ = predict(*given, "--format", "json")
    expected = [given[0], *sorted(given[1].glob("*.png")), given[2], given[3]]
    assert [row["path"] for row in json.loads(out)] == [str(path) for path in expected]


def test_a_bad_image_among_twenty_keeps_its_row(predict, model, tmp_path):
    images = sorted(write_photos(tmp_path / "many", 7, seed=3).glob("*/*.png"))[:20]
    for position in (7, 19):
        write_broken(images[position])
    status, out, err = predict(*images, "--format", "json")
    assert status == 0
    rows = json.loads(out)
    assert [row["path"] for row in rows] == [str(path) for path in images]
    assert [at for at, row in enumerate(rows) if row["error"]] == [7, 19]
    for path, row in zip(images, rows, strict=True):
        # Each on its own, so that no neighbour can have lent its features.
        if row["error"] is None:
            alone = joblib.load(model).predict_proba([path])[0]
            assert row["probability"] == pytest.approx(alone.max())
    assert "warning: 2 of 20 images could not be read" in err


def test_only_bad_images(predict, tmp_path):
    status, out, err = predict(write_broken(tmp_path / "a.png"), tmp_path / "gone.jpg", "--format", "json")
    assert status == 0
    assert [row["error"].split(" (")[0] for row in json.loads(out)] == [
        "not an image that can be read",
        "file not found",
    ]
    assert "2 of 2 images" in err


@pytest.mark.parametrize(("bad", "expected"), [(True, 1), (False, 0)])
def test_strict(predict, new, tmp_path, bad, expected):
    extra = [write_broken(tmp_path / "a.png")] if bad else []
    status, out, _ = predict(new, *extra, "--strict", "--format", "json")
    assert status == expected
    assert len(json.loads(out)) == 9 + bad


@pytest.mark.parametrize(("top", "expected"), [(1, 1), (2, 2), (3, 3), (50, 3)])
def test_top(predict, new, top, expected):
    _, out, _ = predict(new / "red", "--top", top, "--format", "json")
    for row in json.loads(out):
        shares = [guess["probability"] for guess in row["top"]]
        assert len(shares) == expected
        assert shares == sorted(shares, reverse=True)
        assert (row["label"], row["probability"]) == (row["top"][0]["label"], shares[0])


@pytest.mark.parametrize("end", [b"\n", b"\r\n"])
def test_paths_on_standard_input(predict, monkeypatch, tmp_path, end):
    names = ["猫 犬.png", " leading space.png", 'ünï, "quoted".png', "gone.png"]
    for name in names[:3]:
        write_photo(tmp_path / "in" / name, (190, 70, 60), 1)
    monkeypatch.chdir(tmp_path / "in")
    # A blank line is no path, spaces are part of one, and the last line need not end.
    text = end.join([b"", *(name.encode() for name in names)])
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(text), "latin-1"))
    _, out, _ = predict("-", "--format", "json")
    rows = json.loads(out)
    assert [row["path"] for row in rows] == names
    assert [row["label"] for row in rows] == ["red"] * 3 + [None]
    assert rows[3]["error"] == "file not found"


def test_nothing_on_standard_input(predict, monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"\n")))
    status, out, err = predict("-")
    assert (status, out) == (1, "")
    assert err.startswith("error: no paths on standard input")


@pytest.mark.parametrize("form", ["json", "csv", "table"])
def test_non_ascii_paths_and_classes_are_kept(stackcls, fake_engine, tmp_path, form):
    settings = make_settings(write_photos(tmp_path / "фото", 6, ["猫", "犬", "ñandú"]), tmp_path / "artéfacts")
    features.run(settings)
    fit.run(settings)
    image = settings.images / "猫" / "00.png"
    status, out, _ = stackcls("predict", image, "--artifacts", settings.artifacts, "--format", form)
    assert status == 0
    assert str(image) in out
    assert all(name in out for name in (["猫"] if form == "csv" else ["猫", "犬", "ñandú"]))


@pytest.mark.parametrize("form", ["json", "csv", "table"])
def test_a_name_that_is_no_utf_8_is_escaped(predict, new, form):
    strange = new / "red" / "\udcff.png"
    strange.write_bytes((new / "red" / "00.png").read_bytes())
    status, out, err = predict(new, "--format", form)
    assert (status, err) == (0, "")
    assert "\\udcff.png" in out
    if form == "json":
        assert [row["label"] for row in json.loads(out) if row["path"] == str(strange)] == ["red"]


def test_a_feature_file_as_input(predict, settings, model):
    status, out, _ = predict(settings.files.features, "--format", "json")
    assert status == 0
    rows = json.loads(out)
    images = sorted(settings.images.glob("*/*.png"))
    assert [row["path"] for row in rows] == [path.relative_to(settings.images).as_posix() for path in images]
    shares = joblib.load(model).predict_proba(images)
    assert [row["probability"] for row in rows] == pytest.approx(shares.max(axis=1).tolist())


@pytest.mark.parametrize(
    ("backbones", "message"),
    [
        (FAKE_BACKBONES[:1], "has features of one; the model needs 'two'"),
        ([FAKE_BACKBONES[0], {**FAKE_BACKBONES[1], "seed": 8}], "weights: 'random:2' against 'random:8'"),
        ([FAKE_BACKBONES[0], {**FAKE_BACKBONES[1], "pooling": "max"}], "pooling: 'average' against 'max'"),
    ],
)
def test_a_feature_file_of_other_backbones_is_refused(predict, photos, tmp_path, backbones, message):
    other = make_settings(photos, tmp_path / "other", features={"backbones": backbones})
    features.run(other)
    status, out, err = predict(other.files.features)
    assert (status, out) == (1, "")
    assert message in err


def test_the_model_of_the_configuration_is_used(stackcls, model, new, tmp_path, monkeypatch):
    (tmp_path / "pipeline.yaml").write_text(yaml.safe_dump({"artifacts": str(model.parent)}))
    monkeypatch.chdir(tmp_path)
    status, out, _ = stackcls("predict", "new/red", "--format", "csv")
    assert status == 0
    assert [row["path"] for row in csv.DictReader(io.StringIO(out))] == [
        f"new/red/0{number}.png" for number in range(3)
    ]


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (["new", "--model", "gone.joblib"], 1, "error: gone.joblib: no such file; `stackcls fit` writes model."),
        (["new", "--model", "gone.safetensors"], 1, "error: gone.safetensors: no such file; `stackcls fit` writes"),
        (["new"], 1, "error: artifacts/model.safetensors: no such file"),
        (["gone", "--model", "MODEL"], 1, "error: gone: no such file or folder"),
        (["empty", "--model", "MODEL"], 1, "error: no images in empty; looked for .bmp"),
        (["gone.h5", "--model", "MODEL"], 1, "error: gone.h5: no feature file there"),
        ([], 2, "Missing argument"),
        (["new", "--top", "0"], 2, "Invalid value for '--top'"),
        (["new", "--format", "xml"], 2, "Invalid value for '--format'"),
    ],
)
def test_what_cannot_be_done(stackcls, settings, fake_engine, new, monkeypatch, tmp_path, arguments, status, message):
    if "MODEL" in arguments:
        features.run(settings)
        fit.run(settings)
    settings.artifacts.exists() and settings.artifacts.rename(tmp_path / "kept")
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path)
    found, out, err = stackcls("predict", *(word.replace("MODEL", "kept/model.joblib") for word in arguments))
    assert (found, out) == (status, "")
    assert message in err
    assert "Traceback" not in err


def test_the_engine_is_the_settings_and_the_features_are_the_models(stackcls, settings, model, new, monkeypatch):
    asked = []
    choose = engines.choose
    monkeypatch.setattr(engines, "choose", lambda name, precision: asked.append(name) or choose(name, precision))
    options = [
        "--set",
        "features.engine=openvino",
        "--set",
        "features.precision=int8",
        "--set",
        "features.batch_size=2",
    ]
    plain = stackcls("predict", new, "--model", model)
    status, out, err = stackcls("predict", new, "--model", model, *options)
    assert (status, out) == plain[:2]
    assert asked == ["auto", "openvino"]
    assert err == (
        "warning: features.precision: 'int8' is not used: the model was fitted on float32 features, and predicts with "
        "such; for others run `stackcls features` and `stackcls fit`\n"
    )
    status, _, err = stackcls("evaluate", new, "--model", model, *options)
    assert (status, asked[-1]) == (0, "openvino")
    assert "features.precision: 'int8' is not used" in err
    assert stackcls("predict", new, "--model", model, "--set", "features.engine=opencv")[0] == 2


def test_without_a_name_the_model_that_executes_nothing_is_taken(stackcls, settings, model, new, monkeypatch):
    def refuse(*arguments):
        raise AssertionError("a pickle was opened")

    with monkeypatch.context() as patched:
        patched.setattr(joblib, "load", refuse)
        assert stackcls("predict", new, "--artifacts", settings.artifacts)[0] == 0
        assert stackcls("evaluate", new, "--artifacts", settings.artifacts)[0] == 0
    settings.files.safe_model.unlink()
    assert stackcls("predict", new, "--artifacts", settings.artifacts)[0] == 0
