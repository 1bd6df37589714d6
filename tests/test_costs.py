"""What backbones cost is measured while features are computed, kept in the cache folder, and never in the way."""

import json

import numpy as np
import pytest

from stackcls import costs
from stackcls.stages import features, fit
from stackcls.store import Store
from tests.conftest import FAKE_BACKBONES, FakeExtractor, make_settings

KEY = ("a" * 64, "fake")


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    folder = tmp_path / "cache"
    monkeypatch.setenv("STACKCLS_CACHE", str(folder))
    return folder


class Clock:
    """Each call of the extractor takes as long as it is told."""

    def __init__(self, monkeypatch):
        self.now = 0.0
        monkeypatch.setattr(costs.time, "perf_counter", lambda: self.now)

    def extractor(self, durations):
        durations = iter(durations)

        def run(images):
            self.now += next(durations)
            return np.zeros((len(images), 3), np.float32)

        return run


def test_the_first_batch_and_padded_ones_do_not_count(monkeypatch):
    timed = costs.Timed(Clock(monkeypatch).extractor([9.0, 0.2, 0.6, 5.0]), 4)
    assert timed.seconds_per_image is None
    for count in (4, 4, 4, 3):
        assert timed(np.zeros((count, 1))).shape == (count, 3)
    assert timed.seconds_per_image == pytest.approx(0.8 / 8)


def test_a_timed_extractor_is_the_extractor():
    inner = FakeExtractor(16, 8, np.eye(48)[:, :8], [])
    timed = costs.Timed(inner, 4)
    assert (timed.width, timed.input_size) == (8, 16)
    images = np.random.default_rng(0).integers(0, 255, (2, 16, 16, 3), dtype=np.uint8)
    np.testing.assert_array_equal(timed(images), inner(images))


def test_what_was_measured_last_counts(cache):
    assert costs.known([KEY]) == [None]
    costs.keep({KEY: 0.5, ("b", "fake"): 0.1})
    costs.keep({KEY: 0.25, ("b", "fake"): None})
    assert costs.known([KEY, ("b", "fake"), ("b", "other")]) == [0.25, 0.1, None]
    assert [path.name for path in cache.iterdir()] == [costs.FILE]


def test_the_file_does_not_grow_without_bound(monkeypatch):
    monkeypatch.setattr(costs, "KEPT", 2)
    for name in "abca":
        costs.keep({(name, "fake"): 1.0})
    assert costs.known([(name, "fake") for name in "abc"]) == [1.0, None, 1.0]


@pytest.mark.parametrize(
    "content", [b"", b"[1]", b"\xff", b"{", b"[" * 100_000, *(b'{"%s fake": %s}' % (b"a" * 64, bad) for bad in (
        b'"1"', b"-1.0", b"0.0", b"NaN", b"Infinity", b"null", b"[]", b"9" * 400))]
)  # fmt: skip
def test_a_broken_file_is_ignored_and_replaced(cache, content):
    cache.mkdir()
    (cache / costs.FILE).write_bytes(content)
    assert costs.known([KEY]) == [None]
    costs.keep({KEY: 0.5})
    assert costs.known([KEY]) == [0.5]


def test_a_cache_that_cannot_be_written_is_no_error(cache):
    cache.write_text("a file where the folder should be")
    costs.keep({KEY: 0.5})
    assert costs.known([KEY]) == [None]


def test_the_report_says_what_backbones_cost_and_the_store_does_not(photos, tmp_path, fake_engine):
    settings = make_settings(photos, tmp_path / "artifacts")
    features.run(settings)
    first = settings.files.features.read_bytes()
    found = fit.run(settings).report.contributions
    assert all(0 < item.seconds_per_image < 10 for item in found.values())
    assert "Seconds per image" not in settings.files.report_text.read_text("utf-8")
    with Store(settings.files.features) as store:
        keys = [f"{store.matrices[item['name']].identity.digest} fake" for item in FAKE_BACKBONES]
    file = tmp_path / "cache" / costs.FILE
    assert json.loads(file.read_text("utf-8")) == {
        key: found[item["name"]].seconds_per_image for key, item in zip(keys, FAKE_BACKBONES, strict=True)
    }
    settings.files.features.unlink()
    features.run(settings)
    assert settings.files.features.read_bytes() == first


def test_what_is_not_known_is_said_in_words(hard, cache):
    (cache / costs.FILE).unlink()
    report = fit.run(hard).report
    assert [item.seconds_per_image for item in report.contributions.values()] == [None, None]
    page = hard.files.report_text.read_text("utf-8")
    assert page.count("| unknown |") + page.count("unknown |") >= 2
    assert "Seconds per image are known where `features` computed them on this machine." in page
