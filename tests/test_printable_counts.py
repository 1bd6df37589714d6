"""What is counted agrees with its number."""

import ast
import itertools
import re

import pytest

from stackcls.printable import counted, were
from tests.test_floors import TREES


@pytest.mark.parametrize(("number", "said"), [(0, "0 images"), (1, "1 image"), (2, "2 images")])
def test_one_is_singular(number, said):
    assert counted(number, "image") == said


def test_an_irregular_plural_is_given():
    assert (counted(1, "class", "classes"), counted(3, "class", "classes")) == ("1 class", "3 classes")


@pytest.mark.parametrize(("number", "said"), [(0, "0 images were"), (1, "1 image was"), (2, "2 images were")])
def test_the_verb_agrees_too(number, said):
    assert f"{counted(number, 'image')} {were(number)}" == said


NOUNS = (
    "images|photos|classes|labels|names|rows|columns|values|groups|pairs|folds|blocks|files|lines|backbones|matrices|"
    "workers|tasks|tries|times|copies|shards|members|epochs|scores"
)
# Numbers that are never one: limits, and counts of what there are at least two of.
NEVER_ONE = {
    "report.folds",
    "settings.cv.folds",
    "settings.stack.inner_folds",
    "len(report.classes)",
    "len(plan.classes)",
    "len(model.classes_)",
    "len(labels)",
    "len(files)",
    "self._n_rows",
    "n_images",
    "n_classes",
    "len(groups)",
    "count",  # of shards beyond the most that are allowed
    "n_rows",
    "rows",
    "n_columns",
    "width",
    "len(edges) - 1",
    "len(found.rows)",
    "described.origin.n_images",
    "found.flagged",
    "duplicates.FEWEST",
    "computation.IMAGES_PER_BLOCK",
    "values.dtype",
    "shape[0]",
    "where",
    "len(items)",
}


def test_every_message_with_a_number_counts_it():
    found = []
    for module, tree in TREES.items():
        for node in (node for node in ast.walk(tree) if isinstance(node, ast.JoinedStr)):
            for value, text in itertools.pairwise(node.values):
                follows = isinstance(text, ast.Constant) and re.match(rf" (\w+ )?({NOUNS})\b", str(text.value))
                if not follows or not isinstance(value, ast.FormattedValue):
                    continue
                said = ast.unparse(value.value)
                if not (said in NEVER_ONE or said.isupper() or re.match(r"(counted|_size|', '\.join)\(", said)):
                    found.append((module, said, text.value))
    assert not found, found
