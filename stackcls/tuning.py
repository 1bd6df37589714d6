"""Choosing C, recipe and meta-classifier by inner cross-validation of each training part, bounded by time."""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from joblib import delayed
from numpy.typing import NDArray

from stackcls import scoring, stack, validation
from stackcls.decisions import probabilities
from stackcls.listener import Listener
from stackcls.parallel import in_parallel
from stackcls.report.findings import Choice
from stackcls.settings import Settings, StackSettings
from stackcls.stacksettings import METAS, RECIPES, BaseSettings, MetaSettings, Recipe
from stackcls.training import TrainingSet
from stackcls.validation import Advance, Floats, Ints, Part

FACTORS = (1.0, 10.0, 0.1, 100.0, 0.01)  # of the configured C, in the order in which they are tried
BASE_SHARE = 0.7  # of the time, after which no further C of the base learners is begun
ERRORS = 2.0  # standard errors by which something must be better: one would let a single image decide
MARGIN = 1.5  # a level may take so much longer than the longest before it

Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class Search:
    """What was chosen, and what was tried for that.

    Attributes
    ----------
    stacks : tuple of StackSettings
        Chosen from each fold's training part, and last from all rows.
    choices : tuple of Choice
        The same, for the report.
    base_factors, meta_factors : tuple of float
        Multiples of the configured C that were tried, of the base learners and of the meta-classifiers.
    seconds : float
    """

    stacks: tuple[StackSettings, ...]
    choices: tuple[Choice, ...]
    base_factors: tuple[float, ...]
    meta_factors: tuple[float, ...]
    seconds: float


def search(data: TrainingSet, settings: Settings, listener: Listener) -> Search:
    """Choose a stack for each fold from the rows that it is fitted on alone, and one from all rows.

    Candidates are tried in levels: each is tried for every backbone and every part before the next one, so that all
    parts choose from the same. The first is always tried, however little time there is.

    Parameters
    ----------
    data : TrainingSet
    settings : Settings
        `stack.tune` is the time in minutes.
    listener : Listener

    Raises
    ------
    TrainingError
        If a class is too rare for the folds, or for inner folds of their training parts.
    """
    rows = [train for train, _ in validation.split(data, settings)]
    return search_parts(data, [*rows, np.arange(len(data.y))], settings, listener)


def search_parts(data: TrainingSet, rows: Sequence[Ints], settings: Settings, listener: Listener) -> Search:
    """Choose a stack for each of these parts, of which no other row is looked at."""
    start = time.perf_counter()
    end = start + 60 * (settings.stack.tune or 0.0)
    parts = [_Part(data, part, settings) for part in rows]
    fits = sum(len(part.inner) for part in parts) * len(data.names)
    base = _Levels(start, start + BASE_SHARE * (end - start))
    with listener.track("tune", fits * len(FACTORS), "fit") as advance:
        for factor in base:
            _try_bases(parts, data, settings, factor, advance)
    for part in parts:
        part.settle()
    meta = _Levels(time.perf_counter(), end)
    with listener.track("tune", len(parts) * len(FACTORS), "part") as advance:
        for factor in meta:
            # Small ones side by side; of large ones the fits themselves use all processors.
            jobs = (delayed(part.try_metas)(factor) for part in parts)
            for _ in in_parallel(jobs, 1 if validation.is_large(data) else -1):
                advance(1)
    chosen = [part.chosen() for part in parts]
    stacks, choices = zip(*chosen, strict=True)
    return Search(stacks, choices, tuple(base.done), tuple(meta.done), time.perf_counter() - start)


class _Levels:
    """Gives one factor after the other, as long as the next is likely to end in time."""

    def __init__(self, start: float, end: float) -> None:
        self._start, self._end = start, end
        self.done: list[float] = []

    def __iter__(self) -> Iterator[float]:
        longest, last = 0.0, self._start
        for factor in FACTORS:
            if self.done and last + MARGIN * longest > self._end:
                return
            yield factor
            self.done.append(factor)
            now = time.perf_counter()
            longest, last = max(longest, now - last), now


