"""Answering `unknown` where a label is not sure enough."""

from numbers import Real

import numpy as np
from numpy.typing import NDArray

from stackcls.errors import ConfigError, ModelError
from stackcls.familiarity import Familiarity

UNKNOWN = "unknown"


def check(familiarity: Familiarity | None, classes: NDArray[np.str_], reject: float | None) -> None:
    """Raise `ConfigError` or `ModelError` where a model cannot reject at this threshold; None asks for nothing."""
    if reject is None:
        return
    if not isinstance(reject, Real) or not 0 <= reject <= 1:
        raise ConfigError(f"reject: {reject!r} is not a probability; a number from 0 to 1 is allowed")
    if UNKNOWN in classes:
        raise ModelError(
            f"reject: the model has a class {UNKNOWN!r}, and images of no known class would get the same label: give "
            "that class another name, and run `stackcls features` and `stackcls fit` again"
        )
    needed(familiarity)


def needed(familiarity: Familiarity | None) -> Familiarity:
    """What a model rejects by; raise `ModelError` where it has no such."""
    if familiarity is None or not familiarity.views:
        raise ModelError("reject: the model is of a stackcls that could not reject yet; run `stackcls fit` again")
    return familiarity


def unmeasured(familiarity: Familiarity | None, reject: float | None) -> str | None:
    """Say that the threshold was not set with images of classes never seen; None where there is nothing to say."""
    if reject is None or familiarity is None or familiarity.measured:
        return None
    return (
        f"reject: {reject:g} was not measured on classes never seen, of which more images then keep a label: run "
        "`stackcls fit --report full`, with three classes or more"
    )


def labels(
    classes: NDArray[np.str_], shares: NDArray[np.float64], certainty: NDArray[np.float64] | None, reject: float | None
) -> NDArray[np.str_]:
    """The likeliest class of each row, or `unknown` where certainty is below the threshold."""
    found: NDArray[np.str_] = classes[shares.argmax(axis=1)]
    return found if reject is None or certainty is None else np.where(certainty < reject, UNKNOWN, found)
