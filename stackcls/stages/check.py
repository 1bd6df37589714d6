"""`stackcls check`: feature files and models in, whether they are sound, and what they are."""

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from stackcls import safemodel, soundness
from stackcls.artifacts import Artifacts
from stackcls.damage import Finding
from stackcls.errors import SourceMissing
from stackcls.listener import Listener, Silent
from stackcls.printable import printable
from stackcls.soundness import Checked

STORES, MODELS = (".h5", ".hdf5"), (safemodel.SUFFIX, ".joblib")


def run(paths: Sequence[Path], *, listener: Listener | None = None) -> list[Checked]:
    """Check feature files and models.

    Parameters
    ----------
    paths : sequence of Path
        Feature files, models, or folders of artifacts.
    listener : Listener, optional

    Returns
    -------
    list of Checked
        One per file, in order.

    Raises
    ------
    SourceMissing
        If a folder holds none.
    """
    listener = listener or Silent()
    return [_check(file, listener) for path in paths for file in _files(path)]


def _files(path: Path) -> Iterator[Path]:
    if not path.is_dir():
        yield path
        return
    names = Artifacts(path)
    found = [file for file in (names.features, names.safe_model, names.model) if file.is_file()]
    if not found:
        raise SourceMissing(f"{path}: holds no features.h5, model.safetensors or model.joblib; name a file")
    yield from found


def _check(path: Path, listener: Listener) -> Checked:
    try:
        if path.suffix in STORES:
            return soundness.check_store(path, listener)
        if path.suffix in MODELS:
            return soundness.check_model(path)
        what = f"is neither a feature file ({', '.join(STORES)}) nor a model ({', '.join(MODELS)}); nothing was opened"
    except OSError as error:
        what = f"cannot be read: {error.strerror or error}"
    return Checked(str(path), "unknown", (Finding("file", what),), (), {})


def as_json(results: Sequence[Checked]) -> str:
    """Write results as a JSON list."""
    rows = [{"path": item.path, "kind": item.kind, "sound": item.sound, **asdict(item)} for item in results]
    return json.dumps(rows, indent=2, ensure_ascii=False) + "\n"


def as_text(results: Sequence[Checked]) -> str:
    """Write results for reading."""
    return "".join(f"{printable(line)}\n" for item in results for line in _lines(item))


def _lines(item: Checked) -> Iterator[str]:
    yield f"{item.path}: {'sound' if item.sound else 'NOT SOUND'}"
    for label, findings in (("problem", item.problems), ("remark", item.remarks)):
        yield from (f"  {label}: {finding.where}: {finding.what}" for finding in findings)
    if item.sound:
        yield from _fact_lines(item.facts)


def _fact_lines(facts: Any) -> Iterator[str]:
    for key, value in facts.items():
        if key == "backbones":
            yield from (f"  {name}: {_inline(said)}" for name, said in value.items())
        else:
            yield f"  {key}: {_inline(value) if isinstance(value, dict) else value}"


def _inline(said: dict[str, Any]) -> str:
    texts = {key: f"{value:.4f}" if isinstance(value, float) else str(value) for key, value in said.items()}
    return ", ".join(f"{key} {text}" for key, text in texts.items())


WRITERS: dict[str, Callable[[Sequence[Checked]], str]] = {"text": as_text, "json": as_json}
