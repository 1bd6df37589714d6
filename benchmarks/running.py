"""Commands measured from outside, and results that outlive a killed run."""

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

STARTED = "BENCHMARK_STARTED"


@dataclass(frozen=True)
class Measured:
    """One process.

    Attributes
    ----------
    seconds : float
        Wall time, from starting the process to its end.
    memory : float
        Peak resident memory in MiB.
    output : str
        Standard output.
    error : str
        Why it failed; empty if it did not.
    """

    seconds: float
    memory: float
    output: str
    error: str


def run(command: Sequence[str], environment: Mapping[str, str] | None = None) -> Measured:
    """Run a command to its end, whatever that is."""
    with tempfile.TemporaryFile("w+") as output, tempfile.TemporaryFile("w+", errors="replace") as errors:
        # By the wall clock, so that a probe can tell how long its own start took.
        variables = {**os.environ, **(environment or {}), STARTED: repr(time.time())}
        start = time.perf_counter()
        process = subprocess.Popen(command, stdout=output, stderr=errors, env=variables)
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - start
        process.returncode = os.waitstatus_to_exitcode(status)
        output.seek(0)
        errors.seek(0)
        said = [line.strip() for line in errors.read().splitlines() if line.strip()]
        unit = 1024 if sys.platform == "darwin" else 1
        error = f"status {process.returncode}: {said[-1] if said else 'no message'}" if status else ""
        return Measured(seconds, usage.ru_maxrss / 1024 / unit, output.read(), error)


def measure(command: Sequence[str], environment: Mapping[str, str] | None = None) -> tuple[float, float, str]:
    """Run a command that must succeed; return wall seconds, peak resident MiB, and standard output."""
    measured = run(command, environment)
    if measured.error:
        raise SystemExit(f"{' '.join(command)} failed: {measured.error}\n{measured.output}")
    return measured.seconds, measured.memory, measured.output


class Results:
    """A JSON file that holds each result from the moment it is there.

    Parameters
    ----------
    path : Path
    settings : mapping
        What makes results comparable; a file with other settings is refused.
    """

    def __init__(self, path: Path, settings: Mapping[str, Any]) -> None:
        self._path = path
        self.values: dict[str, Any] = {"settings": dict(settings), "facts": {}, "runs": {}}
        if path.exists():
            self.values = json.loads(path.read_text())
            if self.values["settings"] != settings:
                raise SystemExit(
                    f"{path} was measured with {self.values['settings']}, not {dict(settings)}: give another --out"
                )

    def lacks(self, name: str) -> bool:
        """Whether there is no such run yet, or it failed."""
        return bool(self.values["runs"].get(name, {"error": "absent"})["error"])

    def add(self, name: str, measured: Measured, report: Mapping[str, Any] | None = None) -> None:
        """Write one run down."""
        record = {key: value for key, value in asdict(measured).items() if key != "output"}
        self.values["runs"][name] = {**record, **(report or {})}
        self._write()

    def state(self, name: str, fact: Any) -> None:
        """Write down what is no run: the machine, the networks."""
        self.values["facts"][name] = fact
        self._write()

    def _write(self) -> None:
        temporary = self._path.with_name(self._path.name + ".new")
        temporary.write_text(json.dumps(self.values, indent=1) + "\n")
        temporary.replace(self._path)
