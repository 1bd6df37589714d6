"""`stackcls init`: write a commented `pipeline.yaml`."""

from importlib import resources
from pathlib import Path

from stackcls.errors import ConfigError
from stackcls.files import write_text


def template() -> str:
    """Text of the commented `pipeline.yaml`, every setting at its default."""
    return resources.files("stackcls").joinpath("data/pipeline.yaml").read_text("utf-8")


def run(target: Path, *, force: bool = False) -> Path:
    """Write the template; raise `ConfigError` if a file is there and `force` is not set."""
    if target.exists() and not force:
        raise ConfigError(f"{target}: exists already; give another name, or --force to replace it")
    write_text(target, template())
    return target
