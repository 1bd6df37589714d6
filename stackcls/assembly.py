"""Puts a feature file together from an older one and from finished blocks."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stackcls.backbones import Identity
from stackcls.blocks import BlockFolder
from stackcls.store import ImageTable, MatrixInfo, Store

ROWS_AT_ONCE = 4096


class Assembly:
    """Finds the features of each row, in the old store first, then in the blocks.

    Parameters
    ----------
    table : ImageTable
        The rows to be filled.
    old : Store or None
    folder : BlockFolder
    """

    def __init__(self, table: ImageTable, old: Store | None, folder: BlockFolder) -> None:
        self.old, self.folder = old, folder
        self.n_rows = len(table.paths)
        self.rows_of: dict[str, list[int]] = {}
        for row, digest in enumerate(table.sha256):
            self.rows_of.setdefault(digest, []).append(row)

    def info(self, identity: Identity) -> MatrixInfo:
        """Description of a matrix; where parts were made by different versions, the newest is named first."""
        made: list[Mapping[str, Any]] = []
        width = 0
        for block in self.folder.read(identity.digest):
            made.append(block.provenance[identity.digest])
            width = block.features[identity.digest].shape[1]
        made.reverse()
        if (stored := self._stored(identity.digest)) and self.old:
            before = dict(self.old.matrices[stored].provenance)
            made += [before, *before.pop("earlier", [])]
            width = self.old.matrices[stored].width
        earlier = [item for number, item in enumerate(made[1:], 1) if item not in made[:number]]
        return MatrixInfo(identity, {**made[0], "earlier": earlier} if earlier else made[0], width)

    def rows(self, digest: str) -> Iterator[tuple[NDArray[np.int64], NDArray[np.float32]]]:
        """Chunks of one matrix as (row numbers, features), each row once."""
        todo = np.ones(self.n_rows, dtype=bool)
        for hashes, features in self._pieces(digest):
            pairs = [(row, at) for at, sha in enumerate(hashes) for row in self.rows_of.get(sha, ()) if todo[row]]
            if pairs:
                rows, places = np.array(pairs, dtype=np.int64).T
                first = np.unique(rows, return_index=True)[1]
                todo[rows] = False
                for start in range(0, len(first), ROWS_AT_ONCE):  # one image may have very many rows
                    some = first[start : start + ROWS_AT_ONCE]
                    yield rows[some], features[places[some]]

    def _pieces(self, digest: str) -> Iterator[tuple[Sequence[str], NDArray[np.float32]]]:
        if (stored := self._stored(digest)) and self.old:
            for start, features in self.old.chunks(stored):
                yield self.old.table.sha256[start : start + len(features)], features
        for block in self.folder.read(digest):
            yield block.sha256, block.features[digest]

    def _stored(self, digest: str) -> str | None:
        found = self.old.matrices.items() if self.old else ()
        return next((name for name, info in found if info.identity.digest == digest), None)
