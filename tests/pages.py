"""Pages with every section filled, of as many images and classes as a test wants, and what their HTML says."""

import csv
import io
from dataclasses import dataclass, replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from stackcls import album, page, runtables, scoring
from stackcls.report import overlays
from stackcls.report.content import Evidence
from stackcls.report.findings import Choice, Contribution, Duplicates, ReliabilityBin, Suspects, Trade, Unknown
from stackcls.report.results import STACK, Calibration, Gain, Holdout, McNemar, Report, Tuning
from stackcls.runtables import Tables
from stackcls.scoring import Predictions
from stackcls.settings import Settings

SECTIONS = [
    *("summary", "scores", "gain", "tuning", "contributions", "confusion", "classes", "calibration", "mistakes"),
    *("suspects", "duplicates", "unknown", "holdout", "made"),
]
BACKBONES = ("one", "two", "three")
HOSTILE = (
    "<script>alert(1)</script>",
    "a \"double\" & 'single'",
    "right \u202eto left",
    "two\nlines\tand \x1b[31m",
    "猫 🐈 \u05d7\u05ea\u05d5\u05dc",
    "--></style></script><img src=x onerror=alert(1)>",
)


@dataclass(frozen=True)
class Made:
    """A report, the tables beside it, and settings whose images are there."""

    report: Report
    tables: Tables
    settings: Settings
    search: Any = None

    def html(self) -> str:
        return page.make(self.report, self.tables, self.settings, self.settings.files, self.search)

    def write(self) -> Path:
        """Write everything as `fit` would."""
        files = self.settings.files
        files.folder.mkdir(exist_ok=True)
        self.report.save(files.report)
        contents = {
            files.page: self.html(),
            files.predictions: self.tables.predictions,
            files.suspects: self.tables.suspects,
            files.duplicates: self.tables.duplicates,
            files.holdout: self.tables.holdout,
        }
        for path, content in contents.items():
            path.write_bytes(content.encode())
        np.save(files.probabilities, self.tables.probabilities.astype(np.float32))
        return files.page


class Invented:
    """Explains the first four mistakes, and the first of the hold-out, without a model; both have the same images."""

    def look(self, mistakes, held_out, *_):
        ramp = np.full((24, 24, 3), 200, np.uint8), np.tile(np.linspace(0, 1, 60), (60, 1))
        picture = album.embedded(overlays.webp(overlays.laid_over(*ramp), album.SIDE))
        return {
            item.photo.path: (Evidence(item.predicted, 0.123, picture), Evidence(item.given, 0.877, picture))
            for item in (*mistakes[:4], *held_out[:1])
        }


def table(*rows):
    buffer = io.StringIO()
    csv.writer(buffer, quoting=csv.QUOTE_ALL, lineterminator="\n").writerows(rows)
    return buffer.getvalue()


def make(folder: Path, n: int = 60, classes=("ant", "bee", "cow", "dog"), with_images: bool = True) -> Made:
    """Invent a run; images are small squares, whose file names hold the class's name as far as files can."""
    rng = np.random.default_rng(0)
    classes = sorted(classes)
    count = len(classes)
    given = np.arange(n) % count
    ranking = {
        name: rng.normal(size=(n, count)) * spread + 4 * np.eye(count)[given]
        for name, spread in zip((*BACKBONES, STACK), (2.4, 2.2, 1.9, 1.7), strict=True)
    }
    fold = np.arange(n) // count % 3
    found = Predictions(given, fold, ranking)
    shares = np.exp(ranking[STACK]) / np.exp(ranking[STACK]).sum(axis=1, keepdims=True)
    paths = [f"{''.join(classes[c].split('/'))}/{number:05d} {classes[c][:9]!r}.png" for number, c in enumerate(given)]
    paths = [path.replace("\x1b", "").replace("\n", " ") if number % 2 else path for number, path in enumerate(paths)]
    (folder / "images").mkdir(parents=True)
    for path, c in zip(paths, given, strict=True) if with_images else ():
        place = folder / "images" / path
        place.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (24, 24), (int(c * 40 % 256), 120, 90)).save(place)
    scores = {name: scoring.score(found, name) for name in (*BACKBONES, STACK)}
    report = Report(
        recipe="in-sample",
        folds=3,
        seed=0,
        n_images=n,
        classes=list(classes),
        scores=scores,
        gain=scoring.gain(found, scores),
        confusion=scoring.confusion(found, count),
        per_class=scoring.per_class_scores(found, classes),
        calibration=Calibration(0.02, 0.3, 1.1, _bins()),
        seconds=1.5,
        created_with={"stackcls": "0", "python": "3"},
        notes=[f"classes like {classes[0]} were kept"],
        settings={"base.C": "1.0"},
        contributions={
            name: Contribution(0.9, [0.9, 0.91, 0.89], value, [value - 0.01, value + 0.02], cost)
            for name, value, cost in zip(BACKBONES, (0.01, -0.004, 0.02), (0.01, 0.2, None), strict=True)
        },
        suspects=Suspects(2, 4, "confident learning"),
        duplicates=Duplicates(0.95, 1, 2, 2, 4, 1, 1, True, {name: score.mean for name, score in scores.items()}),
        unknown=Unknown(
            [Trade(p, 1 - p**2, 0.9 + 0.1 * p, p) for p in (0.0, 0.25, 0.5, 0.75, 0.95)], 0.97, 0.93, [classes[:2]], "m"
        ),
        tuning=_tuning(scores[STACK]),
        holdout=_holdout(scores, n, int((~found.correct(STACK)).sum())),
    )
    settings = Settings(images=folder / "images", artifacts=folder / "artifacts")
    tables = _tables(paths, classes, found, shares)
    return Made(replace(report, tables=runtables.digests(tables)), tables, settings)


