"""Tables of the results, for the terminal and for Markdown."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sides import NETWORKS, SIDES, Side
from tabulate import tabulate

STAGES = ("import", "list and hash", "calibrate", "build", "decode", "first batch", "inference", "waiting for images")
STAGES += ("write", "other", "(processor seconds of decoding)")


@dataclass(frozen=True)
class Table:
    """One table with its title."""

    title: str
    headers: Sequence[str]
    rows: Sequence[Sequence[str]]


class Figures:
    """What the tables say, drawn from the results' plain values."""

    def __init__(self, values: Mapping[str, Any]) -> None:
        self.values = values
        self.count = int(values["settings"]["images"])

    def runs(self, kind: str, side: str) -> list[Mapping[str, Any]]:
        """All runs of that kind that went well."""
        start = f"{kind}/{side}/"
        return [run for name, run in self.values["runs"].items() if name.startswith(start) and not run["error"]]

    def best(self, side: str, kind: str = "whole") -> Mapping[str, Any] | None:
        """The fastest run."""
        return min(self.runs(kind, side), key=lambda run: run["seconds"], default=None)

    def why_not(self, side: str) -> str:
        """Why a side has no result."""
        named = (run["error"] for name, run in self.values["runs"].items() if f"/{side}/" in name and run["error"])
        return next(named, "not run: give --thingsvision" if side == "thingsvision" else "not run")

    def staged(self, side: str) -> list[Mapping[str, Any]]:
        """Runs that report stages and rates."""
        return self.runs("whole" if side == "thingsvision" else "stages", side)

    def rates(self, side: str) -> dict[str, float]:
        """Images per second of inference alone; `all` is one image through all networks."""
        reports = [run["rates"] for run in self.staged(side) if "rates" in run]
        if not reports:
            return {}
        found = {name: max(report[name] for report in reports) for name in NETWORKS}
        return {**found, "all": 1 / sum(1 / rate for rate in found.values())}

    def peak(self, precision: str) -> float | None:
        """Highest measured rate of that precision, in billions of operations per second."""
        reports = [run["peaks"] for run in self.runs("peaks", "all") if precision in run.get("peaks", {})]
        return max((float(report[precision].get("rate", 0)) for report in reports), default=0.0) or None

    def operations(self, network: str) -> float | None:
        """Billions of operations for one image, two per multiply-add."""
        counts = self.values["facts"].get("multiply-adds")
        if not counts:
            return None
        return 2e-9 * (sum(counts.values()) if network == "all" else counts[network])

    def fraction(self, side: Side, network: str) -> float | None:
        """Share of the arithmetic peak that a network reaches."""
        peak, operations = self.peak(side.precision), self.operations(network)
        rate = self.rates(side.name).get(network)
        return rate * operations / peak if peak and operations and rate else None

    def ratio(self, side: str, other: str) -> float | None:
        """How many times as fast as another side, whole processes, better of the runs of each."""
        mine, theirs = self.best(side), self.best(other)
        return theirs["seconds"] / mine["seconds"] if mine and theirs else None


def tables(values: Mapping[str, Any]) -> list[Table]:
    """All tables."""
    figures = Figures(values)
    return [_inference(figures), _whole(figures), _stages(figures), _peaks(figures), _machine(figures)]


def text(found: Sequence[Table]) -> str:
    """For the terminal."""
    return "\n\n".join(f"{item.title}\n\n" + tabulate(item.rows, item.headers, disable_numparse=True) for item in found)


def markdown(found: Sequence[Table]) -> str:
    """For documentation."""
    return "\n\n".join(
        f"**{item.title}**\n\n" + tabulate(item.rows, item.headers, "github", disable_numparse=True) for item in found
    )


def _number(value: float | None, form: str = ".1f") -> str:
    return "" if value is None else format(value, form)


def _inference(figures: Figures) -> Table:
    rows = []
    for side in SIDES:
        rates = figures.rates(side.name)
        cells = [figures.why_not(side.name)] if not rates else []
        for network in (*NETWORKS, "all") if rates else ():
            share = figures.fraction(side, network)
            cells.append(_number(rates[network]) + (f" ({share:.0%})" if share else ""))
        rows.append([side.title, *cells])
    title = "Inference alone, images/s, and in brackets the fraction of the arithmetic peak of that precision"
    return Table(title, ["", *NETWORKS, "all four"], rows)


def _whole(figures: Figures) -> Table:
    rows = []
    for side in SIDES:
        best, first = figures.best(side.name), figures.best(side.name, "first")
        if best is None:
            rows.append([side.title, figures.why_not(side.name)])
            continue
        limit = figures.rates(side.name).get("all")
        asked = dict(side.asked)
        ratios = []
        for other in ("article", "thingsvision"):
            wanted = f" (asked: {asked[other]})" if other in asked else ""
            ratios.append(_number(figures.ratio(side.name, other), ".2f") + wanted)
        memory = max(run["memory"] for run in figures.runs("whole", side.name))
        cells = [_number(best["seconds"]), _number(figures.count / best["seconds"], ".2f"), f"{memory:.0f}", *ratios]
        reached = figures.count / best["seconds"] / limit if limit else None
        rows.append([side.title, *cells, _number(reached, ".0%"), _number(first["seconds"] if first else None)])
    headers = ["", "s", "images/s", "peak MiB", "x article.py", "x thingsvision", "of inference alone", "first run, s"]
    repeats = max((len(figures.runs("whole", side.name)) for side in SIDES), default=0)
    title = f"Whole process, {figures.count} photos, four networks, better of {repeats} interleaved runs"
    return Table(title, headers, rows)


def _stages(figures: Figures) -> Table:
    found = {
        side.title: min(runs, key=lambda run: run["seconds"])["stages"]
        for side in SIDES
        if (runs := figures.staged(side.name))
    }
    used = [stage for stage in STAGES if any(stage in stages for stages in found.values())]
    rows = [[stage, *(_number(stages.get(stage)) for stages in found.values())] for stage in used]
    return Table("Seconds per stage, one run each, with clocks inside", ["", *found], rows)


def _peaks(figures: Figures) -> Table:
    reports = [run["peaks"] for run in figures.runs("peaks", "all")]
    rows = []
    for precision in ("float32", "bfloat16", "int8"):
        known = [report[precision] for report in reports if precision in report]
        best = max(known, key=lambda item: item.get("rate", 0), default={"error": "not run"})
        rows.append([precision, _number(best.get("rate"), ".0f"), best.get("by") or best["error"]])
    for network in (*NETWORKS, "all"):
        rows.append([network, _number(figures.operations(network), ".2f"), "needed for one image"])
    title = "Arithmetic peak of the machine, and what the networks need: billions of operations (a multiply-add is two)"
    return Table(title, ["", "10^9 operations (per second)", "by"], rows)


def _machine(figures: Figures) -> Table:
    return Table("Machine", ["", ""], [list(item) for item in figures.values["facts"].get("machine", {}).items()])
