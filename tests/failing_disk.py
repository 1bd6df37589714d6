"""Runs one verb again and again while one change of a file after the other fails; prints what should not have been.

    LD_PRELOAD=failing_disk.so python tests/failing_disk.py SCENE ERRNO LASTING FOLDER

The library is made from `failing_disk.c`. Each round ends with the same command on a disk that is well.
"""

import ctypes
import errno
import hashlib
import io
import json
import os
import shutil
import sys
import threading
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout, suppress
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from stackcls import cli, computation, engines, exits, modelfile, safemodel, weightfiles
from stackcls.errors import ModelError, StackclsError, StoreMissing
from stackcls.store import Store
from tests.conftest import FAKE_BACKBONES, FakeEngine, write_photos

DISK, DONE = ctypes.CDLL(None), 0


class Scene:
    """What is done in a folder, of which `disk` fails; what may be there before and after, and how it is judged."""

    kept: tuple[str, ...] = ()  # names that may stay after a failure
    exact = False  # whether every run makes the same bytes

    def __init__(self, folder: Path) -> None:
        self.folder, self.disk = folder, folder / "disk"
        self.prepare()
        self.old = snapshot(self.disk) if self.disk.exists() else {}
        status, said = self.run()
        assert status == DONE, said
        self.new = snapshot(self.disk)
        self.reset()

    def reset(self) -> None:
        """Put things back to what they were before."""
        shutil.rmtree(self.disk, ignore_errors=True)
        for name, content in self.old.items():
            path = self.disk / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)

    def prepare(self) -> None:
        """Make what is there before."""

    def run(self) -> tuple[int, str]:
        """Do it; return exit status and standard error."""
        raise NotImplementedError

    def judge(self, found: dict[str, bytes]) -> str | None:
        """Say what is wrong with what a failure left."""
        for name, content in found.items():
            if content not in (self.old.get(name), self.new.get(name)) and not name.startswith(self.kept or "\0"):
                return f"{name} is neither old nor new"
        return None


