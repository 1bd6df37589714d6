"""Stage one after an interruption, on a damaged store, as a dry run, and from the command line."""

import json

import pytest
from PIL import Image

from stackcls.blocks import BlockFolder
from stackcls.engines import Choice
from stackcls.errors import EngineError
from stackcls.stages import features
from stackcls.store import Store
from tests.conftest import FAKE_BACKBONES, make_settings, write_photo

PER_BLOCK = 16  # images; in use it is more
KEPT = 20  # of a run that was stopped in the sixth batch of four


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    monkeypatch.setattr("stackcls.computation.IMAGES_PER_BLOCK", PER_BLOCK)


class Stopping:
    """An engine whose networks stop after some batches, all backbones together."""

    def __init__(self, engine, batches, error):
        self.engine, self.left, self.error = engine, batches, error
        self.name, self.provenance, self.batch_size = engine.name, engine.provenance, engine.batch_size
        self.calibrate = engine.calibrate

    def prepare(self, located, batch_size):
        extractor = self.engine.prepare(located, batch_size)
        stopping = self

        class Extractor:
            input_size, width = extractor.input_size, extractor.width

            def __call__(self, images):
                if stopping.left == 0:
                    raise stopping.error
                stopping.left -= 1
                return extractor(images)

        return Extractor()


@pytest.fixture
def stop_after(monkeypatch, fake_engine):
    """Run `features`, stopped by an error after some batches."""

    def run(settings, batches, error=None):
        error = error or MemoryError("out of memory")
        with monkeypatch.context() as patched:
            patched.setattr("stackcls.engines.choose", lambda *_: Choice(Stopping(fake_engine, batches, error), ""))
            with pytest.raises(type(error), match="out of memory"):
                features.run(settings)

    return run


ENDS = [
    MemoryError("out of memory"),
    KeyboardInterrupt("out of memory"),
    RuntimeError("an engine: out of memory"),
    EngineError("out of memory"),
]


def stored_blocks(settings):
    return [block.sha256 for block in BlockFolder(settings.files.blocks).read()]


def assert_finished(settings, tmp_path):
    """The store is the one that an undisturbed run makes, and lies alone in its folder."""
    scratch = settings.model_copy(update={"artifacts": tmp_path / "scratch"})
    features.run(scratch)
    assert settings.files.features.read_bytes() == scratch.files.features.read_bytes()
    assert [path.name for path in settings.artifacts.iterdir()] == ["features.h5"]


@pytest.mark.parametrize("error", ENDS)
def test_an_interrupted_run_goes_on_from_its_blocks(settings, fake_engine, stop_after, tmp_path, error):
    stop_after(settings, 11, error)  # in the sixth of seven batches of two backbones
    assert not settings.files.features.exists()
    assert sorted(map(len, stored_blocks(settings))) == [KEPT - PER_BLOCK, PER_BLOCK]
    fake_engine.batches.clear()
    result = features.run(settings)
    rest = 27 - KEPT
    assert fake_engine.computed == result.computed == {"one": rest, "two": rest}
    assert result.reused == {"one": KEPT, "two": KEPT}
    assert_finished(settings, tmp_path)


def test_a_run_may_be_interrupted_again_and_again(photos, fake_engine, stop_after, tmp_path):
    settings = make_settings(photos, tmp_path / "artifacts", features={"backbones": FAKE_BACKBONES, "batch_size": 1})
    for _ in range(5):
        stop_after(settings, 8)
    assert sorted(map(len, stored_blocks(settings))) == [4] * 5
    features.run(settings)
    # Every image once: no finished block was computed again.
    assert fake_engine.computed == {"one": 27, "two": 27}
    assert_finished(settings, tmp_path)


def test_a_block_that_was_cut_short_is_computed_again(settings, fake_engine, stop_after, tmp_path):
    stop_after(settings, 11)
    path = max(settings.files.blocks.glob("*.npz"), key=lambda path: path.stat().st_size)
    path.write_bytes(path.read_bytes()[:-40])
    fake_engine.batches.clear()
    features.run(settings)
    rest = 27 - (KEPT - PER_BLOCK)
    assert fake_engine.computed == {"one": rest, "two": rest}
    assert_finished(settings, tmp_path)


