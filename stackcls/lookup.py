"""The images of a feature file, ready to be asked for those most similar to given ones."""

import hashlib
import json
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from types import TracebackType

import numpy as np
from numpy.typing import NDArray

from stackcls import buffers, images, spaces
from stackcls.engines import cache
from stackcls.errors import UnreadableImage
from stackcls.extraction import ImageInput, as_input
from stackcls.inspect import index, neighbours
from stackcls.inspect.index import Index
from stackcls.inspect.neighbours import Chunks, Features
from stackcls.listener import Listener, Silent
from stackcls.settings import Settings
from stackcls.spaces import Space
from stackcls.store import Store

LARGE = 100_000  # rows beyond which an index pays
HELD = 4 << 30  # bytes of rows that are kept in memory
PIECE = 8192
CANDIDATES = 5  # that the index is asked for, for each neighbour wanted
LEAST_CANDIDATES = 100


@dataclass(frozen=True)
class Neighbour:
    """One of the images of the feature file, and how similar it is (-1 to 1)."""

    path: str
    label: str | None
    similarity: float


@dataclass(frozen=True)
class Found:
    """What is similar to one image.

    Attributes
    ----------
    path : str
        As the user named it.
    neighbours : list of Neighbour
        The most similar first; never the image itself.
    error : str or None
        A sentence, for an image that could not be read.
    """

    path: str
    neighbours: list[Neighbour]
    error: str | None


