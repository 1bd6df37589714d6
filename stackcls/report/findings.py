"""What a run found out beside its scores, as frozen data; all of it is part of `report.json`."""

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class ReliabilityBin:
    """One bin of the reliability diagram, over images that the temperature was not fitted on.

    Attributes
    ----------
    low, high : float
        Of the stack's largest probability.
    count : int
    confidence, accuracy : float
        Mean largest probability of the images in the bin, and the share of them that is right; 0 in an empty bin.
    """

    low: float
    high: float
    count: int
    confidence: float
    accuracy: float


@dataclass(frozen=True)
class Contribution:
    """What one backbone adds to the stack, and what it costs.

    Attributes
    ----------
    without : float
        Accuracy of the stack without it, mean over the same folds.
    folds : list of float
    adds : float
        The whole stack's accuracy minus that.
    interval : list of two floats, or None
        95 % interval of `adds`, as the gain's.
    seconds_per_image : float or None
        What its features cost where they were computed; None where that is not known.
    matrices : list of str
        What was left out: every matrix of the backbone (`vgg19`, `vgg19+covariance`). Empty in reports of before.
    """

    without: float
    folds: list[float]
    adds: float
    interval: list[float] | None
    seconds_per_image: float | None = None
    matrices: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Suspects:
    """Images whose given label the out-of-fold stack finds improbable.

    Attributes
    ----------
    flagged : int
        So many labels are probably wrong.
    listed : int
        Rows of `label_suspects.csv`.
    method : str
    """

    flagged: int
    listed: int
    method: str


@dataclass(frozen=True)
class Duplicates:
    """Images that are the same, or nearly, among the training images.

    Attributes
    ----------
    threshold : float
        Of the similarity from which two images count as near-duplicates.
    exact_pairs, near_pairs : int
    groups, images : int
        Groups of duplicates, and images in them.
    conflicting : int
        Pairs whose two labels differ.
    straddling : int
        Pairs that lie in two folds, or would without `cv.groups: duplicates`.
    grouped : bool
        Whether each group was kept in one fold.
    ungrouped : mapping of str to float
        Mean accuracies with folds that do not know the groups, by backbone and `stack`; empty unless `grouped`,
        and with a tuned stack.
    near_looked_for : bool
        Whether not only exact copies were.
    """

    threshold: float
    exact_pairs: int
    near_pairs: int
    groups: int
    images: int
    conflicting: int
    straddling: int
    grouped: bool
    ungrouped: Mapping[str, float]
    near_looked_for: bool = True


@dataclass(frozen=True)
class Trade:
    """What one threshold of `predict --reject` does.

    Attributes
    ----------
    reject : float
        The threshold.
    coverage : float
        Share of known images that get a label.
    accuracy : float or None
        Share of those whose label is right; None where there are none.
    unknown_rejected : float or None
        Share of images of classes that were left out of training that get none; None where that was not measured.
    """

    reject: float
    coverage: float
    accuracy: float | None
    unknown_rejected: float | None


@dataclass(frozen=True)
class Unknown:
    """How well images of no known class are told from others.

    Attributes
    ----------
    trades : list of Trade
        By rising threshold.
    auroc : float or None
        Area under the ROC curve of images of known classes against those of classes left out of training; None where
        that was not measured.
    auroc_confidence : float or None
        The same for the largest probability alone.
    left_out : list of list of str
        Classes that were left out together.
    method : str
    """

    trades: list[Trade]
    auroc: float | None
    auroc_confidence: float | None
    left_out: list[list[str]]
    method: str


@dataclass(frozen=True)
class Choice:
    """What tuning chose from one training part.

    Attributes
    ----------
    recipe : str
    base_C : mapping of str to float
        Of each backbone.
    meta : str
        Kind of the meta-classifier.
    meta_C : float
    accuracy, configured : float
        Of what was chosen, and of the stack as configured, by inner cross-validation of that part.
    changed : bool
        Whether it is another stack than the configured one.
    """

    recipe: str
    base_C: Mapping[str, float]  # noqa: N815  (named as in the settings)
    meta: str
    meta_C: float  # noqa: N815
    accuracy: float
    configured: float
    changed: bool
