"""Thousands of damaged inputs, in processes of their own: success or a documented error, no crash, no hang.

But for feature files with a checksum made to fit: what HDF5 itself does on these is counted, and not all of it is good.
"""

import json
import subprocess
import sys
from pathlib import Path

import pytest

FUZZ = Path(__file__).resolve().parent.parent / "tools" / "fuzz.py"


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="limits memory as Linux does")
@pytest.mark.parametrize(
    ("what", "count", "peak"),
    [
        *((form, 2000, 4000) for form in ("JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF")),
        ("stores", 600, 1500),
        ("sealed", 150, 6000),  # whose damage HDF5 meets: there it may take what memory it is given
        ("manifests", 800, 1500),
        ("configurations", 800, 1500),
        ("models", 500, 1500),
    ],
)
def test_damaged_input_is_read_or_refused(what, count, peak):
    done = subprocess.run(
        [sys.executable, str(FUZZ), what, str(count)], capture_output=True, text=True, check=False, timeout=1200
    )
    assert done.returncode == 0, f"{what}: {done.stderr[-3000:]}"
    found = json.loads(done.stdout)
    assert found["cases"] == count
    assert found["peak_MiB"] < peak
    assert len(found) > 3, "some cases should pass, some fail"
    assert found.get("HDF5 hung", 0) + found.get("HDF5 crashed", 0) < count / 20