def snapshot(folder: Path) -> dict[str, bytes]:
    """Every file below a folder."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def command(*arguments: str | Path) -> tuple[int, str]:
    """Run the command line in this process."""
    errors = io.StringIO()
    with redirect_stderr(errors), redirect_stdout(io.StringIO()):
        status = exits.run(cli.cli, [str(item) for item in arguments])
    return status, errors.getvalue()


class Features(Scene):
    """A first run."""

    kept = ("artifacts/.features-blocks/",)
    exact = True

    def prepare(self) -> None:
        """Write photos and settings."""
        computation.IMAGES_PER_BLOCK = 16
        engine = FakeEngine()
        engines.choose = lambda *_: engines.Choice(engine, "")
        write_photos(self.folder / "photos")
        raw = {
            "images": str(self.folder / "photos"),
            "artifacts": str(self.disk / "artifacts"),
            "features": {"backbones": FAKE_BACKBONES, "batch_size": 4},
        }
        (self.folder / "pipeline.json").write_text(json.dumps(raw))

    def run(self) -> tuple[int, str]:
        return command("features", "-c", self.folder / "pipeline.json")

    def judge(self, found: dict[str, bytes]) -> str | None:
        """Opening the store finds any damage."""
        try:
            with Store(self.disk / "artifacts/features.h5"):
                pass
        except StoreMissing:
            pass
        return super().judge(found)


class Added(Features):
    """A run after images were added."""

    def prepare(self) -> None:
        super().prepare()
        assert command("features", "-c", self.folder / "pipeline.json")[0] == DONE
        write_photos(self.folder / "photos", per_class=12)


class Fit(Features):
    """A first fit."""

    kept = ()
    exact = False
    arguments: tuple[str, ...] = ()

    def prepare(self) -> None:
        super().prepare()
        assert super().run()[0] == DONE

    def run(self) -> tuple[int, str]:
        return command("fit", "-c", self.folder / "pipeline.json", *self.arguments)

    def judge(self, found: dict[str, bytes]) -> str | None:
        """All is old, or all is new, or the model is refused; seconds and the like differ from run to run."""
        if left := set(found) - set(self.new):
            return f"left behind: {left}"
        for name in ("model.joblib", "model.safetensors"):
            try:
                modelfile.load(self.disk / "artifacts" / name)
            except ModelError as error:
                if "stackcls fit" not in str(error):
                    return f"without a remedy: {error}"
            else:
                # A safe model alone is one of a first fit; there is no older report that it could contradict.
                if found.keys() != self.new.keys() and (self.arguments or name == "model.joblib"):
                    return f"{name}, and {sorted(found)}"
        return None


class Again(Fit):
    """A fit where there was one with other settings."""

    def prepare(self) -> None:
        super().prepare()
        assert super().run()[0] == DONE
        self.arguments = ("--seed", "7")

    def judge(self, found: dict[str, bytes]) -> str | None:
        """Report and model are of the same fit wherever the model can be loaded."""
        if wrong := super().judge(found):
            return wrong
        folder = self.disk / "artifacts"
        report = json.loads((folder / "report.json").read_text())
        for name in ("model.joblib", "model.safetensors"):
            try:
                modelfile.load(folder / name)
            except ModelError:
                continue
            if name == "model.joblib":
                scores = modelfile.read_card(folder / name).scores
            else:
                scores = safemodel.read(folder / name)[0].origin.scores
            if report["scores"]["stack"]["mean"] != scores["stack"]:
                return f"report and {name} are of two fits"
            if ((folder / "report.md").read_bytes() == self.old["artifacts/report.md"]) != (report["seed"] == 0):
                return "two reports"
        return None


class Direct(Scene):
    """Something that is not a verb of its own."""

    def run(self) -> tuple[int, str]:
        """Do it as the command line would."""
        try:
            self.work()
        except StackclsError as error:
            return 1, "; ".join([f"error: {error}", *getattr(error, "__notes__", [])])
        return DONE, ""

    def work(self) -> None:
        raise NotImplementedError


class Weights(Direct):
    """Weights are fetched."""

    exact = True

    def prepare(self) -> None:
        content = os.urandom(3 * weightfiles.PIECE)
        (self.folder / "served").mkdir()
        (self.folder / "served/w.h5").write_bytes(content)
        handler = partial(_Quiet, directory=str(self.folder / "served"))
        server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        self.url = f"http://127.0.0.1:{server.server_port}"
        self.md5 = hashlib.md5(content).hexdigest()
        os.environ["KERAS_HOME"] = str(self.disk / "keras")

    def work(self) -> None:
        item = weightfiles.Download("w.h5", f"{self.url}/w.h5", self.md5)
        weightfiles.fetch(item, self.url, 10, lambda *_: lambda _: None)


class _Quiet(SimpleHTTPRequestHandler):
    def handle(self) -> None:
        """Let the other side go."""
        with suppress(ConnectionError):
            super().handle()

    def log_message(self, *_: object) -> None:
        """Say nothing."""


class Compiled(Direct):
    """A compiled network is kept; OpenVINO itself writes it."""

    def prepare(self) -> None:
        import numpy as np

        from stackcls.engines import cache, openvino

        os.environ[cache.VARIABLE] = str(self.disk / "cache")
        engine = openvino.openvino
        ops = engine.opset8
        given = ops.parameter([1, 100], np.float32)
        weights = ops.constant(np.eye(100, dtype=np.float32))
        network = engine.Model([ops.matmul(given, weights, False, False)], [given])

        def make(folder: Path) -> cache.Meta:
            openvino._save(network, folder / openvino.MODEL)
            return {"width": 100}

        self.entry: Callable[[], object] = lambda: cache.entry("key", make)

    def work(self) -> None:
        self.entry()


SCENES = {kind.__name__.lower(): kind for kind in (Features, Added, Fit, Again, Weights, Compiled)}


def main(kind: str, number: int, lasting: int, folder: Path) -> dict[str, object]:
    """Let every change fail in turn; return how many there are, and what was wrong."""
    scene = SCENES[kind](folder)
    problems, failed, at = [], 0, 0
    while True:
        at += 1
        DISK.disk_fails(str(scene.disk).encode(), at, number, lasting)
        status, said = scene.run()
        calls = DISK.disk_calls()
        DISK.disk_fails(b"", 0, 0, 0)
        if calls < at:
            break
        found = snapshot(scene.disk) if scene.disk.exists() else {}
        problems += [f"{at}: {wrong}" for wrong in (_wrong(status, said, number), scene.judge(found)) if wrong]
        failed += status != DONE
        status, said = scene.run()
        if status != DONE:
            problems.append(f"{at}: again: {said}")
        elif (again := snapshot(scene.disk)).keys() != scene.new.keys():
            problems.append(f"{at}: left behind: {again.keys() - scene.new.keys()}")
        elif scene.exact and again != scene.new:
            problems.append(f"{at}: what the rerun made is not what an undisturbed run makes")
        scene.reset()
    return {"changes": at - 1, "failed": failed, "problems": problems}


def _wrong(status: int, said: str, number: int) -> str | None:
    last = said.strip().splitlines()[-1] if said.strip() else ""
    if status == DONE:
        return None
    if "Traceback" in said or not last.startswith("error: "):
        return f"not a clear message: {said}"
    if number == errno.ENOSPC and status != 1:
        return f"exit status {status}"
    why = os.strerror(number) in last or "iostream" in last
    return None if why and "cannot be written" in last and str(Path("disk")) in last else f"not a clear message: {last}"


if __name__ == "__main__":
    print(json.dumps(main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), Path(sys.argv[4]).resolve())))
