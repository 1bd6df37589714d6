"""From `pipeline.yaml` and `key.path=value` overrides to settings."""

import difflib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, get_args

import yaml
from pydantic import BaseModel, ValidationError

from stackcls import plainyaml
from stackcls.clustersettings import FILES
from stackcls.errors import ConfigError
from stackcls.settings import BackboneEntry, Settings
from stackcls.urls import is_url

DEFAULT_FILE = Path("pipeline.yaml")
NO_FILES = frozenset({"imagenet", "random"})
LONGEST = 2**18
SHOWN = 120


def read(path: Path | None = None, overrides: Iterable[str] = ()) -> Settings:
    """Read settings from a file and from `key.path=value` overrides.

    Parameters
    ----------
    path : Path, optional
        The YAML file. Without it, `./pipeline.yaml` is used if there is one, else the defaults.
    overrides : iterable of str
        Each `key.path=value`, the value in YAML; paths in them are relative to the working folder, those in the file
        to the file.

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
    for override in overrides:
        _apply(raw, override)
    return build(raw, str(chosen) if chosen else "settings")


def build(raw: Mapping[str, Any], origin: str = "settings") -> Settings:
    """Turn nested plain values into settings; raise `ConfigError` naming `origin` and the key where that fails."""
    try:
        return Settings.model_validate(raw)
    except ValidationError as error:
        lines = [f"{origin}: {_explain(detail)}" for detail in error.errors()]
        raise ConfigError("\n".join(lines)) from None


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
        raise ConfigError(f"{path}: must hold `key: value` lines, but holds a {type(raw).__name__}")
    return raw


def _apply(raw: dict[str, Any], override: str) -> None:
    """Set one `key.path=value` in nested plain values; a number in the path picks from a list."""
    key, separator, text = override.partition("=")
    if not separator or not key:
        raise ConfigError(f"--set {override!r}: must be key.path=value, for example --set cv.folds=5")
    try:
        value = plainyaml.parse(text)
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"--set {override!r}: the value is not valid YAML: {error}") from None
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
        raise ConfigError(f"--set {override!r}: there is no place {key!r} in the settings") from None


def _explain(detail: Mapping[str, Any]) -> str:
    """One sentence for one of pydantic's complaints: where, what was given, what is allowed."""
    parts = [str(part) for part in detail["loc"] if not str(part).startswith("function-")]
    where = ".".join(part if part.isprintable() else repr(part) for part in parts) or "settings"
    given, context = _shown(detail["input"]), detail.get("ctx", {})
    match detail["type"]:
        case "extra_forbidden" | "invalid_key":
            section = _section(detail["loc"])
            return f"{where}: unknown key; known here are {', '.join(section.model_fields)}{_hint(parts[-1], section)}"
        case "literal_error":
            allowed = str(context["expected"]).replace("'", "").replace(" or ", ", ")
            return f"{where}: {given} is not one of {allowed}{_or_null(detail['loc'])}"
        case "value_error":
            return f"{where}: {context['error']}"
        case "model_type":
            keys = " or ".join(f"{where}.{key}" for key in _section((*detail["loc"], "")).model_fields)
            return f"{where}: {given} does not do: it has settings of its own; give {keys}"
        case "missing":
            return f"{where}: is missing"
    message = detail["msg"][0].lower() + detail["msg"][1:]
    return f"{where}: {given} does not do: {message}"


def _or_null(location: tuple[str | int, ...]) -> str:
    """That a setting can be switched off, where it can."""
    if isinstance(location[-1], int):  # one of a list
        return ""
    field = _section(location).model_fields.get(location[-1])
    return ", null" if field and type(None) in get_args(field.annotation) else ""


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}…"


def _section(location: tuple[str | int, ...]) -> type[BaseModel]:
    """The section that the last part of `location` would have been a key of."""
    section: type[BaseModel] = Settings
    for part in location[:-1]:
        if part == "backbones":
            section = BackboneEntry
        elif part in section.model_fields:
            section = section.model_fields[str(part)].annotation  # type: ignore[assignment]
    return section


def _hint(key: str, section: type[BaseModel]) -> str:
    """Where a key of that name belongs, or which one here is spelt nearly so."""
    places = [path for path in _keys(Settings, "") if path.rpartition(".")[2] == key]
    places = places or difflib.get_close_matches(key, section.model_fields, 2)
    if not places:
        close = difflib.get_close_matches(key, {path.rpartition(".")[2] for path in _keys(Settings, "")}, 1)
        places = [path for path in _keys(Settings, "") if path.rpartition(".")[2] in close]
    return f"; did you mean {' or '.join(places)}?" if places else ""


def _keys(section: type[BaseModel], prefix: str) -> Iterator[str]:
    """Dotted names of all settings; `backbones.N` stands for an entry of the list."""
    for name, field in section.model_fields.items():
        yield prefix + name
        if name == "backbones":
            yield from _keys(BackboneEntry, f"{prefix}{name}.N.")
        elif isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield from _keys(field.annotation, f"{prefix}{name}.")