def test_images_that_went_between_the_runs_are_not_in_the_store(settings, fake_engine, stop_after, tmp_path):
    stop_after(settings, 11)
    (settings.images / "blue/00.png").unlink()
    write_photo(settings.images / "blue/01.png", (60, 80, 190), 900)
    result = features.run(settings)
    assert result.computed == {"one": 27 - KEPT + 1, "two": 27 - KEPT + 1}
    assert_finished(settings, tmp_path)


def test_bad_images_do_not_disturb_going_on(settings, fake_engine, stop_after, tmp_path):
    for name in ("blue/00a.png", "green/00a.png", "red/zz.png"):
        (settings.images / name).write_bytes(name.encode())
    stop_after(settings, 11)
    features.run(settings)
    with Store(settings.files.features) as store:
        assert list(store.table.rejected) == ["blue/00a.png", "green/00a.png", "red/zz.png"]
    assert_finished(settings, tmp_path)


def test_an_interrupted_addition_leaves_the_old_store_whole(settings, fake_engine, stop_after, tmp_path):
    features.run(settings)
    before = settings.files.features.read_bytes()
    for number in range(20):
        write_photo(settings.images / f"red/new{number}.png", (190, 70, 60), 800 + number)
    stop_after(settings, 9)
    assert settings.files.features.read_bytes() == before
    fake_engine.batches.clear()
    features.run(settings)
    assert fake_engine.computed == {"one": 20 - PER_BLOCK, "two": 20 - PER_BLOCK}
    assert_finished(settings, tmp_path)


def test_a_store_that_cannot_be_written_keeps_the_blocks(settings, fake_engine, monkeypatch, tmp_path):
    def refuse(*_):
        raise OSError("disk full")

    with monkeypatch.context() as patched:
        patched.setattr("stackcls.storewriter.write", refuse)
        with pytest.raises(OSError, match="disk full"):
            features.run(settings)
    assert features.run(settings).computed == {"one": 0, "two": 0}
    assert fake_engine.computed == {"one": 27, "two": 27}
    assert_finished(settings, tmp_path)


@pytest.mark.parametrize("keep", [0, 100, 3000, -1])
def test_a_damaged_store_is_made_anew(stackcls, settings, fake_engine, tmp_path, keep):
    features.run(settings)
    settings.files.features.write_bytes(settings.files.features.read_bytes()[:keep])
    status, out, err = stackcls("features", "-c", config_file(settings, tmp_path))
    assert (status, out[:5]) == (0, "wrote")
    assert "features.h5: " in err
    assert "it will be made anew" in err
    assert fake_engine.computed == {"one": 54, "two": 54}
    assert_finished(settings, tmp_path)


@pytest.mark.parametrize("content", [b"mine", b"stackcls-features 2 sha256=" + b"0" * 64 + b"\n"])
def test_a_file_that_is_not_ours_to_replace_is_left_alone(stackcls, settings, fake_engine, tmp_path, content):
    settings.artifacts.mkdir()
    settings.files.features.write_bytes(content)
    status, out, err = stackcls("features", "-c", config_file(settings, tmp_path))
    assert (status, out) == (1, "")
    assert "not a feature file of stackcls" in err or "use a newer stackcls" in err
    assert settings.files.features.read_bytes() == content
    assert fake_engine.computed == {}


def config_file(settings, tmp_path):
    """A pipeline file; JSON is YAML."""
    path = tmp_path / "pipeline.yaml"
    path.write_text(json.dumps(settings.model_dump(mode="json", exclude_none=True, exclude_defaults=True)))
    return path


def test_a_dry_run_writes_nothing(stackcls, settings, fake_engine, tmp_path):
    file = config_file(settings, tmp_path)
    status, out, err = stackcls("features", "-c", file, "--dry-run")
    assert (status, out) == (0, "would compute 54 rows, reuse 0\n")
    assert "27 images of 3 classes" in err
    assert not settings.artifacts.exists()
    stackcls("features", "-c", file)
    before = settings.files.features.read_bytes()
    write_photo(settings.images / "red/new.png", (190, 70, 60), 5)
    fake_engine.batches.clear()
    assert stackcls("features", "-c", file, "--dry-run")[1] == "would compute 2 rows, reuse 54\n"
    assert settings.files.features.read_bytes() == before
    assert [path.name for path in settings.artifacts.iterdir()] == ["features.h5"]
    assert fake_engine.computed == {}


