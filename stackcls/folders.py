"""Which files below a folder are images, on this machine or among those that a server has."""

import os
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePosixPath

from stackcls.imagenames import is_image_name


def walk(folder: Path, ignored: Counter[str] | None = None, unreadable: dict[str, str] | None = None) -> Iterator[str]:
    """Yield the relative POSIX paths of all image files below a folder; hidden ones and link loops are left out.

    Parameters
    ----------
    folder : Path
    ignored : Counter, optional
        Counts the suffixes of files that are no images.
    unreadable : dict of str to str, optional
        Takes folders that cannot be listed, and why.
    """

    def note(error: OSError) -> None:
        if unreadable is not None:
            name = Path(error.filename).relative_to(folder).as_posix().encode("utf-8", "backslashreplace").decode()
            unreadable[name] = f"cannot be listed ({error.strerror})"

    seen: set[tuple[int, int]] = set()
    for parent, folders, files in os.walk(folder, onerror=note, followlinks=True):
        status = os.stat(parent)
        if (status.st_dev, status.st_ino) in seen:
            folders.clear()
            continue
        seen.add((status.st_dev, status.st_ino))
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        base = Path(parent).relative_to(folder)
        for name in files:
            if is_image_name(name):
                yield (base / name).as_posix()
            elif name.startswith("."):
                continue
            elif not os.path.exists(place := os.path.join(parent, name)):  # noqa: PTH110  (Path.exists may raise)
                note(FileNotFoundError(0, "a link that leads nowhere", place))
            elif ignored is not None:
                ignored[PurePosixPath(name).suffix.lower()] += 1


def links_out(folder: Path, paths: Iterable[str]) -> dict[str, str]:
    """Links by which relative paths leave their folder, and where they lead to."""
    root, found = os.path.realpath(folder), {}
    places = set(paths)
    places |= {parent for path in list(places) for parent in map(str, PurePosixPath(path).parents[:-1])}
    for name in sorted(places):
        place = os.path.join(folder, name)
        if os.path.islink(place) and not Path(target := os.path.realpath(place)).is_relative_to(root):  # noqa: PTH114
            found[name] = target
    return found


def images_of(paths: Iterable[str], ignored: Counter[str], bad: dict[str, str]) -> Iterator[str]:
    """Those of a server's files that are images; hidden ones are left out, as they are in a folder."""
    for path in paths:
        parts = path.split("/")
        if any(part.startswith(".") and part not in (".", "..") for part in parts):
            continue
        if not is_image_name(parts[-1]):
            ignored[PurePosixPath(path).suffix.lower()] += 1
        elif any(part in ("", ".", "..") for part in parts):
            bad[path] = "its name is no relative path; name it otherwise"
        else:
            yield path
