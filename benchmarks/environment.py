"""Build an environment of its own for a library that stackcls is measured beside.

    python benchmarks/environment.py thingsvision FOLDER [pip's options]

Give the folder to `python benchmarks/table.py --thingsvision FOLDER`. Needs Python 3.11, about 2 GB of disk, and for
torch a build for processors: name its index among pip's options, or in pip's configuration.
"""

import argparse
import subprocess
import sys
import venv
from collections.abc import Sequence
from pathlib import Path

PEERS = Path(__file__).resolve().parent / "peers"


def interpreter(environment: Path) -> Path:
    """Path of an environment's Python."""
    return environment / ("Scripts/python.exe" if sys.platform == "win32" else "bin/python")


def build(peer: str, folder: Path, options: Sequence[str]) -> None:
    """Make the environment, install what the peer's list names and nothing else, and try the peer out."""
    if sys.version_info[:2] != (3, 11):
        raise SystemExit(f"{peer} runs on Python 3.11 here, and this is {sys.version.split()[0]}")
    venv.create(folder, with_pip=True, clear=False)
    python = str(interpreter(folder))
    install = [python, "-m", "pip", "install", "--quiet", "--no-deps", "-r", str(PEERS / f"{peer}.txt"), *options]
    subprocess.run(install, check=True)
    subprocess.run([python, str(PEERS / f"{peer}_features.py"), "--check"], check=True)
    print(f"{peer} is ready in {folder}")


def main() -> None:
    """Build one environment."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("peer", choices=sorted(path.stem for path in PEERS.glob("*.txt")))
    parser.add_argument("folder", type=Path)
    arguments, options = parser.parse_known_args()
    build(arguments.peer, arguments.folder, options)


if __name__ == "__main__":
    main()
