"""Kills `stackcls features` with SIGKILL at random moments, and checks what is left and what comes of going on.

    python tools/kill_features.py --times 200 --seed 0

A run is killed, started again, killed again, until one comes to its end; then another begins, from nothing or from a
store of half the images. Checked after every kill: the feature file is absent, the old one, or the finished one, to
the byte. After every end: it is that of an undisturbed run, alone in its folder, and no image of a block that was
finished before went through a network again.
"""

import argparse
import json
import os
import select
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from stackcls import config  # noqa: E402
from stackcls.blocks import BlockFolder  # noqa: E402
from stackcls.settings import Settings  # noqa: E402

N_IMAGES = 160
PER_BLOCK = 8
# Where a run is, as it tells through a pipe: reading and planning, networks, the feature file, removing blocks, end.
PHASES = "pcwre"


@dataclass
class Outcome:
    """What was seen.

    Attributes
    ----------
    kills : Counter of str
        By the phase that the run was in.
    ends : int
        Runs that came to their end.
    half_made : int
        Kills after which a network lay half compiled in the cache.
    problems : list of str
        What should not have been.
    """

    kills: Counter[str] = field(default_factory=Counter)
    ends: int = 0
    half_made: int = 0
    problems: list[str] = field(default_factory=list)


class Scene:
    """A folder with images, settings, and the feature files that undisturbed runs make of all images and of half.

    Parameters
    ----------
    folder : Path
    cold : bool
        Whether runs begin with no compiled networks, and fit 8-bit ranges.
    """

    def __init__(self, folder: Path, cold: bool = False) -> None:
        self.folder, self.log = folder, folder / "computed.log"
        self.cold, self.cache = cold, folder / "cache"
        self.environment = {**os.environ, "STACKCLS_CACHE": str(self.cache)} if cold else None
        write_images(folder / "images", N_IMAGES)
        self.log.touch()
        names = sorted(path.name for path in (folder / "images").glob("*.png"))
        self.settings = {part: self._settings(part, names[:: 1 + (part == "half")]) for part in ("all", "half")}
        self.artifacts = self.settings["all"].artifacts
        self.store = self.settings["all"].files.features
        self.expected: dict[str, bytes] = {}
        self.durations: dict[str, float] = {}
        for part in ("all",) if cold else ("half", "all"):
            self.durations = self.run(part)[1]
            self.expected[part] = self.store.read_bytes()
            self.clear()

    def clear(self) -> None:
        """Remove what runs have made."""
        shutil.rmtree(self.artifacts)
        if self.cold:
            shutil.rmtree(self.cache)

    def _settings(self, part: str, names: list[str]) -> Settings:
        manifest = self.folder / "images" / f"{part}.csv"
        manifest.write_text("path,label\n" + "".join(f"{name},{name[0]}\n" for name in names))
        raw = {
            "images": str(manifest),
            "artifacts": str(self.folder / "artifacts"),
            "features": {
                "backbones": ["mini_vgg", "mini_xception"],
                "engine": "openvino",
                "batch_size": 4,
                "precision": "int8" if self.cold else "float32",
            },
        }
        (self.folder / f"{part}.json").write_text(json.dumps(raw))
        return config.read(self.folder / f"{part}.json", ())

    def run(self, part: str, kill: Callable[[str, float], float | None] | None = None) -> tuple[str, dict[str, float]]:
        """Run once; kill it so many seconds after the phase begins in which `kill` says so.

        Returns
        -------
        str
            The phase in which it was killed, or `e`.
        dict
            Seconds spent in each phase.
        """
        read, write = os.pipe()
        command = [sys.executable, __file__, "--victim", str(self.folder / f"{part}.json"), str(self.log), str(write)]
        victim = subprocess.Popen(
            command, pass_fds=[write], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, env=self.environment
        )
        os.close(write)
        durations, phase, began, deadline = dict.fromkeys(PHASES, 0.0), "", time.monotonic(), None
        while True:
            left = None if deadline is None else max(0.0, deadline - time.monotonic())
            if not select.select([read], [], [], left)[0]:
                break
            told = os.read(read, 1).decode()
            now = time.monotonic()
            if phase:
                durations[phase] += now - began
            if told in ("", "e"):
                phase = "e"
                break
            phase, began = told, now
            if kill and deadline is None and (after := kill(phase, self.durations[phase])) is not None:
                deadline = now + after
        os.close(read)
        if phase != "e":
            victim.kill()
        error = victim.communicate()[1].decode()
        if phase == "e" and victim.returncode:
            raise RuntimeError(f"exit status {victim.returncode}: {error}")
        return phase, durations

    def half_made(self) -> list[str]:
        """Names of what was begun in the cache of compiled networks."""
        return sorted(path.name for path in self.cache.glob(".begun-*"))

    def finished(self) -> set[str]:
        """Content hashes in the blocks that are there."""
        blocks = BlockFolder(self.settings["all"].files.blocks)
        return {digest for block in blocks.read() for digest in block.sha256}


