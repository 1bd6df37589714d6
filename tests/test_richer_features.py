"""Several poolings and views of a backbone: one pass, a matrix each, and a basis that stays with store and model."""

import shutil

import joblib
import numpy as np
import pytest
import yaml

import stackcls as package
from stackcls import images, views
from stackcls.errors import IdentityMismatch
from stackcls.listener import Silent
from stackcls.report.results import Report
from stackcls.stages import evaluate, features, fit, similar
from stackcls.store import Store
from tests.conftest import FAKE_BACKBONES, make_settings, write_photo, write_photos

VIEWS = ["original", "hflip", "center_crop", "center_crop_hflip"]
BOTH = {"pooling": ["average", "covariance"]}
NAMES = ["one", "one+covariance", "two", "two+covariance"]


@pytest.fixture
def richer(photos, tmp_path):
    """Settings for both poolings."""
    return make_settings(photos, tmp_path / "artifacts", features=BOTH)


class Heard(Silent):
    """Keeps what was said."""

    text = ""

    def say(self, line):
        self.text += line + "\n"

    warn = say


def matrices(settings):
    with Store(settings.files.features) as store:
        found = {}
        for name, info in store.matrices.items():
            found[name] = np.empty((len(store.table.paths), info.width), np.float32)
            store.read_into(name, found[name])
        return found


def identities(settings):
    with Store(settings.files.features) as store:
        return {name: info.identity for name, info in store.matrices.items()}


def test_several_poolings_take_one_pass_and_give_a_matrix_each(richer, settings, fake_engine):
    result = features.run(richer)
    assert result.computed == dict.fromkeys(NAMES, 27)
    sample = 27  # all images are few enough to be the sample for the components
    assert fake_engine.computed == {"one": 27, "two": 27, "one+covariance": sample, "two+covariance": sample}
    found = matrices(richer)
    assert {name: matrix.shape[1] for name, matrix in found.items()} == dict(zip(NAMES, [8, 36, 8, 36], strict=True))
    shutil.rmtree(richer.artifacts)
    features.run(settings)
    for name, matrix in matrices(settings).items():
        assert np.array_equal(matrix, found[name])


def test_a_pooling_that_is_added_is_all_that_is_computed(richer, settings, fake_engine):
    features.run(settings)
    before = matrices(settings)
    result = features.run(richer)
    assert result.computed == {"one": 0, "one+covariance": 27, "two": 0, "two+covariance": 27}
    assert all(np.array_equal(matrices(richer)[name], before[name]) for name in before)
    alone = make_settings(richer.images, richer.artifacts.with_name("alone"), features={"pooling": "covariance"})
    features.run(alone)
    assert list(matrices(alone)) == ["one+covariance", "two+covariance"]
    assert all(np.array_equal(matrix, matrices(richer)[name]) for name, matrix in matrices(alone).items())


@pytest.mark.parametrize(("batch_size", "pooling"), [(1, ["average", "covariance"]), (7, ["covariance", "average"])])
def test_neither_batch_size_nor_order_changes_a_bit(richer, fake_engine, tmp_path, batch_size, pooling):
    features.run(richer)
    other = make_settings(
        richer.images, tmp_path / "other", features={"pooling": pooling, "batch_size": batch_size, "views": "original"}
    )
    features.run(other)
    assert {name: rows.tobytes() for name, rows in matrices(other).items()} == {
        name: rows.tobytes() for name, rows in matrices(richer).items()
    }
    assert identities(other) == identities(richer)


def test_views_are_averaged_and_each_image_is_decoded_once(photos, fake_engine, tmp_path, monkeypatch):
    single = {}
    for view in VIEWS:
        settings = make_settings(photos, tmp_path / view, features={"views": view})
        features.run(settings)
        single[view] = matrices(settings)
    decoded = []
    decode = images.decode
    monkeypatch.setattr(images, "decode", lambda data, *rest: decoded.append(1) or decode(data, *rest))
    both = make_settings(photos, tmp_path / "all", features={"views": VIEWS[::-1]})
    features.run(both)
    assert 27 < len(decoded) < 2 * 27  # a few more before networks are built
    for name, matrix in matrices(both).items():
        assert np.allclose(matrix, np.mean([single[view][name] for view in VIEWS], axis=0), rtol=1e-5)
        assert len({single[view][name].tobytes() for view in VIEWS}) == 4
    assert identities(both)["one"].views == "original, hflip, center_crop, center_crop_hflip"


