"""Explanations point at what the classes differ in, survive bad images, and overwrite nothing that is not theirs."""

import json

import numpy as np
import pytest
from PIL import Image

from stackcls import modelfile
from stackcls.errors import ConfigError, UnreadableImage
from stackcls.explaining import Explainer, _Answers
from stackcls.stages import explain, features, fit
from tests.conftest import make_settings

CORNERS = {"blue": (40, 60, 220), "green": (40, 200, 60), "red": (220, 50, 40)}


def corner_photo(colour, seed):
    """Grey noise whose lower right corner alone has the class's colour."""
    rng = np.random.default_rng(seed)
    pixels = rng.normal(128, 12, (48, 64, 3))
    pixels[30:, 44:] = colour
    return Image.fromarray(np.clip(pixels + rng.normal(0, 12, pixels.shape), 0, 255).astype(np.uint8))


def write_corners(folder, classes=tuple(CORNERS), per_class=9):
    for number, name in enumerate(classes):
        (folder / name).mkdir(parents=True)
        for index in range(per_class):
            corner_photo(CORNERS[name], 100 * number + index).save(folder / name / f"{index:02d}.png")
    return folder


@pytest.fixture
def fitted(tmp_path, fake_engine):
    """Settings of a model that knows the classes by their corner."""
    settings = make_settings(write_corners(tmp_path / "photos"), tmp_path / "artifacts")
    features.run(settings)
    fit.run(settings)
    fake_engine.batches.clear()
    return settings


@pytest.fixture
def model(fitted):
    return modelfile.load(fitted.files.safe_model)


@pytest.fixture
def new(tmp_path):
    """A photo of each class that the model never saw."""
    paths = []
    for number, (name, colour) in enumerate(CORNERS.items()):
        paths.append(tmp_path / "new" / name / "new.png")
        paths[-1].parent.mkdir(parents=True)
        corner_photo(colour, 10_000 + number).save(paths[-1])
    return paths


def where(heat):
    y, x = np.unravel_index(heat.argmax(), heat.shape)
    return y / heat.shape[0], x / heat.shape[1]


def test_the_map_points_at_what_the_classes_differ_in(model, new):
    shares = model.predict_proba(new)
    for row, found in enumerate(Explainer(model).explain(new)):
        assert (found.path, found.label, found.explained) == (str(new[row]), list(CORNERS)[row], list(CORNERS)[row])
        assert found.probability == pytest.approx(shares[row].max(), abs=1e-9), "as `predict` says"
        assert list(found.maps) == list(found.shares) == ["stack", "one", "two"]
        for heat in found.maps.values():
            assert where(heat) > (0.5, 0.6)
            assert heat[:30, :30].max() < 0.2 * heat.max()
        assert found.picture.shape == (32, 43, 3), "in its own shape, as large as the largest network sees it"


def test_the_deletion_score_tells_a_good_order_from_random_ones(model, new):
    model.classifier.temperature = 0.2  # so sure a model as this one is never in doubt
    for found in Explainer(model).explain(new):
        assert 0 < found.deletion < found.random < found.probability


def test_of_two_things_that_each_suffice_both_are_found(model, tmp_path, monkeypatch):
    path, explainer = tmp_path / "two.png", Explainer(model)
    pixels = np.full((32, 32, 3), 128, np.uint8)
    pixels[:8:2, :8] = pixels[-8::2, -8:] = 255
    Image.fromarray(pixels).save(path)

    def either(given):
        stripes = [max(np.ptp(one[:8, :8].mean(1)), np.ptp(one[-8:, -8:].mean(1))) for one in map(np.asarray, given)]
        return _Answers(np.full((len(stripes), 2, 3), 1 / 3), np.outer(stripes, [1, 0, 0]))

    monkeypatch.setattr(explainer, "_ask", either)
    (found,) = explainer.explain([path], scored=False)
    heat = found.maps["stack"]
    assert heat[:8, :8].min() > 0
    assert heat[-8:, -8:].min() > 0
    assert abs(heat[-8:, :8]).max() < 0.1 * heat.max()