def torment(scene: Scene, times: int, seed: int, phases: str = PHASES[:-1]) -> Iterator[Outcome]:
    """Kill runs `times` times in these phases, and let the last end; yield what was seen so far after each run."""
    rng, seen = np.random.default_rng(seed), Outcome()
    before, in_blocks = b"", set[str]()
    while True:
        enough = seen.kills.total() >= times
        scene.log.write_bytes(b"")
        chosen, share = str(rng.choice(list(phases))), float(rng.random())

        def kill(phase: str, usual: float, chosen: str = chosen, share: float = share) -> float | None:
            return share * usual if phase == chosen else None

        phase, _ = scene.run("all", None if enough else kill)
        seen.problems += _computed_again(scene.log.read_text().split(), in_blocks)
        in_blocks = scene.finished()
        if phase != "e":
            seen.kills[phase] += 1
            seen.half_made += bool(scene.half_made())
            content = scene.store.read_bytes() if scene.store.exists() else b""
            if content not in (scene.expected["all"], before):
                seen.problems.append(f"a kill in phase {phase} left another feature file")
        else:
            seen.ends += 1
            seen.problems += _wrong_at_the_end(scene)
            scene.clear()
            if enough:
                yield seen
                return
            # Ranges that were fitted on half of the images are kept, and give other features of all.
            before = scene.expected["half"] if rng.random() < 0.5 and not scene.cold else b""
            in_blocks = set()
            if before:
                scene.artifacts.mkdir()
                scene.store.write_bytes(before)
        yield seen


def _computed_again(computed: list[str], in_blocks: set[str]) -> list[str]:
    problems = []
    if again := in_blocks & set(computed):
        problems.append(f"{len(again)} images of finished blocks were computed again")
    if len(computed) != len(set(computed)):
        problems.append("images were computed twice in one run")
    return problems


def _wrong_at_the_end(scene: Scene) -> list[str]:
    problems = []
    if scene.store.read_bytes() != scene.expected["all"]:
        problems.append("the feature file is not that of an undisturbed run")
    if (left := sorted(path.name for path in scene.artifacts.iterdir())) != ["features.h5"]:
        problems.append(f"left behind: {left}")
    if half_made := scene.half_made():
        problems.append(f"left behind in the cache: {half_made}")
    return problems


def write_images(folder: Path, count: int) -> None:
    """Write small images of noise, some of the same content."""
    folder.mkdir(parents=True)
    for number in range(count):
        noise = np.random.default_rng(number % (count - 10)).integers(0, 256, (20, 24, 3), dtype=np.uint8)
        Image.fromarray(noise).save(folder / f"{'ab'[number % 2]}{number:04d}.png")


def be_victim(settings: Path, log: Path, pipe: int) -> None:
    """Run `features` as the command line does, with small blocks, and tell what is being done."""
    from stackcls import blocks, cli, computation, extraction, locks, storewriter

    computation.IMAGES_PER_BLOCK = PER_BLOCK
    telling: list[tuple[Any, str, str]] = [
        (computation, "compute", "c"),
        (storewriter, "write", "w"),
        (blocks.BlockFolder, "clear", "r"),
        (locks, "held", "p"),
    ]
    for owner, name, phase in telling:
        setattr(owner, name, _told(getattr(owner, name), pipe, phase))
    extract, handle = extraction.extract, os.open(log, os.O_WRONLY | os.O_APPEND)

    def logged(inputs: Any, *arguments: Any) -> Iterator[Any]:
        for batch in extract(inputs, *arguments):
            os.write(handle, "".join(f"{inputs[position].sha256}\n" for position in batch.positions).encode())
            yield batch

    extraction.extract = logged
    try:
        cli.main(["features", "-c", str(settings), "--offline"])
    finally:
        os.write(pipe, b"e")


def _told(function: Callable[..., Any], pipe: int, phase: str) -> Callable[..., Any]:
    def telling(*arguments: Any, **options: Any) -> Any:
        os.write(pipe, phase.encode())
        return function(*arguments, **options)

    return telling


def main() -> None:
    """Read the options, and print what was seen."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--times", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--cold", action="store_true", help="no compiled networks to begin with, and 8-bit ranges")
    parser.add_argument("--victim", nargs=3, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.victim:
        settings, log, pipe = arguments.victim
        be_victim(Path(settings), Path(log), int(pipe))
    with tempfile.TemporaryDirectory() as folder:
        seen = Outcome()
        for seen in torment(Scene(Path(folder) / "scene", arguments.cold), arguments.times, arguments.seed):
            print(f"kills {dict(seen.kills)}, ends {seen.ends}, problems {seen.problems}", flush=True)
    sys.exit(bool(seen.problems))


if __name__ == "__main__":
    main()
