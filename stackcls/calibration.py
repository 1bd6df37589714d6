"""Fits the bases that feature matrices are made on, once, on a seeded sample of the user's own images."""

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from copy import copy
from dataclasses import replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from stackcls import bases, covariance, engines, extraction, loading, matrices, splits
from stackcls.backbones import PLAIN, Located
from stackcls.bases import COMPONENTS, RANGES, Basis
from stackcls.blocks import BlockFolder
from stackcls.errors import SourceError, UnreadableImage
from stackcls.extraction import ImageInput
from stackcls.listener import Listener
from stackcls.listing import Listing
from stackcls.sources import ImageEntry
from stackcls.store import Store
from stackcls.views import Frame

SAMPLE_SIZE = 64
DESCRIBED = 256  # for principal components, which take more: thousands of local descriptors
AHEAD = 8
UPPER_HALF = 0.5  # shares that are held out are drawn from the lower end


def known_bases(
    located: Sequence[Located], old: Store | None, folder: BlockFolder, refit: bool, listener: Listener
) -> tuple[Located, ...]:
    """Give each backbone the basis that it has: of an interrupted run first, then of the store, its own name first.

    Parameters
    ----------
    located : sequence of Located
    old : Store or None
    folder : BlockFolder
        Holds a basis only where a run that fitted it was interrupted, which goes on with it.
    refit : bool
        Whether to pass over those of the store.
    listener : Listener
    """
    stored: dict[str, dict[str, Basis]] = {}
    for name, info in (old.matrices if old and not refit else {}).items():
        if info.basis is not None:
            stored.setdefault(replace(info.identity, basis="").digest, {})[name] = info.basis
    placed, begun = [], []
    for item in located:
        key = item.identity.digest
        same, own = stored.get(key, {}), folder.basis(key)
        if own is not None and _needs(item):
            begun.append(item.with_basis(own))
        basis = own or same.get(item.backbone.name) or next(iter(same.values()), None)
        placed.append(item.with_basis(basis) if basis and _needs(item) else item)
    for words in dict.fromkeys(_words(item) for item in begun):
        names = ", ".join(item.backbone.name for item in begun if _words(item) == words)
        listener.say(
            f"going on with the {words} that an interrupted run fitted for {names}; delete {folder.folder} to drop them"
        )
    return tuple(placed)


def announce(located: Sequence[Located], listener: Listener) -> None:
    """Say, for a dry run, what would be fitted first."""
    for kind in (RANGES, COMPONENTS):
        if names := ", ".join(item.backbone.name for item in located if kind in _missing(item)):
            listener.say(f"would first fit {bases.WORDS[kind]} of {names} on up to {_size(kind)} of the images")


def fit_bases(
    located: Sequence[Located],
    listing: Listing,
    engine: str,
    seed: int,
    folder: BlockFolder,
    listener: Listener,
    holdout: Literal["split"] | float | None = None,
) -> tuple[Located, ...]:
    """Fit the bases that are still missing, and keep them beside the blocks.

    Parameters
    ----------
    located : sequence of Located
    listing : Listing
        The images to draw the sample from; those of a split that is kept back are not drawn.
    engine : str
        As configured.
    seed : int
        Of the sample.
    folder : BlockFolder
    listener : Listener
    holdout : 'split', float or None
        As configured: what it takes, and exact copies of that, are not drawn.
    """
    missing = [item for item in located if _needs(item)]
    if not missing:
        return tuple(located)
    sample = _Sample(listing, seed, holdout, max(_size(kind) for item in missing for kind in _missing(item)))
    fitted: dict[str, Basis] = {}

    def fit(kind: str, by: Callable[..., Iterator[Basis]]) -> None:
        items = [item for item in missing if kind in _missing(item)]
        if not items:
            return
        some = sample.first(_size(kind))
        listener.say(f"fitting {bases.WORDS[kind]} on {len(some.names)} of the images; they are kept until --refit")
        before = [fitted.get(item.backbone.name) for item in items]
        # Components are of what the 8-bit network sees, where it is one.
        ready = [item.with_basis(basis) if basis else item for item, basis in zip(items, before, strict=True)]
        for item, first, basis in zip(items, before, by(ready, some, engine, listener), strict=True):
            last = basis.fitted_on(some.names)
            whole = fitted[item.backbone.name] = bases.joined([first, last]) if first else last
            if kind == _missing(item)[-1]:
                folder.keep_basis(item.identity.digest, whole)

    fit(RANGES, _fit_ranges)
    fit(COMPONENTS, _fit_components)
    return tuple(
        item.with_basis(fitted[item.backbone.name]) if item.backbone.name in fitted else item for item in located
    )