def test_a_dry_run_fetches_nothing(stackcls, photos, fake_engine, tmp_path, monkeypatch):
    monkeypatch.setenv("KERAS_HOME", str(tmp_path / "keras"))
    # Nothing answers at this address: a run that fetched would fail.
    options = ("--set", "features.backbones=[vgg16]", "--set", "weights.base_url=http://127.0.0.1:9")
    status, _, err = stackcls("features", "--images", photos, "--artifacts", tmp_path / "out", "--dry-run", *options)
    assert status == 0
    assert "vgg16: would fetch http://127.0.0.1:9/vgg16/vgg16_weights" in err
    assert not (tmp_path / "keras").exists()
    assert not (tmp_path / "out").exists()


def test_the_command_says_what_it_did(stackcls, settings, fake_engine, tmp_path):
    file = config_file(settings, tmp_path)
    status, out, err = stackcls("features", "-c", file)
    assert status == 0
    assert out.startswith(f"wrote {settings.files.features}: 27 images, 3 classes, 2 backbones, ")
    assert "  one: 27 to compute, 0 there\n" in err
    assert stackcls("features", "-c", file)[1].startswith("nothing new for ")


@pytest.mark.parametrize(("options", "expected"), [((), 0), (("--strict",), 1)])
def test_bad_images_are_listed_and_fail_a_run_only_if_asked(
    stackcls, settings, fake_engine, tmp_path, options, expected
):
    (settings.images / "red/bad.jpg").write_bytes(b"")
    Image.new("F", (4, 4)).save(settings.images / "red/float.tif")
    status, _, err = stackcls("features", "-c", config_file(settings, tmp_path), *options)
    assert status == expected
    assert "warning: 2 images could not be read, left out:\n" in err
    assert "  red/bad.jpg: the file is empty\n" in err
    assert "  red/float.tif: floating-point pixels are not supported, since their range is not stated\n" in err
    with Store(settings.files.features) as store:
        assert len(store.table.paths) == 27


def test_without_bad_images_strict_is_done(stackcls, settings, fake_engine, tmp_path):
    assert stackcls("features", "-c", config_file(settings, tmp_path), "--strict")[0] == 0


def test_many_bad_images_are_counted(stackcls, settings, fake_engine, tmp_path):
    for number in range(13):
        (settings.images / f"red/bad{number:02d}.jpg").write_bytes(b"")
    err = stackcls("features", "-c", config_file(settings, tmp_path))[2]
    assert "warning: 13 images could not be read" in err
    assert err.count("the file is empty") == 13


def test_another_identity_is_refused_by_the_command(stackcls, settings, fake_engine, tmp_path):
    file = config_file(settings, tmp_path)
    stackcls("features", "-c", file)
    status, out, err = stackcls("features", "-c", file, "--set", "features.pooling=max")
    assert (status, out) == (1, "")
    assert "'one' was made otherwise (pooling: 'average' against 'max')" in err
    assert "--replace" in err
    assert "Traceback" not in err
    assert stackcls("features", "-c", file, "--set", "features.pooling=max", "--replace")[0] == 0


def test_an_interrupted_command_exits_with_130(stackcls, settings, fake_engine, tmp_path, monkeypatch):
    for batches, kept in (
        (0, ""),
        (
            3,
            f"; what was finished is kept (1 block of up to {PER_BLOCK} images in {settings.files.blocks}), "
            "and the same command goes on from there",
        ),
    ):
        engine = Stopping(fake_engine, batches, KeyboardInterrupt())
        monkeypatch.setattr("stackcls.engines.choose", lambda *_, engine=engine: Choice(engine, ""))
        status, out, err = stackcls("features", "-c", config_file(settings, tmp_path))
        assert (status, out) == (130, "")
        assert err.endswith(f"\ninterrupted{kept}\n")
        assert not (settings.artifacts / ".lock").exists()


def test_a_folder_that_cannot_be_written_is_found_out_before_the_work(stackcls, settings, fake_engine, tmp_path):
    (tmp_path / "file").write_text("in the way")
    file = config_file(settings, tmp_path)
    status, out, err = stackcls("features", "-c", file, "--artifacts", tmp_path / "file")
    assert (status, out) == (2, "")
    assert f"error: artifacts: {tmp_path / 'file'} cannot be written to" in err
    assert fake_engine.computed == {}


def test_too_few_classes_are_said_at_once(stackcls, settings, fake_engine, tmp_path):
    err = stackcls("features", "-c", config_file(settings, tmp_path), "--images", settings.images / "red")[2]
    assert "warning: no labels in" in err
    assert "`fit` needs at least two classes" in err
