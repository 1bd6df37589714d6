"""Choosing C, recipe and meta-classifier by inner cross-validation of each training part, bounded by time."""

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from joblib import delayed
from numpy.typing import NDArray

from stackcls import scoring, stack, strengths, validation
from stackcls.decisions import probabilities
from stackcls.levels import Levels
from stackcls.listener import Listener
from stackcls.parallel import in_parallel
from stackcls.report.findings import Choice
from stackcls.settings import Settings, StackSettings
from stackcls.stacksettings import METAS, RECIPES, BaseSettings, MetaSettings, Recipe
from stackcls.training import TrainingSet
from stackcls.validation import Advance, Floats, Ints, Part

FACTORS = (1.0, 10.0, 0.1, 100.0, 0.01)  # of the configured C, in the order in which they are tried
BASE_SHARE = 0.7  # of the time, after which no further C of the base learners is begun
ERRORS = 2.5  # standard errors by which something must be better: the best of some twenty is picked, each by its luck

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
    temperatures : tuple of float
        Of each of them, from its decisions on the inner folds: those of another kind are of another scale.
    base_factors, meta_factors, untried : tuple of float
        Multiples of the configured C that were tried, of the base learners and of the meta-classifiers, and those that
        were not tried of both.
    seconds : float
    """

    stacks: tuple[StackSettings, ...]
    choices: tuple[Choice, ...]
    temperatures: tuple[float, ...]
    base_factors: tuple[float, ...]
    meta_factors: tuple[float, ...]
    untried: tuple[float, ...]
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
    """Choose a stack for each of these parts, of which no other row is looked at.

    The last is the model's: it stays as configured unless half of the others change too, whose scores speak for it.
    """
    start = time.perf_counter()
    end = start + 60 * (settings.stack.tune or 0.0)
    parts = [_Part(data, part, settings) for part in rows]
    fits = sum(len(part.inner) for part in parts) * len(data.names)
    factors = _factors(settings.stack)
    base = Levels(factors, start, start + BASE_SHARE * (end - start))
    with listener.track("tune", fits * len(factors), "fit") as advance:
        for factor in base:
            _try_bases(parts, data, settings, factor, advance)
    for part in parts:
        part.settle()
    meta = Levels(factors, time.perf_counter(), end)
    with listener.track("tune", len(parts) * len(factors), "part") as advance:
        for factor in meta:
            # Small ones side by side; of large ones the fits themselves use all processors.
            jobs = (delayed(part.try_metas)(factor) for part in parts)
            for _ in in_parallel(jobs, 1 if validation.is_large(data) else -1):
                advance(1)
    chosen = [part.chosen() for part in parts]
    changed = [choice.changed for _, choice, _ in chosen[:-1]]
    if 2 * sum(changed) < len(changed):
        chosen[-1] = parts[-1].chosen(keep=True)
    stacks, choices, temperatures = zip(*chosen, strict=True)
    untried = tuple(factor for factor in factors if factor not in base.done or factor not in meta.done)
    seconds = time.perf_counter() - start
    return Search(stacks, choices, temperatures, tuple(base.done), tuple(meta.done), untried, seconds)


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
    given = zip(names, strengths.of(settings.base, names), strict=True)
    return BaseSettings(C={name: _product(factor, C) for name, C in given})


def _factors(settings: StackSettings) -> list[float]:
    """Multiples with which no configured C leaves the numbers that there are."""
    C = settings.base.C
    given = [settings.meta.C, *(C.values() if isinstance(C, dict) else [C])]
    return [factor for factor in FACTORS if all(0 < _product(factor, strength) < math.inf for strength in given)]


def _product(factor: float, C: float) -> float:
    """As a person would write it: 0.3, and not 0.30000000000000004."""
    return float(f"{factor * C:.12g}")


@dataclass(frozen=True)
class _Base:
    """What one backbone says with one C.

    `said` are probabilities of each row of the part, by the inner fit that did not see it; then, of each inner fit,
    those of the rows that it was fitted on. `loss` is of the first.
    """

    C: float
    said: list[Floats]
    loss: float


def _add(total: list[Floats], said: Sequence[Floats]) -> None:
    """Add to sums over backbones, so that not all of them are kept."""
    if not total:
        total += [np.zeros_like(shares) for shares in said]
    for own, shares in zip(total, said, strict=True):
        own += shares


@dataclass(frozen=True)
class _Scored:
    """A candidate, and how it did on the part's rows, each judged by a fit that did not see it."""

    recipe: Recipe
    meta: MetaSettings
    tuned: bool  # whether its base learners have the C chosen for them, or the configured one
    right: Mask
    loss: float
    temperature: float


