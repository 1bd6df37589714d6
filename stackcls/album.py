"""Pictures of a page's images, within a budget of bytes, and links to all of them."""

import base64
import os
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar
from urllib.parse import quote

from stackcls import thumbnails
from stackcls.report.content import Copy, Photo, Predicted, Suspect
from stackcls.settings import Limits
from stackcls.sources import Source
from stackcls.urls import Url

SIDE = 128
MOST, BYTES = 500, 1_800_000  # of the pictures as text

Item = TypeVar("Item", Predicted, Suspect, Copy)


@dataclass(frozen=True)
class Album:
    """Pictures of some images.

    Attributes
    ----------
    prefix : str or None
        Address of the images' folder, relative to the page; None where it is not there.
    pictures : mapping of str to str
        Addresses of thumbnails by path.
    """

    prefix: str | None
    pictures: Mapping[str, str]

    @staticmethod
    def take(
        wanted: Iterable[str], uses: Counter[str], source: Source, folder: Path, limits: Limits, spent: int = 0
    ) -> "Album":
        """Take pictures as far as the budget goes.

        Parameters
        ----------
        wanted : iterable of str
            Paths of images, the most wanted first.
        uses : Counter
            How often the page shows each.
        source : Source
            What the paths are of.
        folder : Path
            The page's.
        limits : Limits
        spent : int
            Bytes of the budget that other pictures took.
        """
        paths = list(dict.fromkeys(wanted))[:MOST]
        pictures = {}
        made = thumbnails.thumbnails([source.content(path) for path in paths], limits, SIDE)
        for path, picture in zip(paths, made, strict=True):
            if picture is not None:
                content = embedded(picture)
                spent += uses[path] * len(content)
                if spent > BYTES:
                    break
                pictures[path] = content
        return Album(address(source, folder), pictures)

    def illustrate(self, item: Item) -> Item:
        """Put picture and link to an item's image."""
        path = item.photo.path
        href = None if self.prefix is None else link(self.prefix, path)
        return replace(item, photo=Photo(path, href, self.pictures.get(path)))


def embedded(webp: bytes) -> str:
    """A picture as a `data:` address."""
    return f"data:image/webp;base64,{base64.b64encode(webp).decode()}"


def link(prefix: str, path: str) -> str:
    """Address of an image in the folder whose address is given, whatever bytes its name has."""
    return prefix + quote(os.fsencode(path))


def address(source: Source, folder: Path) -> str | None:
    """A source as seen from a page in some folder; None where no browser could open its images.

    That of a folder begins as no scheme of an address does.
    """
    root = source.root
    if source.members:
        return None
    if isinstance(root, Url):
        return str(Url(root.folder)) if root.is_http else None
    try:
        relative = Path(os.path.relpath(root.absolute(), folder.absolute())).as_posix()
    except ValueError:  # on Windows, another drive
        return f"{root.absolute().as_uri()}/"
    return link("" if relative.startswith(".") else "./", f"{relative}/")
