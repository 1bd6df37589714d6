"""Time, memory, storage and money for any number of images, from what one image and one gigabyte were measured to cost.

    python benchmarks/scaling.py                                             # the tables of docs/scaling.md
    python benchmarks/scaling.py --images 1e7 --workers 100 --cores 64 --networks article --core-hour 0.03
    python benchmarks/scaling.py --units my-units.json                       # as benchmarks/unit_costs.py writes them

Prices are examples, in any currency. What is computed is arithmetic (`reckoning.py`) on `units.json`, and no more:
nothing is run. Units that a file of one's own does not have are taken from there, and named below the tables.
"""

import argparse
import json
from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from pathlib import Path

from reckoning import HOUR, IMAGES_PER_BLOCK, PER_TASK, WIDTHS, Estimate, Job, Prices

UNITS = Path(__file__).with_name("units.json")
COUNTS = (10**5, 10**7, 10**9)
CLUSTERS = ((1, 2), (1, 64), (4, 64), (100, 64))


def size(count: float) -> str:
    """Bytes, as people say them."""
    for unit, n_bytes in (("PB", 1e15), ("TB", 1e12), ("GB", 1e9), ("MB", 1e6)):
        if count >= n_bytes:
            return f"{count / n_bytes:.3g} {unit}"
    return f"{count / 1e3:.3g} kB"


def span(seconds: float) -> str:
    """A length of time, as people say it."""
    for unit, length in (("years", 365 * 24 * HOUR), ("days", 24 * HOUR), ("h", HOUR), ("min", 60.0)):
        if seconds >= 2 * length:
            return f"{seconds / length:.2g} {unit}" if seconds < 100 * length else f"{seconds / length:,.0f} {unit}"
    return f"{seconds:.2g} s"


def hours(seconds: float) -> str:
    """Core hours."""
    return f"{seconds / HOUR:,.0f}" if seconds >= 100 * HOUR else f"{seconds / HOUR:.2g}"


def read_units(path: Path | None) -> tuple[dict[str, float], list[str]]:
    """Units of a file, with those of `units.json` where it has none; and the names of the latter."""
    units: dict[str, float] = json.loads(UNITS.read_text())
    if path is None:
        return units, []
    try:
        given = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise SystemExit(f"--units {path}: cannot be read ({error})") from None
    if "parts" in given and "units" not in given:
        raise SystemExit(f"--units {path}: not everything is measured yet; let benchmarks/unit_costs.py finish it")
    given = given.get("units", given)
    if unknown := sorted(given.keys() - units.keys()):
        raise SystemExit(f"--units {path}: unknown: {', '.join(unknown)}; allowed are {', '.join(units)}")
    return {**units, **given}, [name for name in units if name not in given]


def clock(item: Estimate) -> str:
    """Stage one by the clock, and what it waits for where that is not the cores."""
    return f"{span(item.features_s)}{'' if item.limit == 'cores' else f', {item.limit}'}"


def again(item: Estimate) -> str:
    """What each further run reads, and how long that takes."""
    return f"{size(item.image_gb * 1e9)}; {span(item.again_s)}"


def rows(each: Sequence[Job], units: Mapping[str, float], prices: Prices) -> list[list[str]]:
    """The table, with a column for each job."""
    found = [Estimate(job, units) for job in each]

    def on(workers: int, cores: int) -> tuple[str, list[Estimate]]:
        many = f"{workers} workers of {cores}" if workers > 1 else f"{cores}"
        return many, [Estimate(replace(job, workers=workers, cores=cores), units) for job in each]

    own = each[0].workers, each[0].cores
    clusters = [on(*pair) for pair in dict.fromkeys([*CLUSTERS, own])]
    dear, crowd = on(*(own if each[0].workers > 1 else CLUSTERS[-1]))
    return [
        ["`features`: core hours", *(hours(item.cores_s) for item in found)],
        *([f"on {many} cores", *map(clock, on_these)] for many, on_these in clusters),
        ["of these, on one core: listing, putting together", *(span(item.alone_s) for item in found)],
        ["a bucket's listing comes on top", *(span(item.bucket_s) for item in found)],
        [f"each further run hashes all again; on {on(*own)[0]} cores", *map(again, found)],
        ["images, read twice", *(size(item.image_gb * 1e9) for item in found)],
        ["`features.h5`; with its blocks twice that", *(size(item.file_bytes) for item in found)],
        [
            "memory of `features`; of the scheduler",
            *(f"{size(item.client_bytes)}; {size(item.scheduler_bytes)}" for item in found),
        ],
        ["opening `features.h5` (`fit`, `check`, …)", *(span(item.open_s) for item in found)],
        ["`fit`: core hours", *(hours(item.fit_s) for item in found)],
        [
            "memory with a matrix in it; read in blocks",
            *(f"{size(item.fit_bytes)}; {size(item.table_bytes)}" for item in found),
        ],
        [
            f"in blocks, it reads; at {units['read_gb_per_s']:.2g} GB/s",
            *(f"{size(item.read_bytes)}; {span(item.read_bytes / 1e9 / units['read_gb_per_s'])}" for item in found),
        ],
        [
            "on a cluster: matrices sent; results",
            *(f"{size(item.feature_bytes)}; {size(item.result_bytes)}" for item in found),
        ],
        *([f"money: {name}", *(price(item.money(prices)[name]) for item in found)] for name in found[0].money(prices)),
        [f"money: {dear} cores for `features`, waiting or not", *(price(item.waiting_money(prices)) for item in crowd)],
    ]