def test_another_class_can_be_asked_for(model, new):
    (own,) = Explainer(model).explain(new[:1])
    (other,) = Explainer(model).explain(new[:1], ["red"])
    assert (other.label, other.explained) == ("blue", "red")
    assert other.shares["stack"] == pytest.approx(model.predict_proba(new[:1])[0, 2])
    assert other.maps["stack"][45:, 50:].mean() < 0 < own.maps["stack"][45:, 50:].mean()
    with pytest.raises(ConfigError, match="--class: 'rde' is not a class of the model; it has blue, green, red"):
        list(Explainer(model).explain(new[:1], ["rde"]))


def test_two_classes(tmp_path, fake_engine, new):
    settings = make_settings(write_corners(tmp_path / "two", ("blue", "red")), tmp_path / "a2")
    features.run(settings)
    fit.run(settings)
    blue, red = Explainer(modelfile.load(settings.files.safe_model)).explain([new[0], new[2]], scored=False)
    assert (blue.label, red.label) == ("blue", "red")
    for found in (blue, red):
        assert all(where(heat) > (0.5, 0.6) for heat in found.maps.values())
        assert found.deletion is found.random is None


def test_an_unreadable_image_shifts_no_other(model, new, tmp_path):
    bad = tmp_path / "bad.png"
    bad.write_bytes(b"no image")
    asked = [new[0], bad, tmp_path / "gone.png", new[2]]
    found = list(Explainer(model).explain(asked, scored=False))
    assert [isinstance(item, UnreadableImage) for item in found] == [False, True, True, False]
    assert [found[0].label, found[3].label] == ["blue", "red"]
    assert found[2].reason == "file not found"


def test_pictures_are_taken_one_after_the_other(model, new, fake_engine):
    found = Explainer(model).explain(new * 100, scored=False)
    next(found)
    assert fake_engine.computed["one"] < 300, "not all are computed before the first is given"
    assert max(fake_engine.batches["one"]) <= 4
    found.close()


def test_a_picture_of_any_shape(model, tmp_path):
    for size in ((1, 1), (3, 900), (2000, 4)):
        path = tmp_path / "odd.png"
        Image.new("RGB", size, (220, 50, 40)).save(path)
        (found,) = Explainer(model).explain([path], scored=False)
        assert np.isfinite(found.maps["stack"]).all()
        assert max(found.picture.shape) <= 4 * 32
        explain._save(found, tmp_path / "drawn.png")


def test_several_classes_of_one_picture(model, new, tmp_path):
    found, missing = Explainer(model).compare([new[2], tmp_path / "gone.png"], [("red", "blue"), ("red", "blue")])
    assert isinstance(missing, UnreadableImage)
    assert found.shares == pytest.approx(model.predict_proba(new[2:])[0, [2, 0]])
    for name, heat in zip(("red", "blue"), found.maps, strict=True):
        (alone,) = Explainer(model).explain(new[2:], [name], scored=False)
        np.testing.assert_array_equal(heat, alone.maps["stack"])
        np.testing.assert_array_equal(found.picture, alone.picture)


def test_poolings_and_views(tmp_path, fake_engine, new):
    chosen = {"pooling": ["average", "covariance"], "views": ["original", "hflip"]}
    settings = make_settings(write_corners(tmp_path / "both"), tmp_path / "a2", features=chosen)
    features.run(settings)
    fit.run(settings)
    model = modelfile.load(settings.files.safe_model)
    shares = model.predict_proba(new)
    for row, found in enumerate(Explainer(model).explain(new, scored=False)):
        assert list(found.maps) == ["stack", "one", "one+covariance", "two", "two+covariance"]
        assert found.probability == pytest.approx(shares[row].max(), abs=1e-9)
        assert where(found.maps["stack"]) > (0.5, 0.6)
    message = "--method: 'gradcam' does not do for 'one.covariance': .*; use occlusion"
    with pytest.raises(ConfigError, match=message):
        Explainer(modelfile.load(settings.files.safe_model), "gradcam")


