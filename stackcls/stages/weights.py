"""`stackcls weights`: fetch and verify what a configuration needs, for machines that will have no network."""

from dataclasses import dataclass
from pathlib import Path

from stackcls import backbones, loading, weightfiles
from stackcls.errors import WeightsError
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
    rows, wanted = {}, {}
    known = backbones.resolve(settings.features)
    for backbone in known:
        download = loading.download_for(backbone)
        path = weightfiles.verify(download) if download else backbone.file
        if download and path is None:
            if offline:
                raise weightfiles.missing(download)
            wanted[backbone.name] = download
        elif path is not None and not path.is_file():
            raise WeightsError(f"features.backbones: {backbone.name!r}: weights {path} do not exist")
        else:
            digest = digest_file(path) if path else f"random, seed {backbone.seed}"
            rows[backbone.name] = WeightsRow(backbone.name, path, digest, False)
    if wanted:
        for name, path in loading.fetch_all(wanted, settings.weights, listener).items():
            rows[name] = WeightsRow(name, path, digest_file(path) if path else "", True)
    return [rows[backbone.name] for backbone in known]
