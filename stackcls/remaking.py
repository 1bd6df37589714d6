"""From a fitted stack to plain numbers, and back."""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.svm import LinearSVC

from stackcls.learned import LearnedStack, Linear
from stackcls.learners import MAX_ITERATIONS, Average, BlockColumns
from stackcls.stack import StackedClassifier


def to_learned(stacked: StackedClassifier) -> LearnedStack:
    """What a fitted stack, whose classes are numbers from 0, has learned."""
    return LearnedStack(
        {**stacked.get_params(), "widths": tuple(base.estimator.n_features_in_ for base in stacked.bases_)},
        tuple(map(bool, stacked.converged_)),
        tuple(Linear(base.estimator.coef_, base.estimator.intercept_) for base in stacked.bases_),
        Linear(stacked.meta_.coef_, stacked.meta_.intercept_),
    )


def from_learned(learned: LearnedStack) -> StackedClassifier:
    """Make the fitted stack again that `to_learned` was given; its probabilities are the same to the last bit."""
    stacked = StackedClassifier(**learned.parameters)
    classes = np.arange(learned.n_classes)
    options: dict[str, Any] = {"class_weight": stacked.class_weight}
    bases = [
        _fitted(LogisticRegression(C=stacked.strength(number), max_iter=MAX_ITERATIONS, **options), linear, classes)
        for number, linear in enumerate(learned.bases)
    ]
    stacked.n_features_in_ = sum(base.n_features_in_ for base in bases)
    blocks = stacked.blocks(stacked.n_features_in_)
    stacked.bases_ = [BlockColumns(base, columns) for base, columns in zip(bases, blocks, strict=True)]
    stacked.converged_ = list(learned.converged)
    stacked.meta_ = _fitted(_meta(stacked, options), learned.meta, classes)
    stacked.classes_ = classes
    return stacked


def _meta(stacked: StackedClassifier, options: dict[str, Any]) -> Any:
    if stacked.meta == "linear-svm":
        return LinearSVC(C=stacked.meta_C, random_state=stacked.random_state, **options)
    if stacked.meta == "logistic-regression":
        return LogisticRegression(C=stacked.meta_C, max_iter=MAX_ITERATIONS, **options)
    return Average()


def _fitted(estimator: Any, linear: Linear, classes: NDArray[Any]) -> Any:
    estimator.classes_, estimator.coef_, estimator.intercept_ = classes, linear.coef, linear.intercept
    estimator.n_features_in_ = linear.coef.shape[1]
    return estimator
