"""What is reckoned for many images, and what a cluster is given with each task."""

import json
import sys
from pathlib import Path

import pytest

from stackcls.cluster import SMALL, Cluster
from stackcls.clustersettings import ClusterSettings
from stackcls.listener import Silent

sys.path.append(str(Path(__file__).resolve().parent.parent / "benchmarks"))

import scaling

UNITS = json.loads(Path(scaling.__file__).with_name("units.json").read_text())


def estimate(**job):
    return scaling.Estimate(scaling.Job(**job), UNITS)


def test_ten_times_the_images_cost_ten_times_as_much():
    few, many = estimate(images=10**6), estimate(images=10**7)
    for name in (
        "networks_s",
        "features_s",
        "file_bytes",
        "client_bytes",
        "open_s",
        "fit_bytes",
        "fit_s",
        "read_bytes",
    ):
        assert getattr(many, name) == pytest.approx(10 * getattr(few, name)), name


def test_features_are_four_bytes_for_each_number():
    assert estimate(images=1).feature_bytes == 4 * 3584
    assert estimate(images=1, networks="article").feature_bytes == 4 * 6656


def test_a_fit_at_the_size_of_cub_takes_what_was_measured():
    # docs/performance.md: 92 s on two cores.
    assert estimate(images=11_788, classes=200, networks="article").fit_s == pytest.approx(2 * 92, rel=0.25)


def test_many_workers_wait_for_the_client_and_a_single_machine_does_not():
    alone, crowd = estimate(images=10**7), estimate(images=10**7, workers=100)
    assert set(alone.stage_one) == {"networks"}
    assert max(crowd.stage_one, key=crowd.stage_one.get) == "client"
    assert crowd.features_s > crowd.networks_s / 6400


def test_prices_are_the_readers_own(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["scaling.py", "--images", "1e9", "--networks", "article", "--gb-month", "1"])
    scaling.main()
    shown = capsys.readouterr().out
    assert "| money: a month of images | 100,000.00 |" in shown
    assert "1,000,000,000 images" in shown


class Submitting:
    """Notes what a client would be given."""

    def submit(self, _function, value, **_):
        return ("future", len(value))


def test_what_is_small_goes_with_each_task_so_that_no_worker_is_preferred(monkeypatch):
    cluster = Cluster(Submitting(), ClusterSettings(address="tcp://127.0.0.1:1"), Silent())
    monkeypatch.setattr(cluster.crew, "wait_for", lambda _: None)
    assert cluster.keep(b"small") == b"small"
    assert cluster.keep(bytes(SMALL + 1)) == ("future", SMALL + 1)
