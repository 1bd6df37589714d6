"""The house has floors: data flows up, imports point down, and some things are known in one place alone."""

import ast
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
TREES = {
    path.relative_to(ROOT).with_suffix("").as_posix().replace("/", ".").removesuffix(".__init__"): ast.parse(
        path.read_text("utf-8")
    )
    for path in (ROOT / "stackcls").rglob("*.py")
}
COMMANDS = {name for name in TREES if name.startswith("stackcls.commands")}
TOP = {"stackcls", *(f"stackcls.{name}" for name in ("__main__", "cli", "console", "exits", "options")), *COMMANDS}
WORKINGS = [
    "album",
    "analyses",
    "announcing",
    "assembly",
    "basefits",
    "calibration",
    "computation",
    "crossvalidated",
    "damage",
    "decoding",
    "evidence",
    "explaining",
    "exposure",
    "extraction",
    "finetuning",
    "finetuning.checkpoints",
    "finetuning.jobs",
    "finetuning.learning",
    "finetuning.logs",
    "finetuning.networks",
    "finetuning.pictures",
    "finetuning.plan",
    "grouping",
    "holdouts",
    "inference",
    "listing",
    "loading",
    "lookup",
    "losses",
    "memory",
    "model",
    "modelfile",
    "page",
    "remotely",
    "reporting",
    "safemodel",
    "scoring",
    "smallcopies",
    "soundness",
    "spaces",
    "tasks",
    "thumbnails",
    "training",
    "trainingdata",
    "tuning",
    "unknowns",
    "validation",
]
ONLY = {
    "fsspec": {"stackcls.fetching"},
    "gcsfs": {"stackcls.fetching"},
    "faiss": {"stackcls.inspect.index"},
    "dask": {"stackcls.connecting"},
    "distributed": {"stackcls.cluster", "stackcls.connecting", "stackcls.worker"},
    "bokeh": {"stackcls.report.mappage"},
    "openTSNE": {"stackcls.inspect.embedding"},
    "h5py": {"stackcls.store", "stackcls.storeformat", "stackcls.storewriter"},
    "psutil": {"stackcls.processes"},
    "click": {"stackcls.cli", "stackcls.console", "stackcls.exits", "stackcls.options", *COMMANDS},
    "sklearn": {"stackcls.stack", "stackcls.learners", "stackcls.remaking"},
    "sklearn.metrics": set(TREES),
    "sklearn.neighbors": {"stackcls.inspect.duplicates"},
    "sklearn.datasets": {"stackcls.stages.demo"},
    "mlxtend": {"stackcls.stack"},
    "mlxtend.evaluate": set(TREES),
    "jinja2": {"stackcls.report.html", "stackcls.report.mappage"},
    "safetensors": {"stackcls.safemodel"},
    "tensorflow": {
        "stackcls.engines.graphs",
        "stackcls.engines.tensorflow",
        "stackcls.engines.visualising",
        "stackcls.finetuning.networks",
    },
    "keras": {
        "stackcls.engines.graphs",
        "stackcls.engines.keras_models",
        "stackcls.engines.visualising",
        "stackcls.finetuning.learning",
        "stackcls.finetuning.networks",
    },
    "openvino": {"stackcls.engines.openvino", "stackcls.engines.int8"},
    "nncf": {"stackcls.engines.int8"},
}
modules = pytest.mark.parametrize("module", sorted(TREES))


def imports(module):
    """Everything that a module imports, also inside functions: `from a import b` is `a.b`."""
    for node in ast.walk(TREES[module]):
        if isinstance(node, ast.Import):
            yield from (item.name for item in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module}: import by the full name"
            yield from (f"{node.module}.{item.name}" for item in node.names)


def used(module):
    """Modules of the package that a module imports."""
    for name in imports(module):
        if name.split(".")[0] == "stackcls":
            yield name if name in TREES else name.rpartition(".")[0]


def floor(module):
    if module in TOP:
        return 3
    name = module.removeprefix("stackcls.")
    return 2 if name.startswith("stages") else int(name in WORKINGS)


@modules
def test_imports_point_down(module):
    below = floor(module) - (floor(module) == 2)
    # A stage may use no stage; `stackcls` itself is named only for its version.
    above = {name for name in used(module) if floor(name) > below and name != "stackcls"}
    assert not above


def test_no_import_cycle():
    # A package may choose among its own modules, which import its contract: that is no cycle.
    needs = {module: {name for name in used(module) if not name.startswith(f"{module}.")} for module in TREES}
    TopologicalSorter(needs).prepare()


@modules
def test_libraries_are_known_in_one_place(module):
    for name in imports(module):
        longest = max((known for known in ONLY if f"{name}.".startswith(f"{known}.")), key=len, default=None)
        assert longest is None or module in ONLY[longest], f"{module} imports {name}"


@modules
def test_nothing_prints_below_the_command_line(module):
    calls = {ast.unparse(node.func) for node in ast.walk(TREES[module]) if isinstance(node, ast.Call)}
    assert module in TOP or not calls & {"print", "sys.exit", "exit", "sys.stdout.write", "sys.stderr.write"}


@modules
def test_files_and_functions_are_short(module):
    for node in ast.walk(TREES[module]):
        if isinstance(node, ast.FunctionDef):
            start = node.body[0].end_lineno if ast.get_docstring(node) else node.lineno
            assert node.end_lineno - start <= 60, f"{module}.{node.name}"
    assert TREES[module].body[-1].end_lineno <= 300


@pytest.mark.parametrize("folder", ["tests", "tools", "benchmarks"])
def test_files_beside_the_package_are_short_too(folder):
    lengths = {path.name: len(path.read_text("utf-8").splitlines()) for path in (ROOT / folder).rglob("*.py")}
    assert not {name: length for name, length in lengths.items() if length > 300}
