"""Which inverse regularisation each matrix's base learner has."""

from collections.abc import Mapping, Sequence

from stackcls.backbones import backbone_of
from stackcls.errors import ConfigError
from stackcls.printable import printable
from stackcls.stacksettings import BaseSettings


def of(settings: BaseSettings, matrices: Sequence[str]) -> tuple[float, ...]:
    """One number for each matrix, its own or its backbone's, whose name stands for all matrices of that backbone.

    Raises
    ------
    ConfigError
        If a matrix has none, or a name is of neither matrix nor backbone.
    """
    C = settings.C
    if not isinstance(C, Mapping):
        return (C,) * len(matrices)
    found = [C.get(name, C.get(backbone_of(name))) for name in matrices]
    numbers = tuple(number for number in found if number is not None)
    strange = [name for name in C if name not in matrices and name not in map(backbone_of, matrices)]
    if len(numbers) < len(matrices) or strange:
        backbones = dict.fromkeys(map(backbone_of, matrices))
        raise ConfigError(
            f"stack.base.C: has {_listed(sorted(C))}, and the backbones are {_listed(backbones)}: give one number for "
            f"each, or one for all{_about_matrices(matrices, backbones)}"
        )
    return numbers


def _about_matrices(matrices: Sequence[str], backbones: Mapping[str, None]) -> str:
    if set(matrices) == set(backbones):
        return ""
    return f"; a single matrix can have its own: {_listed(matrices)}"


def _listed(names: Sequence[str] | Mapping[str, None]) -> str:
    return ", ".join(map(printable, names))
