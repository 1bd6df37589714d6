"""Finished pieces of an extraction that has not ended: one file per block, whole or absent, found again by content."""

import hashlib
import io
import json
import shutil
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stackcls.bases import Basis
from stackcls.files import replacing

Features = NDArray[np.float32]


@dataclass(frozen=True)
class Block:
    """Features of some images, by the digest of the identity they were made with.

    Attributes
    ----------
    sha256 : tuple of str
        Content hashes of the images, one per row.
    features : mapping of str to ndarray of float32, shape (rows, width)
    provenance : mapping of str to mapping
        What made each matrix, by the same digests.
    """

    sha256: tuple[str, ...]
    features: Mapping[str, Features]
    provenance: Mapping[str, Mapping[str, Any]]


class BlockFolder:
    """The blocks of one run.

    Parameters
    ----------
    folder : Path
        Created with the first block, removed by `clear`.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def add(self, block: Block) -> None:
        """Write one block, so that it outlives this process."""
        meta = json.dumps({"sha256": block.sha256, "provenance": block.provenance}, sort_keys=True).encode()
        name = hashlib.sha256(meta).hexdigest()[:32]
        buffer = io.BytesIO()
        arrays: dict[str, Any] = {"meta": np.frombuffer(meta, dtype=np.uint8), **block.features}
        np.savez(buffer, **arrays)
        with replacing(self.folder / f"{name}.npz") as temporary:
            temporary.write_bytes(buffer.getbuffer())

    def read(self, only: str | None = None) -> Iterator[Block]:
        """Yield every block that is whole (the archive's checksums hold).

        Parameters
        ----------
        only : str, optional
            Read the features of this identity alone, and pass over blocks that have none.
        """
        for path in self._files():
            try:
                with zipfile.ZipFile(path) as archive:
                    meta = json.loads(member(archive, "meta").tobytes())
                    wanted = {only} & set(meta["provenance"]) if only else set(meta["provenance"])
                    features = {key: member(archive, key) for key in wanted}
                    block = Block(tuple(meta["sha256"]), features, meta["provenance"])
            except Exception:  # noqa: BLE001, S112  (damage raises nearly every type; it is computed again)
                continue
            if wanted:
                yield block

    def names(self) -> dict[str, str]:
        """What the backbones of all features are called in the configuration, by the digest of their identity."""
        found: dict[str, str] = {}
        for path in self._files():
            with suppress(Exception), zipfile.ZipFile(path) as archive:  # as in `read`
                made_by = json.loads(member(archive, "meta").tobytes())["provenance"]
                found |= {digest: str(item["configured"]["name"]) for digest, item in made_by.items()}
        return found

    def __len__(self) -> int:
        """Return the number of blocks, whole or not."""
        return len(self._files())

    def _files(self) -> list[Path]:
        return sorted(self.folder.glob("*.npz"))

    def keep_basis(self, key: str, basis: Basis) -> None:
        """Write down a basis fitted by this run, so that a run that goes on from its blocks uses the same."""
        said = json.dumps({"kind": basis.kind, "layout": basis.layout}).encode()
        buffer = io.BytesIO()
        np.savez(buffer, said=np.frombuffer(said, dtype=np.uint8), values=basis.values)
        with replacing(self.folder / f"{key}.basis") as temporary:
            temporary.write_bytes(buffer.getbuffer())

    def basis(self, key: str) -> Basis | None:
        """The basis written down under a key, if there is one and it is whole."""
        try:
            with zipfile.ZipFile(self.folder / f"{key}.basis") as archive:
                said = json.loads(member(archive, "said").tobytes())
                return Basis(said["kind"], said["layout"], member(archive, "values"))
        except Exception:  # noqa: BLE001  (as for blocks: it is fitted again)
            return None

    def clear(self) -> None:
        """Remove all blocks and what a killed writer left behind; what cannot be removed now is by the next run."""
        shutil.rmtree(self.folder, ignore_errors=True)


def member(archive: zipfile.ZipFile, key: str) -> NDArray[Any]:
    """Read an array of an `.npz` file; all of its bytes first, since checksums are compared at a member's end alone."""
    return np.lib.format.read_array(io.BytesIO(archive.read(f"{key}.npy")), allow_pickle=False)
