"""What each backbone costs per image, as measured here, in the user's cache folder.

It is no part of a feature file: the same images would then give another file in each run.
"""

import contextlib
import json
import time
from collections.abc import Mapping, Sequence
from typing import Any

from stackcls.engines import Extractor
from stackcls.engines.cache import cache_folder
from stackcls.errors import WriteError
from stackcls.files import replacing

FILE = "seconds_per_image.json"
KEPT = 1000  # backbones, those measured last

Key = tuple[str, str]  # digest of the identity, engine


class Timed:
    """An extractor that notes how long its full batches take, but for the first one, in which it warms up.

    Parameters
    ----------
    extractor : Extractor
    batch_size : int
        A batch that is not full is padded, and says nothing of an image.
    """

    def __init__(self, extractor: Extractor, batch_size: int) -> None:
        self._extractor, self._batch_size = extractor, batch_size
        self._batches, self._seconds, self._warm = 0, 0.0, False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._extractor, name)

    def __call__(self, images: Any) -> Any:
        """Run one batch."""
        start = time.perf_counter()
        features = self._extractor(images)
        if self._warm and len(images) == self._batch_size:
            self._seconds += time.perf_counter() - start
            self._batches += 1
        self._warm = True
        return features

    @property
    def seconds_per_image(self) -> float | None:
        """Mean over what was timed; None where nothing was."""
        return self._seconds / (self._batches * self._batch_size) if self._batches else None


def keep(measured: Mapping[Key, float | None]) -> None:
    """Note what was measured; where the folder cannot be written nothing is noted."""
    new = {" ".join(key): seconds for key, seconds in measured.items() if seconds is not None}
    if not new:
        return
    noted = {name: seconds for name, seconds in _read().items() if name not in new} | new
    file = cache_folder() / FILE
    with contextlib.suppress(OSError, WriteError), replacing(file) as temporary:
        temporary.write_text(json.dumps(dict(list(noted.items())[-KEPT:]), indent=1), "utf-8")


def known(keys: Sequence[Key]) -> list[float | None]:
    """What was measured last, None where nothing was or what was noted makes no sense."""
    noted = _read()
    found = [noted.get(" ".join(key)) for key in keys]
    return [item if isinstance(item, float) and 0 < item < float("inf") else None for item in found]


def _read() -> dict[str, Any]:
    try:
        noted = json.loads((cache_folder() / FILE).read_text("utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return noted if isinstance(noted, dict) else {}
