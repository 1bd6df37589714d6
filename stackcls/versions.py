"""Versions of the libraries that decide what comes out."""

import platform
from importlib.metadata import version

RECORDED = ("stackcls", "scikit-learn", "mlxtend", "numpy", "scipy", "h5py", "pillow")


def created_with() -> dict[str, str]:
    """Versions by name, with Python's."""
    return {**{name: version(name) for name in RECORDED}, "python": platform.python_version()}
