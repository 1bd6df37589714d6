"""The stack as a scikit-learn estimator."""

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from joblib import delayed
from mlxtend.classifier import StackingClassifier
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator, ClassifierMixin, clone
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import BaseCrossValidator, StratifiedGroupKFold, StratifiedKFold, cross_val_predict
from sklearn.svm import LinearSVC
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, validate_data

from stackcls import logistic, strengths
from stackcls.decisions import per_class, probabilities
from stackcls.learners import (
    MAX_ITERATIONS,
    Average,
    BlockColumns,
    FittedBase,
    Floats,
    KnownProbabilities,
    LeanLinearSVC,
    LeanLogisticRegression,
    predict_held_out,
)
from stackcls.parallel import in_parallel
from stackcls.stacksettings import METAS, RECIPES, Meta, Recipe, StackSettings
from stackcls.streaming import Streamed


def splitter(folds: int, seed: int, groups: NDArray[np.int64] | None) -> BaseCrossValidator:
    """Stratified folds, shuffled by `seed`; where groups are given, no group is in two folds."""
    kind = StratifiedKFold if groups is None else StratifiedGroupKFold
    return kind(n_splits=folds, shuffle=True, random_state=seed)


def linear_svm(class_weight: str | None = None) -> LinearSVC:
    """The article's single: a linear SVM straight on one backbone's features."""
    return LinearSVC(random_state=0, class_weight=class_weight)


