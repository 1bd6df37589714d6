"""After a change `--dry-run` says exactly what `features` then does, and no network is built for nothing."""

import shutil

import pytest

from stackcls.stages import features
from stackcls.store import Store
from stackcls.weightfiles import Download
from tests.conftest import FAKE_BACKBONES, make_settings, write_photo
from tests.test_features import add, assert_as_from_scratch, change, read, relabel, remove, rename
from tests.test_losses import Said


def renew(engine, monkeypatch):
    """Let the engine and all libraries be newer ones."""
    monkeypatch.setattr(features, "created_with", lambda: {"stackcls": "9.9"})
    made_by = {"engine": "a newer engine", "processor": "another", "keras": "9.9", "numpy": "9.9"}
    monkeypatch.setattr(engine, "provenance", lambda: made_by)


ONE, THREE = FAKE_BACKBONES[:1], [*FAKE_BACKBONES, {**FAKE_BACKBONES[0], "name": "three", "seed": 3}]


def nothing(folder):
    pass


def copy(folder):
    shutil.copy(folder / "red/00.png", folder / "blue/copy.png")


def spoil(folder):
    """Add what cannot be decoded; it takes no network to find that out."""
    (folder / "blue/bad.png").write_bytes(b"no image")
    (folder / "red/00a.png").write_bytes((folder / "red/00.png").read_bytes()[:300])


@pytest.mark.parametrize(
    ("edit", "backbones", "expected"),
    [
        (nothing, FAKE_BACKBONES, {"one": 0, "two": 0}),
        (add, FAKE_BACKBONES, {"one": 2, "two": 2}),
        (change, FAKE_BACKBONES, {"one": 1, "two": 1}),
        (remove, FAKE_BACKBONES, {"one": 0, "two": 0}),
        (rename, FAKE_BACKBONES, {"one": 0, "two": 0}),
        (relabel, FAKE_BACKBONES, {"one": 0, "two": 0}),
        (copy, FAKE_BACKBONES, {"one": 0, "two": 0}),
        (spoil, FAKE_BACKBONES, {"one": 0, "two": 0}),
        (nothing, ONE, {"one": 0}),
        (nothing, THREE, {"one": 0, "two": 0, "three": 27}),
        (add, THREE, {"one": 2, "two": 2, "three": 29}),
    ],
    ids=lambda item: getattr(item, "__name__", None),
)
def test_a_dry_run_says_what_is_then_done(photos, fake_engine, tmp_path, monkeypatch, edit, backbones, expected):
    features.run(make_settings(photos, tmp_path / "artifacts"))
    edit(photos)
    settings = make_settings(photos, tmp_path / "artifacts", features={"backbones": backbones})
    fake_engine.batches.clear()
    renew(fake_engine, monkeypatch)
    before = settings.files.features.read_bytes()
    planned = features.run(settings, dry_run=True)
    assert (planned.computed, planned.written) == (expected, False)
    assert settings.files.features.read_bytes() == before
    assert fake_engine.batches == {}
    done = features.run(settings)
    assert (done.computed, done.reused, done.rejected) == (expected, planned.reused, planned.rejected)
    # What is not computed is not even built.
    assert fake_engine.computed == {name: count for name, count in expected.items() if count}
    fake_engine.batches.clear()
    again = features.run(settings)
    assert (again.written, fake_engine.batches) == (False, {})


def test_newer_libraries_alone_change_nothing_and_are_recorded_with_what_is_new(settings, fake_engine, monkeypatch):
    features.run(settings)
    renew(fake_engine, monkeypatch)
    fake_engine.batches.clear()
    assert not features.run(settings).written
    assert fake_engine.batches == {}
    write_photo(settings.images / "red/new.png", (190, 70, 60), 77)
    assert features.run(settings).computed == {"one": 1, "two": 1}
    with Store(settings.files.features) as store:
        assert store.created_with == {"stackcls": "9.9"}
        assert store.matrices["one"].provenance["keras"] == "9.9"


@pytest.mark.parametrize(
    "edit", [nothing, rename, lambda folder: (folder / "red/bad.png").rename(folder / "red/b.png")]
)
def test_bad_images_build_no_network_when_nothing_else_is_new(settings, fake_engine, edit):
    (settings.images / "red/bad.png").write_bytes(b"no image")
    (settings.images / "red/worse.png").write_bytes((settings.images / "red/00.png").read_bytes()[:300])
    features.run(settings)
    edit(settings.images)
    fake_engine.batches.clear()
    result = features.run(settings)
    assert (result.computed, len(result.rejected)) == ({"one": 0, "two": 0}, 2)
    assert fake_engine.batches == {}


def test_bad_images_among_new_ones_count_as_rejected_alone(settings, fake_engine, tmp_path):
    features.run(settings)
    for number in range(4):
        write_photo(settings.images / f"red/n{number}.png", (190, 70, 60), 400 + number)
        (settings.images / f"red/n{number}bad.png").write_bytes(b"no image %d" % number)
    result = features.run(settings)
    assert result.computed == {"one": 4, "two": 4}
    assert fake_engine.computed == {"one": 31, "two": 31}
    assert len(read(settings.files.features)[0].rejected) == 4
    assert_as_from_scratch(settings, tmp_path)


def test_a_dry_run_counts_a_configured_backbone_whose_weights_went(settings, fake_engine, monkeypatch):
    """Its matrix is configured still, and must not be taken for one that new images would leave behind."""
    features.run(settings)
    write_photo(settings.images / "red/new.png", (190, 70, 60), 77)
    download = Download("two.h5", "http://example.invalid/two.h5", "")
    monkeypatch.setattr(
        "stackcls.loading.absent", lambda known: {item.name: download for item in known if item.name == "two"}
    )
    assert features.run(settings, dry_run=True).computed == {"one": 1, "two": 28}


@pytest.mark.parametrize(
    ("edit", "line"),
    [
        (nothing, "nothing new"),
        (rename, "features.h5 would be written anew: {0} name new, {0} gone, 0 labels changed"),
    ],
)
def test_a_dry_run_says_whether_the_file_changes_though_nothing_is_computed(settings, fake_engine, edit, line):
    features.run(settings)
    names = {path.name for path in settings.images.rglob("*.png")} | set()
    edit(settings.images)
    said = Said()
    features.run(settings, dry_run=True, listener=said)
    changed = len({path.name for path in settings.images.rglob("*.png")} - names)
    assert said.lines[-1].endswith(line.format(changed))
