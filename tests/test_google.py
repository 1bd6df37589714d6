"""Images on Google Cloud Storage: the same features as from disk, and whose fault it is where there are none."""

import logging

import pytest

from stackcls import fetching, remote, sources
from stackcls.errors import SourceAway, SourceError, SourceMissing, UnreadableFile
from stackcls.remote import RemoteFile
from stackcls.settings import Limits
from stackcls.stages import features
from stackcls.urls import Url, place
from tests.conftest import COLOURS, make_settings
from tests.serving_google import PAGE
from tests.test_remote_features import contents, odd, same_as_from_disk, there  # noqa: F401  (odd is a fixture)
from tests.test_shards import in_shards

QUICK = Limits(read_tries=2, read_seconds=20)


def test_a_bucket_gives_the_same_store_whatever_goes_wrong_on_the_way(
    odd,  # noqa: F811
    google_bucket,
    tmp_path,
    fake_engine,
    caplog,
):
    url = google_bucket.fill(odd)
    google_bucket.trouble.kinds = ["503", "reset", "429", "slow"]
    google_bucket.listing.kinds = ["503"]
    assert len(google_bucket.objects) > 2 * PAGE
    with caplog.at_level(logging.WARNING):
        away = same_as_from_disk(odd, url, tmp_path)
    assert not [record for record in caplog.records if record.name.startswith("gcsfs")]
    # Three failures and one late answer each; what was read to be hashed is not read again to be decoded.
    assert [n for path, n in google_bucket.trouble.requests.items() if path.endswith(".png")] == [4] * 31
    assert list(google_bucket.listing.requests.values()) == [-(-len(google_bucket.objects) // PAGE) + 1]
    before = away.files.features.read_bytes()
    assert not features.run(away).written
    assert away.files.features.read_bytes() == before


def test_an_answer_that_breaks_off_is_asked_for_again(photos, google_bucket, tmp_path, fake_engine):
    url = google_bucket.fill(photos)
    google_bucket.trouble.kinds = ["cut"]
    same_as_from_disk(photos, url, tmp_path)


def test_a_manifest_in_a_bucket(photos, google_bucket, tmp_path, fake_engine):
    text = "path,label,split\n" + "".join(f"{c}/{n:02d}.png,{c},train\n" for c in COLOURS for n in range(9))
    (photos / "m.csv").write_text(text + "red/gone.png,red,\n")
    url = google_bucket.fill(photos)
    here, away = make_settings(photos / "m.csv", tmp_path / "here"), there(f"{url}/m.csv", tmp_path)
    assert features.run(here).rejected == features.run(away).rejected == {"red/gone.png": "file not found"}
    assert contents(here.files.features) == contents(away.files.features)


def test_shards_in_a_bucket(photos, google_bucket, tmp_path, fake_engine):
    in_shards(photos, tmp_path / "tars")
    url = google_bucket.fill(tmp_path / "tars", "tars")
    google_bucket.trouble.kinds = ["503", "reset"]
    here = make_settings(tmp_path / "tars", tmp_path / "here")
    features.run(here)
    for number, images in enumerate((url, url + "/{000..002}.tar")):
        away = make_settings(images, tmp_path / f"away{number}")
        features.run(away)
        assert contents(here.files.features) == contents(away.files.features)


def test_one_object_that_may_not_be_read_is_rejected_and_the_run_goes_on(photos, google_bucket, tmp_path, fake_engine):
    google_bucket.trouble.always |= {"red/03.png": "403", "red/04.png": "400"}
    result = features.run(there(google_bucket.fill(photos), tmp_path))
    assert result.rejected == {
        "red/03.png": "cannot be read (the server answers 403)",
        "red/04.png": "cannot be read (the server answers 400)",
    }
    assert [google_bucket.trouble.requests[google_bucket.door(f"photos/red/0{n}.png")] for n in (3, 4)] == [1, 1]


def test_a_server_that_goes_away_ends_the_run_and_rejects_nothing(photos, google_bucket, tmp_path, fake_engine):
    away = there(google_bucket.fill(photos), tmp_path)
    google_bucket.trouble.after, google_bucket.trouble.down = 15, "503"
    with pytest.raises(SourceAway, match=r"is not answered \(the server answers 503; 4 tries\)"):
        features.run(away)
    assert not away.files.features.exists()
    google_bucket.trouble.after = None
    assert features.run(away).rejected == {}
    assert max(google_bucket.trouble.requests.values()) == 5  # four of ours alone: no library tried again by itself


def test_who_may_not_read_is_told_what_to_give(photos, google_bucket, tmp_path, fake_engine, caplog):
    google_bucket.trouble.after, google_bucket.trouble.down = 5, "401"
    with pytest.raises(SourceError, match=r"the server answers 401.*GOOGLE_APPLICATION_CREDENTIALS"):
        features.run(there(google_bucket.fill(photos), tmp_path))


def test_nothing_there(google_bucket):
    for url, reason in (
        (f"gs://{google_bucket.name}/nowhere", "there is nothing at"),
        ("gs://no-such/x", "gs://no-such/x: there is no such bucket; check its name"),
    ):
        with pytest.raises(SourceMissing, match=reason):
            sources.scan(place(url), QUICK)


def test_little_is_kept_of_each_object_that_is_listed(google_bucket):
    google_bucket.put("x/a.png", b"123")
    url = place(f"gs://{google_bucket.name}/x")
    assert remote.find(url, QUICK) == {"a.png": 3}
    (found,) = fetching.file_system(url, listing=True).find(f"{google_bucket.name}/x", detail=True).values()
    assert set(found) == {"name", "size", "type"}


def test_empty_and_large_objects(google_bucket):
    google_bucket.put("empty.png", b"")
    google_bucket.put("large.png", bytes(3 * 2**20) + b"x")
    url = f"gs://{google_bucket.name}"
    assert RemoteFile(Url(f"{url}/empty.png")).read("x", QUICK) == b""
    assert RemoteFile(Url(f"{url}/large.png")).read("x", QUICK) == google_bucket.objects["large.png"]
    assert RemoteFile(Url(f"gcs://{google_bucket.name}/large.png"), 3 * 2**20, 1).read("x", QUICK) == b"x"
    google_bucket.put("large.png", bytes(Limits(max_pixels=1).max_bytes + 1))
    with pytest.raises(UnreadableFile, match="x: the file has more than the"):
        RemoteFile(Url(f"{url}/large.png")).read("x", Limits(max_pixels=1))
