"""Time and memory of stackcls beside the plain script, in one run, on the same images.

    python benchmarks/against_script.py features|fit|memory [--shared ../shared] [--repeats 2]

`features`: both extract the four backbones of the article (seeded random weights) from 340 photos, whole processes, in
turn. `fit`: both cross-validate on the features of two data sets; the script with one BLAS thread, which is its best.
`memory`: peak resident memory of `stackcls features` on 500 and on 5,000 photos. Ratios within one run are what counts:
machines are shared and noisy.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LIMIT = 340
MOBILENETS = [
    ("mobilenet_1.00_224", "MobileNet", 1.0, 224),
    ("mobilenet_0.75_192", "MobileNet", 0.75, 192),
    ("mobilenet_0.50_160", "MobileNet", 0.5, 160),
    ("mobilenet_v2_1.00_224", "MobileNetV2", 1.0, 224),
]
ARTICLE = ("vgg19", "resnet50", "inception_v3", "xception")


def measure(command: Sequence[str], environment: Mapping[str, str] | None = None) -> tuple[float, float, str]:
    """Run a command; return wall seconds, peak resident MiB, and standard output."""
    with tempfile.TemporaryFile("w+") as output:
        start = time.perf_counter()
        process = subprocess.Popen(
            command, stdout=output, stderr=subprocess.DEVNULL, env={**os.environ, **(environment or {})}
        )
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - start
        output.seek(0)
        text = output.read()
    if status:
        raise SystemExit(f"{' '.join(command)} ended with status {os.waitstatus_to_exitcode(status)}\n{text}")
    unit = 1024 if sys.platform == "darwin" else 1
    return seconds, usage.ru_maxrss / 1024 / unit, text


def stackcls(*arguments: str) -> list[str]:
    """Command line of stackcls in this environment."""
    return [sys.executable, "-m", "stackcls", *arguments]


def evenly_spaced(folder: Path, count: int) -> list[Path]:
    """Choose the images that the script's `--limit` takes."""
    import numpy as np

    files = sorted(p for p in folder.glob("*/*") if p.suffix.lower() in {".jpg", ".jpeg", ".png"})
    return [files[i] for i in np.linspace(0, len(files) - 1, count).astype(int)]


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


def compare_features(shared: Path, folder: Path, repeats: int) -> None:
    """Whole processes in turn; the better of each counts."""
    photos = evenly_spaced(shared / "data" / "flowers17", LIMIT)
    manifest = folder / "photos.csv"
    manifest.write_text("path,label\n" + "".join(f"{p},{p.parent.name}\n" for p in photos))
    entries = [{"name": name, "weights": "random", "seed": 0} for name in ARTICLE]
    settings = write_settings(folder / "article.yaml", manifest, entries)
    script = [sys.executable, str(shared / "reference" / "article.py"), str(shared / "data" / "flowers17")]
    script += ["--backbones", "article", "--limit", str(LIMIT), "--stage", "features"]
    ours, theirs = [], []
    for number in range(repeats):
        for file in (folder / "article").glob("*"):
            file.unlink()
        ours.append(measure(stackcls("features", "-c", str(settings))))
        theirs.append(measure(script))
        print(f"run {number + 1}: stackcls {ours[-1][0]:.1f} s, script {theirs[-1][0]:.1f} s", flush=True)
    (best, memory, _), (script_best, script_memory, _) = min(ours), min(theirs)
    print(f"features of {LIMIT} photos, four backbones, whole process, better of {repeats}:")
    print(f"  stackcls {best:.1f} s, {LIMIT / best:.2f} images/s, {memory:.0f} MiB")
    print(f"  script   {script_best:.1f} s, {LIMIT / script_best:.2f} images/s, {script_memory:.0f} MiB")
    print(f"  ratio    {script_best / best:.2f}")


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
            measure(stackcls("fit", "--cv", "3", "-c", str(settings)))
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
    parser.add_argument("what", choices=["features", "fit", "memory"])
    parser.add_argument("--shared", type=Path, default=ROOT.parent / "shared")
    parser.add_argument("--repeats", type=int, default=2)
    arguments = parser.parse_args()
    shared = arguments.shared.resolve()
    if not shared.is_dir():
        raise SystemExit(f"--shared {shared} does not exist: the script, photos and weights to compare with lie there")
    with tempfile.TemporaryDirectory() as name:
        if arguments.what == "features":
            compare_features(shared, Path(name), arguments.repeats)
        elif arguments.what == "fit":
            compare_fit(shared, Path(name), arguments.repeats)
        else:
            measure_memory(shared, Path(name))


if __name__ == "__main__":
    main()
