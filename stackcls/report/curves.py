"""Fine-tunings side by side, as text and as a picture."""

import io
from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields
from pathlib import Path

import yaml
from PIL import Image

from stackcls.files import replacing
from stackcls.printable import counted, printable, were
from stackcls.report.tables import comma_separated, percent, table
from stackcls.report.tuned import Epoch, Tuned

LONGEST = 30
ENDLESS = 1_000_000  # a line of YAML is not to be broken
TITLE = "stackcls training curves"


def side_by_side(runs: Sequence[Tuned]) -> str:
    """A row for each run."""
    rows = [
        [
            run.name,
            run.start,
            {"all": "all", "none": "head"}.get(run.unfreeze, f"from {run.unfreeze}"),
            f"{run.learned:,}",
            run.n_train,
            f"{run.best} of {len(run.history)}",
            percent(run.validation_accuracy),
            percent(run.accuracy),
            f"{run.seconds:.0f}",
        ]
        for run in runs
    ]
    headers = ["accuracy in %", "start", "learned", "weights", "images", "epoch", "validation", "left out", "seconds"]
    return table(headers, rows) + "\n"


def summary(run: Tuned) -> str:
    """One run: its table, what the figures are, and how to stack it."""
    if run.n_rest:
        use = (
            f"{run.n_rest} {were(run.n_rest)} left out: no image of the same bytes was learned from. `fit` scores a "
            "stack with this backbone on images that it never saw alone."
        )
    else:
        use = "None was left out: a stack with this backbone can be scored on other images only."
    lines = [
        side_by_side([run]).rstrip(),
        "",
        f"{counted(run.n_train, 'image was', 'images were')} learned from, {run.n_validation} told which epoch was "
        f"best. {use}",
        *(printable(f"Note: {note}.") for note in run.notes),
        "",
        "features:",
        "  backbones:",
        f"    - {_in_yaml(run.entry)}",
    ]
    return "\n".join(lines) + "\n"


def _in_yaml(entry: Mapping[str, str]) -> str:
    """One line that YAML reads back as it was, with escapes where a terminal would act on it."""
    plain = all(value == printable(value) for value in entry.values())
    said = yaml.safe_dump(dict(entry), default_flow_style=True, sort_keys=False, allow_unicode=plain, width=ENDLESS)
    return str(said).rstrip()


def history_csv(history: Sequence[Epoch]) -> str:
    """One line per epoch."""
    names = [item.name for item in fields(Epoch)]
    return comma_separated([names, *([asdict(epoch)[name] for name in names] for epoch in history)])


def save(runs: Sequence[Tuned], path: Path) -> None:
    """Draw loss and accuracy of each run, dashed where learned from, solid on validation images, as PNG.

    Parameters
    ----------
    runs : sequence of Tuned
    path : Path
        Written whole, or not at all.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10.0, 4.2), layout="constrained")
    figure.suptitle("solid: validation images; dashed: images learned from; dot: the epoch that was kept", fontsize=10)
    longest = max(len(run.history) for run in runs)
    for axes, what in zip(figure.subplots(1, 2), ("accuracy", "loss"), strict=True):
        for number, run in enumerate(runs):
            colour, epochs = f"C{number % 10}", [epoch.epoch for epoch in run.history]
            validated = [getattr(epoch, f"validation_{what}") for epoch in run.history]
            learned = [getattr(epoch, what) for epoch in run.history]
            axes.plot(epochs, learned, "--", marker=".", markersize=3, color=colour, linewidth=1)
            axes.plot(epochs, validated, "-", color=colour, label=_short(run.name))
            axes.plot(run.best, validated[run.best - 1], "o", color=colour)
        axes.set_xlabel("epoch")
        axes.set_ylabel(what)
        axes.set_xlim(0.5, longest + 0.5)
        axes.xaxis.get_major_locator().set_params(integer=True, min_n_ticks=1)
        axes.grid(alpha=0.3)
    legend = figure.axes[0].legend(fontsize=8)
    for label in legend.get_texts():
        label.set_parse_math(False)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=100, metadata={"Software": None, "Title": TITLE})
    with replacing(path) as temporary:
        temporary.write_bytes(buffer.getvalue())


def _short(name: str) -> str:
    return name if len(name) <= LONGEST else name[: LONGEST - 1] + "…"


def is_ours(path: Path) -> bool:
    """Whether a file is a picture that `save` drew."""
    try:
        with Image.open(path, formats=("PNG",)) as image:
            return bool(image.info.get("Title") == TITLE)
    except (OSError, ValueError, SyntaxError):
        return False