def price(amount: float) -> str:
    """Money, as people say it."""
    return f"{amount:,.2f}" if amount < 10 else f"{amount:,.0f}"


def limits(units: Mapping[str, float], networks: str) -> str:
    """From where on who handles all results is what everything waits for."""
    item = Estimate(Job(IMAGES_PER_BLOCK, networks=networks, workers=2), units)
    through = {name: item.phases["networks"][name] for name in ("client", "scheduler", "results", "link")}
    name = max(through, key=through.__getitem__)
    most, image_s = IMAGES_PER_BLOCK / through[name], units[f"{networks}_image_s"]
    hashed = PER_TASK / max(item.through(PER_TASK, 0).values()) * IMAGES_PER_BLOCK / PER_TASK
    return (
        f"{networks}: a block of {IMAGES_PER_BLOCK} images takes {1000 * through[name]:.1f} ms ({name}): {most:,.0f} "
        f"images a second at most, which {image_s * most:,.0f} cores compute; hashing {hashed:,.0f} a second at most"
    )


def main() -> None:
    """Read the options and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--units", type=Path, help="what benchmarks/unit_costs.py --out wrote, or printed")
    parser.add_argument("--images", type=lambda text: int(float(text)), nargs="+", default=COUNTS)
    parser.add_argument("--networks", nargs="+", default=list(WIDTHS), choices=list(WIDTHS))
    for name in ("classes", "workers", "cores", "folds", "evaluations", "last"):
        parser.add_argument(f"--{name}", type=int, default=getattr(Job, name))
    parser.add_argument("--image-bytes", type=float, default=Job.image_bytes, help="mean size of a file")
    parser.add_argument("--gb-per-s", type=float, default=Job.gb_per_s, help="that one machine reads of images")
    parser.add_argument("--core-hour", type=float, default=Prices.core_hour, help="price of a core for an hour")
    parser.add_argument("--gb-month", type=float, default=Prices.gb_month, help="price of a gigabyte for a month")
    parser.add_argument("--requests", type=float, default=Prices.requests, help="price of a thousand requests")
    parser.add_argument("--gb-out", type=float, default=Prices.gb_out, help="price of a gigabyte that leaves a region")
    given = vars(parser.parse_args())
    if low := [name for name in ("workers", "cores", "folds", "classes") if given[name] < 1]:
        parser.error(f"--{low[0]}: at least 1")
    units, defaults = read_units(given.pop("units"))
    prices = Prices(**{field.name: given.pop(field.name) for field in fields(Prices)})
    counts, chosen = given.pop("images"), given.pop("networks")
    for networks in chosen:
        jobs = [Job(images=count, networks=networks, **given) for count in counts]
        print(f"\n| {networks} | {' | '.join(f'{count:,} images' for count in counts)} |")
        print(f"|{' --- |' * (len(counts) + 1)}")
        for cells in rows(jobs, units, prices):
            print(f"| {' | '.join(cells)} |")
        print(f"\n{limits(units, networks)}")
    if defaults:
        print(f"\nfrom benchmarks/units.json, measured elsewhere: {', '.join(defaults)}")


if __name__ == "__main__":
    main()
