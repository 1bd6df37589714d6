"""Everything that can go wrong in a way a user can mend.

::

    StackclsError
    ├── ConfigError (ValueError)             a setting that cannot be used
    ├── SourceError (ValueError)             a folder, manifest or label that cannot be used
    │   ├── SourceMissing (FileNotFoundError)
    │   └── SourceAway (ConnectionError)     its server does not answer
    ├── UnreadableImage (ValueError)         one image that cannot be decoded
    │   └── UnreadableFile                   its file cannot be read now; what is in it is not known
    │       └── FileMissing                  it is not there
    ├── WeightsError (OSError)               pretrained weights missing, damaged or not to be had
    ├── EngineError (RuntimeError)           a network that an engine cannot run
    ├── ClusterError (RuntimeError)          a cluster that cannot be reached, is lost, or cannot do its part
    ├── WriteError (OSError)                 a file that cannot be written: a full or failing disk, a read-only folder
    ├── ArtifactsInUse (RuntimeError)        another run works in the same folder
    ├── StoreError (ValueError)              a feature file that cannot be used
    │   ├── StoreMissing (FileNotFoundError)
    │   ├── StoreDamaged                     its checksum does not hold
    │   └── IdentityMismatch                 features made another way than asked for
    ├── TrainingError (ValueError)           labels and folds that cannot be learned from
    └── ModelError (ValueError)              a model file that cannot be used
        └── ModelMissing (FileNotFoundError)

Each message says the setting or file, the value received, what is allowed, and the remedy.
"""

from typing import Any


class StackclsError(Exception):
    """Base of all errors that stackcls raises on purpose."""

    def __reduce__(self) -> tuple[Any, ...]:
        """As of any exception, but stated: tblib, which Dask uses, fails at those with two builtin parents."""
        return type(self), self.args, self.__dict__ or None


class ConfigError(StackclsError, ValueError):
    """A setting is unknown or has a value that is not allowed."""


class SourceError(StackclsError, ValueError):
    """A source of images or labels cannot be used."""


class SourceMissing(SourceError, FileNotFoundError):
    """A source of images does not exist."""


class SourceAway(SourceError, ConnectionError):
    """The server of a source of images does not answer; what was read until then holds."""


class UnreadableImage(StackclsError, ValueError):
    """One image cannot be decoded.

    Parameters
    ----------
    path : str
        The image, as the user named it.
    reason : str
        What is wrong with it, as a short clause.
    """

    def __init__(self, path: str, reason: str) -> None:
        super().__init__(f"{path}: {reason}")
        self.path = path
        self.reason = reason

    def __reduce__(self) -> tuple[Any, ...]:
        """Rebuild from both parts, since `args` has the joined message alone."""
        return type(self), (self.path, self.reason), self.__dict__


class UnreadableFile(UnreadableImage):
    """The file of one image cannot be read now; a copy of it may be readable."""


class FileMissing(UnreadableFile):
    """There is no such file."""


class WeightsError(StackclsError, OSError):
    """Pretrained weights are missing, damaged or cannot be fetched."""


class EngineError(StackclsError, RuntimeError):
    """An engine cannot run a network that Keras can."""


class ClusterError(StackclsError, RuntimeError):
    """A cluster cannot be reached, is lost, or its workers cannot do their part."""


class WriteError(StackclsError, OSError):
    """A file cannot be written."""


class ArtifactsInUse(StackclsError, RuntimeError):
    """Another run works in the same folder of artifacts."""


class StoreError(StackclsError, ValueError):
    """A feature file cannot be used."""


class StoreMissing(StoreError, FileNotFoundError):
    """A feature file does not exist."""


class StoreDamaged(StoreError):
    """A feature file is not what was written."""


class IdentityMismatch(StoreError):
    """Features were made in another way than the one asked for."""


class TrainingError(StackclsError, ValueError):
    """Labels and folds do not allow what was asked."""


class ModelError(StackclsError, ValueError):
    """A model file cannot be used."""


class ModelMissing(ModelError, FileNotFoundError):
    """A model file does not exist."""
