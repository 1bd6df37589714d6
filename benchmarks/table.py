"""stackcls, a plain script and thingsvision side by side: one run, the same images, whole processes and stages.

    python benchmarks/table.py --out results.json [--thingsvision FOLDER] [--limit N] [--repeats 2] [--only SIDE ...]

Prints images per second of inference alone with the fraction of the machine's arithmetic peak, whole processes with
peak memory and ratios, seconds per stage, and the machine. thingsvision needs an environment of its own: `python
benchmarks/environment.py thingsvision FOLDER`. Every result is written down at once: a killed run goes on where it
stopped with the same command, and failed parts are tried again. What is compiled lies beside the results, and the
first runs, which compile and calibrate, are a column of their own. Ratios within one run are what counts: machines
are shared and noisy.
"""

import argparse
import json
from pathlib import Path

import machine
import rendering
from running import Results, run
from sides import SIDES, Bench, Side

ROOT = Path(__file__).resolve().parent.parent
BEGIN, END = "<!-- measured: begin -->", "<!-- measured: end -->"


def measure(results: Results, bench: Bench, name: str, command: list[str], reported: str | None = None) -> None:
    """Run one command unless its result is there; take over what it reported.

    Parameters
    ----------
    results : Results
    bench : Bench
    name : str
        Of the result.
    command : list of str
    reported : str, optional
        The key for JSON that the command prints; without it, a report file counts where there is one.
    """
    if not results.lacks(name):
        return
    bench.clear()
    measured = run(command, bench.environment)
    report = None
    if reported and not measured.error:
        report = {reported: json.loads(measured.output)}
    elif bench.report.exists() and not measured.error:
        report = json.loads(bench.report.read_text())
    results.add(name, measured, report)
    print(f"{name}: {measured.error or f'{measured.seconds:.1f} s, {measured.memory:.0f} MiB'}", flush=True)


def measure_all(results: Results, bench: Bench, sides: list[Side], repeats: int) -> None:
    """Everything, in turn, so that what else the machine does falls on all sides alike."""
    results.state("machine", machine.describe(bench.peer))
    measure(results, bench, "networks/all/1", bench.probe("networks"), "counts")
    if counts := results.values["runs"]["networks/all/1"].get("counts"):
        results.state("multiply-adds", counts)
    for side in sides:
        if side.engine:
            measure(results, bench, f"first/{side.name}/1", bench.whole(side))
    able = [side for side in sides if not side.engine or not results.lacks(f"first/{side.name}/1")]
    for number in range(1, repeats + 1):
        measure(results, bench, f"peaks/all/{number}", bench.probe("peaks"), "peaks")
        for side in able:
            measure(results, bench, f"whole/{side.name}/{number}", bench.whole(side))
    for side in able:
        if side.name != "thingsvision":
            # The machine's speed drifts, so its peak is measured beside each of what is held against it.
            measure(results, bench, f"peaks/all/{side.name}", bench.probe("peaks"), "peaks")
            measure(results, bench, f"stages/{side.name}/1", bench.stages(side))


def write_between_marks(path: Path, found: str) -> None:
    """Replace what stands between the marks in a document."""
    before, _, rest = path.read_text().partition(BEGIN)
    _, mark, after = rest.partition(END)
    if not mark:
        raise SystemExit(f"{path} has no lines {BEGIN} and {END}")
    path.write_text(f"{before}{BEGIN}\n\n{found}\n\n{END}{after}")


def parse() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    names = [side.name for side in SIDES]
    shared = ROOT.parent / "shared"
    parser.add_argument("--out", type=Path, required=True, help="JSON file for the results")
    parser.add_argument("--images", type=Path, default=shared / "data" / "flowers17", help="one folder per class")
    parser.add_argument("--script", type=Path, default=shared / "reference" / "article.py", help="the plain script")
    parser.add_argument("--thingsvision", type=Path, metavar="FOLDER", help="environment made by environment.py")
    parser.add_argument("--limit", type=int, help="take that many images, evenly spaced")
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--only", nargs="+", choices=names, default=names, metavar="SIDE", help=", ".join(names))
    parser.add_argument("--document", type=Path, help="write the tables between the marks of this Markdown file too")
    return parser.parse_args()


def main() -> None:
    """Measure what is missing and print the tables."""
    arguments = parse()
    images, script = arguments.images.resolve(), arguments.script.resolve()
    for option, path in (("--images", images), ("--script", script)):
        if not path.exists():
            raise SystemExit(f"{option} {path} does not exist")
    out = arguments.out.absolute()
    bench = Bench(out.with_suffix(".work"), images, arguments.limit, script, arguments.thingsvision)
    out.parent.mkdir(parents=True, exist_ok=True)
    settings = {"images": bench.lay_out(), "of": images.name}
    results = Results(out, settings)
    sides = [side for side in SIDES if side.name in arguments.only]
    if bench.peer is None:
        sides = [side for side in sides if side.name != "thingsvision"]
    measure_all(results, bench, sides, arguments.repeats)
    found = rendering.tables(results.values)
    print("\n" + rendering.text(found))
    if arguments.document:
        write_between_marks(arguments.document, rendering.markdown(found))


if __name__ == "__main__":
    main()