class _Part:
    """One training part: its inner folds, and what was tried on them."""

    def __init__(self, data: TrainingSet, rows: Ints, settings: Settings) -> None:
        self._settings, self._names, self._rows, self._y = settings, data.names, rows, data.y[rows]
        groups = None if data.groups is None else data.groups[rows]
        splitter = stack.splitter(settings.stack.inner_folds, settings.cv.seed, groups)
        self.inner: list[Part] = list(splitter.split(self._y, self._y, groups))
        self._clusters = np.arange(len(rows)) if groups is None else np.unique(groups, return_inverse=True)[1]
        self._losses: list[NDArray[np.float64]] = []  # of each backbone as configured, row by row
        self._best: list[_Base] = []
        self._strengths: dict[bool, list[float]] = {False: [], True: []}
        self._averages: dict[bool, list[Floats]] = {False: [], True: []}
        self._scored: list[_Scored] = []
        counts = np.bincount(self._y, minlength=len(data.class_names))
        balanced = settings.stack.class_weight == "balanced"
        self._weights = len(rows) / (np.count_nonzero(counts) * counts[self._y]) if balanced else np.ones(len(rows))

    def rows_of(self, inner: Part) -> Part:
        """Rows of the whole set that are an inner fold of this part."""
        train, test = inner
        return self._rows[train], self._rows[test]

    def take(self, number: int, C: float, seen: Sequence[Floats], held: Sequence[Floats]) -> None:
        """Take what one backbone's inner fits with one C gave, the configured first; keep what is clearly better."""
        whole = np.empty((len(self._y), held[0].shape[1]), held[0].dtype)
        for (_, test), shares in zip(self.inner, held, strict=True):
            whole[test] = shares
        own = whole[np.arange(len(self._y)), self._y].astype(np.float64)
        losses = -np.log(np.maximum(own, np.finfo(np.float32).tiny))
        found = _Base(C, [whole, *seen], self._mean(losses))
        if number == len(self._losses):
            self._losses.append(losses)
            self._best.append(found)
            self._strengths[False].append(C)
            _add(self._averages[False], found.said)
        elif found.loss < self._best[number].loss and self._exceeds(self._losses[number] - losses):
            self._best[number] = found

    def settle(self) -> None:
        """Average what the backbones say, as configured and with the C chosen for each; let go of the rest."""
        self._strengths[True] = [base.C for base in self._best]
        for base in self._best:
            _add(self._averages[True], base.said)
        for shares in (*self._averages[False], *self._averages[True]):
            shares /= len(self._best)
        self._best = []

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
        held, *seen = self._averages[tuned]
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
        return _Scored(recipe, meta, tuned, decisions.argmax(axis=1) == self._y, loss, temperature)

    def chosen(self, keep: bool = False) -> tuple[StackSettings, Choice, float]:
        """The most accurate candidate, of several the one of the least loss; or what is configured, as for C.

        With its temperature; `keep` takes what is configured, whatever is better.
        """
        configured, *others = self._scored
        best = max(others, key=lambda item: (self._mean(item.right), -item.loss))
        if keep or not self._exceeds(best.right.astype(np.float64) - configured.right):
            best = configured
        base_C = dict(zip(self._names, self._strengths[best.tuned], strict=True))
        same = len(set(base_C.values())) == 1
        settings = self._settings.stack.model_copy(
            update={
                "recipe": best.recipe,
                "base": BaseSettings(C=next(iter(base_C.values())) if same else base_C),
                "meta": best.meta,
                "tune": None,
            }
        )
        accuracy, before = self._mean(best.right), self._mean(configured.right)
        said = (best.recipe, base_C, best.meta.kind, best.meta.C)
        return settings, Choice(*said, accuracy, before, changed=best is not configured), best.temperature

    def _mean(self, values: Mask | NDArray[np.float64]) -> float:
        return float(np.mean(self._weights * values))

    def _exceeds(self, differences: NDArray[np.float64]) -> bool:
        """Whether a mean over rows is above zero by more than chance makes, the best of many being picked.

        Rows of a group are alike, so that its sum counts as one (Liang and Zeger, Longitudinal data analysis using
        generalized linear models, Biometrika 73, 1986).
        """
        weighted = self._weights * differences
        sums = np.bincount(self._clusters, weighted - weighted.mean())
        return bool(weighted.mean() > ERRORS * np.sqrt(len(sums)) * sums.std(ddof=1) / len(weighted))
