"""`stackcls weights`: fetch and verify what a configuration needs, for machines that will have no network."""

from dataclasses import dataclass
from pathlib import Path

from stackcls import backbones, loading, weightfiles
from stackcls.files import digest_file
from stackcls.listener import Listener, Silent
from stackcls.settings import Settings


@dataclass(frozen=True)
class WeightsRow:
    """One backbone's weights: where they are, their SHA-256, and whether they were fetched just now."""

    name: str
    path: Path | None
    sha256: str
    fetched: bool


def run(settings: Settings, *, offline: bool = False, listener: Listener | None = None) -> list[WeightsRow]:
    """Fetch what is missing, and verify what is there.

    Raises
    ------
    WeightsError
        If a file is missing and cannot be fetched, or is not the one that Keras names.
    """
    listener = listener or Silent()
    known = backbones.resolve(settings.features)
    wanted = loading.absent(known)
    if wanted and offline:
        raise weightfiles.missing(next(iter(wanted.values())))
    loading.fetch_all(wanted, settings.weights, listener)
    rows = []
    for backbone in known:
        path = loading.find(backbone)
        digest = digest_file(path) if path else f"random, seed {backbone.seed}"
        rows.append(WeightsRow(backbone.name, path, digest, backbone.name in wanted))
    return rows