class Neighbours:
    """A feature file, loaded once, that can be asked many times.

    Parameters
    ----------
    settings : Settings
    backbone : str, optional
        Whose features to compare; by default the mean of the similarities by all.
    stack : bool
        Compare what the stack thinks the images are instead.
    exact : bool
        Compare with all rows also where there are more than 100,000; else an approximate index is asked, if faiss is
        installed (`pip install 'stackcls[index]'`). It is built once and kept in the user's cache folder.
    hold : bool
        Keep the rows in memory where they take less than 4 GiB; else each question reads the feature file.
    listener : Listener, optional

    Raises
    ------
    ConfigError
        If the feature file has no such backbone, or one is named beside `stack`.
    StoreError, ModelError, IdentityMismatch
        If the feature file, or the stack and what it predicted, cannot be used together.

    Examples
    --------
    >>> import stackcls
    >>> settings = stackcls.read_settings("pipeline.yaml")        # doctest: +SKIP
    >>> with stackcls.Neighbours(settings) as loaded:             # doctest: +SKIP
    ...     print(loaded.find(["bird.jpg"], k=3)[0].neighbours)
    """

    def __init__(
        self,
        settings: Settings,
        *,
        backbone: str | None = None,
        stack: bool = False,
        exact: bool = False,
        hold: bool = True,
        listener: Listener | None = None,
    ) -> None:
        listener = listener or Silent()
        self.store = Store(settings.files.features)
        try:
            self.space: Space = spaces.choose(self.store, settings, backbone, stack, listener)
            self._limits = settings.features.limits
            self._n_rows = len(self.store.table.paths)
            self._places: dict[str, list[int]] = defaultdict(list)
            for row, digest in enumerate(self.store.table.sha256):
                self._places[digest].append(row)
            # The stack's rows are narrow, and in memory anyway.
            indexed = self._n_rows > LARGE and not exact and not stack
            self._index = self._open_index(listener) if indexed else None
            self._held = self._read_all() if hold and self._index is None else None
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> "Neighbours":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the feature file."""
        self.store.__exit__(None, None, None)

    def find(self, inputs: Sequence[str], k: int = 10) -> list[Found]:
        """Find the most similar images of each image.

        An image whose content is in the feature file has its features there; of others they are computed, in the way
        that the file says.

        Parameters
        ----------
        inputs : sequence of str
            Image files.
        k : int
            How many to find for each.

        Returns
        -------
        list of Found
            In input order; an image that cannot be read has its own.

        Raises
        ------
        IdentityMismatch, WeightsError
            If features of a new image would be made otherwise now, or a network's weights are not there.
        """
        queries, own, failures = self._queries(inputs)
        rows, similarities = self._nearest(queries, k + 1)
        result = []
        for number, path in enumerate(as_input(given).name for given in inputs):
            if number in failures:
                result.append(Found(path, [], failures[number].reason))
                continue
            itself = self._itself(path, own[number])
            result.append(Found(path, self._named(rows[number], similarities[number], itself, k), None))
        return result

    def chunks(self, first: int = 0) -> Chunks:
        """Unit rows of all images from `first` on."""
        if self._held is None:
            yield from spaces.chunks(self.space, self._n_rows, first)
            return
        for start in range(first, self._n_rows, PIECE):
            yield start, self._held[start : start + PIECE]

    def _read_all(self) -> Features | None:
        if self._n_rows * self.space.width * 4 > HELD:
            return None
        held: Features = buffers.zeros((self._n_rows, self.space.width))
        for start, rows in spaces.chunks(self.space, self._n_rows):
            held[start : start + len(rows)] = rows
        return held

    def _open_index(self, listener: Listener) -> Index | None:
        if not index.is_installed():
            listener.say(
                f"comparing with all {self._n_rows} images; `pip install 'stackcls[index]'` makes an approximate index "
                "of them once, which answers faster"
            )
            return None

        def make(folder: Path) -> cache.Meta:
            listener.say(f"making an index of {self._n_rows} images, once")
            index.build(lambda: spaces.chunks(self.space, self._n_rows), self._n_rows, self.space.width, folder)
            return {"rows": self._n_rows}

        said = [self.store.digest, self.space.name, index.COLUMNS, index.SAMPLED, version("faiss-cpu")]
        key = hashlib.sha256(json.dumps(said).encode()).hexdigest()[:40]
        folder, _ = cache.entry(f"index-{key}", make)
        if why := cache.complaint():
            listener.warn(f"the index is made anew every time: {why}; let {cache.VARIABLE} name another folder")
        return Index(folder)

    def _nearest(self, queries: Features, k: int) -> tuple[Sequence[NDArray[np.int64]], Sequence[Features]]:
        if self._index is None:
            return neighbours.nearest(queries, self.chunks(), k)  # type: ignore[return-value]
        rows, similarities = [], []
        wanted = min(max(LEAST_CANDIDATES, CANDIDATES * k), self._n_rows)
        for query, found in zip(queries, self._index.candidates(queries, wanted), strict=True):
            places, best = neighbours.nearest(query[None], [(0, self.space.rows(found))], k)
            rows.append(found[places[0]])
            similarities.append(best[0])
        return rows, similarities

    def _queries(self, inputs: Sequence[str]) -> tuple[Features, list[str | None], dict[int, UnreadableImage]]:
        """Unit rows of each image, its content hash, and which could not be read; their rows stay zero."""
        found = np.zeros((len(inputs), self.space.width), np.float32)
        failures: dict[int, UnreadableImage] = {}
        own: list[str | None] = []
        missing: dict[int, ImageInput] = {}
        for number, path in enumerate(inputs):
            try:
                given = as_input(path)
                assert not isinstance(given.content, np.ndarray)
                digest = images.hash_file(given.content, given.name, self._limits)
            except UnreadableImage as error:
                own.append(None)
                failures[number] = error
                continue
            own.append(digest)
            if digest in self._places:
                found[number] = self.space.rows(np.array(self._places[digest][:1]))[0]
            else:
                missing[number] = replace(given, sha256=digest)
        if missing:
            numbers = list(missing)
            for batch in self.space.compute(list(missing.values())):
                failures |= {numbers[position]: error for position, error in batch.failures.items()}
                found[[numbers[position] for position in batch.positions]] = batch.rows
        return found, own, failures

    def _itself(self, path: str, own: str | None) -> int | None:
        """The row of an image that is asked for; copies under other names are neighbours like any other."""
        whole = Path(path).absolute().as_posix()
        paths = self.store.table.paths
        return next((row for row in self._places.get(own or "", ()) if whole.endswith(f"/{paths[row]}")), None)

    def _named(self, rows: NDArray[np.int64], similarities: Features, itself: int | None, k: int) -> list[Neighbour]:
        table, found = self.store.table, []
        for row, similarity in zip(rows.tolist(), similarities.tolist(), strict=True):
            if row != itself:
                label = int(table.labels[row])
                name = table.class_names[label] if label >= 0 else None
                found.append(Neighbour(table.paths[row], name, float(similarity)))
        return found[:k]
