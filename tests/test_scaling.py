"""What is reckoned for many images, that docs/scaling.md says so, and what a cluster is given with each task."""

import json
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from stackcls import computation, listing
from stackcls.cluster import SMALL, Cluster
from stackcls.clustersettings import ClusterSettings
from stackcls.listener import Silent

sys.path.append(str(Path(__file__).resolve().parent.parent / "benchmarks"))

import scaling
import unit_costs

ROOT = Path(__file__).resolve().parent.parent
UNITS, _ = scaling.read_units(None)
# What each part of unit_costs.py notes, as if it had been measured: two are subtracted, so no two are equal.
NOTED = ("images", "feature_bytes", "all_bytes", "all_s", "blocks_s", "store_s", "file_bytes", "open_s", "open_bytes")
PARTS = {
    "hashing": {"image_s": 1e-3, "gb_s": 1.0},
    "networks": {"image_s": 0.5, "load": 7.0},
    "fitting": {"number_s": 1e-10, "read_gb_per_s": 1.5},
    **{
        name: dict.fromkeys(NOTED, 1e9 * number)
        for number, name in enumerate(part for part in unit_costs.PARTS if part.startswith("client"))
    },
}


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


def test_many_workers_wait_for_the_results_and_a_single_machine_does_not():
    alone, crowd = estimate(images=10**7), estimate(images=10**7, workers=100)
    assert set(alone.phases["networks"]) == {"reading", "cores"}
    assert alone.limit == "cores"
    assert crowd.limit == "results"
    # As many blocks a second as the simulation reached (docs/scaling.md); hashes come the same way.
    blocks_s, hashing_s = crowd.phases["networks"]["results"], crowd.phases["hashing"]["results"]
    assert 10**7 / computation.IMAGES_PER_BLOCK / blocks_s == pytest.approx(51, abs=0.5)
    assert hashing_s == pytest.approx(10**7 / listing.PER_TASK * UNITS["results_task_s"])
    assert crowd.features_s == pytest.approx(blocks_s + hashing_s + crowd.alone_s)


def test_slow_networks_are_waited_for_twice():
    quick, slow = estimate(images=10**7, gb_per_s=100), estimate(images=10**7, gb_per_s=0.001)
    assert slow.limit == "reading"
    assert slow.features_s - slow.alone_s == pytest.approx(2 * slow.image_gb / 0.001)
    assert quick.limit == "cores"


def test_features_go_through_the_link_of_the_one_client():
    estimated = estimate(images=10**7, workers=100, gb_per_s=0.01)
    assert estimated.limit == "link"
    assert estimated.phases["networks"]["link"] == pytest.approx(estimated.feature_bytes / 1e9 / 0.01)


def test_each_fit_sends_the_probabilities_of_all_rows():
    assert estimate(images=10, classes=7, folds=3).result_bytes == 4 * 10 * 7 * 4 * (3 + 1)


def run_main(monkeypatch, capsys, *arguments):
    monkeypatch.setattr(sys, "argv", ["scaling.py", *map(str, arguments)])
    scaling.main()
    return capsys.readouterr().out


def test_units_of_ones_own_are_taken_and_others_named(tmp_path, monkeypatch, capsys):
    unit_costs.write(tmp_path / "mine.json", PARTS, "mobilenets")
    found, defaults = scaling.read_units(tmp_path / "mine.json")
    assert found["mobilenets_image_s"] == 0.5
    assert found["results_task_s"] == UNITS["results_task_s"]
    shown = run_main(monkeypatch, capsys, "--units", tmp_path / "mine.json", "--images", "3600", "--cores", 1)
    assert "| `features`: core hours | 0.5 |" in shown
    assert f"from benchmarks/units.json, measured elsewhere: {', '.join(defaults)}" in shown
    assert {"article_image_s", "client_task_s", "results_task_s", "list_page_s"} <= set(defaults)
    assert not {"mobilenets_image_s", "hash_gb_s", "fit_number_s", "read_gb_per_s"} & set(defaults)


def test_a_run_that_goes_on_writes_and_prints_the_same_units(tmp_path, monkeypatch, capsys):
    (tmp_path / "mine.json").write_text(json.dumps({"parts": PARTS}))
    monkeypatch.setattr(sys, "argv", ["unit_costs.py", "--out", str(tmp_path / "mine.json"), "--networks", "article"])
    unit_costs.main()
    (tmp_path / "printed.json").write_text(capsys.readouterr().out)
    found, defaults = scaling.read_units(tmp_path / "mine.json")
    assert found["article_image_s"] == 0.5
    assert "mobilenets_image_s" in defaults
    assert scaling.read_units(tmp_path / "printed.json") == (found, defaults)


def test_units_that_are_not_all_measured_or_of_no_meaning_are_refused(tmp_path):
    unit_costs.write(tmp_path / "mine.json", {"hashing": PARTS["hashing"]}, "mobilenets")
    with pytest.raises(SystemExit, match="not everything is measured yet"):
        scaling.read_units(tmp_path / "mine.json")
    (tmp_path / "mine.json").write_text('{"hash_s": 1}')
    with pytest.raises(SystemExit, match="unknown: hash_s; allowed are hash_image_s"):
        scaling.read_units(tmp_path / "mine.json")


def test_the_tables_of_the_page_are_what_is_reckoned(monkeypatch, capsys):
    page = (ROOT / "docs" / "scaling.md").read_text().partition("### Units")[0]
    tables = [line for line in page.splitlines() if line.startswith("| ")]
    assert len(tables) > 30
    shown = run_main(monkeypatch, capsys).splitlines()
    assert [line for line in tables if line not in shown] == []


def test_prices_are_the_readers_own(monkeypatch, capsys):
    given = ("--images", "1e9", "--networks", "article", "--gb-month", "1", "--gb-out", "0.5")
    shown = run_main(monkeypatch, capsys, *given)
    assert "| money: a month of images | 100,000 |" in shown
    assert "| money: images leaving their region twice | 100,000 |" in shown
    assert "1,000,000,000 images" in shown


class Submitting:
    """Notes what a client would be given."""

    def submit(self, _function, value, **_):
        return SimpleNamespace(size=len(value), status="finished")


def test_what_is_small_goes_with_each_task_so_that_no_worker_is_preferred(monkeypatch):
    cluster = Cluster(Submitting(), ClusterSettings(address="tcp://127.0.0.1:1"), Silent())
    monkeypatch.setattr(cluster.crew, "wait_for", lambda _: None)
    assert cluster.keep(b"small") == b"small"
    assert cluster.keep(bytes(SMALL + 1)).size == SMALL + 1
