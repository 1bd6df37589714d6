"""What is measured beside what, and the command lines that do it."""

import json
import os
import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from environment import interpreter

HERE = Path(__file__).resolve().parent
NETWORKS = ("vgg19", "resnet50", "inception_v3", "xception")
SUFFIXES = frozenset({".jpg", ".jpeg", ".png"})


@dataclass(frozen=True)
class Side:
    """One row of the tables.

    Attributes
    ----------
    name, title : str
        For the command line and results; for the tables.
    precision : str
        Of its arithmetic, which says what peak it is held against.
    engine : str
        Of stackcls; empty for others.
    asked : mapping of str to float
        How many times as fast as another side it is asked to be, whole process.
    """

    name: str
    title: str
    precision: str = "float32"
    engine: str = ""
    asked: tuple[tuple[str, float], ...] = ()


SIDES = (
    Side("article", "article.py: Keras `predict`"),
    Side("thingsvision", "thingsvision: its Keras extractors"),
    Side("tensorflow", "stackcls: frozen TensorFlow graph", engine="tensorflow"),
    Side("openvino-float32", "stackcls: OpenVINO float32", engine="openvino", asked=(("article", 1.5),)),
    Side(
        "openvino-bfloat16",
        "stackcls: OpenVINO bfloat16",
        "bfloat16",
        "openvino",
        (("article", 2.8), ("thingsvision", 2.8)),
    ),
    Side("openvino-int8", "stackcls: OpenVINO int8", "int8", "openvino", (("article", 4.5),)),
)


class Bench:
    """Images laid out as each side wants them, and commands.

    Parameters
    ----------
    folder : Path
        For everything that is written; what was compiled is kept there, for a later run.
    images : Path
        One folder per class.
    limit : int or None
        Take that many images, evenly spaced.
    script : Path
        The plain script.
    thingsvision : Path or None
        The environment that thingsvision is installed in.
    """

    def __init__(self, folder: Path, images: Path, limit: int | None, script: Path, thingsvision: Path | None) -> None:
        self._folder, self._images, self._limit, self._script = folder, images, limit, script
        self.peer = interpreter(thingsvision.absolute()) if thingsvision else None
        self.report = folder / "report.json"
        self.environment = {"STACKCLS_CACHE": str(folder / "cache")}
        paths = [str(HERE.parent), os.environ.get("PYTHONPATH", "")]
        self.environment["PYTHONPATH"] = os.pathsep.join(path for path in paths if path)

    def lay_out(self) -> int:
        """Write the list of images, the links to them and the settings; return the number of images."""
        import numpy as np

        files = sorted(path for path in self._images.glob("*/*") if path.suffix.lower() in SUFFIXES)
        if not files:
            raise SystemExit(f"--images {self._images} holds no folders of images")
        if self._limit:
            # The images that the script takes under the same limit.
            files = [files[i] for i in np.linspace(0, len(files) - 1, self._limit).astype(int)]
        flat = self._folder / "photos"
        shutil.rmtree(flat, ignore_errors=True)
        flat.mkdir(parents=True)
        for number, file in enumerate(files):
            (flat / f"{number:06d}{file.suffix}").symlink_to(file)
        manifest = self._folder / "photos.csv"
        manifest.write_text("path,label\n" + "".join(f"{file},{file.parent.name}\n" for file in files))
        backbones = [{"name": name, "weights": "random", "seed": 0} for name in NETWORKS]
        raw = {"images": str(manifest), "artifacts": str(self._folder / "artifacts")}
        # JSON is YAML.
        (self._folder / "pipeline.yaml").write_text(json.dumps({**raw, "features": {"backbones": backbones}}))
        return len(files)

    def clear(self) -> None:
        """Forget computed features and the last report, but not what was compiled."""
        shutil.rmtree(self._folder / "artifacts", ignore_errors=True)
        self.report.unlink(missing_ok=True)

    def whole(self, side: Side) -> list[str]:
        """Command of a whole process."""
        if side.name == "article":
            return [sys.executable, str(self._script), *self._script_arguments()]
        if side.name == "thingsvision":
            driver = str(HERE / "peers" / "thingsvision_features.py")
            save = ["--save", str(self._folder / "thingsvision.npz"), "--report", str(self.report)]
            return [str(self.peer), driver, str(self._folder / "photos"), "--backbones", *NETWORKS, *save]
        return [sys.executable, "-m", "stackcls", "features", *self._settings(side)]

    def stages(self, side: Side) -> list[str]:
        """Command of a process that reports its stages; thingsvision's driver always does."""
        if side.name == "article":
            return [*self.probe("script_stages"), str(self.report), str(self._script), *self._script_arguments()]
        return [*self.probe("stackcls_stages"), str(self.report), *self._settings(side)]

    @staticmethod
    def probe(name: str) -> list[str]:
        """Command of a probe."""
        return [sys.executable, str(HERE / "probes" / f"{name}.py")]

    def _settings(self, side: Side) -> Sequence[str]:
        chosen = ["--set", f"features.engine={side.engine}", "--set", f"features.precision={side.precision}"]
        return ["-c", str(self._folder / "pipeline.yaml"), *chosen]

    def _script_arguments(self) -> Sequence[str]:
        limit = ["--limit", str(self._limit)] if self._limit else []
        save = ["--save", str(self._folder / "article.npz")]
        return [str(self._images), "--backbones", "article", "--stage", "features", *limit, *save]
