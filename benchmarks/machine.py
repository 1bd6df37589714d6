"""What the measuring machine is: processor, memory, system, versions."""

import os
import platform
import subprocess
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

# What decides how fast matrices are multiplied, where Linux names it.
EXTENSIONS = ("fma", "avx2", "avx512f", "avx512_vnni", "avx512_bf16", "avx512_fp16", "avx_vnni", "amx_bf16", "amx_int8")
LIBRARIES = ("stackcls", "tensorflow", "keras", "openvino", "nncf", "numpy", "pillow")
PEER_LIBRARIES = ("thingsvision", "tensorflow-cpu", "keras", "torch", "numpy", "pillow")


def describe(peer: Path | None) -> dict[str, str]:
    """Describe this machine and what is installed.

    Parameters
    ----------
    peer : Path or None
        Python of thingsvision's environment.
    """
    info = _first_processor()
    flags = info.get("flags", info.get("Features", "")).split()
    said = {
        "processor": info.get("model name") or platform.processor() or platform.machine(),
        "cores": str(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()),
        "instruction sets": ", ".join(name for name in EXTENSIONS if name in flags) or "not stated",
        "cache": info.get("cache size", "not stated"),
        "memory": _memory(),
        "system": f"{platform.system()} {platform.release()}, Python {platform.python_version()}",
        "versions": _versions(LIBRARIES),
    }
    if peer is not None:
        ask = f"import machine; print(machine._versions({PEER_LIBRARIES!r}))"
        folder = str(Path(__file__).resolve().parent)
        answer = subprocess.run([str(peer), "-c", ask], cwd=folder, capture_output=True, text=True, check=False)
        said["versions beside thingsvision"] = answer.stdout.strip() or "not stated"
    return said


def _first_processor() -> dict[str, str]:
    """What Linux says of its first processor."""
    try:
        lines = Path("/proc/cpuinfo").read_text().split("\n\n")[0].splitlines()
    except OSError:
        return {}
    pairs = (line.split(":", 1) for line in lines if ":" in line)
    return {key.strip(): value.strip() for key, value in pairs}


def _memory() -> str:
    if hasattr(os, "sysconf") and "SC_PHYS_PAGES" in os.sysconf_names:
        return f"{os.sysconf('SC_PHYS_PAGES') * os.sysconf('SC_PAGE_SIZE') / 2**30:.0f} GiB"
    return "not stated"


def _versions(names: Sequence[str]) -> str:
    found = []
    for name in names:
        try:
            found.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            continue
    return ", ".join(found)
