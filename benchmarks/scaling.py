"""Time, memory, storage and money for any number of images, from what one image and one gigabyte were measured to cost.

    python benchmarks/scaling.py                                             # the tables of docs/scaling.md
    python benchmarks/scaling.py --images 1e7 --workers 100 --cores 64 --networks article --core-hour 0.03
    python benchmarks/scaling.py --units my-units.json                       # as benchmarks/unit_costs.py prints them

Prices are examples, in any currency. What is computed is arithmetic on `units.json`, and no more: nothing is run.
"""

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from stackcls.computation import IMAGES_PER_BLOCK  # noqa: E402
from stackcls.memory import NUMBER, TABLES  # noqa: E402

WIDTHS = {
    "mobilenets": (1024, 768, 512, 1280),
    "article": (512, 2048, 2048, 2048),
}
COUNTS = (10**5, 10**7, 10**9)
CLUSTERS = ((1, 2), (1, 64), (100, 64))
HOUR = 3600.0


@dataclass(frozen=True)
class Job:
    """What is to be done, and on what.

    Attributes
    ----------
    images, classes : int
    networks : str
        Of `WIDTHS`.
    image_bytes : float
        Mean size of a file.
    workers, cores : int
        Machines, and cores of each; one machine needs no cluster.
    folds, evaluations, last : int
        Of the fit: how often each fold's fits go through their rows, and the final model's.
    """

    images: int
    classes: int = 100
    networks: str = "mobilenets"
    image_bytes: float = 100_000
    workers: int = 1
    cores: int = 64
    folds: int = 3
    evaluations: int = 100
    last: int = 40


@dataclass(frozen=True)
class Prices:
    """Of a core for an hour, a gigabyte for a month, and a thousand requests."""

    core_hour: float = 0.04
    gb_month: float = 0.02
    requests: float = 0.0004


@dataclass(frozen=True)
class Estimate:
    """Arithmetic on unit costs; seconds are of processors where not said otherwise."""

    job: Job
    units: Mapping[str, float]

    @property
    def feature_bytes(self) -> float:
        """Of all matrices."""
        return float(NUMBER * sum(WIDTHS[self.job.networks]) * self.job.images)

    @property
    def networks_s(self) -> float:
        """Hashing, decoding and networks, all cores together."""
        hashed = self.units["hash_image_s"] + self.units["hash_gb_s"] * self.job.image_bytes / 1e9
        return self.job.images * (hashed + self.units[f"{self.job.networks}_image_s"])

    def task_s(self, side: str) -> float:
        """What a block takes of the one client, or of the scheduler."""
        gb = NUMBER * sum(WIDTHS[self.job.networks]) * IMAGES_PER_BLOCK / 1e9
        return self.units[f"{side}_task_s"] + self.units[f"{side}_gb_s"] * gb

    @property
    def stage_one(self) -> dict[str, float]:
        """Seconds by the clock if nothing else counted, by what could be slowest."""
        tasks = self.job.images / IMAGES_PER_BLOCK
        cores = self.job.workers * self.job.cores
        found = {"networks": self.networks_s / cores}
        if self.job.workers > 1:
            found |= {side: tasks * self.task_s(side) for side in ("client", "scheduler")}
        return found

    @property
    def alone_s(self) -> float:
        """What the command does alone before and after: listing, and putting the feature file together."""
        return self.job.images * self.units["client_image_s"] + self.feature_bytes / 1e9 * self.units["store_gb_s"]

    @property
    def features_s(self) -> float:
        """Stage one, by the clock."""
        return max(self.stage_one.values()) + self.alone_s

    @property
    def file_bytes(self) -> float:
        """Size of the feature file."""
        return self.feature_bytes + self.units["table_image_bytes"] * self.job.images

    @property
    def client_bytes(self) -> float:
        """Memory of `features`, beside what imports and networks take."""
        return self.units["client_image_bytes"] * self.job.images

    @property
    def scheduler_bytes(self) -> float:
        """Memory of the scheduler: what it keeps of finished tasks, for hashing and for features."""
        return 2 * self.units["scheduler_task_bytes"] * self.job.images / IMAGES_PER_BLOCK

    @property
    def open_s(self) -> float:
        """Opening the feature file, on one core, if the disk is no slower."""
        return self.file_bytes / 1e9 * self.units["open_gb_s"] + self.units["open_image_s"] * self.job.images

    @property
    def table_bytes(self) -> float:
        """Memory of `fit` that reading in blocks does not lessen."""
        numbers = self.job.classes * (len(WIDTHS[self.job.networks]) + TABLES)
        return self.job.images * (NUMBER * numbers + self.units["open_image_bytes"])

    @property
    def fit_bytes(self) -> float:
        """Memory of `fit` with the widest matrix in memory."""
        return self.table_bytes + NUMBER * max(WIDTHS[self.job.networks]) * self.job.images

    @property
    def fit_s(self) -> float:
        """All fits, all cores together: each fold's on its share of the rows, the last on all."""
        rows = self.job.images * ((self.job.folds - 1) * self.job.evaluations + self.job.last)
        return rows * sum(WIDTHS[self.job.networks]) * self.job.classes * self.units["fit_number_s"]

    @property
    def read_bytes(self) -> float:
        """What `fit` reads where no matrix fits into memory: all of it, each time that a fit goes through its rows."""
        return self.feature_bytes * (self.job.folds * self.job.evaluations + self.job.last)

    def money(self, prices: Prices) -> dict[str, float]:
        """What is paid: cores, keeping images and features for a month, and requests for the images, read twice."""
        return {
            "cores": prices.core_hour * (self.networks_s + self.fit_s) / HOUR,
            "a month of images": prices.gb_month * self.job.images * self.job.image_bytes / 1e9,
            "a month of features": prices.gb_month * self.file_bytes / 1e9,
            "requests": prices.requests * 2 * self.job.images / 1000,
        }


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


