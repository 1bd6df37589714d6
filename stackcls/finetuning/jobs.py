"""What a fine-tuning is to do: which network, from which weights, on which images, under which name."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stackcls import backbones, loading
from stackcls.artifacts import Finetuned
from stackcls.backbones import BUNDLED, Located, architectures
from stackcls.errors import ConfigError
from stackcls.finetuning.plan import Plan, draw
from stackcls.listener import Listener
from stackcls.listing import Listing
from stackcls.seen import Hashes
from stackcls.settings import BackboneEntry, FinetuneSettings, Settings

NO_FILES = frozenset({"imagenet", "random"})
HEAD, BACKBONE = "head", "backbone"  # what `finetune.multipliers` can name beside layers
WAYS = ("scratch", "head", "tuned")  # of a comparison


@dataclass(frozen=True)
class Job:
    """One run, with nothing left open.

    Attributes
    ----------
    name, backbone : str
        Of the result, and what it is made from.
    located : Located
    fresh : bool
        Whether the weights of a saved model are to be replaced by random ones.
    settings : Settings
    listing : Listing
    plan : Plan
    """

    name: str
    backbone: str
    located: Located
    fresh: bool
    settings: Settings
    listing: Listing
    plan: Plan

    @property
    def tuning(self) -> FinetuneSettings:
        """How it learns."""
        return self.settings.finetune

    @property
    def files(self) -> Finetuned:
        """What it writes."""
        return self.settings.files.finetuned(self.name)

    @property
    def start(self) -> str:
        """`imagenet`, `random`, or a file's name."""
        weights = self.located.backbone.weights
        return "random" if self.fresh else weights if weights in NO_FILES else Path(weights).name

    @property
    def names_layers(self) -> bool:
        """Whether the settings name layers, of which only the network itself knows whether it has them."""
        return bool({self.tuning.unfreeze, *self.tuning.multipliers} - {"all", "none", HEAD, BACKBONE})

    @property
    def digest(self) -> str:
        """SHA-256 of all that decides the outcome."""
        said = self.tuning.model_dump(mode="json", exclude={"memory", "start"})
        return self.plan.digest(self.listing, {**said, "from": self.located.identity.to_json(), "fresh": self.fresh})


def make(
    settings: Settings,
    backbone: str,
    name: str | None,
    listing: Listing,
    offline: bool,
    listener: Listener,
    before: Hashes | None = None,
) -> Job:
    """Settle what is open: name, network, weights, images; raise `ConfigError` or `WeightsError` where that fails.

    What another network saw `before` is in the plan as if this one had seen it.
    """
    tuning = settings.finetune
    entry, fresh = _entry(settings, backbone)
    way = "head" if tuning.unfreeze == "none" else "scratch" if tuning.start == "random" else "tuned"
    name = name or f"{backbone}-{way}"
    try:
        BackboneEntry(name=name)
    except ValueError:
        raise ConfigError(
            f"--name {name!r}: cannot be a backbone's name: no '/', no '+', printable, and not 'stack'"
        ) from None
    _check_free(name, settings)
    # What is made of the network's last feature map later does not concern it.
    entry = entry.model_copy(update={"pooling": None, "views": None})
    as_it_is = {"precision": "float32", "pooling": ("average",), "views": ("original",)}
    chosen = settings.features.model_copy(update={"backbones": (entry,), **as_it_is})
    settings = settings.model_copy(update={"features": chosen})
    located = loading.locate(backbones.resolve(chosen), settings, offline, listener)[0]
    before = before if fresh or located.seen is None else located.seen
    return Job(name, backbone, located, fresh, settings, listing, draw(listing, tuning, settings.cv.holdout, before))


def _check_free(name: str, settings: Settings) -> None:
    """Refuse a name that means another backbone; an entry that is this very result may have it."""
    ours = settings.files.finetuned(name).model.resolve()
    if name in (*architectures(), *BUNDLED):
        raise ConfigError(
            f"--name {name!r}: is the name of a known backbone (`stackcls backbones`), which would stand for either; "
            "give another --name"
        )
    for entry in settings.features.backbones:
        if entry.name == name and (entry.model is None or entry.model.resolve() != ours):
            raise ConfigError(
                f"--name {name!r}: features.backbones has another backbone of that name, so that it would stand for "
                "either; give another --name"
            )


def make_all(
    settings: Settings, backbone: str, name: str | None, listing: Listing, offline: bool, listener: Listener
) -> list[Job]:
    """The same for each way of a comparison."""
    tuning = settings.finetune
    if tuning.start == "random" or tuning.unfreeze == "none":
        raise ConfigError(
            f"--compare: trains from scratch, the head alone, and from finetune.start {tuning.start!r} with "
            f"finetune.unfreeze {tuning.unfreeze!r}, which is one of these; leave out --from random and --head-only"
        )
    before = make(settings, backbone, name, listing, offline, listener).located.seen  # so that all have the same images
    return [
        make(
            settings.model_copy(update={"finetune": tuning.model_copy(update=_changes(tuning, way))}),
            backbone,
            f"{name or backbone}-{way}",
            listing,
            offline,
            listener,
            before,
        )
        for way in WAYS
    ]


def _changes(tuning: FinetuneSettings, way: str) -> dict[str, Any]:
    """In what one way of a comparison differs from the settings, which are those of the fine-tuning."""
    if way == "scratch":
        # How much slower than the head a network learns that has learned before says nothing of one that has not.
        head = {name: value for name, value in tuning.multipliers.items() if name == HEAD}
        return {"start": "random", "unfreeze": "all", "multipliers": head}
    return {"unfreeze": "none"} if way == "head" else {}


def _entry(settings: Settings, backbone: str) -> tuple[BackboneEntry, bool]:
    """Which network to begin with, and whether its weights are to be replaced by random ones."""
    start = settings.finetune.start
    named = {entry.name: entry for entry in settings.features.backbones}
    try:
        entry = named.get(backbone) or BackboneEntry(name=backbone)
    except ValueError:
        raise ConfigError(f"{backbone!r} is no backbone; `stackcls backbones` lists the names") from None
    is_bundled = (entry.architecture or entry.name) in BUNDLED and entry.model is None
    if start is None:
        return entry, False
    if start not in NO_FILES and not Path(start).is_file():
        raise ConfigError(f"finetune.start: {start!r} is not imagenet, random or a file; give one of these (--from)")
    if entry.model is None and not is_bundled:
        return entry.model_copy(update={"weights": start, "seed": settings.finetune.seed}), False
    if start == "imagenet":
        raise ConfigError(f"finetune.start: {backbone!r} is a saved model, of which there are no ImageNet weights")
    if start == "random":
        return entry, True
    said = entry.model_dump(exclude_unset=True, exclude={"architecture"})
    try:
        return BackboneEntry.model_validate({"preprocessing": "tf", **said, "model": start}), False
    except ValueError:
        raise ConfigError(f"finetune.start: {start!r} is no .keras file, which {backbone!r} needs (--from)") from None
