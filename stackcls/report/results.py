"""What a run found out, as frozen data; `report.json` is this, written down."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from stackcls.errors import SourceError, SourceMissing
from stackcls.files import write_text
from stackcls.report.findings import Choice, Contribution, Duplicates, ReliabilityBin, Suspects, Unknown

FORMAT = 1
BEGINNING = '{\n  "recipe":'  # of every report's file
STACK = "stack"
UNTUNED = "stack as configured"


@dataclass(frozen=True)
class Score:
    """Accuracy of one learner on images it was not fitted on.

    Attributes
    ----------
    mean, std : float
        Over the folds (population standard deviation, as numpy's).
    folds : list of float
        One accuracy per fold.
    balanced_accuracy : float
        Mean recall over classes, of all folds' predictions together.
    top5 : float or None
        Share of images whose class is among the five most probable; None for five classes or fewer.
    """

    mean: float
    std: float
    folds: list[float]
    balanced_accuracy: float
    top5: float | None = None


@dataclass(frozen=True)
class McNemar:
    """McNemar's test on the images that one of two learners got right and the other wrong.

    Attributes
    ----------
    stack_only, single_only : int
        Images that only the stack, or only the single backbone, got right.
    p_value : float
        Of equal error rates; exact binomial below 25 such images, else chi-squared with continuity correction.
    """

    stack_only: int
    single_only: int
    p_value: float


@dataclass(frozen=True)
class Gain:
    """The stack's accuracy minus that of the best single backbone, on the same folds.

    Attributes
    ----------
    over : str
        The best single backbone.
    mean : float
    folds : list of float
    interval : list of two floats, or None
        95 % interval of the mean; None with a single fold, or where all folds have the same gain.
    interval_method : str
    mcnemar : McNemar
    """

    over: str
    mean: float
    folds: list[float]
    interval: list[float] | None
    interval_method: str
    mcnemar: McNemar


@dataclass(frozen=True)
class Calibration:
    """How far the stack's probabilities can be taken at their word.

    Attributes
    ----------
    expected_calibration_error : float
        Mean gap between probability and accuracy over 15 equal bins, on folds the temperature was not fitted on.
    log_loss : float
        Natural logarithm, on the same.
    temperature : float
        Of the final model, from all out-of-fold decisions.
    bins : list of ReliabilityBin
    """

    expected_calibration_error: float
    log_loss: float
    temperature: float
    bins: list[ReliabilityBin] = field(default_factory=list)


@dataclass(frozen=True)
class ClassScore:
    """Precision, recall, F1 and number of images of one class, for the stack."""

    precision: float
    recall: float
    f1: float
    support: int


@dataclass(frozen=True)
class Mistake:
    """An image that the stack takes for another class, and with what probability."""

    path: str
    label: str
    predicted: str
    probability: float


@dataclass(frozen=True)
class Holdout:
    """Scores of the final model on images that neither the folds nor the model saw.

    Attributes
    ----------
    how : str
        `split`, or the share of the images.
    n_images : int
    scores : mapping of str to Score
        One fold each.
    gain : Gain
        Over the best single backbone of the hold-out.
    calibration : Calibration
    left_out : int
        Images that were not learned from because a copy, or one of their group, is held out.
    wrong : int
        Images that the stack takes for another class.
    mistakes : list of Mistake
        Of those the hundred that it is most sure of; `holdout_predictions.csv` has all.
    """

    how: str
    n_images: int
    scores: Mapping[str, Score]
    gain: Gain
    calibration: Calibration
    left_out: int
    wrong: int
    mistakes: list[Mistake]


@dataclass(frozen=True)
class Tuning:
    """What was tried to choose C, recipe and meta-classifier by inner cross-validation, and whether it paid.

    Attributes
    ----------
    minutes : float
        The time that was given.
    seconds : float
        The time that it took, without the fits of what was chosen.
    base_factors, meta_factors : list of float
        Multiples of the configured C that were tried, of the base learners and of the meta-classifiers.
    untried : list of float
        Multiples for which there was no time, of either.
    choices : list of Choice
        Made for each fold from the rows that it is fitted on alone, and last for the final model from all rows.
    untuned : Score
        Of the stack as configured, on the same folds.
    gain : Gain
        Of the tuned stack over that, on the same folds.
    balanced : bool
        Whether all accuracies here weigh all classes alike.
    edges : mapping of str to float
        Each C of the final model that is the largest or smallest tried: by backbone, and the meta-classifier's under
        `stack`.
    """

    minutes: float
    seconds: float
    base_factors: list[float]
    meta_factors: list[float]
    untried: list[float]
    choices: list[Choice]
    untuned: Score
    gain: Gain
    balanced: bool = False
    edges: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Report:
    """All of one run.

    Attributes
    ----------
    recipe : str
        How the stack was made.
    folds, seed, n_images : int
    classes : list of str
    scores : mapping of str to Score
        By backbone's name, and the stack under `stack`.
    gain : Gain
    confusion : list of list of int
        Rows are given classes, columns the stack's predictions, in the order of `classes`; empty with more than 2,000
        classes.
    per_class : mapping of str to ClassScore
    calibration : Calibration
    seconds : float
        Wall time of loading, cross-validation and the final fit, or of the whole evaluation.
    created_with : mapping of str to str
        Library versions.
    kind : str
        `cross-validation`, or `evaluation` on images the model never saw.
    baselines : mapping of str to mapping of str to Score
        By name of the baseline and backbone.
    notes : list of str
        What a careful reader should know.
    settings : mapping of str to str
        What else decides the scores.
    contributions : mapping of str to Contribution
        By backbone; empty where it was not measured.
    suspects, duplicates, unknown, holdout, tuning
        None where that was not looked for.
    tables : mapping of str to str
        SHA-256 of each table beside it, by what it holds (`predictions`, `suspects`, ...).
    """

    recipe: str
    folds: int
    seed: int
    n_images: int
    classes: list[str]
    scores: Mapping[str, Score]
    gain: Gain
    confusion: list[list[int]]
    per_class: Mapping[str, ClassScore]
    calibration: Calibration
    seconds: float
    created_with: Mapping[str, str]
    kind: str = "cross-validation"
    baselines: Mapping[str, Mapping[str, Score]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    settings: Mapping[str, str] = field(default_factory=dict)
    contributions: Mapping[str, Contribution] = field(default_factory=dict)
    suspects: Suspects | None = None
    duplicates: Duplicates | None = None
    unknown: Unknown | None = None
    holdout: Holdout | None = None
    tuning: Tuning | None = None
    tables: Mapping[str, str] = field(default_factory=dict)
    format: int = FORMAT

    @property
    def singles(self) -> dict[str, Score]:
        """Scores of the single backbones."""
        return {name: score for name, score in self.scores.items() if name != STACK}

    def to_json(self) -> str:
        """Write down as JSON, two spaces deep."""
        return _ADAPTER.dump_json(self, indent=2).decode() + "\n"

    def save(self, path: Path) -> None:
        """Write `report.json` whole, or not at all."""
        write_text(path, self.to_json())

    @staticmethod
    def load(path: Path) -> "Report":
        """Read what `save` wrote; raise `SourceError` where it is not that."""
        try:
            report = _ADAPTER.validate_json(path.read_bytes())
        except FileNotFoundError:
            raise SourceMissing(f"{path}: no report there; `stackcls fit` writes one") from None
        except OSError as error:
            inside = f"; name a report, such as {path / 'report.json'}" if path.is_dir() else ""
            raise SourceError(f"{path}: cannot be read ({error.strerror}){inside}") from None
        except ValidationError as error:
            detail = error.errors()[0]
            where = ".".join(map(str, detail["loc"])) or "its text"
            raise SourceError(f"{path}: not a report of stackcls ({where}: {detail['msg']})") from None
        if report.format != FORMAT:
            raise SourceError(f"{path}: report format {report.format}, this stackcls reads {FORMAT}")
        return report


_ADAPTER = TypeAdapter(Report)
