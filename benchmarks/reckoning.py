"""What one image and one gigabyte cost, times as many as there are: nothing but arithmetic, for `scaling.py`."""

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from stackcls.computation import IMAGES_PER_BLOCK
from stackcls.listing import PER_TASK
from stackcls.memory import NUMBER, TABLES

WIDTHS = {
    "mobilenets": (1024, 768, 512, 1280),
    "article": (512, 2048, 2048, 2048),
}
HOUR = 3600.0
PAGE = 1000  # names that a bucket lists with one answer


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
    gb_per_s : float
        That one machine reads of images, from a disk or through a network; 1.25 is 10 Gbit/s.
    folds, evaluations, last : int
        Of the fit: how often each fold's fits go through their rows, and the final model's.
    """

    images: int
    classes: int = 100
    networks: str = "mobilenets"
    image_bytes: float = 100_000
    workers: int = 1
    cores: int = 64
    gb_per_s: float = 1.25
    folds: int = 3
    evaluations: int = 100
    last: int = 40


@dataclass(frozen=True)
class Prices:
    """Of a core for an hour, a gigabyte for a month, a thousand requests, and a gigabyte that leaves its region."""

    core_hour: float = 0.04
    gb_month: float = 0.02
    requests: float = 0.0004
    gb_out: float = 0.09


@dataclass(frozen=True)
class Estimate:
    """Arithmetic on unit costs; seconds are of processors where not said otherwise."""

    job: Job
    units: Mapping[str, float]

    @property
    def image_gb(self) -> float:
        """Of all files."""
        return self.job.images * self.job.image_bytes / 1e9

    @property
    def feature_bytes(self) -> float:
        """Of all matrices."""
        return float(NUMBER * sum(WIDTHS[self.job.networks]) * self.job.images)

    @property
    def hashing_s(self) -> float:
        """Reading all files once, all cores together."""
        return self.job.images * self.units["hash_image_s"] + self.image_gb * self.units["hash_gb_s"]

    @property
    def networks_s(self) -> float:
        """Decoding and networks, all cores together."""
        return self.job.images * self.units[f"{self.job.networks}_image_s"]

    @property
    def cores_s(self) -> float:
        """Stage one, all cores together."""
        return self.hashing_s + self.networks_s

    def through(self, per_task: int, gb: float) -> dict[str, float]:
        """Seconds for a task and its result, of so many gigabytes, by who handles all of them.

        `results` is the way through the scheduler and back, with as many under way as the client fetches at a time;
        `link` the gigabytes themselves, at the speed of one machine's network.
        """
        sides = ("client", "scheduler", "results")
        each = {name: self.units[f"{name}_task_s"] + self.units[f"{name}_gb_s"] * gb for name in sides}
        each["link"] = gb / self.job.gb_per_s
        return {name: self.job.images / per_task * seconds for name, seconds in each.items()}

    @property
    def phases(self) -> dict[str, dict[str, float]]:
        """Seconds by the clock if nothing else counted, of hashing and then of networks, by what could be slowest."""
        n_cores = self.job.workers * self.job.cores
        reading = {"reading": self.image_gb / (self.job.gb_per_s * self.job.workers)}
        hashing = {**reading, "cores": self.hashing_s / n_cores}
        networks = {**reading, "cores": self.networks_s / n_cores}
        if self.job.workers > 1:
            hashing |= self.through(PER_TASK, 0)
            networks |= self.through(IMAGES_PER_BLOCK, self.feature_bytes / self.job.images * IMAGES_PER_BLOCK / 1e9)
        return {"hashing": hashing, "networks": networks}

    @property
    def limit(self) -> str:
        """What the longer of both phases waits for."""
        longer = max(self.phases.values(), key=lambda phase: max(phase.values()))
        return max(longer, key=longer.__getitem__)

    @property
    def again_s(self) -> float:
        """What each further run takes by the clock before it computes anything: all images are hashed again."""
        return max(self.phases["hashing"].values()) + self.job.images * self.units["client_image_s"]

    @property
    def bucket_s(self) -> float:
        """Listing a bucket by the clock, page after page; a manifest needs none of it."""
        return self.job.images / PAGE * self.units["list_page_s"]

    @property
    def alone_s(self) -> float:
        """What the command does alone before and after: listing, and putting the feature file together."""
        return self.job.images * self.units["client_image_s"] + self.feature_bytes / 1e9 * self.units["store_gb_s"]

    @property
    def features_s(self) -> float:
        """Stage one, by the clock."""
        return sum(max(phase.values()) for phase in self.phases.values()) + self.alone_s

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
        tasks = self.job.images / PER_TASK + self.job.images / IMAGES_PER_BLOCK
        return self.units["scheduler_task_bytes"] * tasks

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

    @property
    def result_bytes(self) -> float:
        """What fits on a cluster send back: each the probabilities of all its rows, learned from or held out."""
        n_fits = len(WIDTHS[self.job.networks]) * (self.job.folds + 1)
        return float(NUMBER * self.job.images * self.job.classes * n_fits)

    def money(self, prices: Prices) -> dict[str, float]:
        """What is paid: cores that work, a month of images and features, and reading images twice."""
        return {
            "cores, none of them waiting": prices.core_hour * (self.cores_s + self.fit_s) / HOUR,
            "a month of images": prices.gb_month * self.image_gb,
            "a month of features": prices.gb_month * self.file_bytes / 1e9,
            "requests, two for an image": prices.requests * 2 * self.job.images / 1000,
            "images leaving their region twice": prices.gb_out * 2 * self.image_gb,
        }

    def waiting_money(self, prices: Prices) -> float:
        """What all cores cost while `features` runs, also those that wait."""
        return prices.core_hour * self.features_s / HOUR * self.job.workers * self.job.cores