class StackedClassifier(ClassifierMixin, BaseEstimator):  # type: ignore[misc]
    """One logistic regression per block of columns, their probabilities averaged, a linear classifier on top.

    Parameters
    ----------
    widths : sequence of int, optional
        Widths of the blocks of columns (one per backbone), in order; by default all columns are one block.
    recipe : {'in-sample', 'out-of-fold'}
        Whether the meta-classifier learns from the base learners' probabilities of the rows that they were fitted on
        (the article's way, mlxtend's `StackingClassifier`), or from those of inner folds (Wolpert, Stacked
        generalization, Neural Networks 5, 1992).
    base_C : float or sequence of float
        Inverse regularisation of the logistic regressions, of all or one per block.
    meta_C : float
        That of the meta-classifier.
    class_weight : {'balanced', None}
    inner_folds : int
        For recipe 'out-of-fold'.
    random_state : int
    temperature : float
        Divides the meta-classifier's decisions before they become probabilities by a softmax; its arg max is the
        predicted label whatever the temperature (Guo et al., On Calibration of Modern Neural Networks, ICML 2017).
    n_jobs : int, optional
        Base learners fitted at a time, each on one thread.
    meta : {'linear-svm', 'logistic-regression', 'average'}
        What decides on the averaged probabilities; 'average' takes the class of the largest.

    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,)
    bases_ : list of BlockColumns
        The fitted base learners.
    meta_ : LinearSVC, LogisticRegression or Average
        The fitted meta-classifier.

    References
    ----------
    Resheff, O'Reilly: Transfer learning from multiple pre-trained computer vision models.

    Examples
    --------
    >>> import numpy as np
    >>> from stackcls.stack import StackedClassifier
    >>> X, y = np.eye(6).repeat(3, axis=0), np.repeat(["a", "b", "c"], 6)
    >>> StackedClassifier(widths=(4, 2)).fit(X, y).predict(X[[0, 7, 17]])
    array(['a', 'b', 'c'], dtype='<U1')
    """

    def __init__(
        self,
        widths: Sequence[int] | None = None,
        recipe: Recipe = "in-sample",
        base_C: float | Sequence[float] = 1.0,
        meta_C: float = 1.0,
        class_weight: str | None = None,
        inner_folds: int = 3,
        random_state: int = 0,
        temperature: float = 1.0,
        n_jobs: int | None = None,
        meta: Meta = "linear-svm",
    ) -> None:
        self.widths = widths
        self.recipe = recipe
        self.base_C = base_C
        self.meta_C = meta_C
        self.class_weight = class_weight
        self.inner_folds = inner_folds
        self.random_state = random_state
        self.temperature = temperature
        self.n_jobs = n_jobs
        self.meta = meta

    def fit(self, X: Any, y: Any, groups: ArrayLike | None = None) -> "StackedClassifier":
        """Fit base learners and meta-classifier.

        Parameters
        ----------
        X : array-like of shape (n_samples, sum of widths)
            The blocks side by side; float32 stays float32.
        y : array-like of shape (n_samples,)
        groups : array-like of shape (n_samples,), optional
            Rows of one group are never in two inner folds.

        Returns
        -------
        self

        Raises
        ------
        ValueError
            If the widths do not add up to the columns of X, a parameter is not allowed, or there is one class only.
        """
        X, y = validate_data(self, X, y, dtype=[np.float64, np.float32])
        check_classification_targets(y)
        if not self.temperature > 0:
            raise ValueError(f"temperature {self.temperature!r} must be above 0")
        blocks = self.blocks(X.shape[1])
        known_groups = None if groups is None else np.asarray(groups)
        jobs = [delayed(self.fit_base)(X[:, columns], y, known_groups, None, n) for n, columns in enumerate(blocks)]
        bases, shares = zip(*in_parallel(jobs, self.n_jobs), strict=True)
        self.fit_meta(np.mean(shares, axis=0), y).take_bases(bases)
        if not all(self.converged_):
            warnings.warn(f"a base learner stopped at {MAX_ITERATIONS} iterations", ConvergenceWarning, stacklevel=2)
        return self

    def blocks(self, n_columns: int) -> list[slice]:
        """Columns of each base learner; raise `ValueError` where widths do not add up, or strengths are not as many."""
        edges = np.cumsum([0, *(self.widths or [n_columns])])
        if edges[-1] != n_columns:
            raise ValueError(f"widths {tuple(self.widths or ())} add up to {edges[-1]}, but X has {n_columns} columns")
        if np.size(self.base_C) not in (1, len(edges) - 1):
            raise ValueError(f"base_C {self.base_C}: one number, or one for each of {len(edges) - 1} blocks, is needed")
        return [slice(int(start), int(end)) for start, end in zip(edges, edges[1:], strict=False)]

    def fit_base(
        self,
        X: Floats | Streamed,
        y: NDArray[Any],
        groups: NDArray[Any] | None = None,
        start: logistic.Coefficients | None = None,
        number: int = 0,
    ) -> tuple[FittedBase, Floats]:
        """Fit the base learner of the block of that number, from zero or from a start.

        Returns
        -------
        FittedBase
        ndarray of shape (n, classes)
            Its probabilities of the same rows, from which the meta-classifier learns: of rows that it was fitted on, or
            from inner folds, as the recipe says.
        """
        if self.recipe not in RECIPES:
            raise ValueError(f"recipe {self.recipe!r} is not one of {', '.join(RECIPES)}")
        C = self.strength(number)
        learner = LeanLogisticRegression(C=C, max_iter=MAX_ITERATIONS, class_weight=self.class_weight)
        shares = None
        if self.recipe == "out-of-fold":
            inner = splitter(self.inner_folds, self.random_state, groups)
            if isinstance(X, np.ndarray):
                shares = cross_val_predict(clone(learner), X, y, groups=groups, cv=inner, method="predict_proba")
            else:
                shares = predict_held_out(learner, X, y, inner.split(y, y, groups))
        estimator = learner.fit(X, y, start).plain()
        base = FittedBase(estimator, learner.converged_)
        return base, base.predict_proba(X) if shares is None else shares

    def strength(self, number: int) -> float:
        """Inverse regularisation of the base learner of that number."""
        strengths: list[float] = np.ravel(self.base_C).tolist()
        return strengths[number] if len(strengths) > 1 else strengths[0]

    def take_bases(self, bases: Sequence[FittedBase]) -> "StackedClassifier":
        """Have these base learners, one per block."""
        self.n_features_in_ = sum(base.estimator.n_features_in_ for base in bases)
        self.converged_ = [base.converged for base in bases]
        blocks = self.blocks(self.n_features_in_)
        self.bases_ = [BlockColumns(base.estimator, columns) for base, columns in zip(bases, blocks, strict=True)]
        return self

    def fit_meta(self, average: Floats, y: NDArray[Any]) -> "StackedClassifier":
        """Fit the meta-classifier, by mlxtend's `StackingClassifier`, on the average of what `fit_base` returned.

        It is handed the average, and not the base learners, since those would need all matrices in memory together.
        """
        stacking = StackingClassifier(
            classifiers=[KnownProbabilities()],
            meta_classifier=self._unfitted_meta(),
            use_probas=True,
            average_probas=True,
            use_clones=False,
            fit_base_estimators=False,
        )
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="fit_base_estimators=False")
            self.meta_ = stacking.fit(average, y).meta_clf_.plain()
        self.classes_ = self.meta_.classes_
        return self

    def _unfitted_meta(self) -> LeanLinearSVC | LeanLogisticRegression | Average:
        options = {"C": self.meta_C, "class_weight": self.class_weight}
        match self.meta:
            case "linear-svm":
                return LeanLinearSVC(random_state=self.random_state, **options)
            case "logistic-regression":
                return LeanLogisticRegression(max_iter=MAX_ITERATIONS, **options)
            case "average":
                return Average()
        raise ValueError(f"meta {self.meta!r} is not one of {', '.join(METAS)}")

    def average_probabilities(self, X: Floats) -> Floats:
        """What the meta-classifier sees: the base learners' mean probabilities, shape (n, classes)."""
        average: Floats = np.mean([base.predict_proba(X) for base in self.bases_], axis=0)
        return average

    def decision_function(self, X: Any) -> Floats:
        """Decisions of the meta-classifier, shape (n, classes), or (n,) for two classes."""
        check_is_fitted(self)
        X = validate_data(self, X, reset=False, dtype=[np.float64, np.float32])
        decisions: Floats = self.meta_.decision_function(self.average_probabilities(X))
        return decisions

    def meta_decisions(self, average: Floats) -> Floats:
        """Decisions, one column per class, from the base learners' mean probabilities."""
        return per_class(self.meta_.decision_function(average))

    def predict(self, X: Any) -> NDArray[Any]:
        """Labels, shape (n,)."""
        decisions = per_class(self.decision_function(X))
        labels: NDArray[Any] = self.classes_[decisions.argmax(axis=1)]
        return labels

    def predict_proba(self, X: Any) -> NDArray[np.float64]:
        """Probabilities, shape (n, classes), whose arg max is the predicted label."""
        return probabilities(self.decision_function(X), self.temperature)


def from_settings(
    settings: StackSettings, widths: Sequence[int], seed: int, names: Sequence[str] = ()
) -> StackedClassifier:
    """Return an unfitted stack as the configuration wants it, for backbones of these names."""
    C = settings.base.C
    return StackedClassifier(
        widths=tuple(widths),
        recipe=settings.recipe,
        base_C=strengths.of(settings.base, names) if isinstance(C, Mapping) else C,
        meta_C=settings.meta.C,
        class_weight=settings.class_weight,
        inner_folds=settings.inner_folds,
        random_state=seed,
        meta=settings.meta.kind,
    )


def unfitted_like(stacked: StackedClassifier) -> StackedClassifier:
    """Copy of a stack with the same parameters, not fitted."""
    copy: StackedClassifier = clone(stacked)
    return copy
