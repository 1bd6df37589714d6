"""What was found beside the scores, as sentences and as sections of a report in Markdown."""

from typing import Any

import yaml

from stackcls.printable import counted, printable
from stackcls.report.findings import Choice, Duplicates, Suspects, Unknown
from stackcls.report.results import STACK, Holdout, Report, Tuning
from stackcls.report.tables import percent, table

CHOSEN = "The model has what was chosen from all images; as lines for pipeline.yaml:"
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
    if found.grouped and not found.ungrouped:
        return said + f"Each group was kept in one fold; in plain folds {found.straddling} would straddle."
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
        f"Held out ({which}; neither folds nor final model saw them): {counted(holdout.n_images, 'image')}, stack "
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
        parts.append(f"And {holdout.wrong - len(holdout.mistakes)} more, in `holdout_predictions.csv`.")
    return parts


def tuning_sentence(tuning: Tuning) -> str:
    """What tuning gained over the stack as configured, and in plain words whether it paid."""
    gain, test = tuning.gain, tuning.gain.mcnemar
    measure = "balanced accuracy" if tuning.balanced else "accuracy"
    interval = ""
    if gain.interval:
        low, high = gain.interval
        interval = f" (95 % interval {100 * low:+z.2f} to {100 * high:+z.2f}, corrected for overlapping folds)"
    return (
        f"Tuning took {tuning.seconds:.0f} s of {tuning.minutes:g} min. The tuned stack against the stack as "
        f"configured, {measure} {percent(tuning.untuned.mean)}: {100 * gain.mean:+z.2f} points{interval}. It alone is "
        f"right on {counted(test.stack_only, 'image')}, the other alone on {test.single_only} (McNemar's test: "
        f"p = {test.p_value:.3g}). {tuning_verdict(tuning)}{_edges(tuning)}"
    )


def _edges(tuning: Tuning) -> str:
    """Which chosen C lies at the end of what was tried, so that one beyond may be better."""
    if not tuning.edges:
        return ""
    named = [
        f"{'the meta-classifier' if name == STACK else printable(name)} ({C:g})" for name, C in tuning.edges.items()
    ]
    return (
        f" The C of {', '.join(named)} is at the end of what was tried: one beyond may do better; with what was chosen "
        "in pipeline.yaml, another --tune tries that."
    )


def tuning_verdict(tuning: Tuning) -> str:
    """Whether tuning paid."""
    mean, interval = tuning.gain.mean, tuning.gain.interval
    if not tuning.choices[-1].changed:
        return (
            "It did not pay: nothing that was tried was clearly better on all images and in half of the folds, and the "
            "model is the one configured."
        )
    if interval and interval[0] > 0:
        return "It paid."
    if mean <= 0:
        return "It did not pay: the stack as configured, without --tune, does no worse here."
    return "Whether it paid, these folds do not settle: the gain is within what chance makes."


def tuning_tried(tuning: Tuning) -> str:
    """What was tried."""
    said = (
        f"Tried were multiples of the configured C, of the base learners {_factors(tuning.base_factors)}, of the "
        f"meta-classifier {_factors(tuning.meta_factors)}; linear SVM and logistic regression with both recipes, and "
        "the plain average. Each fold's choice is made by inner cross-validation of the images that it is fitted on; "
        "what is configured stays unless something is better by more than two and a half standard errors; for the "
        "model also where fewer than half of the folds change."
    )
    if tuning.balanced:
        said += " Accuracies here are balanced, all classes weighing the same, as in the choice."
    if tuning.untried:
        said += f" For {_factors(tuning.untried)} there was no time, or not for all: --tune MINUTES gives more."
    return said


def _factors(factors: list[float]) -> str:
    return ", ".join(f"x{factor:g}" for factor in factors)


def tuning_rows(tuning: Tuning) -> list[tuple[str, str, str, str, str, str]]:
    """What was chosen for each fold and for the model, with inner accuracies of that and of what is configured."""
    names = [f"fold {number}" for number in range(1, len(tuning.choices))] + ["model"]
    return [
        (
            name,
            item.recipe,
            ", ".join(f"{backbone} {C:g}" for backbone, C in item.base_C.items()),
            item.meta if item.meta == "average" else f"{item.meta} {item.meta_C:g}",
            percent(item.accuracy),
            percent(item.configured),
        )
        for name, item in zip(names, tuning.choices, strict=True)
    ]


def chosen_yaml(tuning: Tuning) -> str:
    """What was chosen for the model, in a fence; characters that would act on a terminal are escaped, as YAML can."""
    item: Choice = tuning.choices[-1]
    strengths = dict(item.base_C)
    C = strengths if len(set(strengths.values())) > 1 else next(iter(strengths.values()))
    chosen = {"recipe": item.recipe, "base": {"C": C}, "meta": {"kind": item.meta, "C": item.meta_C}}
    written = yaml.safe_dump({"stack": chosen}, sort_keys=False, default_flow_style=None, width=100_000)
    return f"\n```yaml\n{written}```\n"


TUNING_HEADERS = ("for", "recipe", "C of the base learners", "meta-classifier, C", "inner accuracy", "as configured")


def tuning(tuning: Tuning) -> list[str]:
    """What was tried and chosen."""
    return ["## Tuning", tuning_tried(tuning), table(list(TUNING_HEADERS), [list(row) for row in tuning_rows(tuning)])]


def tuning_parts(report: Report) -> dict[str, Any] | None:
    """What the page says of tuning."""
    found = report.tuning
    if found is None:
        return None
    return {
        "sentence": tuning_sentence(found),
        "tried": tuning_tried(found),
        "headers": TUNING_HEADERS,
        "rows": tuning_rows(found),
        "chosen": CHOSEN,
        "yaml": chosen_yaml(found).strip().removeprefix("```yaml\n").removesuffix("```"),
    }


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
