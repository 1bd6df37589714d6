"""Large arrays whose memory goes back to the system as soon as they are freed.

What the C library's allocator gets back it keeps for later: after a few fits of large matrices that was a third of the
memory of the whole process.
"""

import contextlib
import ctypes
import math
import mmap
import os
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

SMALL = 1 << 20


def zeros(shape: tuple[int, ...], dtype: DTypeLike = np.float32) -> NDArray[Any]:
    """Return an array of zeros, from a mapping of its own if it is large."""
    size = math.prod(shape) * np.dtype(dtype).itemsize
    if size < SMALL:
        return np.zeros(shape, dtype)
    # Private, since a shared mapping would be written to by forked processes together, and cannot have huge pages.
    flags = {"flags": mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS} if os.name == "posix" else {}
    return np.frombuffer(mmap.mmap(-1, size, **flags), dtype).reshape(shape)


def give_back() -> None:
    """Have the C library return what it keeps for later, where it can be asked (glibc); takes milliseconds."""
    with contextlib.suppress(AttributeError, OSError, TypeError):  # TypeError: Windows has no library of this process
        ctypes.CDLL(None).malloc_trim(0)
