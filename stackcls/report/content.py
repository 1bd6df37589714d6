"""What the page of a report shows beside the report itself, as frozen data: images, and where they lie."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from stackcls.report.results import Report


@dataclass(frozen=True)
class Photo:
    """One image as the page shows it.

    Attributes
    ----------
    path : str
        As in the feature file.
    href : str or None
        Link to the file, relative to the page; None where it is not known where the images are.
    picture : str or None
        The thumbnail as a `data:` address; None beyond the page's budget, or where the image cannot be read.
    """

    path: str
    href: str | None = None
    picture: str | None = None


@dataclass(frozen=True)
class Evidence:
    """Where an image speaks for one class, to the final model.

    Attributes
    ----------
    label : str
        The class.
    probability : float
        That the final model gives it.
    picture : str
        The map laid over the image, as a `data:` address.
    """

    label: str
    probability: float
    picture: str


@dataclass(frozen=True)
class Predicted:
    """What the stack said of an image that it was not fitted on.

    Attributes
    ----------
    photo : Photo
    given, predicted : str
    probability : float
        Of the predicted class.
    given_probability, runner_up, runner_up_probability
        Of the given class, and the second most probable class; None where the probabilities are not known.
    right : tuple of str, or None
        The single backbones that had it right.
    evidence : sequence of Evidence
        For the predicted and for the given class, where that was asked for.
    """

    photo: Photo
    given: str
    predicted: str
    probability: float
    given_probability: float | None = None
    runner_up: str | None = None
    runner_up_probability: float | None = None
    right: tuple[str, ...] | None = None
    evidence: Sequence[Evidence] = ()


@dataclass(frozen=True)
class Suspect:
    """One row of `label_suspects.csv`."""

    photo: Photo
    rank: int
    label: str
    probability: float
    suggested: str
    suggested_probability: float


@dataclass(frozen=True)
class Copy:
    """One row of `duplicates.csv`."""

    photo: Photo
    label: str
    kind: str
    similarity: float | None


@dataclass(frozen=True)
class Cell:
    """One cell of the confusion matrix: how many images it counts, and those of them that are listed."""

    given: int
    predicted: int
    count: int
    listed: Sequence[Predicted]


@dataclass(frozen=True)
class Page:
    """All that a page shows.

    Attributes
    ----------
    report : Report
    intervals : mapping of str to list of two floats, or None
        95 % interval of each learner's mean accuracy.
    cells : sequence of Cell
    orders : mapping of str to list of int
        Orders of the classes: by name, errors and similarity.
    mistakes : sequence of Predicted
        The most confident first.
    suspects : sequence of Suspect
    copies : sequence of sequence of Copy
        The groups of duplicates that are shown.
    held_out : sequence of Predicted
        The misclassified images of the hold-out.
    held_out_intervals : mapping of str to list of two floats
        95 % interval of each learner's accuracy on the hold-out.
    remarks : sequence of str
        What the page cannot show, and why.
    """

    report: Report
    intervals: Mapping[str, list[float] | None] = field(default_factory=dict)
    cells: Sequence[Cell] = ()
    orders: Mapping[str, list[int]] = field(default_factory=dict)
    mistakes: Sequence[Predicted] = ()
    suspects: Sequence[Suspect] = ()
    copies: Sequence[Sequence[Copy]] = ()
    held_out: Sequence[Predicted] = ()
    held_out_intervals: Mapping[str, list[float]] = field(default_factory=dict)
    remarks: Sequence[str] = ()
