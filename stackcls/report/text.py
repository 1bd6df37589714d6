"""Reports as text: one Markdown table reads well in a terminal and in a browser."""

import csv
import io
from collections.abc import Iterable, Mapping, Sequence

from tabulate import tabulate

from stackcls.printable import printable
from stackcls.report.findings import Duplicates, Suspects
from stackcls.report.results import STACK, Holdout, Report, Score

LEFT_OUT = "Left out, with so many classes; `cv_predictions.csv` has every prediction."
NO_SUSPECTS = "None stands out; `label_suspects.csv` lists those least like their label."
MISTAKES = 10


def percent(value: float | None) -> str:
    """Share as a percentage with two decimals."""
    return "" if value is None else f"{100 * value:.2f}"


def comma_separated(rows: Iterable[Sequence[object]]) -> str:
    """CSV whose readers get back every cell exactly; `csv` would leave a lone carriage return unquoted."""
    buffer = io.StringIO()
    plain = csv.writer(buffer, lineterminator="\n")
    quoted = csv.writer(buffer, lineterminator="\n", quoting=csv.QUOTE_ALL)
    for row in rows:
        (quoted if any("\r" in str(cell) for cell in row) else plain).writerow(row)
    return buffer.getvalue()


def table(headers: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """Markdown table; cells are text as given, but for what would break the table or act on a terminal."""
    safe = [[printable(str(cell)).replace("|", "\\|") for cell in row] for row in rows]
    aligned = ["left", *["right"] * (len(headers) - 1)]
    return tabulate(
        safe,
        [printable(header) for header in headers],
        tablefmt="pipe",
        disable_numparse=True,
        colalign=aligned if safe else None,
    )


def summary(report: Report) -> str:
    """The single-vs-stacked table, the gain and the calibration."""
    if report.kind == "cross-validation":
        how = f"{report.folds}-fold cross-validation"
    else:
        how = "images that the model never saw"
    lines = [
        f"Accuracy in %, {how}: {report.n_images} images, {len(report.classes)} classes, "
        f"recipe {printable(report.recipe)}",
        "",
        _score_table(report),
        "",
        gain_sentence(report),
        f"Probabilities: expected calibration error {percent(report.calibration.expected_calibration_error)} %, "
        f"log loss {report.calibration.log_loss:.3f}.",
    ]
    if report.holdout is not None:
        lines.append(holdout_sentence(report, report.holdout))
    if report.suspects and report.suspects.flagged:
        lines.append(_suspects_sentence(report.suspects))
    if report.duplicates is not None and report.duplicates.groups:
        lines.append(duplicates_sentence(report, report.duplicates))
    lines += [printable(f"Note: {note}.") for note in report.notes]
    return "\n".join(lines) + "\n"


def gain_sentence(report: Report) -> str:
    """What stacking gained, and how sure that is."""
    gain, test, best = report.gain, report.gain.mcnemar, printable(report.gain.over)
    interval = ""
    if gain.interval:
        low, high = gain.interval
        interval = f" (95 % interval {100 * low:+.2f} to {100 * high:+.2f}, corrected for overlapping folds)"
    elif len(gain.folds) > 1:
        interval = " (no interval: all folds have the same gain)"
    return (
        f"The stack against the best single backbone, {best}: {100 * gain.mean:+.2f} points{interval}. "
        f"It alone is right on {test.stack_only} images, {best} alone on {test.single_only} "
        f"(McNemar's test: p = {test.p_value:.3g})."
    )


def duplicates_sentence(report: Report, found: Duplicates) -> str:
    """How many pairs there are, where they lie, and what that does to the scores, or would have done."""
    pairs = found.exact_pairs + found.near_pairs
    said = (
        f"Duplicates: {pairs} {'pair' if pairs == 1 else 'pairs'} ({found.exact_pairs} exact, {found.near_pairs} near)"
    )
    if found.conflicting:
        said += f", {found.conflicting} with two different labels"
    said += "; duplicates.csv lists them. "
    if found.grouped:
        return said + (
            f"Each group was kept in one fold: without that, {found.straddling} would lie in two folds, and the stack "
            f"would score {percent(found.ungrouped[STACK])} instead of {percent(report.scores[STACK].mean)}."
        )
    if not found.straddling:
        return said + "None lies in two folds."
    return said + (
        f"{found.straddling} of them {'lies' if found.straddling == 1 else 'lie'} in two folds, so that images are "
        "scored by models that saw their copies: `--set cv.groups=duplicates` keeps each group in one fold."
    )


def holdout_sentence(report: Report, holdout: Holdout) -> str:
    """What the final model scored on images that nothing had seen, beside the cross-validated score."""
    which = "by their split" if holdout.how == "split" else f"{float(holdout.how):.3g} of all, by a hash of their paths"
    best = printable(report.gain.over)
    return (
        f"Held out ({which}; neither folds nor final model saw them): {holdout.n_images} images, stack "
        f"{percent(holdout.scores[STACK].mean)} (cross-validated {percent(report.scores[STACK].mean)}), {best} "
        f"{percent(holdout.scores[report.gain.over].mean)} ({percent(report.scores[report.gain.over].mean)}); "
        f"the stack takes {holdout.wrong} for another class."
    )


def _holdout_section(report: Report, holdout: Holdout) -> list[str]:
    rows = [
        [name, percent(report.scores[name].mean), percent(score.mean), percent(score.balanced_accuracy)]
        for name, score in holdout.scores.items()
    ]
    parts = [
        "## Hold-out",
        holdout_sentence(report, holdout),
        table(["accuracy in %", "cross-validated", "held out", "held out, balanced"], rows),
    ]
    if holdout.mistakes:
        wrong = [[item.path, item.label, item.predicted, f"{item.probability:.3f}"] for item in holdout.mistakes]
        parts += [
            "Taken for another class, the surest first:",
            table(["image", "given", "predicted", "probability"], wrong),
        ]
    if holdout.wrong > len(holdout.mistakes):
        parts.append(f"{holdout.wrong - len(holdout.mistakes)} more are in `holdout_predictions.csv`.")
    return parts


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
        "# Single backbones against the stack",
        summary(report).rstrip(),
        *_contributions(report),
        *([] if report.holdout is None else _holdout_section(report, report.holdout)),
        "## Classes, the hardest first",
        per_class,
        "## Most frequent confusions",
        table(["given", "predicted", "images"], confusions)
        if confusions
        else ("None." if report.confusion else LEFT_OUT),
        "![Confusion matrix](confusion.png)",
        *_suspects(report),
        "## How this was made",
        table(["what", "value"], made),
    ]
    return "\n\n".join(parts) + "\n"


