"""Reports as text: one Markdown table reads well in a terminal and in a browser."""

from collections.abc import Mapping

from stackcls.printable import counted, printable
from stackcls.report import sections
from stackcls.report.results import STACK, Report, Score
from stackcls.report.tables import percent, table

TITLE = "# Single backbones against the stack"
LEFT_OUT = "Left out, with so many classes; `cv_predictions.csv` has every prediction."
MISTAKES = 10


def summary(report: Report) -> str:
    """The single-vs-stacked table, the gain and the calibration."""
    if report.kind == "cross-validation":
        how = f"{report.folds}-fold cross-validation"
    else:
        how = "images that the model never saw"
    lines = [
        f"Accuracy in %, {how}: {counted(report.n_images, 'image')}, "
        f"{counted(len(report.classes), 'class', 'classes')}, "
        f"recipe {printable(report.recipe)}{', chosen by tuning' if report.tuning else ''}",
        "",
        _score_table(report),
        "",
        gain_sentence(report),
        f"Probabilities: expected calibration error {percent(report.calibration.expected_calibration_error)} %, "
        f"log loss {report.calibration.log_loss:.3f}.",
    ]
    if report.tuning is not None:
        lines += [sections.tuning_sentence(report.tuning), sections.CHOSEN, sections.chosen_yaml(report.tuning)]
    if report.holdout is not None:
        lines.append(sections.holdout_sentence(report, report.holdout))
    if report.suspects and report.suspects.flagged:
        lines.append(sections.suspects_sentence(report.suspects))
    if report.duplicates is not None and report.duplicates.groups:
        lines.append(sections.duplicates_sentence(report, report.duplicates))
    if report.unknown is not None:
        lines.append(sections.unknown_sentence(report.unknown))
    lines += [printable(f"Note: {note}.") for note in report.notes]
    return "\n".join(lines) + "\n"


def gain_sentence(report: Report) -> str:
    """What stacking gained, and how sure that is."""
    gain, test, best = report.gain, report.gain.mcnemar, printable(report.gain.over)
    interval = ""
    if gain.interval:
        low, high = gain.interval
        interval = f" (95 % interval {100 * low:+z.2f} to {100 * high:+z.2f}, corrected for overlapping folds)"
    elif len(gain.folds) > 1:
        interval = " (no interval: all folds have the same gain)"
    return (
        f"The stack against the best single backbone, {best}: {100 * gain.mean:+z.2f} points{interval}. "
        f"It alone is right on {counted(test.stack_only, 'image')}, {best} alone on {test.single_only} "
        f"(McNemar's test: p = {test.p_value:.3g})."
    )


def document(report: Report) -> str:
    """The whole report in Markdown."""
    scores = report.per_class
    weakest = sorted(scores, key=lambda name: (scores[name].f1, name))
    per_class = table(
        ["class", "precision", "recall", "F1", "images"],
        [
            [name, percent(s.precision), percent(s.recall), percent(s.f1), s.support]
            for name, s in ((name, scores[name]) for name in weakest)
        ],
    )
    confusions = _confusions(report)
    made = [("seed", report.seed), *report.settings.items(), ("seconds", f"{report.seconds:.1f}")]
    made += list(report.created_with.items())
    parts = [
        TITLE,
        summary(report).rstrip(),
        *([] if report.tuning is None else sections.tuning(report.tuning)),
        *sections.contributions(report),
        *([] if report.holdout is None else sections.holdout_section(report, report.holdout)),
        "## Classes, the hardest first",
        per_class,
        "## Most frequent confusions",
        table(["given", "predicted", "images"], confusions)
        if confusions
        else ("None." if report.confusion else LEFT_OUT),
        "![Confusion matrix](confusion.png)",
        *sections.suspects(report),
        *([] if report.unknown is None else sections.unknown(report.unknown)),
        "## How this was made",
        table(["what", "value"], made),
    ]
    return "\n\n".join(parts) + "\n"


def side_by_side(reports: Mapping[str, Report]) -> str:
    """Several reports in one table: a row per learner, a column per report."""
    names = list(dict.fromkeys(name for report in reports.values() for name in report.singles))
    rows: list[list[str]] = []
    for name in [*names, STACK]:
        rows.append([name, *(_cell(report.scores.get(name)) for report in reports.values())])
    for kind in dict.fromkeys(kind for report in reports.values() for kind in report.baselines):
        for name in names:
            cells = [_cell(report.baselines.get(kind, {}).get(name)) for report in reports.values()]
            rows.append([f"{name}, {kind}", *cells])
    facts = [
        ["gain over the best", *(f"{100 * report.gain.mean:+z.2f}" for report in reports.values())],
        ["recipe", *(report.recipe for report in reports.values())],
        ["images", *(str(report.n_images) for report in reports.values())],
        ["classes", *(str(len(report.classes)) for report in reports.values())],
        ["measured by", *(_measured(report) for report in reports.values())],
    ]
    return table(["accuracy in %", *reports], rows + facts) + "\n"


def _measured(report: Report) -> str:
    return f"{report.folds} folds, seed {report.seed}" if report.kind == "cross-validation" else report.kind


def _cell(score: Score | None) -> str:
    if score is None:
        return ""
    return percent(score.mean) + (f" ± {percent(score.std)}" if len(score.folds) > 1 else "")


def _score_table(report: Report) -> str:
    cross = report.kind == "cross-validation"
    headers = ["", "mean", *(["std", "folds"] if cross else []), "balanced", "top 5"]
    rows = [_score_row(name, score, cross) for name, score in [*report.singles.items(), (STACK, report.scores[STACK])]]
    for kind, scores in report.baselines.items():
        rows += [_score_row(f"{name}, {kind}", score, cross) for name, score in scores.items()]
    filled = [index for index in range(len(headers)) if index == 0 or any(row[index] for row in rows)]
    return table([headers[index] for index in filled], [[row[index] for index in filled] for row in rows])


def _score_row(name: str, score: Score, cross: bool) -> list[str]:
    folds = [percent(score.std), " ".join(percent(fold) for fold in score.folds)] if cross else []
    return [name, percent(score.mean), *folds, percent(score.balanced_accuracy), percent(score.top5)]


def _confusions(report: Report) -> list[list[object]]:
    pairs = [
        (count, report.classes[given], report.classes[predicted])
        for given, row in enumerate(report.confusion)
        for predicted, count in enumerate(row)
        if count and given != predicted
    ]
    return [
        [given, predicted, count] for count, given, predicted in sorted(pairs, key=lambda p: (-p[0], p[1:]))[:MISTAKES]
    ]