def test_what_a_view_shows():
    image = images.from_array(np.random.default_rng(0).integers(0, 256, (64, 128, 3), dtype=np.uint8), "x")
    framed = {one: images.resize(image, *one) for one in (views.frame(view, 28) for view in VIEWS)}
    assert len(framed) == 2
    centre = image.crop((8, 4, 120, 60))
    seen = {view: views.shown(view, framed[views.frame(view, 28)][None])[0] for view in VIEWS}
    assert np.array_equal(seen["original"], images.resize(image, 28))
    assert np.array_equal(seen["center_crop_hflip"], seen["center_crop"][:, ::-1])
    assert np.array_equal(seen["hflip"], seen["original"][:, ::-1])
    # Pillow's filter looks a little beyond what is cut out.
    assert abs(seen["center_crop"].astype(int) - images.resize(centre, 28))[1:-1, 1:-1].max() <= 1
    tiny = images.from_array(np.full((1, 1, 3), 7, np.uint8), "x")
    assert (images.resize(tiny, 4, centre=True) == 7).all()


def test_an_entry_s_own_views_and_pooling_win(photos, fake_engine, tmp_path):
    own = [{**FAKE_BACKBONES[0], "views": ["hflip"], "pooling": ["max", "covariance"]}, FAKE_BACKBONES[1]]
    settings = make_settings(photos, tmp_path / "artifacts", features={"backbones": own})
    features.run(settings)
    said = {name: (identity.pooling, identity.views) for name, identity in identities(settings).items()}
    assert said == {
        "one": ("max", "hflip"),
        "one+covariance": ("covariance", "hflip"),
        "two": ("average", "original"),
    }


def test_other_views_are_another_identity(settings, fake_engine):
    features.run(settings)
    flipped = make_settings(settings.images, settings.artifacts, features={"views": ["original", "hflip"]})
    with pytest.raises(IdentityMismatch, match="views: 'original' against 'original, hflip'"):
        features.run(flipped)
    assert features.run(flipped, replace=True).computed == {"one": 27, "two": 27}


def test_components_are_fitted_once_and_anew_with_refit(richer, fake_engine):
    heard = Heard()
    assert features.run(richer, dry_run=True, listener=heard).computed == dict.fromkeys(NAMES, 27)
    assert "would first fit principal components of one+covariance, two+covariance on up to 256" in heard.text
    features.run(richer, listener=heard)
    assert "fitting principal components on 27 of the images; they are kept until --refit" in heard.text
    before = identities(richer)
    write_photos(richer.images, 4, classes=("black", "white"), seed=5)
    assert features.run(richer).computed == dict.fromkeys(NAMES, 8)
    assert identities(richer) == before
    assert features.run(richer, refit=True).computed == {
        "one": 0,
        "one+covariance": 35,
        "two": 0,
        "two+covariance": 35,
    }
    after = identities(richer)
    assert [name for name in NAMES if after[name] != before[name]] == ["one+covariance", "two+covariance"]
    assert features.run(richer, refit=True).computed == dict.fromkeys(NAMES, 0)


