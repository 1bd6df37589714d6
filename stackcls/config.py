"""From `pipeline.yaml` and `key.path=value` overrides to settings."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from stackcls import complaints, plainyaml
from stackcls.clustersettings import FILES
from stackcls.errors import ConfigError
from stackcls.settings import Settings
from stackcls.urls import is_url, scrubbed

DEFAULT_FILE = Path("pipeline.yaml")
NO_FILES = frozenset({"imagenet", "random"})
LONGEST = 2**18


@dataclass(frozen=True)
class Override:
    """One `key.path=value`, and the option of the command line that gave it, where that was not `--set`."""

    text: str
    option: str | None = None

    @property
    def key(self) -> str:
        """What it sets."""
        return self.text.partition("=")[0]

    @property
    def origin(self) -> str:
        """What messages call it, without the value, which may hold a password."""
        return self.option or f"--set {complaints.shown_key(self.key)}"


def read(path: Path | None = None, overrides: Iterable[str] = (), options: Mapping[str, str] | None = None) -> Settings:
    """Read settings from a file and from `key.path=value` overrides.

    Parameters
    ----------
    path : Path, optional
        The YAML file. Without it, `./pipeline.yaml` is used if there is one, else the defaults.
    overrides : iterable of str
        Each `key.path=value`, the value in YAML; paths in them are relative to the working folder, those in the file
        to the file.
    options : mapping of str to str, optional
        The same, by what messages are to call it (`--cv`); these win.

    Returns
    -------
    Settings

    Raises
    ------
    ConfigError
        If the file cannot be read, a key is unknown or a value is not allowed; the message says where.
    """
    chosen = path or (DEFAULT_FILE if DEFAULT_FILE.is_file() else None)
    raw = anchored(_read_yaml(chosen), chosen.parent) if chosen else {}
    given = [*(Override(text) for text in overrides), *(Override(text, name) for name, text in (options or {}).items())]
    for override in given:
        _apply(raw, override)
    return _build(raw, str(chosen) if chosen else "settings", given)


def build(raw: Mapping[str, Any], origin: str = "settings") -> Settings:
    """Turn nested plain values into settings; raise `ConfigError` naming `origin` and the key where that fails."""
    return _build(raw, origin, ())


def _build(raw: Mapping[str, Any], origin: str, overrides: Sequence[Override]) -> Settings:
    try:
        return Settings.model_validate(raw)
    except ValidationError as error:
        found = [(complaints.place(detail), complaints.sentence(detail)) for detail in error.errors()]
        lines = [f"{_begun(place, origin, overrides)}: {sentence}" for place, sentence in found]
        raise ConfigError("\n".join(lines)) from None


def _begun(place: Sequence[str], origin: str, overrides: Sequence[Override]) -> str:
    """Who gave what cannot be used, and under which key: the last override of it, or of a part, or of the whole."""
    where = ".".join(map(complaints.shown_key, place)) or "settings"
    for override in reversed(overrides):
        keys = override.key.split(".")
        if all(one == other for one, other in zip(keys, place, strict=False)):
            origin = override.origin if len(keys) <= len(place) else f"{origin} with {override.origin}"
            break
    return origin if origin == f"--set {where}" else f"{origin}: {where}"


def anchored(raw: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Return `raw` with the paths in it made relative to `folder` instead of to the file they stand in."""
    anchored_raw = dict(raw)
    for key in ("images", "artifacts"):
        if isinstance(raw.get(key), str):
            anchored_raw[key] = _join(folder, raw[key])
    tuning = raw.get("finetune")
    if isinstance(tuning, dict) and isinstance(start := tuning.get("start"), str) and start not in NO_FILES:
        anchored_raw["finetune"] = {**tuning, "start": _join(folder, start)}
    cluster = raw.get("cluster")
    if isinstance(cluster, dict) and isinstance(address := cluster.get("address"), str) and address.endswith(FILES):
        anchored_raw["cluster"] = {**cluster, "address": _join(folder, address)}
    features = raw.get("features")
    if isinstance(features, dict) and isinstance(features.get("backbones"), list):
        entries = [_anchored_entry(entry, folder) for entry in features["backbones"]]
        anchored_raw["features"] = {**features, "backbones": entries}
    return anchored_raw


def _anchored_entry(entry: object, folder: Path) -> object:
    if not isinstance(entry, dict):
        return entry
    entry = dict(entry)
    for key in ("weights", "model"):
        value = entry.get(key)
        if isinstance(value, str) and not (key == "weights" and value in NO_FILES):
            entry[key] = _join(folder, value)
    return entry


def _join(folder: Path, value: str) -> str:
    return value if is_url(value) else str(folder / Path(value).expanduser())


def _read_yaml(path: Path) -> dict[str, Any]:
    try:
        with open(path, "rb") as file:
            data = file.read(LONGEST + 1)  # which also ends where the file does not
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such file; `stackcls init` writes a commented pipeline.yaml") from None
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror})") from None
    if len(data) > LONGEST:
        raise ConfigError(f"{path}: is longer than {LONGEST} bytes, which no settings are; give another file with -c")
    try:
        raw = plainyaml.parse(data)
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise ConfigError(f"{path}:{line}: not UTF-8; save it as UTF-8") from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f"{path}:{mark.line + 1}" if mark else str(path)
        raise ConfigError(f"{where}: not valid YAML: {getattr(error, 'problem', None) or error}") from None
    if raw is None:
        return {}
    if not isinstance(raw, dict):
        raise ConfigError(f"{path}: must hold `key: value` lines, but holds {complaints.kind(raw)}")
    return raw


def _apply(raw: dict[str, Any], override: Override) -> None:
    """Set one `key.path=value` in nested plain values; a number in the path picks from a list."""
    key, separator, text = override.text.partition("=")
    who = override.option or f"--set {scrubbed(override.text)!r}"
    if not separator or not key:
        raise ConfigError(f"{who}: must be key.path=value, for example --set cv.folds=5")
    try:
        value = plainyaml.parse(text)
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(
            f"{who}: the value is not valid YAML: {getattr(error, 'problem', None) or 'no text'}"
        ) from None
    *parents, last = key.split(".")
    place: Any = raw
    try:
        for part in parents:
            place = place[int(part)] if isinstance(place, list) else place.setdefault(part, {})
            if place is None or isinstance(place, str):
                raise TypeError
        if isinstance(place, list):
            place[int(last)] = _anchored_entry(value, Path())
        else:
            place[last] = value
    except (ValueError, IndexError, TypeError, AttributeError):
        raise ConfigError(f"{who}: there is no place {key!r} in the settings") from None
