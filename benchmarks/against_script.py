"""Time and memory of stackcls beside the plain script, in one run, on the same images.

    python benchmarks/against_script.py fit|memory [--shared ../shared] [--repeats 2]

`fit`: both cross-validate on the features of two data sets; the script with one BLAS thread, which is its best.
`memory`: peak resident memory of `stackcls features` on 500 and on 5,000 photos. Ratios within one run are what counts:
machines are shared and noisy. `table.py` measures `features`.
"""

import argparse
import json
import sys
import tempfile
from pathlib import Path

from running import measure

ROOT = Path(__file__).resolve().parent.parent
MOBILENETS = [
    ("mobilenet_1.00_224", "MobileNet", 1.0, 224),
    ("mobilenet_0.75_192", "MobileNet", 0.75, 192),
    ("mobilenet_0.50_160", "MobileNet", 0.5, 160),
    ("mobilenet_v2_1.00_224", "MobileNetV2", 1.0, 224),
]


def stackcls(*arguments: str) -> list[str]:
    """Command line of stackcls in this environment."""
    return [sys.executable, "-m", "stackcls", *arguments]


def write_settings(path: Path, images: Path, backbones: list[dict[str, object]]) -> Path:
    """Write a pipeline.yaml (JSON is YAML)."""
    raw = {"images": str(images), "artifacts": str(path.parent / path.stem), "features": {"backbones": backbones}}
    path.write_text(json.dumps(raw))
    return path


def mobilenets(shared: Path) -> list[dict[str, object]]:
    """Entries of the four pretrained MobileNets."""
    return [
        {
            "name": name,
            "architecture": architecture,
            "arguments": {"alpha": alpha},
            "input_size": size,
            "weights": str(shared / "weights" / f"{name}.weights.h5"),
        }
        for name, architecture, alpha, size in MOBILENETS
    ]


def compare_fit(shared: Path, folder: Path, repeats: int) -> None:
    """Fitting time alone, imports left out on both sides; the same features go into both."""
    ours, theirs = 0.0, 0.0
    for data in ("flowers17", "birds20"):
        settings = write_settings(folder / f"{data}.yaml", shared / "data" / data, mobilenets(shared))
        measure(stackcls("features", "-c", str(settings)))
        saved = folder / f"{data}.npz"
        script = [sys.executable, str(shared / "reference" / "article.py"), str(shared / "data" / data)]
        save_matrices(folder / data / "features.h5", saved)
        script += ["--stage", "fit", "--save", str(saved)]
        seconds, script_seconds = [], []
        for _ in range(repeats):
            # The work that the script does, and no more.
            measure(stackcls("fit", "--cv", "3", "-c", str(settings), "--set", "report.depth=quick"))
            report = json.loads((folder / data / "report.json").read_text())
            seconds.append(report["seconds"])
            *_, text = measure(script, {"OMP_NUM_THREADS": "1"})
            result = json.loads(text.strip().splitlines()[-1])
            script_seconds.append(result["fit_seconds"])
        print(f"{data}: stackcls {min(seconds):.2f} s, script {min(script_seconds):.2f} s")
        for name, accuracy in result["accuracy"].items():
            print(f"  {name:24s} stackcls {report['scores'][name]['mean']:.4f} script {accuracy:.4f}")
        ours, theirs = ours + min(seconds), theirs + min(script_seconds)
    print(f"fit, both data sets: stackcls {ours:.2f} s, script {theirs:.2f} s, ratio {theirs / ours:.2f}")


def save_matrices(store: Path, target: Path) -> None:
    """Write the matrices of a feature file as the script saves them."""
    import numpy as np

    from stackcls import Store

    with Store(store) as opened:
        matrices = {}
        for name, *_ in MOBILENETS:
            matrices[name] = np.empty((len(opened.table.paths), opened.matrices[name].width), np.float32)
            opened.read_into(name, matrices[name])
        np.savez(target, **matrices)


def measure_memory(shared: Path, folder: Path) -> None:
    """Peak memory for 500 and 5,000 photos that differ in content but not in size."""
    photos = sorted((shared / "data" / "flowers17").glob("*/*.jpg"))
    peaks = {}
    for count in (500, 5000):
        images = folder / f"photos{count}" / "flower"
        images.mkdir(parents=True)
        for number in range(count):
            # Bytes after the end of a JPEG change its hash and nothing else.
            content = photos[number % len(photos)].read_bytes() + number.to_bytes(4, "big")
            (images / f"{number:05d}.jpg").write_bytes(content)
        settings = write_settings(folder / f"memory{count}.yaml", images.parent, mobilenets(shared)[2:3])
        seconds, peaks[count], _ = measure(stackcls("features", "-c", str(settings)))
        print(f"{count} photos: {peaks[count]:.0f} MiB, {seconds:.1f} s", flush=True)
    print(f"peak memory, 5,000 against 500 photos: ratio {peaks[5000] / peaks[500]:.3f}")


def main() -> None:
    """Run one comparison."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["fit", "memory"])
    parser.add_argument("--shared", type=Path, default=ROOT.parent / "shared")
    parser.add_argument("--repeats", type=int, default=2)
    arguments = parser.parse_args()
    shared = arguments.shared.resolve()
    if not shared.is_dir():
        raise SystemExit(f"--shared {shared} does not exist: the script, photos and weights to compare with lie there")
    with tempfile.TemporaryDirectory() as name:
        if arguments.what == "fit":
            compare_fit(shared, Path(name), arguments.repeats)
        else:
            measure_memory(shared, Path(name))


if __name__ == "__main__":
    main()
