"""The settings of the stack."""

import math
import re
from collections.abc import Mapping
from typing import Annotated, Literal, get_args

from pydantic import BeforeValidator, Field

from stackcls.section import Section, shown

Recipe = Literal["in-sample", "out-of-fold"]
Meta = Literal["linear-svm", "logistic-regression", "average"]
RECIPES: tuple[Recipe, ...] = get_args(Recipe)
METAS: tuple[Meta, ...] = get_args(Meta)
LONGEST = 7 * 24 * 60  # minutes


def _strength(value: object) -> float | None:
    try:
        number = float(value) if isinstance(value, str | int | float) and not isinstance(value, bool) else math.nan
    except (ValueError, OverflowError):
        return None
    return number if 0 < number < math.inf else None


def _strengths(value: object) -> float | dict[str, float]:
    """Read one number, or one for each backbone; in one step, since a union's errors would speak of both."""
    many = value if isinstance(value, Mapping) else {"": value}
    found = {name: _strength(item) for name, item in many.items()}
    for name, number in found.items():
        if number is None or not isinstance(name, str):
            which = f"{shown(many[name])} for {shown(name)}" if isinstance(value, Mapping) else shown(value)
            raise ValueError(f"{which} does not do: a number above 0, or a mapping of one for each backbone, is needed")
    if not found:
        raise ValueError("{} does not do: a number above 0, or one for each backbone, is needed")
    numbers = {name: number for name, number in found.items() if number is not None}
    return numbers if isinstance(value, Mapping) else numbers[""]


class BaseSettings(Section):
    """The logistic regressions: inverse strength of their L2 penalty, as scikit-learn's `C`, for all or by backbone."""

    C: Annotated[float | dict[str, float], BeforeValidator(_strengths)] = 1.0


class MetaSettings(Section):
    """What decides on the base learners' averaged probabilities; `C` is not used by `average`."""

    kind: Meta = "linear-svm"
    C: float = Field(1.0, gt=0, allow_inf_nan=False)


def _memory(value: object) -> int | None:
    """Read `auto` as None: most of what is available."""
    if value is None or value == "auto":
        return None
    number = int(value) if isinstance(value, str) and re.fullmatch("[0-9]{1,9}", value) else value
    if not isinstance(number, int) or isinstance(number, bool) or number < 1:
        raise ValueError(f"memory is {shown(value)}; `auto` or a number of MiB from 1 on is allowed")
    return number


class StackSettings(Section):
    """What learns on top of the features.

    `tune` is the time to look for better values, in minutes; `memory` is what fits may take, in MiB, None for most of
    what is available.
    """

    recipe: Recipe = "in-sample"
    base: BaseSettings = BaseSettings()
    meta: MetaSettings = MetaSettings()
    class_weight: Literal["balanced"] | None = None
    inner_folds: int = Field(3, ge=2, le=100)
    memory: Annotated[int | None, BeforeValidator(_memory)] = None
    tune: float | None = Field(None, gt=0, le=LONGEST, allow_inf_nan=False)
