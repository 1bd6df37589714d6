"""What a run of `features` would take out of what is finished: said beforehand, refused unless asked for."""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from stackcls.backbones import Located
from stackcls.blocks import BlockFolder
from stackcls.errors import IdentityMismatch, StoreError
from stackcls.listener import Listener
from stackcls.listing import Listing
from stackcls.printable import counted
from stackcls.store import Store

SHOWN = 3


@dataclass(frozen=True)
class Losses:
    """What is finished, beside what a run was asked for.

    Attributes
    ----------
    target : Path
        The feature file.
    old : Store or None
        It, as it is.
    folder : BlockFolder
    located : sequence of Located
        With the bases that are known.
    absent : set of str
        Configured backbones that could not be located (in a dry run, which fetches nothing).
    listing : Listing
    hashes : mapping of str to str
        By path, what could be hashed: more than the listing still has.
    allowed : bool
        Whether they were asked for: nothing is refused then.
    """

    target: Path
    old: Store | None
    folder: BlockFolder
    located: Sequence[Located]
    absent: set[str]
    listing: Listing
    hashes: Mapping[str, str]
    allowed: bool

    def refuse(self) -> None:
        """Refuse to replace or drop finished features.

        Raises
        ------
        IdentityMismatch, StoreError
        """
        if self.allowed:
            return
        if self.old is not None:
            self._refuse_identities(self.old)
        if names := self._uncovered():
            raise StoreError(
                f"{self.target}: has features of {', '.join(names)} too, which are not configured now and would lack "
                "the new images: name them under features.backbones as well, or let them be dropped with --replace"
            )
        if names := self._unclaimed():
            raise StoreError(
                f"{self.folder.folder}: an interrupted run left finished features of {', '.join(names)}, which are not "
                "configured now, or not in this way: configure them as they were, or let them be dropped with --replace"
            )

    def refuse_unread(self) -> None:
        """Refuse to drop rows of images that are there and cannot be read now: a share may be away, a machine busy.

        Raises
        ------
        StoreError
        """
        reasons = {} if self.allowed else self._unread()
        if reasons:
            shown = ", ".join(f"{path} ({reason})" for path, reason in list(reasons.items())[:SHOWN])
            more = ", …" if len(reasons) > SHOWN else ""
            raise StoreError(
                f"{self.target}: {len(reasons)} of its images cannot be read now: {shown}{more}; mend that and run "
                "again, or let their rows be dropped with --replace"
            )

    def announce(self, listener: Listener) -> None:
        """Say what goes."""
        if self.old is not None:
            kept, contents = self.listing.sha256.keys(), set(self.listing.sha256.values())
            rows = zip(self.old.table.paths, self.old.table.sha256, strict=True)
            gone = [path for path, digest in rows if path not in kept and digest not in contents]
            unread = len({*self.listing.rejected, *self._below_unlisted()} & {*gone})
            if removed := len(gone) - unread:
                listener.say(f"  {counted(removed, 'image is', 'images are')} not there any more: {_rows(removed)}")
            if unread:
                listener.warn(f"{counted(unread, 'image')} that had features cannot be read: {_rows(unread)}")
            for item in self.located:
                info = self.old.matrices.get(item.backbone.name)
                if info is not None and info.identity != item.identity:
                    listener.say(f"  {item.backbone.name}: made otherwise, and replaced")
        for name in self._uncovered():
            listener.warn(f"the features of {name!r} are dropped: they are not configured any more, and images are new")
        for name in self._unclaimed():
            listener.warn(
                f"the features of {name!r} are dropped: an interrupted run finished them, and they are not wanted now"
            )

    def _refuse_identities(self, old: Store) -> None:
        for item in self.located:
            name = item.backbone.name
            if name not in old.matrices:
                continue
            stored = old.matrices[name].identity
            # A basis that is not fitted yet, or was by an interrupted run, belongs to --refit or to a matrix that
            # differs in more than that.
            bare = dataclasses.replace(item.identity, basis="")
            own = not item.identity.basis or self.folder.basis(bare.digest) is not None
            wanted = dataclasses.replace(item.identity, basis=stored.basis) if own else item.identity
            if differences := stored.differences(wanted):
                raise IdentityMismatch(
                    f"{self.target}: {name!r} was made otherwise ({'; '.join(differences)}): give the backbone another "
                    "name, or let its features be computed anew with --replace"
                )

    def _uncovered(self) -> list[str]:
        """Finished matrices that are not configured now and lack rows of new images."""
        if self.old is None or set(self.listing.sha256.values()) <= set(self.old.table.sha256):
            return []
        configured = {item.backbone.name for item in self.located} | self.absent
        return sorted(set(self.old.matrices) - configured)

    def _unclaimed(self) -> list[str]:
        """Backbones of finished blocks that neither the old store nor the next one has."""
        claimed = {item.identity.digest for item in self.located}
        claimed |= {info.identity.digest for info in self.old.matrices.values()} if self.old else set()
        left = {name for digest, name in self.folder.names().items() if digest not in claimed}
        return sorted(left - self.absent)

    def _unread(self) -> dict[str, str]:
        """Why images of the old store that may be what they were cannot be read."""
        if self.old is None:
            return {}
        reasons = self._below_unlisted()
        for path, digest in zip(self.old.table.paths, self.old.table.sha256, strict=True):
            if path in self.listing.rejected and self.hashes.get(path, digest) == digest:
                reasons[path] = self.listing.rejected[path]
        return dict(sorted(reasons.items()))

    def _below_unlisted(self) -> dict[str, str]:
        """Images of the old store below folders that cannot be listed now."""
        folders = {f"{name}/": reason for name, reason in self.listing.source.rejected.items()}
        paths = self.old.table.paths if self.old and folders else ()
        found = ((path, next((name for name in folders if path.startswith(name)), None)) for path in paths)
        return {path: folders[name] for path, name in found if name is not None}


def _rows(number: int) -> str:
    return "its row goes" if number == 1 else "their rows go"
