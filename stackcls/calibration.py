"""Fits the bases that feature matrices are made on, once, on a seeded sample of the user's own images."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from stackcls import engines, extraction, splits
from stackcls.backbones import Located
from stackcls.bases import Basis
from stackcls.blocks import BlockFolder
from stackcls.errors import SourceError, UnreadableImage
from stackcls.extraction import ImageInput
from stackcls.listener import Listener
from stackcls.listing import Listing
from stackcls.sources import ImageEntry
from stackcls.store import Store

SAMPLE_SIZE = 64
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
            begun.append(item.backbone.name)
        basis = own or same.get(item.backbone.name) or next(iter(same.values()), None)
        placed.append(item.with_basis(basis) if basis and _needs(item) else item)
    if begun:
        listener.say(
            f"going on with the 8-bit ranges that an interrupted run fitted for {', '.join(begun)}; "
            f"delete {folder.folder} to drop them"
        )
    return tuple(placed)


def announce(located: Sequence[Located], listener: Listener) -> None:
    """Say, for a dry run, that ranges would be fitted first."""
    if missing := [item.backbone.name for item in located if _needs(item)]:
        listener.say(f"would first fit 8-bit ranges of {', '.join(missing)} on up to {SAMPLE_SIZE} of the images")


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
    chosen = engines.choose(engine, missing[0].identity.precision).engine
    sample = _Sample(listing, seed, holdout)
    fitted: dict[str, Located] = {}
    listener.say(f"fitting 8-bit ranges on {len(sample.names)} of the images; they are kept until --refit")
    with listener.track("calibrate", len(missing), "backbone") as advance:
        for item in missing:
            basis = chosen.calibrate(item, sample.names, sample.pixels).fitted_on(sample.names)
            folder.keep_basis(item.identity.digest, basis)
            fitted[item.backbone.name] = item.with_basis(basis)
            advance(1)
    return tuple(fitted.get(item.backbone.name, item) for item in located)


def _needs(item: Located) -> bool:
    return item.identity.precision == "int8" and item.basis is None


class _Sample:
    """Images drawn by a hash of seed and content, from those that no hold-out of up to half the images would take."""

    def __init__(self, listing: Listing, seed: int, holdout: Literal["split"] | float | None) -> None:
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
        self._limits = listing.limits
        self._inputs: list[ImageInput] = []
        inputs = [ImageInput(by_content[item].path, listing.source.locate(by_content[item]), item) for item in order]
        for item, loaded in zip(inputs, extraction.load(inputs, (), AHEAD, listing.limits), strict=True):
            if not isinstance(loaded, UnreadableImage):
                self._inputs.append(item)
            if len(self._inputs) == SAMPLE_SIZE:
                break
        self.names = [item.sha256 or "" for item in self._inputs]
        if not self.names:
            raise SourceError("images: none can be read, so there is nothing to fit 8-bit ranges on")

    def pixels(self, size: int) -> NDArray[np.uint8]:
        """The sample as RGB images, shape (n, size, size, 3)."""
        pixels = []
        for loaded in extraction.load(self._inputs, (size,), AHEAD, self._limits):
            if isinstance(loaded, UnreadableImage):
                raise loaded
            pixels.append(loaded[size])
        return np.stack(pixels)
