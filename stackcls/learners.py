"""The learners that a stack is made of: a logistic regression per backbone, and what mlxtend is handed."""

from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, clone
from sklearn.linear_model import LogisticRegression
from sklearn.svm import LinearSVC
from sklearn.utils.class_weight import compute_class_weight

from stackcls import buffers, logistic, svm
from stackcls.decisions import per_class
from stackcls.streaming import Streamed, pieces

MAX_ITERATIONS = 1000
WIDE = 1500  # columns from which the square matrices of `stackcls.svm` cost more than liblinear does

Floats = NDArray[np.floating[Any]]
Ints = NDArray[np.int64]


class BlockColumns:
    """A fitted classifier that sees only some columns of what it is given; no copy is made of them.

    Parameters
    ----------
    estimator : classifier
        Fitted on those columns alone.
    columns : slice
    """

    def __init__(self, estimator: Any, columns: slice) -> None:
        self.estimator = estimator
        self.columns = columns

    def predict_proba(self, X: Floats) -> Floats:
        """Class probabilities, shape (n, classes), from this classifier's own columns of X."""
        probabilities: Floats = self.estimator.predict_proba(X[:, self.columns])
        return probabilities


class KnownProbabilities:
    """A fitted classifier, as mlxtend wants one, whose probabilities are what it is given."""

    def predict_proba(self, X: Floats) -> Floats:
        """The same again."""
        return X


class Average(BaseEstimator):  # type: ignore[misc]
    """Decides for the class of the largest probability: a linear classifier that needs no fit, as mlxtend wants one."""

    def fit(self, X: Floats, y: NDArray[Any]) -> "Average":
        """Take note of the classes; of two the second's decision is half of how much more probable it is."""
        self.classes_ = np.unique(y)
        self.coef_ = np.eye(X.shape[1]) if X.shape[1] > 2 else np.array([[-0.5, 0.5]])
        self.intercept_ = np.zeros(len(self.coef_))
        self.n_features_in_ = X.shape[1]
        return self

    def decision_function(self, X: Floats) -> Floats:
        """Decisions, shape (n, classes), or (n,) for two classes."""
        decisions: Floats = X @ self.coef_.T + self.intercept_
        return decisions.ravel() if decisions.shape[1] == 1 else decisions

    def predict(self, X: Floats) -> NDArray[Any]:
        """Labels, shape (n,)."""
        labels: NDArray[Any] = self.classes_[per_class(self.decision_function(X)).argmax(axis=1)]
        return labels

    def plain(self) -> "Average":
        """The same."""
        return self


class LeanLogisticRegression(LogisticRegression):  # type: ignore[misc]
    """scikit-learn's logistic regression, fitted by `stackcls.logistic`."""

    def fit(
        self, X: Floats | Streamed, y: NDArray[Any], start: logistic.Coefficients | None = None
    ) -> "LeanLogisticRegression":
        """Fit as scikit-learn does, to the same tolerance."""
        self.plain()._validate_params()
        self.classes_, codes = np.unique(y, return_inverse=True)
        if len(self.classes_) < 2:
            raise ValueError(f"a classifier needs at least two classes; found 1 class: {self.classes_[0]!r}")
        weights = compute_class_weight(self.class_weight, classes=self.classes_, y=y)
        limit = {"max_iterations": self.max_iter, "start": start}
        found = logistic.fit(X, codes, len(self.classes_), C=self.C, class_weights=weights, **limit)
        self.coef_, self.intercept_ = found.coef, found.intercept
        self.n_iter_ = np.array([found.iterations], dtype=np.int32)
        self.n_features_in_ = X.shape[1]
        self.converged_ = found.converged
        return self

    def plain(self) -> LogisticRegression:
        """scikit-learn's own estimator with these parameters and, if fitted, coefficients: what a model file holds."""
        estimator = LogisticRegression(C=self.C, max_iter=self.max_iter, class_weight=self.class_weight)
        for name in ("classes_", "coef_", "intercept_", "n_iter_", "n_features_in_"):
            if hasattr(self, name):
                setattr(estimator, name, getattr(self, name))
        return estimator


class LeanLinearSVC(LinearSVC):  # type: ignore[misc]
    """scikit-learn's linear SVM, fitted by `stackcls.svm` where the columns are few."""

    def fit(self, X: Floats, y: NDArray[Any]) -> "LeanLinearSVC":
        """Fit to the optimum, to which scikit-learn comes within its tolerance."""
        if X.shape[1] >= WIDE:
            return super().fit(X, y)  # type: ignore[no-any-return]
        self.plain()._validate_params()
        self.classes_, codes = np.unique(y, return_inverse=True)
        weights = compute_class_weight(self.class_weight, classes=self.classes_, y=y)
        try:
            found = svm.fit(X, codes, len(self.classes_), self.C, weights)
        except np.linalg.LinAlgError:  # so little regularisation that rounding counts
            return super().fit(X, y)  # type: ignore[no-any-return]
        self.coef_, self.intercept_ = np.ascontiguousarray(found[:, :-1]), found[:, -1].copy()
        self.n_features_in_ = X.shape[1]
        return self

    def plain(self) -> LinearSVC:
        """scikit-learn's own estimator with these parameters and, if fitted, coefficients: what a model file holds."""
        estimator = LinearSVC(C=self.C, class_weight=self.class_weight, random_state=self.random_state)
        for name in ("classes_", "coef_", "intercept_", "n_features_in_"):
            if hasattr(self, name):
                setattr(estimator, name, getattr(self, name))
        return estimator


class FittedBase:
    """One base learner after fitting.

    Attributes
    ----------
    estimator : LogisticRegression
    converged : bool
    """

    def __init__(self, estimator: Any, converged: bool) -> None:
        self.estimator = estimator
        self.converged = converged

    def predict_proba(self, X: Floats | Streamed) -> Floats:
        """Class probabilities, shape (n, classes), computed without a second array of that shape."""
        found: Floats = buffers.zeros((X.shape[0], len(self.estimator.classes_)), X.dtype)
        for start, part in pieces(X):
            found[start : start + len(part)] = self.estimator.predict_proba(part)
        return found


def predict_held_out(
    learner: LeanLogisticRegression, X: Streamed, y: NDArray[Any], folds: Iterable[tuple[Ints, Ints]]
) -> Floats:
    """As scikit-learn's `cross_val_predict`: each row's probabilities by what was fitted on the other folds."""
    found: Floats = buffers.zeros((len(y), len(np.unique(y))), X.dtype)
    for train, test in folds:
        fitted = clone(learner).fit(X.take(train), y[train])
        found[test] = FittedBase(fitted.plain(), fitted.converged_).predict_proba(X.take(test))
    return found
