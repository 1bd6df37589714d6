"""Compiled models kept on disk between runs, found again by what they were made from."""

import contextlib
import hashlib
import json
import os
import shutil
import tempfile
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import platformdirs

from stackcls import processes
from stackcls.backbones import Located
from stackcls.errors import WriteError
from stackcls.files import digest_file, explained, replacing

VARIABLE = "STACKCLS_CACHE"
LIMIT = 20 * 2**30
META = "meta.json"
BEGUN = ".begun-"

Meta = Mapping[str, Any]

_LOCKS: dict[str, threading.Lock] = {}
_COMPLAINTS: list[str] = []
_TEMPORARY: list[tempfile.TemporaryDirectory[str]] = []  # entries that go with the process


def cache_folder() -> Path:
    """Where compiled models lie: `$STACKCLS_CACHE`, else the user's cache folder. It may be deleted at any time."""
    return Path(os.environ.get(VARIABLE) or platformdirs.user_cache_path("stackcls", appauthor=False)).absolute()


def complaint() -> str | None:
    """What kept the cache from being used since this was last asked, as a clause."""
    told = _COMPLAINTS[0] if _COMPLAINTS else None
    _COMPLAINTS.clear()
    return told


def key_of(located: Located, **made_with: str) -> str:
    """Name an entry by its content: all that decides what a compiled network computes.

    Parameters
    ----------
    located : Located
    **made_with : str
        Form, precision, library versions: whatever else the entry depends on.
    """
    said = json.loads(located.identity.to_json())
    # Keras builds some networks otherwise for published weights than for the same file under a name of one's own.
    said["published"] = located.backbone.weights == "imagenet"
    # None of these is in the network: they come before it, after it, or are in `made_with`.
    for elsewhere in ("resize", "views", "precision", "pooling", "basis"):
        del said[elsewhere]
    return hashlib.sha256(json.dumps([said, made_with], sort_keys=True).encode()).hexdigest()[:40]


def entry(key: str, make: Callable[[Path], Meta]) -> tuple[Path, Meta]:
    """Return the folder of an entry and what was said of it, made now if it is not there or not whole.

    Parameters
    ----------
    key : str
        From `key_of`.
    make : callable
        Writes the entry's files into an empty folder and returns what is worth knowing of them, as plain values.

    Notes
    -----
    An entry is whole or absent, and verified by SHA-256 before use. Where the cache's folder cannot be written, the
    entry is made in a temporary folder that goes with the process.
    """
    with _LOCKS.setdefault(key, threading.Lock()):
        return _entry(cache_folder() / key, make)


def _entry(target: Path, make: Callable[[Path], Meta]) -> tuple[Path, Meta]:
    meta = _read(target)
    if meta is not None:
        with contextlib.suppress(OSError):  # another user's cache is as good
            os.utime(target / META)
        return target, meta
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        made = Path(tempfile.mkdtemp(f".{processes.mark()}", BEGUN, target.parent))
    except OSError as error:
        _COMPLAINTS.append(f"{target.parent} cannot be used ({error.strerror or error})")
        folder = tempfile.TemporaryDirectory(prefix="stackcls-")
        _TEMPORARY.append(folder)
        return Path(folder.name), make(Path(folder.name))
    try:
        return _fill(made, target, make)
    except WriteError as error:
        error.add_note(f"compiled models may lie elsewhere: set {VARIABLE} to another folder")
        raise
    finally:
        shutil.rmtree(made, ignore_errors=True)


def _fill(made: Path, target: Path, make: Callable[[Path], Meta]) -> tuple[Path, Meta]:
    with explained(target):
        meta = make(made)
        files = {path.name: digest_file(path) for path in sorted(made.iterdir())}
        with replacing(made / META) as temporary:
            temporary.write_text(json.dumps({"meta": meta, "files": files, "sha256": _digest(meta)}), "utf-8")
        if (theirs := _read(target)) is not None:  # another process was faster, and may be using it
            return target, theirs
        if target.exists():
            target.rename(made.with_name(f"{made.name}-damaged"))
        try:
            made.rename(target)
        except OSError:  # faster by a moment
            if (theirs := _read(target)) is not None:
                return target, theirs
            raise
    _make_room(target)
    return target, meta


def _read(target: Path) -> Meta | None:
    """What an entry says of itself, or None if it is absent or damaged."""
    try:
        record = json.loads((target / META).read_text("utf-8"))
        if any(digest_file(target / name) != digest for name, digest in record["files"].items()):
            return None
        meta: Meta = record["meta"]
        if _digest(meta) != record["sha256"]:
            return None
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return meta


def _digest(meta: Meta) -> str:
    return hashlib.sha256(json.dumps(meta, sort_keys=True).encode()).hexdigest()


def _make_room(kept: Path) -> None:
    """Remove what killed processes left behind, and what was used longest ago until the cache is below its limit."""
    for begun in kept.parent.glob(f"{BEGUN}*"):
        with contextlib.suppress(OSError):
            if begun.name.endswith("-damaged") or processes.is_left_behind(begun, begun.suffix[1:]):
                shutil.rmtree(begun, ignore_errors=True)
    sizes = {}
    for meta in kept.parent.glob(f"*/{META}"):
        try:
            used = meta.stat().st_mtime
            sizes[meta.parent] = (used, sum(path.stat().st_size for path in meta.parent.iterdir()))
        except OSError:  # another process has just removed it
            continue
    total = sum(size for _, size in sizes.values())
    for folder, (_, size) in sorted(sizes.items(), key=lambda item: item[1]):
        if total <= LIMIT:
            break
        if folder != kept:
            shutil.rmtree(folder, ignore_errors=True)
            total -= size