def _tables(paths, classes, found, shares):
    label = [classes[c] for c in found.given]
    other = [classes[(c + 1) % len(classes)] for c in found.given]
    named = {name: [classes[c] for c in found.predicted(name)] for name in found.ranking}
    top = [f"{value:.6f}" for value in shares.max(axis=1)]
    singles = [named[name] for name in BACKBONES]
    return Tables(
        predictions=table(
            [*runtables.COLUMNS, *BACKBONES],
            *zip(paths, label, found.fold.tolist(), named[STACK], top, *singles, strict=True),
        ),
        probabilities=shares,
        suspects=table(
            runtables.SUSPECTS,
            *(
                [number + 1, paths[number], label[number], 0.01, other[number], 0.98, "yes" if number < 2 else "no"]
                for number in range(4)
            ),
        ),
        duplicates=table(
            runtables.DUPLICATES,
            *([number // 2, paths[number], label[number], "near", 0.987] for number in range(4)),
        ),
        holdout=table([*runtables.HELD_OUT, *BACKBONES], *zip(paths, label, named[STACK], top, *singles, strict=True)),
    )


def _bins():
    edges = np.linspace(0, 1, 16)
    return [
        ReliabilityBin(float(low), float(high), number * number, float(low + high) / 2, float(low + high) / 2 - 0.02)
        if number > 1
        else ReliabilityBin(float(low), float(high), 0, 0.0, 0.0)
        for number, (low, high) in enumerate(zip(edges, edges[1:], strict=False))
    ]


def _tuning(score):
    gain = Gain("stack as configured", 0.01, [0.01, 0.0, 0.02], [-0.01, 0.03], "m", McNemar(3, 2, 0.5))
    choice = Choice("in-sample", {HOSTILE[0]: 1.0, HOSTILE[2]: 10.0}, "linear-svm", 1.0, 0.9, 0.89, True)
    return Tuning(10.0, 12.5, [1.0, 10.0], [1.0], [0.1], [choice] * 4, score, gain)


def _holdout(scores, n, wrong):
    alone = {name: replace(score, folds=[score.mean], std=0.0) for name, score in scores.items()}
    gain = Gain("one", 0.01, [0.01], None, "none: one fold", McNemar(3, 2, 0.5))
    return Holdout("split", n, alone, gain, Calibration(0.02, 0.3, 1.1), 3, wrong, [])


class Parsed(HTMLParser):
    """Tags with their attributes, ids, and all text outside of scripts and styles."""

    VOID = frozenset({"meta", "link", "img", "input", "wbr", "br", "line", "circle", "rect"})

    def __init__(self, html: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.open: list[str] = []
        self.feed(html)
        self.close()
        assert self.open == [], f"not closed: {self.open}"
        self.text = " ".join("".join(self.words).split())

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag
        if tag not in {"bdi", "b", "strong", "a", "span", "code"}:
            self.words.append(" ")

    def handle_data(self, data):
        if not {"script", "style"} & set(self.open):
            self.words.append(data)

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]

    @property
    def ids(self) -> list[str]:
        return [attributes["id"] for _, attributes in self.tags if "id" in attributes]
