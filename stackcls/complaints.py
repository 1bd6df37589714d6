"""What is wrong with settings, in words: where, what was given, what is allowed."""

import difflib
from collections.abc import Iterator, Mapping
from typing import Any, get_args

from pydantic import BaseModel

from stackcls.section import shown
from stackcls.settings import BackboneEntry, Settings
from stackcls.urls import scrubbed

# What pydantic's kinds of error ask for, without words of Python's; that of a limit it says well itself.
NEEDED = {
    "string_type": "text is needed (a number that is meant as text stands in quotes)",
    "string_too_short": "text is needed that is not empty",
    "bool_type": "true or false is needed",
    "bool_parsing": "true or false is needed",
    "int_type": "a whole number is needed",
    "int_parsing": "a whole number is needed",
    "int_parsing_size": "a whole number of fewer digits is needed",
    "int_from_float": "a whole number is needed",
    "float_type": "a number is needed",
    "float_parsing": "a number is needed",
    "finite_number": "a number that is not infinite is needed",
    "tuple_type": "a list is needed: [...]",
    "dict_type": "keys with values are needed: {key: value}",
    "path_type": "a path is needed",
}
KINDS = {bool: "true or false", str: "text", int: "a number", float: "a number", list: "a list"}


def place(detail: Mapping[str, Any]) -> list[str]:
    """Keys, from the top, of what one of pydantic's complaints is about."""
    return [str(part) for part in detail["loc"] if not str(part).startswith("function-")]


def sentence(detail: Mapping[str, Any]) -> str:
    """One sentence for one of pydantic's complaints: what was given, what is allowed."""
    parts, context = place(detail), detail.get("ctx", {})
    given = scrubbed(shown(detail["input"]))
    match detail["type"]:
        case "extra_forbidden" | "invalid_key":
            section = _section(detail["loc"])
            return f"unknown key; known here are {', '.join(section.model_fields)}{_hint(parts[-1], section)}"
        case "literal_error":
            allowed = str(context["expected"]).replace("'", "").replace(" or ", ", ")
            return f"{given} is not one of {allowed}{_or_null(detail['loc'])}"
        case "value_error":
            return str(context["error"])
        case "model_type":
            where = ".".join(map(shown_key, parts))
            keys = " or ".join(f"{where}.{key}" for key in _section((*detail["loc"], "")).model_fields)
            return f"{given} does not do: it has settings of its own; give {keys}"
        case "missing":
            return "is missing"
        case "greater_than" | "greater_than_equal" | "less_than" | "less_than_equal":
            return f"{given} does not do: a number {detail['msg'].removeprefix('Input should be ')} is needed"
        case kind if kind in NEEDED:
            return f"{given} does not do: {NEEDED[kind]}"
    return f"{given} does not do: {detail['msg'][0].lower()}{detail['msg'][1:]}"


def shown_key(key: str) -> str:
    """A key as a message may show it."""
    return scrubbed(key if key.isprintable() else repr(key))


def kind(value: object) -> str:
    """What a value is, in words for those who do not write Python."""
    return KINDS.get(type(value), "something else")


def _or_null(location: tuple[str | int, ...]) -> str:
    """That a setting can be switched off, where it can."""
    if isinstance(location[-1], int):  # one of a list
        return ""
    field = _section(location).model_fields.get(location[-1])
    return ", null" if field and type(None) in get_args(field.annotation) else ""


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
    places = [path for path in keys(Settings, "") if path.rpartition(".")[2] == key]
    places = places or difflib.get_close_matches(key, section.model_fields, 2)
    if not places:
        close = difflib.get_close_matches(key, {path.rpartition(".")[2] for path in keys(Settings, "")}, 1)
        places = [path for path in keys(Settings, "") if path.rpartition(".")[2] in close]
    return f"; did you mean {' or '.join(places)}?" if places else ""


def keys(section: type[BaseModel], prefix: str) -> Iterator[str]:
    """Dotted names of all settings; `backbones.N` stands for an entry of the list."""
    for name, field in section.model_fields.items():
        yield prefix + name
        if name == "backbones":
            yield from keys(BackboneEntry, f"{prefix}{name}.N.")
        elif isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield from keys(field.annotation, f"{prefix}{name}.")
