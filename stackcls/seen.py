"""Which images a fine-tuned network saw: a record that is part of its `.keras` file, and goes wherever the file goes.

It lies in the archive's `metadata.json`, so that the file's SHA-256, by which feature files and models name a network,
is one of both. Opening and saving such a file with Keras loses the record; the names of the network and of its input
then say that there was one, and the file is refused: Keras keeps the one where the network is saved as it is or is a
part of another, and the other where a model is made of its tensors (cut off, or with layers on top). The names are in
files of weights alone too (`.weights.h5`, by itself or taken out of the archive), which cannot have a record.
"""

import json
import re
import zipfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from stackcls.errors import WeightsError

SUFFIX = ".keras"
MEMBER, CONFIG = "metadata.json", "config.json"
KEY = "stackcls_seen"
MARK = "finetuned_by_stackcls_"
PIECE = 2**20  # bytes of a file of weights that are searched at once
LONGEST = 2**28  # bytes of a member that is looked at: twelve million images
DIGITS = 16

Hashes = NDArray[np.uint64]


def short_hashes(sha256: Sequence[str]) -> Hashes:
    """First 64 bits of hexadecimal hashes: enough to tell images apart, an eighth of the space."""
    return np.array([int(digest[:DIGITS], 16) for digest in sha256], dtype=np.uint64)


def mark(token: str) -> str:
    """Name for a network whose file will have a record; `token` is of 16 hexadecimal digits, and new for each."""
    return f"{MARK}{token}"


def write(saved: Path, target: Path, hashes: Hashes, token: str) -> None:
    """Copy a saved Keras model with a record of the images that it saw.

    Parameters
    ----------
    saved : Path
        As Keras wrote it, of a network whose name is `mark(token)`.
    target : Path
        The file to be written.
    hashes : ndarray of uint64
        Of the images' content.
    token : str
    """
    listed = [f"{value:0{DIGITS}x}" for value in np.unique(hashes).tolist()]
    with zipfile.ZipFile(saved) as old, zipfile.ZipFile(target, "w") as new:
        for item in old.infolist():
            data = old.read(item)
            if item.filename == MEMBER:
                version = json.loads(data).get("keras_version", "")
                data = json.dumps({"keras_version": version, KEY: {"token": token, "images": listed}}).encode()
            # Without times: the same network and images give the same file.
            new.writestr(zipfile.ZipInfo(item.filename), data)


def read(path: Path) -> Hashes | None:
    """Which images a network saw, by content hash; None for a file that `finetune` did not make.

    Raises
    ------
    WeightsError
        If it is, and its record is lost or damaged, or it has the weights of one that is, alone.
    """
    if path.suffix.lower() != SUFFIX:
        if _is_marked(path):
            raise _lost(path)
        return None
    try:
        with zipfile.ZipFile(path) as archive:
            tokens = set(re.findall(rf"{MARK}([0-9a-f]{{{DIGITS}}})", _member(archive, CONFIG)))
            said = json.loads(_member(archive, MEMBER) or "{}").get(KEY)
    except (OSError, zipfile.BadZipFile, ValueError, AttributeError, RuntimeError, NotImplementedError):
        return None  # no model, as whoever opens it will say
    if said is None and not tokens:
        return None
    try:
        if said["token"] not in tokens:
            raise ValueError("it is of another network")
        return np.unique(short_hashes([_digits(value) for value in said["images"]]))
    except (TypeError, KeyError, ValueError):
        raise _lost(path) from None


def _lost(path: Path) -> WeightsError:
    return WeightsError(
        f"{path}: was fine-tuned by stackcls, and its record of the images that it saw is lost, so that no score could "
        "be trusted; give the .keras file that `stackcls finetune` wrote (under `model:`, or --from), not one that "
        "Keras saved again, and not its weights alone"
    )


def _is_marked(path: Path) -> bool:
    """Whether a file of weights names a network that was fine-tuned; HDF5 keeps names as they are, not compressed."""
    wanted, last = MARK.encode(), b""
    try:
        with open(path, "rb") as file:
            while piece := file.read(PIECE):
                if wanted in last + piece:
                    return True
                last = piece[-len(wanted) :]
    except OSError:
        pass  # as whoever opens it will say
    return False


def _member(archive: zipfile.ZipFile, name: str) -> str:
    """Text of one member; empty where there is none, or one that is too large to be what it should be."""
    if name not in archive.namelist() or archive.getinfo(name).file_size > LONGEST:
        return ""
    return archive.read(name).decode("utf-8")


def _digits(value: str) -> str:
    if not re.fullmatch(f"[0-9a-f]{{{DIGITS}}}", value):
        raise ValueError(value)
    return value
