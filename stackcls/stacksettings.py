"""The settings of the stack."""

from typing import Literal

from pydantic import Field

from stackcls.section import Section


class Regularisation(Section):
    """Inverse strength of an L2 penalty, as scikit-learn's `C`."""

    C: float = Field(1.0, gt=0, allow_inf_nan=False)


class StackSettings(Section):
    """What learns on top of the features."""

    recipe: Literal["in-sample", "out-of-fold"] = "in-sample"
    base: Regularisation = Regularisation()
    meta: Regularisation = Regularisation()
    class_weight: Literal["balanced"] | None = None
    inner_folds: int = Field(3, ge=2, le=100)