@pytest.fixture
def command(stackcls, fitted):
    def run(*arguments):
        return stackcls("explain", *arguments, "--artifacts", fitted.artifacts)

    return run


def test_the_command_draws_a_picture_per_image(command, fitted, new):
    status, out, err = command(*new)
    assert status == 0, err
    folder = fitted.artifacts / "explain"
    names = ["new.png", "new-2.png", "new-3.png"]  # all three are called new.png
    assert [line.split("|")[-2].strip() for line in out.splitlines()[2:]] == [str(folder / name) for name in names]
    assert [line.split("|")[2].strip() for line in out.splitlines()[2:]] == list(CORNERS)
    for name in names:
        with Image.open(folder / name) as image:
            assert image.format == "PNG"
            assert image.width == 4 * 240  # the photo, the stack, two backbones
    before = (folder / "new.png").read_bytes()
    assert command(*new)[0] == 0, "its own pictures are replaced"
    assert (folder / "new.png").read_bytes() == before


def test_json_says_all_of_it(command, model, new, tmp_path):
    gone = tmp_path / "gone.png"
    status, out, err = command(new[0], gone, "--format", "json", "--output", tmp_path / "out", "--class", "green")
    assert status == 0
    assert "warning: 1 of 2 images could not be read\n" in err
    good, bad = json.loads(out)
    shares = model.predict_proba(new[:1])[0]
    assert (good["path"], good["label"], good["explained"]) == (str(new[0]), "blue", "green")
    assert good["probability"] == pytest.approx(shares[0])
    assert good["shares"]["stack"] == pytest.approx(shares[1])
    assert sorted(good["shares"]) == ["one", "stack", "two"]
    assert 0 <= good["deletion"] <= 1
    assert 0 <= good["random"] <= 1
    assert good["picture"] == str(tmp_path / "out" / "new.png")
    assert (bad["path"], bad["label"], bad["picture"], bad["error"]) == (str(gone), None, None, "file not found")
    assert command(gone, "--strict")[0] == 1


def test_nothing_of_others_is_overwritten(command, fitted, new):
    folder = fitted.artifacts / "explain"
    folder.mkdir()
    new[0].rename(folder / "new.png")
    before = (folder / "new.png").read_bytes()
    status, out, err = command(new[1])
    assert (status, out) == (2, "")
    assert "--output: " in err
    assert "not written by this command; name another folder" in err
    assert (folder / "new.png").read_bytes() == before
    status, _, err = command(new[1], "--output", folder / "new.png")
    assert status == 2
    assert "is a file; name a folder" in err


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("a b$c.png", "a_b_c.png"),
        ("...png", "_.png"),
        ("猫 \u202e\udcff.png", "猫___.png"),
        ("x" * 200 + ".png", "x" * 120 + ".png"),
    ],
)
def test_names_of_files_are_made_plain(command, fitted, new, name, expected):
    strange = new[0].with_name(name)
    new[0].rename(strange)
    assert command(strange)[0] == 0
    assert [path.name for path in (fitted.artifacts / "explain").iterdir()] == [expected]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "name at least one image"),
        (["a.png", "--layer", "x", "--dream", "y"], "give one of them"),
        (["a.png", "--layer", "x", "--class", "red"], "do not go with --layer"),
        (["a.png", "--dream", "x", "--method", "gradcam"], "do not go with --layer and --dream"),
        (["a.png", "--backbone", "one"], "goes with --layer or --dream"),
        (["a.png", "--method", "magic"], "Invalid value for '--method'"),
    ],
)
def test_what_is_wrong_use(command, arguments, message):
    status, out, err = command(*arguments)
    assert (status, out) == (2, "")
    assert message in " ".join(err.split())