def _fit_ranges(located: Sequence[Located], sample: "_Sample", engine: str, listener: Listener) -> Iterator[Basis]:
    chosen = engines.choose(engine, located[0].identity.precision).engine
    with listener.track("calibrate", len(located), "backbone") as advance:
        for item in located:
            yield chosen.calibrate(item, sample.names, sample.pixels)
            advance(1)


def _fit_components(located: Sequence[Located], sample: "_Sample", engine: str, listener: Listener) -> Iterator[Basis]:
    """Principal components of what each network sees; in batches of one size, whatever size is configured."""
    plain = [replace(item, backbone=replace(item.backbone, pooling=PLAIN)) for item in located]
    prepared = loading.prepare(plain, engine, AHEAD, AHEAD, listener, announce=False)
    seen = {name: matrices.bare(one.network) for name, one in prepared.extractors.items()}
    found = {name: covariance.Fit(name) for name in seen}
    with listener.track("components", len(sample.inputs), "image") as advance:
        for batch in extraction.extract(sample.inputs, seen, AHEAD, sample.limits):
            for error in batch.failures.values():
                raise error
            for name, maps in batch.features.items():
                found[name].add(maps)
            advance(len(batch.positions))
    for item in located:
        yield found[item.backbone.name].basis()


def _size(kind: str) -> int:
    return SAMPLE_SIZE if kind == RANGES else DESCRIBED


def _missing(item: Located) -> tuple[str, ...]:
    """Kinds of basis that a backbone's matrix still needs."""
    return bases.needed(item.identity.precision, item.identity.pooling) if item.basis is None else ()


def _needs(item: Located) -> bool:
    return bool(_missing(item))


def _words(item: Located) -> str:
    return item.basis.words if item.basis else ""


class _Sample:
    """Images drawn by a hash of seed and content, from those that no hold-out of up to half the images would take."""

    def __init__(self, listing: Listing, seed: int, holdout: Literal["split"] | float | None, size: int) -> None:
        share = holdout if isinstance(holdout, float) else 0.0
        held = {
            listing.sha256[entry.path]
            for entry in listing.kept
            if splits.is_kept_back(entry.split) or splits.place(entry.group or entry.path) < share
        }
        entries = [entry for entry in listing.kept if listing.sha256[entry.path] not in held] or listing.kept
        kept = [entry for entry in entries if splits.place(entry.group or entry.path) >= UPPER_HALF]
        entries = kept if len(kept) >= SAMPLE_SIZE else entries
        by_content: Mapping[str, ImageEntry] = {listing.sha256[entry.path]: entry for entry in entries}
        order = sorted(by_content, key=lambda digest: hashlib.sha256(f"{seed} {digest}".encode()).hexdigest())
        self.limits = listing.limits
        self.inputs: list[ImageInput] = []
        inputs = [ImageInput(by_content[item].path, listing.source.locate(by_content[item]), item) for item in order]
        for item, loaded in zip(inputs, extraction.load(inputs, (), AHEAD, listing.limits), strict=True):
            if not isinstance(loaded, UnreadableImage):
                self.inputs.append(item)
            if len(self.inputs) == size:
                break
        if not self.inputs:
            raise SourceError("images: none can be read, so there is nothing to fit a basis on")

    @property
    def names(self) -> list[str]:
        """Content hashes."""
        return [item.sha256 or "" for item in self.inputs]

    def first(self, count: int) -> "_Sample":
        """The first images of the sample."""
        fewer = copy(self)
        fewer.inputs = self.inputs[:count]
        return fewer

    def pixels(self, size: int) -> NDArray[np.uint8]:
        """The sample as RGB images, shape (n, size, size, 3)."""
        whole, pixels = Frame(size), []
        for loaded in extraction.load(self.inputs, (whole,), AHEAD, self.limits):
            if isinstance(loaded, UnreadableImage):
                raise loaded
            pixels.append(loaded[whole])
        return np.stack(pixels)
