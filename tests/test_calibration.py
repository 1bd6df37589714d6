"""8-bit ranges: fitted once on a seeded sample, kept in the store and in the model, part of the identity."""

import dataclasses
import shutil

import joblib
import numpy as np
import pytest

from stackcls import splits
from stackcls.errors import ConfigError, IdentityMismatch
from stackcls.files import digest_file
from stackcls.listener import Silent
from stackcls.stages import evaluate, features, fit
from stackcls.store import Store
from tests.conftest import FAKE_BACKBONES, make_settings, write_photo, write_photos

INT8 = {"backbones": FAKE_BACKBONES, "precision": "int8"}


@pytest.fixture
def int8(photos, tmp_path):
    """Settings for int8."""
    return make_settings(photos, tmp_path / "artifacts", features=INT8)


class Heard(Silent):
    """Keeps what was said."""

    text = ""

    def say(self, line):
        self.text += line + "\n"


def identities(settings):
    with Store(settings.files.features) as store:
        return {name: info.identity for name, info in store.matrices.items()}


def test_ranges_are_kept_in_the_store_and_named_by_the_identity(int8, fake_engine):
    features.run(int8)
    with Store(int8.files.features) as store:
        for info in store.matrices.values():
            assert info.basis.kind == "int8-ranges"
            assert info.identity.precision == "int8"
            assert info.identity.basis == info.basis.digest
            assert info.basis.values.shape == (1,)
    assert len(fake_engine.calibrated) == 2


def test_ranges_are_fitted_once_whatever_becomes_of_the_images(int8, fake_engine):
    features.run(int8)
    before = identities(int8)
    write_photo(int8.images / "red" / "new.png", (200, 60, 60), 77)
    result = features.run(int8)
    assert result.computed == {"one": 1, "two": 1}
    assert identities(int8) == before
    assert len(fake_engine.calibrated) == 2


def test_refit_fits_them_anew_and_computes_all(int8, fake_engine):
    features.run(int8)
    before = identities(int8)
    write_photos(int8.images, 4, classes=("black", "white"), seed=5)
    result = features.run(int8, refit=True)
    assert result.computed == {"one": 35, "two": 35}
    assert len(fake_engine.calibrated) == 4
    for name, identity in identities(int8).items():
        assert identity.basis != before[name].basis
        assert dataclasses.replace(identity, basis="") == dataclasses.replace(before[name], basis="")


def test_refit_on_the_same_images_computes_nothing(int8, fake_engine):
    features.run(int8)
    assert features.run(int8, refit=True).computed == {"one": 0, "two": 0}


