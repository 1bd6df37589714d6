"""Whether a feature file or a model is sound: what is wrong with it, by name, and in short what it is."""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from stackcls import damage, loading, modelfile, safemodel
from stackcls.backbones import Identity
from stackcls.damage import Finding
from stackcls.errors import ModelError, StoreDamaged, StoreError, WeightsError
from stackcls.listener import Listener
from stackcls.printable import counted
from stackcls.safemodel import Origin
from stackcls.settings import VIEWS
from stackcls.store import Store
from stackcls.storeformat import read_header


@dataclass(frozen=True)
class Checked:
    """One file after a check.

    Attributes
    ----------
    path : str
    kind : str
        `feature file`, `model`, or `unknown`.
    problems : tuple of Finding
        What makes it unfit for use.
    remarks : tuple of Finding
        What its user should know; it works all the same.
    facts : mapping
        What it is, for a reader.
    """

    path: str
    kind: str
    problems: tuple[Finding, ...]
    remarks: tuple[Finding, ...]
    facts: Mapping[str, Any]

    @property
    def sound(self) -> bool:
        """Whether nothing is wrong with it."""
        return not self.problems


@dataclass(frozen=True)
class _Described:
    """What both formats of a model say of it."""

    classes: Sequence[str]
    identities: Mapping[str, Identity]
    hints: Mapping[str, Sequence[str]]
    origin: Origin
    recipe: str
    created_with: Mapping[str, str]
    doubt: str | None = None  # of whether all beside it is of the same fit


def check_store(path: Path, listener: Listener) -> Checked:
    """Check a feature file: its checksum, its table of images and descriptions, and every matrix's values."""
    try:
        store = Store(path)
    except StoreError as error:
        problems = [Finding("file", _without(path, error))]
        if isinstance(error, StoreDamaged) and path.stat().st_size:
            problems += damage.find(path)
        return Checked(str(path), "feature file", tuple(problems), (), {})
    with store:
        problems = list(_check_matrices(store, listener))
        return Checked(str(path), "feature file", tuple(problems), (), _store_facts(store))


def check_model(path: Path) -> Checked:
    """Check a model of either format, and the weights that it needs; nothing of a `model.joblib` is executed."""
    try:
        described = _describe(path)
    except ModelError as error:
        return Checked(str(path), "model", (Finding("file", _without(path, error)),), (), {})
    problems = []
    for name, identity in described.identities.items():
        try:
            loading.find_recorded(name, identity, described.hints[name], path.absolute().parent)
        except WeightsError as error:
            problems.append(Finding(f"backbones/{name}", str(error)))
    remarks = [Finding("model.json", described.doubt)] if described.doubt else []
    remarks += _compare_with_store(path, described)
    if path.suffix != safemodel.SUFFIX:
        remarks.append(Finding("file", "opening it can run any code: do so only if you trust who made it"))
    return Checked(str(path), "model", tuple(problems), tuple(remarks), _model_facts(described))


def _without(path: Path, error: Exception) -> str:
    return str(error).removeprefix(f"{path}: ")


def _check_matrices(store: Store, listener: Listener) -> Iterator[Finding]:
    total = len(store.matrices) * len(store.table.paths)
    with listener.track("check", total, "row") as advance:
        for name in store.matrices:
            where, state, bad = f"features/{name}", hashlib.sha256(), 0
            first = ""
            try:
                for start, rows in store.chunks(name):
                    state.update(rows.tobytes())
                    strange = np.flatnonzero(~np.isfinite(rows).all(axis=1))
                    first = first or (store.table.paths[start + strange[0]] if strange.size else "")
                    bad += strange.size
                    advance(len(rows))
            except OSError as error:
                yield Finding(where, f"cannot be read: {error}")
                continue
            if state.hexdigest() != store.digests[name]:
                yield Finding(where, "its SHA-256 does not hold: its values are not those that were written")
            if bad:
                yield Finding(where, f"NaN or infinite in {counted(bad, 'row')}, first at {first!r}")


def _store_facts(store: Store) -> dict[str, Any]:
    table = store.table
    return {
        "format": "feature file, version 1",
        "images": len(table.paths),
        "classes": len(table.class_names),
        "without a label": int((table.labels < 0).sum()),
        "rejected": len(table.rejected),
        "source": table.source,
        "backbones": {
            name: {"features": info.width, **_made(info.identity)}
            | {key: value for key, value in info.provenance.items() if isinstance(value, str)}
            for name, info in store.matrices.items()
        },
        "made with": dict(store.created_with),
    }


def _made(identity: Identity) -> dict[str, str]:
    """What a reader wants to know of how a matrix was made."""
    views = {} if identity.views == VIEWS[0] else {"views": identity.views}
    return {"precision": identity.precision, "pooling": identity.pooling, **views}


def _describe(path: Path) -> _Described:
    """What a model says of itself; raise where it is not sound."""
    if path.suffix == safemodel.SUFFIX:
        description, model = safemodel.open_described(path)
        doubt = modelfile.check_companion(path)
        return _Described(
            doubt=doubt,
            classes=description.classes,
            identities={item.backbone.name: item.identity for item in model.backbones},
            hints={item.backbone.name: item.hints for item in model.backbones},
            origin=description.origin,
            recipe=description.stack.recipe,
            created_with=description.created_with,
        )
    card = modelfile.read_card(path)
    modelfile.check_card(path, card)
    return _Described(
        classes=card.classes,
        identities={name: item.identity for name, item in card.backbones.items()},
        hints={name: item.weights for name, item in card.backbones.items()},
        origin=Origin(card.n_images, card.scores, card.store, card.matrices),
        recipe=card.recipe,
        created_with=card.created_with,
    )


def _compare_with_store(path: Path, described: _Described) -> Iterator[Finding]:
    """Say whether the features that lie beside the model are still those that it was fitted on."""
    file = path.with_name("features.h5")
    if not file.is_file() or not described.origin.store:
        return
    try:
        if read_header(file) == described.origin.store:
            return
        with Store(file) as store:
            changes = list(_changes(store, described))
    except StoreError as error:
        yield Finding(file.name, f"cannot be compared with the model: {_without(file, error)}")
        return
    what = "; ".join(changes) or "its images, labels or other matrices have changed since"
    remedy = "the model predicts as it was fitted; `stackcls fit` fits a new one"
    yield Finding(file.name, f"is not what the model was fitted on: {what}; {remedy}")


def _changes(store: Store, described: _Described) -> Iterator[str]:
    for name, identity in described.identities.items():
        if name not in store.matrices:
            yield f"{name} is no longer there"
        elif differences := identity.differences(store.matrices[name].identity):
            yield f"{name} was made otherwise ({'; '.join(differences)})"
        elif store.digests[name] != described.origin.matrices.get(name):
            yield f"{name} has other rows or values"


def _model_facts(described: _Described) -> dict[str, Any]:
    return {
        "format": "model, version 1",
        "fitted on": f"{described.origin.n_images} images",
        "classes": len(described.classes),
        "recipe": described.recipe,
        "accuracy in cross-validation": {"stack": described.origin.scores.get("stack")},
        "backbones": {
            name: {**_made(identity), "weights": identity.weights} for name, identity in described.identities.items()
        },
        "made with": dict(described.created_with),
    }
