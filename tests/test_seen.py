"""Images that fine-tuning saw: the record in the file, in the store and in the model, and that no fold scores them."""

import json
import zipfile

import numpy as np
import pytest

from stackcls import seen
from stackcls.errors import StoreError, TrainingError, WeightsError
from stackcls.files import digest_file
from stackcls.model import StackModel
from stackcls.modelfile import load
from stackcls.stages import evaluate, features, fit
from stackcls.store import Store
from tests.conftest import FAKE_BACKBONES, make_settings, read_csv, write_photo, write_photos

TOKEN = "0123456789abcdef"


def saved(path, name="net", metadata=None, config=None):
    """What Keras writes, as far as a record is concerned."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("metadata.json", json.dumps(metadata or {"keras_version": "3.13.2", "date_saved": "today"}))
        archive.writestr("config.json", config or json.dumps({"config": {"name": name}}))
        archive.writestr("model.weights.h5", b"weights of " + name.encode())
    return path


def tuned(path, files, token=TOKEN):
    """A network that saw these files, which the fake engine takes for one."""
    hashes = seen.short_hashes([digest_file(file) for file in files])
    seen.write(saved(path.with_name("keras.zip"), seen.mark(token)), path, hashes, token)
    return path


def with_tuned(photos, artifacts, file, **sections):
    entry = {"name": "tuned", "model": str(file), "preprocessing": "tf", "input_size": 32}
    return make_settings(photos, artifacts, features={"backbones": [FAKE_BACKBONES[0], entry]}, **sections)


def test_the_record_is_part_of_the_file(tmp_path, photos):
    files = sorted(photos.rglob("*.png"))[:5]
    file = tuned(tmp_path / "model.keras", files)
    expected = seen.short_hashes(sorted(digest_file(path) for path in files))
    moved = file.rename(tmp_path / "elsewhere.keras")
    np.testing.assert_array_equal(seen.read(moved), expected)
    assert tuned(tmp_path / "again.keras", files).read_bytes() == moved.read_bytes()


def test_other_files_have_none(tmp_path):
    (tmp_path / "broken.keras").write_bytes(b"PK no archive")
    with zipfile.ZipFile(tmp_path / "empty.keras", "w"):
        pass
    for path in (saved(tmp_path / "own.keras"), tmp_path / "broken.keras", tmp_path / "empty.keras", tmp_path / "x.h5"):
        assert seen.read(path) is None


@pytest.mark.parametrize(
    "metadata",
    [
        None,
        {seen.KEY: {"token": "f" * 16, "images": []}},
        {seen.KEY: {"token": TOKEN, "images": ["not a hash"]}},
        {seen.KEY: {"token": TOKEN}},
        {seen.KEY: []},
    ],
)
def test_a_record_that_is_lost_or_damaged_is_refused(tmp_path, photos, metadata, fake_engine):
    file = saved(tmp_path / "again.keras", seen.mark(TOKEN), metadata)
    with pytest.raises(WeightsError, match=r"again\.keras: was fine-tuned by stackcls, and its record .* is lost"):
        seen.read(file)
    with pytest.raises(WeightsError, match="its record"):
        features.run(with_tuned(photos, tmp_path / "artifacts", file))
    assert not fake_engine.batches


def test_a_tuned_network_within_another_model_is_refused(tmp_path):
    config = json.dumps({"config": {"name": "mine", "layers": [{"config": {"name": seen.mark(TOKEN)}}]}})
    with pytest.raises(WeightsError, match="was fine-tuned"):
        seen.read(saved(tmp_path / "wrapped.keras", config=config))


@pytest.mark.parametrize("before", [0, 100, seen.PIECE - 7, 3 * seen.PIECE])
@pytest.mark.parametrize("name", ["alone.weights.h5", "alone.HDF5"])
def test_weights_alone_of_a_tuned_network_are_refused(tmp_path, photos, name, before, fake_engine):
    file = tmp_path / name
    file.write_bytes(bytes(before) + seen.mark(TOKEN).encode() + bytes(200))
    entry = {**FAKE_BACKBONES[0], "weights": str(file)}
    with pytest.raises(WeightsError, match=r"alone\..*: was fine-tuned by stackcls.* not its weights alone"):
        features.run(make_settings(photos, tmp_path / "artifacts", features={"backbones": [entry]}))
    assert not fake_engine.batches
    file.write_bytes(bytes(before) + seen.MARK[:-1].encode() + bytes(200))
    assert seen.read(file) is None


def test_no_fold_scores_what_fine_tuning_saw(tmp_path, photos, fake_engine):
    files = [path for path in sorted(photos.rglob("*.png")) if path.stem < "04"]
    settings = with_tuned(photos, tmp_path / "artifacts", tuned(tmp_path / "model.keras", files))
    features.run(settings)
    result = fit.run(settings)
    assert result.report.n_images == 27 - len(files) == 15
    assert f"{len(files)} images were left out: fine-tuning of tuned saw them, a copy, exact or near, or" in str(
        result.report.notes
    )
    scored = {row["path"] for row in read_csv(settings.files.predictions)}
    assert not scored & {path.relative_to(photos).as_posix() for path in files}


def test_a_stack_without_the_tuned_one_scores_all(tmp_path, photos, fake_engine):
    settings = with_tuned(photos, tmp_path / "artifacts", tuned(tmp_path / "model.keras", [photos / "red/00.png"]))
    features.run(settings)
    plain = make_settings(photos, tmp_path / "artifacts", features={"backbones": FAKE_BACKBONES[:1]})
    assert fit.run(plain).report.n_images == 27
    assert fit.run(settings).report.n_images == 26


def test_copies_under_other_names_are_left_out_too(tmp_path, photos, fake_engine):
    (photos / "red/copy.png").write_bytes((photos / "red/00.png").read_bytes())
    settings = with_tuned(photos, tmp_path / "artifacts", tuned(tmp_path / "model.keras", [photos / "red/00.png"]))
    features.run(settings)
    assert fit.run(settings).report.n_images == 26


def test_groups_are_left_out_whole(tmp_path, photos, fake_engine):
    rows = [f"{path.relative_to(photos)},{path.parent.name},{path.stem}" for path in sorted(photos.rglob("*.png"))]
    (photos / "all.csv").write_text("path,label,group\n" + "\n".join(rows) + "\n")
    file = tuned(tmp_path / "model.keras", [photos / "red/00.png"])
    settings = with_tuned(photos / "all.csv", tmp_path / "artifacts", file)
    features.run(settings)
    assert fit.run(settings).report.n_images == 24


def test_nothing_left_to_score_is_an_error(tmp_path, photos, fake_engine):
    file = tuned(tmp_path / "model.keras", photos.rglob("*.png"))
    settings = with_tuned(photos, tmp_path / "artifacts", file)
    features.run(settings)
    with pytest.raises(TrainingError, match=r"fine-tuning of tuned saw all 27 .*\(finetune.share\)"):
        fit.run(settings)


def test_the_store_keeps_the_record_when_the_file_is_gone(tmp_path, photos, fake_engine):
    file = tuned(tmp_path / "model.keras", [photos / "red/00.png"])
    settings = with_tuned(photos, tmp_path / "artifacts", file)
    features.run(settings)
    file.unlink()
    plain = make_settings(photos, tmp_path / "artifacts")
    features.run(plain)  # with another backbone, so that the store is written anew
    with Store(settings.files.features) as store:
        assert sorted(store.matrices) == ["one", "tuned", "two"]
        assert store.matrices["tuned"].seen.tolist() == seen.short_hashes([digest_file(photos / "red/00.png")]).tolist()
        assert store.matrices["one"].seen is None
    all_of_them = settings.model_copy(update={"features": type(settings.features)()})
    assert fit.run(all_of_them).report.n_images == 26


def test_new_images_that_fine_tuning_saw_are_left_out_when_they_come(tmp_path, photos, fake_engine):
    late = write_photo(tmp_path / "late.png", (190, 70, 60), 5)
    settings = with_tuned(photos, tmp_path / "artifacts", tuned(tmp_path / "model.keras", [late]))
    features.run(settings)
    assert fit.run(settings).report.n_images == 27
    late.rename(photos / "red" / "late.png")
    assert features.run(settings).n_images == 28
    assert fit.run(settings).report.n_images == 27


def test_evaluate_leaves_out_what_fine_tuning_saw(tmp_path, photos, fake_engine, monkeypatch):
    other = write_photos(tmp_path / "other", 5, seed=1)
    settings = with_tuned(photos, tmp_path / "artifacts", tuned(tmp_path / "model.keras", other.rglob("0[01].png")))
    features.run(settings)
    fit.run(settings)
    for file in (settings.files.model, settings.files.safe_model):
        fitted: StackModel = load(file)
        assert len(fitted.trained_on) == 27 + 6
    report, _ = evaluate.run(other, settings.files.safe_model)
    assert report.n_images == 9
    assert "6 images that the model was fitted on were left out" in report.notes


def test_a_store_with_a_record_of_another_kind_is_refused(tmp_path, photos, fake_engine, monkeypatch):
    settings = with_tuned(photos, tmp_path / "artifacts", tuned(tmp_path / "model.keras", [photos / "red/00.png"]))
    monkeypatch.setattr(seen, "read", lambda path: np.array([0.5]))
    monkeypatch.setattr("stackcls.storewriter._write_seen", write_as_it_is)
    features.run(settings)
    with pytest.raises(StoreError, match="seen/tuned is float64; uint64 is needed"):
        Store(settings.files.features)


def write_as_it_is(file, records):
    for name, values in records.items():
        file.create_group("seen").create_dataset(name, data=values)