def _contributions(report: Report) -> list[str]:
    """What each backbone adds, the most helpful first, and what it costs."""
    if not report.contributions:
        return []
    ordered = sorted(report.contributions.items(), key=lambda item: -item[1].adds)
    costs = [item.seconds_per_image for _, item in ordered]
    rows = [
        [
            name,
            percent(item.without),
            f"{100 * item.adds:+.2f}",
            " to ".join(f"{100 * end:+.2f}" for end in item.interval or ()),
            "unknown" if item.seconds_per_image is None else f"{item.seconds_per_image:.4f}",
        ]
        for name, item in ordered
    ]
    said = (
        "Accuracy in % of the stack refitted without each backbone, on the same folds; what it adds is the whole "
        "stack's minus that, in points."
    )
    if None in costs:
        said += " Seconds per image are known where `features` computed them on this machine."
    headers = ["backbone", "stack without it", "it adds", "95 % interval", "seconds per image"]
    return ["## What each backbone adds", said, table(headers, rows)]


def _suspects(report: Report) -> list[str]:
    found = report.suspects
    if found is None:
        return []
    said = _suspects_sentence(found) if found.flagged else NO_SUSPECTS
    return ["## Labels that look wrong", f"{said} Found by {printable(found.method)}."]


def _suspects_sentence(found: Suspects) -> str:
    which = "1 label looks wrong" if found.flagged == 1 else f"{found.flagged} labels look wrong"
    return f"{which}: see the first rows of label_suspects.csv, the most suspicious first."


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
        ["gain over the best", *(f"{100 * report.gain.mean:+.2f}" for report in reports.values())],
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
