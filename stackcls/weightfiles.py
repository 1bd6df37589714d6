"""Where pretrained weights lie, and how they are fetched and verified."""

import contextlib
import hashlib
import http.client
import os
import stat
import urllib.error
import urllib.request
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from stackcls.errors import StackclsError, WeightsError
from stackcls.files import digest_file, digest_stream, replacing, sweep

PUBLISHED_ROOT = "https://storage.googleapis.com/tensorflow/keras-applications/"
SUFFIXES = frozenset({".h5", ".hdf5", ".keras"})  # of what Keras loads weights from
PIECE = 1 << 20  # after which the bar moves


@dataclass(frozen=True)
class Download:
    """One file of published weights that is to be fetched.

    Attributes
    ----------
    name : str
        The file's name in Keras's cache.
    origin : str
        Where Keras fetches it.
    md5 : str
        Its MD5 sum as Keras states it, empty if none.
    """

    name: str
    origin: str
    md5: str

    @property
    def target(self) -> Path:
        """Where it lies once fetched: in Keras's own cache."""
        return keras_cache() / self.name

    def url(self, base_url: str) -> str:
        """Address below another base URL; files from elsewhere keep only their name."""
        if self.origin.startswith(PUBLISHED_ROOT):
            return f"{base_url.rstrip('/')}/{self.origin.removeprefix(PUBLISHED_ROOT)}"
        standard = base_url.rstrip("/") + "/" == PUBLISHED_ROOT
        return self.origin if standard else f"{base_url.rstrip('/')}/{self.name}"


def keras_cache() -> Path:
    """Folder of Keras's cached weights."""
    return Path(os.environ.get("KERAS_HOME") or Path.home() / ".keras") / "models"


def verify(download: Download) -> Path | None:
    """Path of a cached file if it is there and whole, else None."""
    target = download.target
    if not target.is_file():
        return None
    with open(target, "rb") as file:
        whole = not download.md5 or digest_stream(file, _algorithm(download.md5)) == download.md5
    return target if whole else None


def fetch(
    download: Download, base_url: str, timeout: float, started: Callable[[str, int], Callable[[int], None]]
) -> Path:
    """Fetch one file into Keras's cache, whole or not at all.

    Parameters
    ----------
    download : Download
    base_url : str
        Where files lie, in folders as Keras publishes them.
    timeout : float
        Seconds without an answer after which it is given up.
    started : callable
        Called with the URL and the size in bytes (0 if unknown) before the first byte is read; what it returns is
        called with the number of bytes of each piece.

    Raises
    ------
    WeightsError
        If the file cannot be had or is not the one that Keras names.
    """
    url = download.url(base_url)
    sweep(download.target.parent)
    try:
        with urllib.request.urlopen(url, timeout=timeout) as answer, replacing(download.target) as temporary:  # noqa: S310
            size, received = int(answer.headers.get("Content-Length") or 0), 0
            advance = started(url, size)
            state = hashlib.new(_algorithm(download.md5), usedforsecurity=False)
            with open(temporary, "wb") as file:
                while piece := answer.read(PIECE):
                    file.write(piece)
                    state.update(piece)
                    received += len(piece)
                    advance(len(piece))
            if received < size:
                raise OSError(f"only {received} of {size} bytes came")
            if download.md5 and state.hexdigest() != download.md5:
                raise WeightsError(f"{url}: what came is not the file that Keras names (checksum {state.hexdigest()})")
    except (urllib.error.URLError, http.client.HTTPException, OSError, ValueError) as error:
        if isinstance(error, StackclsError):
            raise
        reason = getattr(error, "reason", None) or error
        raise WeightsError(
            f"{download.name}: not in {keras_cache()}, and {url} cannot be reached ({reason}). On a machine with "
            "network run `stackcls weights` with the same pipeline.yaml, and copy the file to that folder"
        ) from None
    return download.target


def missing(download: Download) -> WeightsError:
    """The error for a file that is not there and may not be fetched."""
    return WeightsError(
        f"{download.name}: not in {keras_cache()}, and --offline forbids fetching it. "
        "On a machine with network run `stackcls weights` with the same pipeline.yaml, and copy the file to that folder"
    )


def find_by_hash(
    sha256: str, hints: Iterable[Path], folders: Iterable[Path], suffixes: frozenset[str] = SUFFIXES
) -> Path | None:
    """Look for a file by its content: first where it was told to be, then in whole folders.

    Parameters
    ----------
    sha256 : str
        Of the file's bytes.
    hints : iterable of Path
        Files to try first.
    folders : iterable of Path
        Folders whose weights files and models are tried next.
    suffixes : frozenset of str
        Files with other names are not opened.

    Returns
    -------
    Path or None
    """
    candidates = [*hints]
    for folder in folders:
        with contextlib.suppress(OSError):
            candidates += sorted(path for path in folder.iterdir() if path.name != "features.h5")
    for path in candidates:
        with contextlib.suppress(OSError):  # one that may not be read is not the one
            if may_be_weights(path, suffixes) and digest_file(path) == sha256:
                return path
    return None


def may_be_weights(path: Path, suffixes: frozenset[str] = SUFFIXES) -> bool:
    """Whether a path names a plain file with such an ending and some content: no device, no pipe, no private key."""
    try:
        found = path.stat() if path.suffix.lower() in suffixes else None
    except (OSError, ValueError):
        return False
    return found is not None and stat.S_ISREG(found.st_mode) and found.st_size > 0


def _algorithm(digest: str) -> str:
    return "sha256" if len(digest) == 64 else "md5"
