"""The stack as a scikit-learn estimator."""

import warnings
from collections.abc import Sequence
from typing import Any, Literal

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

from stackcls import logistic
from stackcls.decisions import per_class, probabilities
from stackcls.learners import (
    MAX_ITERATIONS,
    BlockColumns,
    FittedBase,
    Floats,
    KnownProbabilities,
    LeanLinearSVC,
    LeanLogisticRegression,
)
from stackcls.parallel import in_parallel
from stackcls.settings import StackSettings


def splitter(folds: int, seed: int, groups: NDArray[np.int64] | None) -> BaseCrossValidator:
    """Stratified folds, shuffled by `seed`; where groups are given, no group is in two folds."""
    kind = StratifiedKFold if groups is None else StratifiedGroupKFold
    return kind(n_splits=folds, shuffle=True, random_state=seed)


def linear_svm(class_weight: str | None = None) -> LinearSVC:
    """The article's single: a linear SVM straight on one backbone's features."""
    return LinearSVC(random_state=0, class_weight=class_weight)


class StackedClassifier(ClassifierMixin, BaseEstimator):  # type: ignore[misc]
    """One logistic regression per block of columns, their probabilities averaged, a linear SVM on top.

    Parameters
    ----------
    widths : sequence of int, optional
        Widths of the blocks of columns (one per backbone), in order; by default all columns are one block.
    recipe : {'in-sample', 'out-of-fold'}
        Whether the meta-classifier learns from the base learners' probabilities of the rows that they were fitted on
        (the article's way, mlxtend's `StackingClassifier`), or from those of inner folds (Wolpert, Stacked
        generalization, Neural Networks 5, 1992).
    base_C, meta_C : float
        Inverse regularisation of the logistic regressions and of the SVM.
    class_weight : {'balanced', None}
    inner_folds : int
        For recipe 'out-of-fold'.
    random_state : int
    temperature : float
        Divides the SVM's decisions before they become probabilities by a softmax; its arg max is the predicted label
        whatever the temperature (Guo et al., On Calibration of Modern Neural Networks, ICML 2017).
    n_jobs : int, optional
        Base learners fitted at a time, each on one thread.

    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,)
    bases_ : list of BlockColumns
        The fitted base learners.
    meta_ : LinearSVC
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
        recipe: Literal["in-sample", "out-of-fold"] = "in-sample",
        base_C: float = 1.0,
        meta_C: float = 1.0,
        class_weight: str | None = None,
        inner_folds: int = 3,
        random_state: int = 0,
        temperature: float = 1.0,
        n_jobs: int | None = None,
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
        jobs = [delayed(self.fit_base)(X[:, columns], y, known_groups) for columns in blocks]
        bases, shares = zip(*in_parallel(jobs, self.n_jobs), strict=True)
        self.fit_meta(np.mean(shares, axis=0), y).take_bases(bases)
        if not all(self.converged_):
            warnings.warn(f"a base learner stopped at {MAX_ITERATIONS} iterations", ConvergenceWarning, stacklevel=2)
        return self

    def blocks(self, n_columns: int) -> list[slice]:
        """Columns of each base learner; raise `ValueError` where the widths do not add up."""
        edges = np.cumsum([0, *(self.widths or [n_columns])])
        if edges[-1] != n_columns:
            raise ValueError(f"widths {tuple(self.widths or ())} add up to {edges[-1]}, but X has {n_columns} columns")
        return [slice(int(start), int(end)) for start, end in zip(edges, edges[1:], strict=False)]

    def fit_base(
        self,
        X: Floats,
        y: NDArray[Any],
        groups: NDArray[Any] | None = None,
        start: logistic.Coefficients | None = None,
    ) -> tuple[FittedBase, Floats]:
        """Fit the base learner of one block, from zero or from a start.

        Returns
        -------
        FittedBase
        ndarray of shape (n, classes)
            Its probabilities of the same rows, from which the meta-classifier learns: of rows that it was fitted on, or
            from inner folds, as the recipe says.
        """
        if self.recipe not in ("in-sample", "out-of-fold"):
            raise ValueError(f"recipe {self.recipe!r} is not one of in-sample, out-of-fold")
        learner = LeanLogisticRegression(C=self.base_C, max_iter=MAX_ITERATIONS, class_weight=self.class_weight)
        shares = None
        if self.recipe == "out-of-fold":
            inner = splitter(self.inner_folds, self.random_state, groups)
            shares = cross_val_predict(clone(learner), X, y, groups=groups, cv=inner, method="predict_proba")
        estimator = learner.fit(X, y, start).plain()
        base = FittedBase(estimator, learner.converged_)
        return base, base.predict_proba(X) if shares is None else shares

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
            meta_classifier=LeanLinearSVC(
                C=self.meta_C, random_state=self.random_state, class_weight=self.class_weight
            ),
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


def from_settings(settings: StackSettings, widths: Sequence[int], seed: int) -> StackedClassifier:
    """Return an unfitted stack as the configuration wants it."""
    return StackedClassifier(
        widths=tuple(widths),
        recipe=settings.recipe,
        base_C=settings.base.C,
        meta_C=settings.meta.C,
        class_weight=settings.class_weight,
        inner_folds=settings.inner_folds,
        random_state=seed,
    )


def unfitted_like(stacked: StackedClassifier) -> StackedClassifier:
    """Copy of a stack with the same parameters, not fitted."""
    copy: StackedClassifier = clone(stacked)
    return copy