def test_an_interrupted_run_goes_on_with_its_ranges_though_images_were_added(int8, fake_engine, monkeypatch):
    def stop(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("stackcls.storewriter.write", stop)
        with pytest.raises(KeyboardInterrupt):
            features.run(int8)
    write_photo(int8.images / "red" / "new.png", (200, 60, 60), 77)
    assert features.run(int8).computed == {"one": 1, "two": 1}
    assert len(fake_engine.calibrated) == 2
    assert not int8.files.blocks.exists()


def test_a_renamed_backbone_keeps_its_ranges(int8, fake_engine):
    features.run(int8)
    renamed = [{**FAKE_BACKBONES[0], "name": "first"}, FAKE_BACKBONES[1]]
    again = make_settings(int8.images, int8.artifacts, features={**INT8, "backbones": renamed})
    assert features.run(again).computed == {"first": 0, "two": 0}
    assert len(fake_engine.calibrated) == 2


def test_a_renamed_backbone_that_was_refitted_keeps_its_new_ranges(int8, fake_engine):
    features.run(int8)
    renamed = [{**FAKE_BACKBONES[0], "name": "a"}, FAKE_BACKBONES[1]]
    again = make_settings(int8.images, int8.artifacts, features={**INT8, "backbones": renamed}, cv={"seed": 5})
    features.run(again, refit=True)
    refitted = identities(again)
    features.run(again)
    assert identities(again) == refitted


@pytest.mark.parametrize("refit", [False, True])
def test_an_interrupted_refit_goes_on(int8, fake_engine, monkeypatch, refit):
    features.run(int8)
    before = identities(int8)
    write_photos(int8.images, 4, classes=("black",), seed=5)

    def stop(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("stackcls.storewriter.write", stop)
        with pytest.raises(KeyboardInterrupt):
            features.run(int8, refit=True)
    write_photo(int8.images / "red" / "new.png", (200, 60, 60), 77)
    heard = Heard()
    assert features.run(int8, refit=refit, listener=heard).computed == {"one": 1, "two": 1}
    assert "going on with the 8-bit ranges that an interrupted run fitted for one, two; delete" in heard.text
    assert len(fake_engine.calibrated) == 4
    assert all(identity.basis != before[name].basis for name, identity in identities(int8).items())


def test_a_store_on_other_ranges_is_not_for_the_model(int8, fake_engine, tmp_path, stackcls):
    features.run(int8)
    fit.run(int8)
    new = make_settings(write_photos(tmp_path / "new", 3, seed=9), tmp_path / "other", features=INT8)
    features.run(new)
    status, _, err = stackcls("predict", "--model", int8.files.model, new.files.features)
    assert status == 1
    assert "other 8-bit ranges than the model's; give the images instead" in err


def test_float32_features_are_not_for_an_int8_model_and_the_remedy_helps(int8, fake_engine, tmp_path, stackcls):
    features.run(int8)
    fit.run(int8)
    new = make_settings(write_photos(tmp_path / "new", 3, seed=9), tmp_path / "other")
    features.run(new)
    status, _, err = stackcls("predict", "--model", int8.files.model, new.files.features)
    assert status == 1
    assert "(precision: 'int8' against 'float32'): give the images instead" in err
    assert stackcls("predict", "--model", int8.files.model, new.images)[0] == 0


def test_what_cannot_be_computed_is_refused_before_any_image_is_read(int8, monkeypatch):
    def refuse(*_):
        raise ConfigError("no int8 here")

    monkeypatch.setattr("stackcls.engines.choose", refuse)
    monkeypatch.setattr("stackcls.sources.scan", None)
    with pytest.raises(ConfigError, match="no int8 here"):
        features.run(int8, dry_run=True)


def test_float32_features_are_not_overwritten_by_int8(settings, int8, fake_engine):
    features.run(settings)
    with pytest.raises(IdentityMismatch, match="precision: 'float32' against 'int8'"):
        features.run(int8)
    assert fake_engine.calibrated == []
    features.run(int8, replace=True)
    assert {identity.precision for identity in identities(int8).values()} == {"int8"}


def test_a_dry_run_fits_nothing_and_says_that_it_would(int8, fake_engine):
    heard = Heard()
    assert features.run(int8, dry_run=True, listener=heard).computed == {"one": 27, "two": 27}
    assert "would first fit 8-bit ranges of one, two on up to 64 of the images" in heard.text
    assert fake_engine.calibrated == []
    features.run(int8)
    assert features.run(int8, dry_run=True).computed == {"one": 0, "two": 0}


def test_the_sample_is_bounded_seeded_and_independent_of_the_folder(int8, fake_engine, monkeypatch, tmp_path):
    monkeypatch.setattr("stackcls.calibration.SAMPLE_SIZE", 5)
    features.run(int8)
    shutil.copytree(int8.images, tmp_path / "moved")
    for seed in (0, 1):
        again = make_settings(
            tmp_path / "moved", tmp_path / f"artifacts{seed}", features=INT8, cv={"folds": 3, "seed": seed}
        )
        features.run(again)
    first, same, other = fake_engine.calibrated[::2]
    assert len(set(first)) == 5
    assert first == same
    assert first != other


def test_the_sample_leaves_out_what_a_hold_out_would_take(int8, fake_engine, monkeypatch):
    monkeypatch.setattr("stackcls.calibration.SAMPLE_SIZE", 5)
    features.run(int8)
    with Store(int8.files.features) as store:
        paths = dict(zip(store.table.sha256, store.table.paths, strict=True))
        recorded = store.matrices["one"].basis.sample
    assert all(splits.place(paths[digest]) >= 0.5 for digest in fake_engine.calibrated[0])
    assert recorded == {digest[:16] for digest in fake_engine.calibrated[0]}


def test_images_kept_back_and_broken_ones_are_not_drawn(photos, fake_engine, tmp_path):
    lines = ["path,label,split"]
    for number, path in enumerate(sorted(photos.rglob("*.png"))):
        lines.append(f"{path},{path.parent.name},{'test' if number % 2 else 'train'}")
    broken = sorted(photos.rglob("*.png"))[2]
    broken.write_bytes(broken.read_bytes()[:100])
    (tmp_path / "m.csv").write_text("\n".join(lines))
    features.run(make_settings(tmp_path / "m.csv", tmp_path / "artifacts", features=INT8))
    drawn = set(fake_engine.calibrated[0])
    expected = {digest_file(path) for path in sorted(photos.rglob("*.png"))[::2] if path != broken}
    assert drawn == expected


def test_the_model_brings_its_ranges(int8, fake_engine, tmp_path):
    features.run(int8)
    fit.run(int8)
    with Store(int8.files.features) as store:
        kept = {name: info.basis.digest for name, info in store.matrices.items()}
    int8.files.features.unlink()
    model = joblib.load(int8.files.model)
    assert {item.backbone.name: item.basis.digest for item in model.backbones} == kept
    assert model.predict(int8.images / "red" / "00.png").tolist() == ["red"]
    new = write_photos(tmp_path / "new", per_class=2, seed=9)
    assert evaluate.run(new, int8.files.model)[0].n_images == 6


def test_a_store_whose_ranges_were_exchanged_is_refused(int8, fake_engine):
    import h5py

    from stackcls.errors import StoreError
    from tests.sealing import seal

    features.run(int8)
    with h5py.File(int8.files.features, "r+") as file:
        file["bases/one/values"][0] += np.float32(1)
    seal(int8.files.features)
    with pytest.raises(StoreError, match="features/one: its basis is not the one that its identity names"):
        Store(int8.files.features)


def test_the_option(stackcls, int8, fake_engine, tmp_path):
    import yaml

    raw = {"images": str(int8.images), "artifacts": "artifacts", "features": INT8}
    (tmp_path / "p.yaml").write_text(yaml.safe_dump(raw))
    status, _, err = stackcls("features", "-c", tmp_path / "p.yaml")
    assert status == 0
    assert "fitting 8-bit ranges on 27 of the images; they are kept until --refit" in err
    assert "engine: fake, int8" in err
    assert "fitting" not in stackcls("features", "-c", tmp_path / "p.yaml")[2]
    assert "fitting" in stackcls("features", "-c", tmp_path / "p.yaml", "--refit")[2]
