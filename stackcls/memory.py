"""Which feature matrices fit into memory while they are learned from, and which are read from the file in blocks."""

from collections.abc import Sequence
from dataclasses import dataclass

from stackcls import processes
from stackcls.descent import PAIRS
from stackcls.printable import counted
from stackcls.settings import Settings
from stackcls.stacksettings import RECIPES, Recipe
from stackcls.streaming import rows_of_block

SHARE = 0.75  # of what is available: other work, and what the system keeps of files, need some too
NUMBER = 4  # bytes of a float32
FIT_TABLES = 4  # arrays of a number for each image and class that a single fit has
TABLES = 12  # beside one for each backbone: arrays of a number for each image and class that are there together
UNITS = (("TB", 10**12), ("GB", 10**9), ("MB", 10**6), ("kB", 10**3))


@dataclass(frozen=True)
class Plan:
    """How much memory fits may take, and what they do with it.

    Attributes
    ----------
    memory : int
        Bytes.
    streamed : frozenset of int
        Backbones, by number, whose matrices do not fit.
    lines : tuple of str
        What is to be said of it, in one line for each of these backbones.
    """

    memory: int
    streamed: frozenset[int]
    lines: tuple[str, ...]


def copies(recipe: Recipe) -> int:
    """How often a matrix is in memory while its base learner is fitted: beside it, inner folds have their rows."""
    return 2 if recipe == "out-of-fold" else 1


def plan(names: Sequence[str], widths: Sequence[int], n_images: int, n_classes: int, settings: Settings) -> Plan:
    """Compare what fitting each backbone takes with what there is.

    Parameters
    ----------
    names, widths : sequence
        Of the backbones.
    n_images, n_classes : int
        That are learned from.
    settings : Settings
        `stack.memory`: MiB, or None for most of what is available. Where the recipe is chosen, it may be any.
    """
    wanted = settings.stack
    memory = int(SHARE * processes.available_memory()) if wanted.memory is None else wanted.memory << 20
    allowed = f"the {_size(memory, up=False)} that fits may take (stack.memory)"
    tables = NUMBER * n_images * n_classes * (len(names) + TABLES + _tuning(len(names), settings))
    n_copies = max(map(copies, RECIPES if wanted.tune else (wanted.recipe,)))
    streamed, lines = [], []
    for number, (name, width) in enumerate(zip(names, widths, strict=True)):
        matrix = NUMBER * n_images * width * n_copies
        steps = _steps(width, n_classes)
        if matrix + steps + tables <= memory:
            continue
        streamed.append(number)
        twice = " (twice, for inner folds)" if n_copies > 1 else ""
        lines.append(
            f"{name}: {_size(matrix)}{twice}, and {_size(steps + tables)} to work with, do not fit into {allowed}: "
            "read from the file in blocks, once for each step of a fit"
        )
        blocks = NUMBER * width * min(n_images, 2 * rows_of_block(width, NUMBER))
        if tables <= memory < blocks + steps + tables:
            lines.append(
                f"{name}: {width} features are so many that {_size(blocks + steps + tables)} are needed even so, more "
                f"than {allowed}: going on; better give it more memory, or leave that matrix out (features.backbones, "
                "features.pooling)"
            )
    if tables > memory:
        less = ", or fit without --tune" if wanted.tune else ""
        lines.append(
            f"{n_images} images times {n_classes} classes are so many probabilities that {_size(tables)} are needed, "
            f"more than {allowed}, whether matrices are read in blocks or not: give it more memory, or fewer "
            f"images{less}"
        )
    return Plan(memory, frozenset(streamed), tuple(lines))


def _steps(width: int, n_classes: int) -> int:
    """Bytes of what L-BFGS keeps: arrays of the size of the coefficients."""
    return NUMBER * (width + 1) * n_classes * 2 * (PAIRS + 4)


def one_fit(n_images: int, n_classes: int, width: int, n_copies: int) -> int:
    """Bytes that one fit takes beside the matrix that it is given."""
    return NUMBER * n_images * (n_copies * width + FIT_TABLES * n_classes) + _steps(width, n_classes)


def _tuning(backbones: int, settings: Settings) -> int:
    """Tables that tuning keeps: of what all backbones say together as configured, of each one's best, of a part's last.

    Each inner fold says something of all rows of its part. The parts are what folds are fitted on, and all rows:
    together as many times all rows as there are folds.
    """
    if not settings.stack.tune:
        return 0
    return settings.stack.inner_folds * (settings.cv.folds * (backbones + 1) + backbones)


def traffic(name: str, matrix: int, read: int, seconds: float) -> str:
    """Say how much of a matrix was read; all sizes in bytes."""
    rate = f" at {read / seconds / 1e9:.1f} GB/s" if seconds else ""
    return f"{name}: read {counted(round(read / matrix), 'time')}, {_size(read)}{rate}"


def _size(count: int, up: bool = True) -> str:
    """Three digits, rounded up of what is needed and down of what there is: what does not fit never looks so."""
    step = 10 ** max(len(str(count)) - 3, 0)
    count = (-(-count // step) if up else count // step) * step
    unit, size = next(((unit, size) for unit, size in UNITS if count >= size), UNITS[-1])
    return f"{count / size:g} {unit}"
