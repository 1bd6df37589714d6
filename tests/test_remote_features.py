"""Images elsewhere: the same features as from disk, whatever the way there is like."""

import json

import h5py
import numpy as np
import pytest

from stackcls import extraction, sources
from stackcls.engines import cache
from stackcls.errors import SourceAway, SourceError, SourceMissing, StoreError, UnreadableFile
from stackcls.extraction import ImageInput
from stackcls.listener import Silent
from stackcls.listing import hash_all
from stackcls.settings import Limits
from stackcls.stages import evaluate, features, fit, predict
from stackcls.store import Store
from stackcls.urls import place
from stackcls.views import Frame
from tests.conftest import COLOURS, make_settings, write_hard_photos, write_photo, write_photos

QUICK = {"read_tries": 4, "read_seconds": 20}


def contents(path):
    """All that a feature file holds but where the images are, as plain bytes."""
    found = {}
    with h5py.File(path) as file:
        found |= {("", name): str(value) for name, value in file.attrs.items() if name != "source"}

        def visit(name, item):
            found.update({(name, key): str(value) for key, value in item.attrs.items()})
            if isinstance(item, h5py.Dataset):
                found[name] = (
                    str(item.dtype),
                    np.asarray(item).tobytes() if item.dtype != object else item[()].tolist(),
                )

        file.visititems(visit)
    return found


def there(url, tmp_path, **sections):
    return make_settings(url, tmp_path / "there", features=QUICK | sections.pop("features", {}), **sections)


@pytest.fixture
def odd(photos):
    """Photos with names that need care, copies, and files that are no images."""
    write_photo(photos / "red" / "a b#c%41+é猫.png", COLOURS["red"], 900)
    (photos / "red" / "broken.png").write_bytes(b"no image")
    (photos / "red" / "empty.png").write_bytes(b"")
    (photos / "red" / "copy.png").write_bytes((photos / "red" / "00.png").read_bytes())
    (photos / "red" / "notes.txt").write_text("nothing")
    (photos / ".hidden").mkdir()
    write_photo(photos / ".hidden" / "0.png", COLOURS["red"], 901)
    return photos


def same_as_from_disk(photos, url, tmp_path):
    here, away = make_settings(photos, tmp_path / "here"), there(url, tmp_path)
    first, second = features.run(here), features.run(away)
    assert first.rejected == second.rejected
    assert contents(here.files.features) == contents(away.files.features)
    return away


def test_a_bucket_gives_the_same_store_whatever_goes_wrong_on_the_way(odd, bucket, tmp_path, fake_engine):
    url = bucket.fill(odd)
    bucket.trouble.kinds = ["500", "reset", "503", "slow"]
    bucket.listing.kinds = ["500", "slow"]
    away = same_as_from_disk(odd, url, tmp_path)
    # Three failures and one late answer each: what was read to be hashed is not read again to be decoded.
    assert [n for path, n in bucket.trouble.requests.items() if path.endswith(".png")] == [4] * 31
    assert list(bucket.listing.requests.values()) == [2]
    before = away.files.features.read_bytes()
    assert not features.run(away).written
    assert away.files.features.read_bytes() == before


def test_an_answer_that_breaks_off_is_asked_for_again(photos, bucket, tmp_path, fake_engine):
    url = bucket.fill(photos)
    bucket.trouble.kinds = ["cut"]
    same_as_from_disk(photos, url, tmp_path)


def test_only_the_name_of_the_source_differs_between_the_files(photos, bucket, tmp_path, fake_engine):
    away = same_as_from_disk(photos, bucket.fill(photos), tmp_path)
    with Store(away.files.features) as store:
        assert store.table.source == f"s3://{bucket.name}/photos"


def test_without_room_for_copies_images_are_read_twice(photos, bucket, tmp_path, fake_engine, monkeypatch):
    monkeypatch.setattr("stackcls.spool.MOST", 0)
    same_as_from_disk(photos, bucket.fill(photos), tmp_path)
    assert {count for path, count in bucket.trouble.requests.items() if path.endswith(".png")} == {2, 3}


def test_an_object_that_changes_meanwhile_is_refused(photos, bucket, monkeypatch):
    monkeypatch.setattr("stackcls.spool.MOST", 0)
    listing = hash_all(sources.scan(place(bucket.fill(photos))), Silent(), Limits())
    bucket.put("photos/red/00.png", (photos / "red/01.png").read_bytes())
    entry = next(entry for entry in listing.kept if entry.path == "red/00.png")
    one = ImageInput(entry.path, listing.source.locate(entry), listing.sha256[entry.path])
    (found,) = extraction.load([one], (Frame(4),), 1)
    assert isinstance(found, UnreadableFile)
    assert found.reason == "changed while this run was reading it; run again"


def test_copies_are_gone_afterwards(photos, bucket, settings, tmp_path, fake_engine, compiled_models):
    features.run(there(bucket.fill(photos), tmp_path))
    assert not list(cache.cache_folder().glob("spool-*"))


def test_one_object_that_may_not_be_read_is_rejected_and_the_run_goes_on(photos, bucket, tmp_path, fake_engine):
    bucket.trouble.always["red/03.png"] = "403"
    result = features.run(there(bucket.fill(photos), tmp_path))
    assert result.rejected == {"red/03.png": "cannot be read (the server answers 403)"}
    assert result.n_images == 26
    assert bucket.trouble.requests[f"/{bucket.name}/photos/red/03.png"] == 1


