"""From `pipeline.yaml` and `key.path=value` overrides to settings."""

from collections.abc import Hashable, Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError

from stackcls.errors import ConfigError
from stackcls.settings import BackboneEntry, Settings

DEFAULT_FILE = Path("pipeline.yaml")


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
        if isinstance(value, str) and not (key == "weights" and value in {"imagenet", "random"}):
            entry[key] = _join(folder, value)
    return entry


def _join(folder: Path, value: str) -> str:
    return str(folder / Path(value).expanduser())


class _Loader(yaml.SafeLoader):
    """Safe YAML that refuses a key given twice, which plain YAML would silently resolve to the last."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        """Build a mapping after looking for keys that stand there twice."""
        keys = [key.value for key, _ in node.value]
        if twice := [key for key in keys if keys.count(key) > 1]:
            raise yaml.constructor.ConstructorError(None, None, f"key {twice[0]!r} is given twice", node.start_mark)
        return super().construct_mapping(node, deep)


def _read_yaml(path: Path) -> dict[str, Any]:
    try:
        raw = _parse(path.read_bytes())
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such file; `stackcls init` writes a commented pipeline.yaml") from None
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror})") from None
    except (yaml.YAMLError, ValueError) as error:  # ValueError: text that is no UTF-8, a date that does not exist
        mark = getattr(error, "problem_mark", None)
        where = f"{path}:{mark.line + 1}" if mark else str(path)
        raise ConfigError(f"{where}: not valid YAML: {getattr(error, 'problem', None) or error}") from None
    if raw is None:
        return {}
    if not isinstance(raw, dict):
        raise ConfigError(f"{path}: must hold `key: value` lines, but holds a {type(raw).__name__}")
    return raw


def _parse(text: str | bytes) -> Any:
    return yaml.load(text, Loader=_Loader)  # noqa: S506  (a subclass of SafeLoader)


def _apply(raw: dict[str, Any], override: str) -> None:
    """Set one `key.path=value` in nested plain values; a number in the path picks from a list."""
    key, separator, text = override.partition("=")
    if not separator or not key:
        raise ConfigError(f"--set {override!r}: must be key.path=value, for example --set cv.folds=5")
    try:
        value = _parse(text)
    except (yaml.YAMLError, ValueError) as error:
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
    where = ".".join(str(part) for part in detail["loc"] if not str(part).startswith("function-")) or "settings"
    given, context = detail["input"], detail.get("ctx", {})
    match detail["type"]:
        case "extra_forbidden":
            return f"{where}: unknown key; known here are {', '.join(_siblings(detail['loc']))}"
        case "literal_error":
            allowed = str(context["expected"]).replace("'", "").replace(" or ", ", ")
            return f"{where}: {given!r} is not one of {allowed}"
        case "value_error":
            return f"{where}: {context['error']}"
        case "missing":
            return f"{where}: is missing"
    message = detail["msg"][0].lower() + detail["msg"][1:]
    return f"{where}: {given!r} does not do: {message}"


def _siblings(location: tuple[str | int, ...]) -> list[str]:
    """Keys that would have been allowed beside the last part of `location`."""
    section: type[BaseModel] = Settings
    for part in location[:-1]:
        if part == "backbones":
            section = BackboneEntry
        elif part in section.model_fields:
            section = section.model_fields[str(part)].annotation  # type: ignore[assignment]
    return list(section.model_fields)
