"""What was found beside the scores, as sentences and as sections of a report in Markdown."""

from stackcls.printable import printable
from stackcls.report.findings import Duplicates, Suspects, Unknown
from stackcls.report.results import STACK, Holdout, Report
from stackcls.report.tables import percent, table

NO_SUSPECTS = "None stands out; `label_suspects.csv` lists those least like their label."


def duplicates_sentence(report: Report, found: Duplicates) -> str:
    """How many pairs there are, where they lie, and what that does to the scores, or would have done."""
    pairs = found.exact_pairs + found.near_pairs
    counts = f"{found.exact_pairs} exact, {found.near_pairs} near"
    if not found.near_looked_for:
        counts = "exact copies only: near ones were not looked for"
    said = f"Duplicates: {pairs} {'pair' if pairs == 1 else 'pairs'} ({counts})"
    if found.conflicting:
        said += f", {found.conflicting} with two different labels"
    said += "; duplicates.csv lists them. "
    if found.grouped:
        return said + (
            f"Stack: plain folds, in which {found.straddling} would straddle, score {percent(found.ungrouped[STACK])}; "
            f"folds that keep each group together score {percent(report.scores[STACK].mean)} (other folds alone move "
            "this too)."
        )
    if not found.straddling:
        return said + "None lies in two folds."
    return said + (
        f"{found.straddling} of them {'lies' if found.straddling == 1 else 'lie'} in two folds, so that images are "
        "scored by models that saw their copies: `--set cv.groups=duplicates` keeps each group in one fold."
    )


def holdout_sentence(report: Report, holdout: Holdout) -> str:
    """What the final model scored on images that nothing had seen, beside the cross-validated score."""
    which = "by their split" if holdout.how == "split" else f"{100 * float(holdout.how):.3g} % of all, by their paths"
    best = printable(report.gain.over)
    return (
        f"Held out ({which}; neither folds nor final model saw them): {holdout.n_images} images, stack "
        f"{percent(holdout.scores[STACK].mean)} (cross-validated {percent(report.scores[STACK].mean)}), {best} "
        f"{percent(holdout.scores[report.gain.over].mean)} ({percent(report.scores[report.gain.over].mean)}); "
        f"the stack takes {holdout.wrong} for another class."
    )


def holdout_section(report: Report, holdout: Holdout) -> list[str]:
    """Scores on what was held out beside the cross-validated ones, and what the stack takes for another class."""
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


def unknown_sentence(unknown: Unknown) -> str:
    """What `predict --reject 0.5` does."""
    trade = min(unknown.trades, key=lambda trade: abs(trade.reject - 0.5))
    text = f"With predict --reject {trade.reject:g}, {percent(trade.coverage)} % of the images get a label"
    if trade.accuracy is not None:
        text += f", {percent(trade.accuracy)} % of those the right one"
    if trade.unknown_rejected is None:
        return f"{text}; what becomes of images of classes never seen was not measured."
    areas = (
        f"area under the ROC curve {unknown.auroc:.3f}, of the largest probability alone {unknown.auroc_confidence:.3f}"
    )
    return f"{text}; {percent(trade.unknown_rejected)} % of images of classes left out get none ({areas})."


def unknown(unknown: Unknown) -> list[str]:
    """What each threshold of `predict --reject` does."""
    rows = [
        [f"{t.reject:g}", percent(t.coverage), percent(t.accuracy), percent(t.unknown_rejected)] for t in unknown.trades
    ]
    left_out = [f"Classes left out: {printable(' + '.join(map(', '.join, unknown.left_out)))}, each tried once."]
    return [
        "## Images of no known class: `predict --reject P`",
        f"P is the {unknown.method}.",
        table(["P", "labelled, in %", "of those right, in %", "of classes left out rejected, in %"], rows),
        *(left_out if unknown.left_out else []),
    ]


def contributions(report: Report) -> list[str]:
    """What each backbone adds, the most helpful first, and what it costs."""
    if not report.contributions:
        return []
    ordered = sorted(report.contributions.items(), key=lambda item: -item[1].adds)
    costs = [item.seconds_per_image for _, item in ordered]
    rows = [
        [
            name,
            percent(item.without),
            f"{100 * item.adds:+z.2f}",
            " to ".join(f"{100 * end:+z.2f}" for end in item.interval or ()),
            "unknown" if item.seconds_per_image is None else f"{item.seconds_per_image:.4f}",
        ]
        for name, item in ordered
    ]
    said = (
        "Accuracy in % of the stack refitted without each backbone, on the same folds; what it adds is the whole "
        "stack's minus that, in points."
    )
    if several := [item.matrices for item in report.contributions.values() if len(item.matrices) > 1]:
        said += f" A backbone goes with all its matrices ({printable('; '.join(map(', '.join, several)))})."
    if None in costs:
        said += " Seconds per image are known where `features` computed them on this machine."
    headers = ["backbone", "stack without it", "it adds", "95 % interval", "seconds per image"]
    return ["## What each backbone adds", said, table(headers, rows)]


def suspects(report: Report) -> list[str]:
    """How many labels look wrong, and where they are listed."""
    found = report.suspects
    if found is None:
        return []
    said = suspects_sentence(found) if found.flagged else NO_SUSPECTS
    return ["## Labels that look wrong", f"{said} Found by {printable(found.method)}."]


def suspects_sentence(found: Suspects) -> str:
    """How many labels look wrong."""
    which = "1 label looks wrong" if found.flagged == 1 else f"{found.flagged} labels look wrong"
    return f"{which}: flagged in label_suspects.csv, the most suspicious first."
