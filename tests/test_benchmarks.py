"""The parts of the benchmarks that decide what is measured again and what the tables say."""

import os
import sys
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).resolve().parent.parent / "benchmarks"))

import label_suspects as label_suspects
import rendering
from running import Measured, Results, run

pytestmark = pytest.mark.skipif(not hasattr(os, "wait4"), reason="measures processes as POSIX systems do")

RATES = {"vgg19": 4.0, "resnet50": 4.0, "inception_v3": 4.0, "xception": 4.0}


def filled(path):
    results = Results(path, {"images": 8, "of": "photos"})
    results.state("multiply-adds", dict.fromkeys(RATES, 10**9))
    results.add("peaks/all/1", Measured(1, 1, "", ""), {"peaks": {"float32": {"rate": 80.0, "by": "a product"}}})
    for number, seconds in enumerate((9.0, 8.0)):
        results.add(f"whole/article/{number}", Measured(seconds, 100, "", ""))
        results.add(f"whole/openvino-float32/{number}", Measured(seconds / 2, 50, "", ""))
    results.add("stages/openvino-float32/1", Measured(4, 1, "", ""), {"rates": RATES, "stages": {"build": 1.0}})
    results.add("first/openvino-int8/1", Measured(1, 1, "", "status 1: no such precision"))
    return results


def test_a_killed_run_goes_on(tmp_path):
    filled(tmp_path / "results.json")
    again = Results(tmp_path / "results.json", {"images": 8, "of": "photos"})
    assert not again.lacks("whole/article/1")
    assert again.lacks("whole/article/2")
    assert again.lacks("first/openvino-int8/1"), "what failed is tried again"


def test_results_of_other_images_are_refused(tmp_path):
    filled(tmp_path / "results.json")
    with pytest.raises(SystemExit, match="give another --out"):
        Results(tmp_path / "results.json", {"images": 9, "of": "photos"})


def test_the_better_of_the_runs_counts(tmp_path):
    figures = rendering.Figures(filled(tmp_path / "results.json").values)
    assert figures.ratio("openvino-float32", "article") == 2.0
    assert figures.ratio("openvino-float32", "thingsvision") is None
    assert figures.rates("openvino-float32")["all"] == 1.0
    (side,) = (side for side in rendering.SIDES if side.name == "openvino-float32")
    assert figures.fraction(side, "vgg19") == pytest.approx(0.1)


def test_rows_without_results_say_why(tmp_path):
    found = rendering.tables(filled(tmp_path / "results.json").values)
    for said in (rendering.text(found), rendering.markdown(found)):
        assert "status 1: no such precision" in said
        assert "give --thingsvision" in said
        assert "2.00 (asked: 1.5)" in said


def test_a_failing_command_is_a_result():
    measured = run([sys.executable, "-c", "import sys; sys.exit('it broke')"])
    assert measured.error == "status 1: it broke"
    assert measured.memory > 0
