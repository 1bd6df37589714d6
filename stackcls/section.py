"""What all sections of the settings have in common."""

from pydantic import BaseModel, ConfigDict

SHOWN = 120


class Section(BaseModel):
    """Shared strictness: unknown keys are errors, values are never changed after reading."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=False, coerce_numbers_to_str=False)


def shown(value: object) -> str:
    """A value as messages show it: in YAML's spelling where that differs, and not at any length."""
    text = "null" if value is None else repr(value).lower() if isinstance(value, bool) else repr(value)
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}…"