def _try_bases(
    parts: Sequence["_Part"], data: TrainingSet, settings: Settings, factor: float, advance: Advance
) -> None:
    """Fit every backbone's logistic regression with this multiple of its C, on every part's inner folds."""
    wanted = settings.stack.model_copy(
        update={"recipe": "in-sample", "base": _times(settings.stack, data.names, factor), "tune": None}
    )
    unfitted = stack.from_settings(wanted, data.widths, settings.cv.seed, data.names)
    tasks = [part.rows_of(inner) for part in parts for inner in part.inner]
    bases = validation.fit_bases([unfitted] * len(tasks), data, tasks, advance)
    for part in parts:
        results = [[next(bases)[1:] for _ in data.names] for _ in part.inner]
        for number in range(len(data.names)):
            seen, held = zip(*(fold[number] for fold in results), strict=True)
            part.take(number, unfitted.strength(number), seen, held)


def _times(settings: StackSettings, names: Sequence[str], factor: float) -> BaseSettings:
    C = settings.base.C
    return BaseSettings(C={name: _product(factor, C[name] if isinstance(C, dict) else C) for name in names})


def _product(factor: float, C: float) -> float:
    """As a person would write it: 0.3, and not 0.30000000000000004."""
    return float(f"{factor * C:.12g}")


@dataclass(frozen=True, eq=False)
class _Base:
    """What one backbone says with one C.

    Attributes
    ----------
    C : float
    held : ndarray of shape (n, classes)
        Probabilities of each row of the part, by the inner fit that did not see it.
    seen : sequence of ndarray
        Of each inner fit, those of the rows that it was fitted on.
    losses : ndarray of shape (n,)
        Logarithms of the given classes' probabilities, negative.
    """

    C: float
    held: Floats
    seen: Sequence[Floats]
    losses: NDArray[np.float64]


@dataclass(frozen=True)
class _Scored:
    """A candidate, and how it did on the part's rows, each judged by a fit that did not see it."""

    recipe: Recipe
    meta: MetaSettings
    tuned: bool  # whether its base learners have the C chosen for them, or the configured one
    right: Mask
    loss: float


