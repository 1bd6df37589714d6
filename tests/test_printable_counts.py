"""What is counted agrees with its number."""

import pytest

from stackcls.printable import counted


@pytest.mark.parametrize(("number", "said"), [(0, "0 images"), (1, "1 image"), (2, "2 images")])
def test_one_is_singular(number, said):
    assert counted(number, "image") == said


def test_an_irregular_plural_is_given():
    assert (counted(1, "class", "classes"), counted(3, "class", "classes")) == ("1 class", "3 classes")