def test_an_interrupted_run_goes_on_with_its_components(richer, fake_engine, monkeypatch):
    def stop(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("stackcls.storewriter.write", stop)
        with pytest.raises(KeyboardInterrupt):
            features.run(richer)
    write_photo(richer.images / "red" / "new.png", (200, 60, 60), 77)
    heard = Heard()
    assert features.run(richer, listener=heard).computed == dict.fromkeys(NAMES, 1)
    assert "going on with the principal components that an interrupted run fitted for one+covariance, two" in heard.text


def test_images_kept_back_have_no_part_in_the_components(photos, fake_engine, tmp_path):
    paths = sorted(photos.rglob("*.png"))

    def components(folder, split):
        lines = ["path,label,split", *(f"{path},{path.parent.name},{split(number)}" for number, path in paths_of)]
        (tmp_path / f"{folder}.csv").write_text("\n".join(lines))
        settings = make_settings(tmp_path / f"{folder}.csv", tmp_path / folder, features=BOTH)
        features.run(settings)
        return {name: identity.basis for name, identity in identities(settings).items()}

    paths_of = list(enumerate(paths))
    split = components("split", lambda number: "test" if number % 2 else "train")
    paths_of = list(enumerate(paths))[::2]
    assert components("train", lambda number: "train") == split


def test_8_bit_networks_have_ranges_and_components(photos, fake_engine, tmp_path):
    settings = make_settings(photos, tmp_path / "artifacts", features={**BOTH, "precision": "int8"})
    heard = Heard()
    features.run(settings, listener=heard)
    assert "fitting 8-bit ranges on 27" in heard.text
    assert "fitting principal components on 27" in heard.text
    with Store(settings.files.features) as store:
        kinds = {name: info.basis.kind for name, info in store.matrices.items()}
        ranges = {name: info.basis.part("int8-ranges").digest for name, info in store.matrices.items()}
    assert kinds["one"] == "int8-ranges"
    assert kinds["one+covariance"] == "int8-ranges+principal-components"
    assert ranges["one"] == ranges["one+covariance"]
    assert fake_engine.computed == {"one": 27, "two": 27, "one+covariance": 27, "two+covariance": 27}
    write_photo(settings.images / "red" / "new.png", (200, 60, 60), 77)
    assert features.run(settings).computed == dict.fromkeys(NAMES, 1)


def test_both_formats_of_the_model_bring_the_components(photos, fake_engine, tmp_path):
    settings = make_settings(photos, tmp_path / "artifacts", features={**BOTH, "views": VIEWS})
    features.run(settings)
    report = fit.run(settings).report
    assert list(report.singles) == NAMES
    stored = matrices(settings)
    settings.files.features.unlink()
    new = write_photos(tmp_path / "new", per_class=3, seed=9)
    paths = sorted(new.rglob("*.png"))
    safe, pickled = package.load(settings.files.safe_model), joblib.load(settings.files.model)
    assert np.array_equal(safe.predict_proba(paths), pickled.predict_proba(paths))
    assert safe.predict(paths).tolist() == [path.parent.name for path in paths]
    assert np.array_equal(safe.predict_features(stored), pickled.predict_features(stored))
    assert evaluate.run(new, settings.files.safe_model)[0].n_images == 9
    assert {item.backbone.name: item.backbone.views for item in safe.backbones} == dict.fromkeys(NAMES, tuple(VIEWS))


def test_rows_of_the_store_and_of_the_same_images_are_predicted_alike(richer, fake_engine):
    features.run(richer)
    fit.run(richer)
    model = package.load(richer.files.safe_model)
    with Store(richer.files.features) as store:
        paths = [richer.images / path for path in store.table.paths]
    assert np.array_equal(model.predict_proba(paths), model.predict_proba_features(matrices(richer)))


def test_a_store_on_other_components_is_not_for_the_model(richer, fake_engine, tmp_path, stackcls):
    features.run(richer)
    fit.run(richer)
    new = make_settings(write_photos(tmp_path / "new", 3, seed=9), tmp_path / "other", features=BOTH)
    features.run(new)
    status, _, err = stackcls("predict", "--model", richer.files.model, new.files.features)
    assert status == 1
    assert "'one+covariance' was made on other principal components than the model's; give the images instead" in err


def test_settings_of_pooling_and_views_are_the_model_s(richer, fake_engine, tmp_path, stackcls):
    features.run(richer)
    fit.run(richer)
    image = richer.images / "red" / "00.png"
    command = ["predict", image, "--model", richer.files.safe_model]
    assert "is not used" not in stackcls(*command, "--set", "features.pooling=[covariance, average]")[2]
    err = stackcls(*command, "--set", "features.pooling=max", "--set", "features.views=[hflip]")[2]
    assert "features.pooling: 'max' is not used: the model was fitted on average and covariance features" in err
    assert "features.views: 'hflip' is not used: the model was fitted on original features" in err


def test_a_new_image_has_neighbours_by_covariance(richer, fake_engine, tmp_path):
    features.run(richer)
    copy = tmp_path / "copy.png"
    copy.write_bytes((richer.images / "red" / "00.png").read_bytes() + b"\n")
    (found,) = similar.run([str(copy)], richer, backbone="one+covariance", k=3)
    assert found.neighbours[0].path == "red/00.png"
    assert found.neighbours[0].similarity == pytest.approx(1, abs=1e-5)


def test_one_line_turns_it_on(photos, fake_engine, tmp_path, stackcls):
    raw = {"images": str(photos), "artifacts": "artifacts", "features": {"backbones": FAKE_BACKBONES}}
    (tmp_path / "p.yaml").write_text(yaml.safe_dump(raw))
    both = ["-c", tmp_path / "p.yaml", "--set", "features.pooling=[average, covariance]"]
    assert stackcls("features", *both)[0] == 0
    assert stackcls("fit", *both)[0] == 0
    report = Report.load(tmp_path / "artifacts" / "report.json")
    assert list(report.singles) == NAMES
    out = stackcls("check", tmp_path / "artifacts" / "features.h5", tmp_path / "artifacts" / "model.safetensors")[1]
    assert "one+covariance: features 36, precision float32, pooling covariance, engine fake" in out
    assert "one+covariance: precision float32, pooling covariance, weights random:1" in out