class _Part:
    """One training part: its inner folds, and what was tried on them."""

    def __init__(self, data: TrainingSet, rows: Ints, settings: Settings) -> None:
        self._settings, self._names, self._rows, self._y = settings, data.names, rows, data.y[rows]
        groups = None if data.groups is None else data.groups[rows]
        splitter = stack.splitter(settings.stack.inner_folds, settings.cv.seed, groups)
        self.inner: list[Part] = list(splitter.split(self._y, self._y, groups))
        self._configured: dict[int, _Base] = {}
        self._best: dict[int, _Base] = {}
        self._averages: dict[bool, tuple[Floats, list[Floats]]] = {}
        self._scored: list[_Scored] = []
        counts = np.bincount(self._y, minlength=len(data.class_names))
        balanced = settings.stack.class_weight == "balanced"
        self._weights = len(rows) / (np.count_nonzero(counts) * counts[self._y]) if balanced else np.ones(len(rows))

    def rows_of(self, inner: Part) -> Part:
        """Rows of the whole set that are an inner fold of this part."""
        train, test = inner
        return self._rows[train], self._rows[test]

    def take(self, number: int, C: float, seen: Sequence[Floats], held: Sequence[Floats]) -> None:
        """Take what one backbone's inner fits with one C gave, the configured one first; keep what is best."""
        whole = np.empty((len(self._y), held[0].shape[1]), held[0].dtype)
        for (_, test), shares in zip(self.inner, held, strict=True):
            whole[test] = shares
        own = whole[np.arange(len(self._y)), self._y].astype(np.float64)
        found = _Base(C, whole, seen, -np.log(np.maximum(own, np.finfo(np.float32).tiny)))
        self._configured.setdefault(number, found)
        if number not in self._best or self._mean(found.losses) < self._mean(self._best[number].losses):
            self._best[number] = found

    def settle(self) -> None:
        """Choose each backbone's C: the configured one where the best is not clearly better."""
        for number, configured in self._configured.items():
            if not self._exceeds(configured.losses - self._best[number].losses):
                self._best[number] = configured
        for tuned, bases in ((False, self._configured), (True, self._best)):
            held = np.mean([base.held for base in bases.values()], axis=0)
            seen = [np.mean([base.seen[n] for base in bases.values()], axis=0) for n in range(len(self.inner))]
            self._averages[tuned] = held, seen

    def try_metas(self, factor: float) -> None:
        """Score the recipes and meta-classifiers with this multiple of their C, from the base learners there are."""
        configured, wanted = self._settings.stack.meta, self._settings.stack
        if not self._scored:  # what is configured is the one to beat
            self._scored.append(self._score(wanted.recipe, configured, False))
        for kind in METAS:
            meta = MetaSettings(kind=kind, C=_product(factor, configured.C))
            if kind != "average":
                self._scored += [self._score(recipe, meta, True) for recipe in RECIPES]
            elif factor == FACTORS[0]:
                self._scored.append(self._score(RECIPES[0], meta, True))

    def _score(self, recipe: Recipe, meta: MetaSettings, tuned: bool) -> _Scored:
        """Score one candidate.

        With `in-sample` this is the stack as it would be fitted on the inner folds. With `out-of-fold` the
        meta-classifier learns from probabilities of other inner folds, whose base learners saw the rows that it is
        judged on: a further level of folds would cost as many fits again.
        """
        held, seen = self._averages[tuned]
        decisions = np.empty(held.shape)
        unfitted = stack.StackedClassifier(
            meta=meta.kind,
            meta_C=meta.C,
            class_weight=self._settings.stack.class_weight,
            random_state=self._settings.cv.seed,
        )
        for (train, test), own in zip(self.inner, seen, strict=True):
            fitted = stack.unfitted_like(unfitted)
            fitted.fit_meta(own if recipe == "in-sample" else held[train], self._y[train])
            decisions[test] = fitted.meta_decisions(held[test])
        temperature = scoring.fit_temperature(decisions, self._y)
        own_share = probabilities(decisions, temperature)[np.arange(len(self._y)), self._y]
        loss = self._mean(-np.log(np.maximum(own_share, np.finfo(np.float64).tiny)))
        return _Scored(recipe, meta, tuned, decisions.argmax(axis=1) == self._y, loss)

    def chosen(self) -> tuple[StackSettings, Choice]:
        """The most accurate candidate, of several the one of the least loss; or what is configured, as for C."""
        configured, *others = self._scored
        best = max(others, key=lambda item: (self._mean(item.right), -item.loss))
        if not self._exceeds(best.right.astype(np.float64) - configured.right):
            best = configured
        bases = self._best if best.tuned else self._configured
        strengths = {name: bases[number].C for number, name in enumerate(self._names)}
        same = len(set(strengths.values())) == 1
        settings = self._settings.stack.model_copy(
            update={
                "recipe": best.recipe,
                "base": BaseSettings(C=next(iter(strengths.values())) if same else strengths),
                "meta": best.meta,
                "tune": None,
            }
        )
        accuracy, before = self._mean(best.right), self._mean(configured.right)
        said = (best.recipe, strengths, best.meta.kind, best.meta.C)
        return settings, Choice(*said, accuracy, before, changed=best is not configured)

    def _mean(self, values: Mask | NDArray[np.float64]) -> float:
        return float(np.mean(self._weights * values))

    def _exceeds(self, differences: NDArray[np.float64]) -> bool:
        """Whether a mean over rows is above zero by more than chance makes, the best of many being picked."""
        weighted = self._weights * differences
        return bool(weighted.mean() > ERRORS * weighted.std() / np.sqrt(len(weighted)))