@pytest.mark.parametrize("down", ["500", "503", "reset"])
def test_a_server_that_goes_away_ends_the_run_and_rejects_nothing(photos, bucket, tmp_path, fake_engine, down):
    away = there(bucket.fill(photos), tmp_path)
    bucket.trouble.after, bucket.trouble.down = 15, down
    with pytest.raises(SourceAway, match=r"is not answered .*4 tries.*run the same command again") as caught:
        features.run(away)
    assert "very-secret" not in str(caught.value)
    assert not away.files.features.exists()
    bucket.trouble.after = None
    assert features.run(away).rejected == {}


def test_what_was_computed_before_a_server_went_away_is_kept(
    photos, bucket, tmp_path, fake_engine, monkeypatch, stackcls
):
    monkeypatch.setattr("stackcls.spool.MOST", 0)
    monkeypatch.setattr("stackcls.computation.IMAGES_PER_BLOCK", 4)
    url = bucket.fill(photos)
    settings = there(url, tmp_path)
    bucket.trouble.after = 27 + 20
    with pytest.raises(SourceAway) as caught:
        features.run(settings)
    assert "what was finished is kept" in "".join(caught.value.__notes__)
    done = fake_engine.computed["one"]
    assert 0 < done < 27
    bucket.trouble.after = None
    result = features.run(settings)
    assert result.reused["one"] >= done - 4
    assert result.n_images == 27


def test_credentials_that_have_expired_end_the_run(photos, bucket, tmp_path, fake_engine):
    bucket.trouble.after, bucket.trouble.down = 5, "400"
    with pytest.raises(SourceError, match=r"cannot be read .*give credentials"):
        features.run(there(bucket.fill(photos), tmp_path))


def test_images_that_had_features_are_not_dropped_because_they_are_forbidden_now(photos, bucket, tmp_path, fake_engine):
    settings = there(bucket.fill(photos), tmp_path)
    features.run(settings)
    bucket.trouble.always["red/03.png"] = "403"
    with pytest.raises(StoreError, match=r"1 of its images cannot be read now: red/03.png"):
        features.run(settings)


def test_nothing_there(bucket, patient):
    for url in (f"s3://{bucket.name}/nowhere", "s3://no-such-bucket/photos"):
        with pytest.raises(SourceMissing, match=f"images: {url}|there is nothing at {url}"):
            sources.scan(place(url))


def test_class_folders_on_a_plain_server(odd, served, tmp_path, fake_engine):
    served.trouble.kinds = ["500", "reset", "cut"]
    same_as_from_disk(odd, f"{served.url}/photos", tmp_path)


def test_a_manifest_by_url(photos, served, tmp_path, fake_engine):
    text = "path,label,split\n" + "".join(f"{c}/{n:02d}.png,{c},train\n" for c in COLOURS for n in range(9))
    (photos / "m.csv").write_text(text + "red/gone.png,red,\n")
    user = served.url.replace("://", "://someone:pass-word@")
    here, away = make_settings(photos / "m.csv", tmp_path / "here"), there(f"{user}/photos/m.csv?sig=abc123", tmp_path)
    assert features.run(here).rejected == features.run(away).rejected == {"red/gone.png": "file not found"}
    assert contents(here.files.features) == contents(away.files.features)
    data = away.files.features.read_bytes()
    assert b"pass-word" not in data
    assert b"abc123" not in data
    with Store(away.files.features) as store:
        assert store.table.source == f"{served.url}/photos/m.csv"


def test_cub_by_url(bucket, tmp_path, fake_engine):
    from tests.test_sources import write_cub

    write_cub(tmp_path / "cub")
    here, away = sources.scan(tmp_path / "cub"), sources.scan(place(bucket.fill(tmp_path / "cub", "cub")))
    assert (here.kind, here.entries) == (away.kind, away.entries)
    assert str(away.root) == f"s3://{bucket.name}/cub/images"


@pytest.fixture
def learned(tmp_path, served, fake_engine):
    """A stack fitted on photos of a server, on which it errs."""
    write_hard_photos(tmp_path / "photos")
    settings = there(f"{served.url}/photos", tmp_path)
    features.run(settings)
    fit.run(settings)
    return settings


def test_a_page_shows_pictures_from_a_server_that_answers(learned, served):
    page = learned.files.page.read_text("utf-8")
    assert "data:image/webp;base64," in page
    assert f'href="{served.url}/photos/' in page
    served.trouble.after = 0
    fit.run(learned)
    page = learned.files.page.read_text("utf-8")
    assert "data:image/webp" not in page
    assert "has no pictures" in page


def test_predicting_and_evaluating_urls(learned, served, tmp_path, stackcls):
    write_photos(tmp_path / "new", 2, ["ant", "bee"], seed=5)
    model = learned.files.safe_model
    wanted = [(row.label, row.probability) for row in predict.run([str(tmp_path / "new")], model)]
    user = served.url.replace("://", "://someone:pass-word@")
    rows = list(predict.run([f"{user}/new/"], model))
    assert [(row.label, row.probability) for row in rows] == wanted
    assert rows[0].path == f"{served.url}/new/ant/00.png"
    out = stackcls(
        "predict", f"{user}/new/ant/00.png?sig=abc", f"{user}/new/gone.png", "--model", model, "--format", "json"
    )
    one, gone = json.loads(out[1])
    assert (one["label"], one["path"]) == (wanted[0][0], f"{served.url}/new/ant/00.png")
    assert gone["error"] == "file not found"
    assert "pass-word" not in "".join(map(str, out))
    here = evaluate.run(tmp_path / "new", learned.files.safe_model)[0]
    there_ = evaluate.run(f"{served.url}/new", learned.files.safe_model)[0]
    assert here.scores == there_.scores
    assert stackcls("evaluate", f"{served.url}/new", "--model", learned.files.safe_model)[0] == 0
