"""Which images are kept back: by the name of their split, or by a hash of their path."""

import hashlib
import unicodedata

LEARNED_FROM = frozenset({"", "train", "training"})
KEPT_BACK = frozenset({"test", "testing", "val", "valid", "validation", "holdout", "hold-out", "dev", "eval"})


def is_kept_back(split: str | None) -> bool:
    """Whether a split's name says that its images are not to be learned from."""
    return (split or "").strip().lower() in KEPT_BACK


def is_known(split: str) -> bool:
    """Whether a split's name says what its images are for."""
    return split.strip().lower() in LEARNED_FROM | KEPT_BACK


def place(name: str) -> float:
    """Where a relative path, or a group's name, falls between 0 and 1: the same wherever the folder lies.

    Other images do not matter, so that a folder may grow and every image stays on its side of any limit. Names are
    compared as Unicode's composed form, since file systems differ in that.
    """
    digest = hashlib.sha256(unicodedata.normalize("NFC", name).encode("utf-8", "surrogateescape")).digest()
    return int.from_bytes(digest[:8], "big") / 2**64
