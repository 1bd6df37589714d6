"""What is found out beside the scores: when it is looked for, and what of it is left out."""

import pytest

from stackcls import analyses, validation
from stackcls.settings import Settings
from tests.test_validation import make_training_set


@pytest.mark.parametrize(
    ("depth", "large", "full"),
    [("auto", False, True), ("auto", True, False), ("full", True, True), ("quick", False, False)],
)
def test_what_takes_further_fits_is_left_out_where_they_take_long(monkeypatch, depth, large, full):
    monkeypatch.setattr(validation, "LARGE", 0 if large else 1e12)
    assert analyses.is_full(make_training_set(), Settings(report={"depth": depth})) == full