def rows(each: Sequence[Job], units: Mapping[str, float], prices: Prices) -> list[list[str]]:
    """The table, with a column for each job."""
    found = [Estimate(job, units) for job in each]

    def stage(item: Estimate) -> str:
        limit = max(item.stage_one, key=lambda name: item.stage_one[name])
        return f"{span(item.features_s)}{'' if limit == 'networks' else f' ({limit})'}"

    def clusters() -> list[list[str]]:
        lines = []
        for workers, cores in dict.fromkeys([*CLUSTERS, (each[0].workers, each[0].cores)]):
            many = f"{workers} x {cores}" if workers > 1 else f"{cores}"
            jobs = [Job(**{**vars(job), "workers": workers, "cores": cores}) for job in each]
            lines.append([f"`features` on {many} cores", *(stage(Estimate(job, units)) for job in jobs)])
        return lines

    return [
        ["core hours of `features`", *(hours(item.networks_s) for item in found)],
        *clusters(),
        ["of that one core alone: list, put together", *(span(item.alone_s) for item in found)],
        ["images", *(size(item.job.images * item.job.image_bytes) for item in found)],
        ["`features.h5`; twice that while it is made", *(size(item.file_bytes) for item in found)],
        ["memory of `features`", *(size(item.client_bytes) for item in found)],
        ["memory of the scheduler", *(size(item.scheduler_bytes) for item in found)],
        ["opening `features.h5`", *(span(item.open_s) for item in found)],
        ["memory of `fit`, a matrix in it", *(size(item.fit_bytes) for item in found)],
        ["memory of `fit`, reading in blocks", *(size(item.table_bytes) for item in found)],
        ["core hours of `fit`", *(hours(item.fit_s) for item in found)],
        ["what `fit` reads in blocks", *(size(item.read_bytes) for item in found)],
        ["the same, at the speed measured", *(span(item.read_bytes / 1e9 / units["read_gb_per_s"]) for item in found)],
        *(
            [f"money: {name}", *(f"{item.money(prices)[name]:,.2f}" for item in found)]
            for name in found[0].money(prices)
        ),
    ]


def limits(units: Mapping[str, float], networks: str) -> str:
    """From where on the client or the scheduler is what everything waits for."""
    item = Estimate(Job(1, networks=networks), units)
    side = max(("client", "scheduler"), key=item.task_s)
    slowest, image_s = item.task_s(side), units[f"{networks}_image_s"]
    return (
        f"{networks}: the {side} takes {1000 * slowest:.1f} ms for a block of {IMAGES_PER_BLOCK}: "
        f"{IMAGES_PER_BLOCK / slowest:,.0f} images a second at most, which {image_s * IMAGES_PER_BLOCK / slowest:,.0f} "
        f"cores compute; 100 workers wait where a block takes one of them less than {100 * slowest:.2g} s"
    )


def main() -> None:
    """Read the options and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--units", type=Path, default=Path(__file__).with_name("units.json"))
    parser.add_argument("--images", type=lambda text: int(float(text)), nargs="+", default=COUNTS)
    parser.add_argument("--networks", nargs="+", default=list(WIDTHS), choices=list(WIDTHS))
    for name, kind in (("classes", int), ("workers", int), ("cores", int), ("folds", int), ("evaluations", int)):
        parser.add_argument(f"--{name}", type=kind, default=getattr(Job, name))
    parser.add_argument("--image-bytes", type=float, default=Job.image_bytes, help="mean size of a file")
    parser.add_argument("--core-hour", type=float, default=Prices.core_hour, help="price of a core for an hour")
    parser.add_argument("--gb-month", type=float, default=Prices.gb_month, help="price of a gigabyte for a month")
    parser.add_argument("--requests", type=float, default=Prices.requests, help="price of a thousand requests")
    given = vars(parser.parse_args())
    units = json.loads(given.pop("units").read_text())
    prices = Prices(*(given.pop(name) for name in ("core_hour", "gb_month", "requests")))
    counts, chosen = given.pop("images"), given.pop("networks")
    for networks in chosen:
        jobs = [Job(images=count, networks=networks, **given) for count in counts]
        print(f"\n| {networks} | {' | '.join(f'{count:,} images' for count in counts)} |")
        print(f"|{' --- |' * (len(counts) + 1)}")
        for cells in rows(jobs, units, prices):
            print(f"| {' | '.join(cells)} |")
        print(f"\n{limits(units, networks)}")


if __name__ == "__main__":
    main()
