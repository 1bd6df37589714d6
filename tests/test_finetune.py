"""Fine-tuning as a whole, with the small networks of the package: what learns, is written, and goes on from it."""

import itertools
import os
import signal
import subprocess
import sys

import numpy as np
import pytest

from stackcls import config, seen, sources
from stackcls.errors import ConfigError, WeightsError
from stackcls.files import digest_file
from stackcls.finetuning import checkpoints
from stackcls.finetuning.plan import draw
from stackcls.listener import Silent
from stackcls.listing import hash_all
from stackcls.settings import Limits
from stackcls.stages import features, finetune, fit
from stackcls.store import Store
from tests.conftest import read_csv, write_photos

pytestmark = pytest.mark.slow

TUNING = {"epochs": 3, "batch_size": 8, "share": 0.6, "validation": 0.3, "rate": 0.03}
FIRST, LATE = "conv2d", "conv2d_5"  # layers of mini_vgg


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    return write_photos(tmp_path_factory.mktemp("finetune") / "photos", 24)


def tuning(images, artifacts, **changes):
    raw = {"images": str(images), "artifacts": str(artifacts), "finetune": {**TUNING, **changes}}
    return config.build({**raw, "features": {"backbones": ["mini_vgg"]}})


@pytest.fixture(scope="module")
def done(images, tmp_path_factory):
    """One finished run, learning from a late layer on: its settings and report."""
    settings = tuning(images, tmp_path_factory.mktemp("done"), unfreeze=LATE)
    return settings, finetune.run(settings, "mini_vgg")


def weights(path):
    import keras

    return {layer.name: layer.get_weights() for layer in keras.saving.load_model(path, compile=False).layers}


def changed(before, after):
    """Layers whose weights differ."""
    names = [name for name in before if before[name]]
    pairs = {name: zip(before[name], after[name], strict=True) for name in names}
    return [name for name in names if any(not np.array_equal(mine, theirs) for mine, theirs in pairs[name])]


def test_what_is_written(done):
    settings, report = done
    files = settings.files.finetuned("mini_vgg-tuned")
    assert {path.name for path in files.folder.iterdir()} == {
        *("model.keras", "report.json", "history.csv", "curves.png", "tensorboard")
    }
    rows = read_csv(files.history)
    assert [int(row["epoch"]) for row in rows] == list(range(1, len(rows) + 1))
    assert float(rows[report.best - 1]["validation_accuracy"]) == report.validation_accuracy
    assert report.accuracy > 0.8
    assert report.n_train + report.n_validation + report.n_rest == 72


def test_only_what_is_unfrozen_learns(done):
    from stackcls.backbones import bundled_file

    settings, _ = done
    before = weights(bundled_file("mini_vgg"))
    late = list(before)[list(before).index(LATE) :]
    # Statistics that were learned before stay: `batch_normalization` layers are not among those that change.
    assert changed(before, weights(settings.files.finetuned("mini_vgg-tuned").model)) == [
        name for name in late if name.startswith("conv2d")
    ]


def test_tensorboard_reads_the_logs(done):
    settings, report = done
    from tensorflow import make_ndarray

    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    for part, tag, name in (("train", "epoch_loss", "loss"), ("validation", "epoch_accuracy", "validation_accuracy")):
        events = accumulator.EventAccumulator(str(settings.files.finetuned(report.name).logs / part))
        events.Reload()
        found = [(event.step, float(make_ndarray(event.tensor_proto))) for event in events.Tensors(tag)]
        assert found == [(epoch.epoch, pytest.approx(getattr(epoch, name))) for epoch in report.history]
        assert events.SummaryMetadata(tag).plugin_data.plugin_name == "scalars"


def test_the_result_is_a_backbone_and_no_fold_scores_what_it_saw(done, images, tmp_path):
    settings, report = done
    entries = ["mini_vgg", dict(report.entry)]
    stacked = config.build(
        {
            "images": str(images),
            "artifacts": str(tmp_path / "a"),
            "features": {"backbones": entries},
            "cv": {"folds": 2},
        }
    )
    features.run(stacked)
    fitted = fit.run(stacked).report
    assert fitted.n_images == report.n_rest
    assert set(fitted.scores) == {"mini_vgg", "mini_vgg-tuned", "stack"}
    chosen = draw(hash_all(sources.scan(images), Silent(), Limits()), settings.finetune)
    assert {row["path"] for row in read_csv(stacked.files.predictions)} == {entry.path for entry in chosen.rest}
    with Store(stacked.files.features) as store:
        rest = [store.table.paths.index(entry.path) for entry in chosen.rest]
        assert not np.array_equal(*(store.read_rows(name, np.array(rest)) for name in store.matrices))


def test_what_is_finished_is_not_repeated(done):
    settings, report = done
    assert finetune.run(settings, "mini_vgg") == report
    other = settings.model_copy(update={"finetune": settings.finetune.model_copy(update={"rate": 0.02})})
    with pytest.raises(ConfigError, match=r"mini_vgg-tuned: holds a fine-tuning of other .*--replace to begin anew"):
        finetune.run(other, "mini_vgg")


def test_the_record_names_what_it_learned_from_and_was_validated_on(done, images):
    settings, report = done
    chosen = draw(hash_all(sources.scan(images), Silent(), Limits()), settings.finetune)
    saw = [digest_file(images / entry.path) for entry in (*chosen.train, *chosen.validation)]
    found = seen.read(settings.files.finetuned(report.name).model)
    np.testing.assert_array_equal(found, np.sort(seen.short_hashes(saw)))


def test_a_second_fine_tuning_adds_to_the_record(done, tmp_path):
    settings, report = done
    first = settings.files.finetuned(report.name).model
    other = write_photos(tmp_path / "other", 10, seed=5)
    again = tuning(other, tmp_path / "a", start=str(first), unfreeze="none", epochs=1)
    finetune.run(again, "mini_vgg", name="again")
    second = again.files.finetuned("again").model
    assert changed(weights(first), weights(second)) == []
    assert set(seen.read(first)) < set(seen.read(second))
    before = {seen.short_hashes([digest_file(path)])[0] for path in other.rglob("*.png")}
    assert set(seen.read(second)) - set(seen.read(first)) <= before


def cut(network):
    import keras

    return keras.Model(network.input, network.layers[-3].output)


def topped(network):
    import keras

    return keras.Model(network.input, keras.layers.GlobalAveragePooling2D()(network.output))


def called(network):
    import keras

    image = keras.Input(network.input_shape[1:])
    return keras.Model(image, network(image))


@pytest.mark.parametrize("surgery", [lambda network: network, cut, topped, called])
def test_what_keras_saves_again_is_refused(done, images, tmp_path, surgery):
    import keras

    settings, report = done
    network = keras.saving.load_model(settings.files.finetuned(report.name).model, compile=False)
    surgery(network).save(tmp_path / "again.keras")
    entry = {**report.entry, "model": str(tmp_path / "again.keras")}
    raw = {"images": str(images), "artifacts": str(tmp_path / "a"), "features": {"backbones": [entry]}}
    with pytest.raises(Exception, match="its record of the images that it saw is lost"):
        features.run(config.build(raw))
    surgery(network).save_weights(tmp_path / "alone.weights.h5")
    with pytest.raises(WeightsError, match=r"alone\.weights\.h5: .*its record of the images that it saw is lost"):
        seen.read(tmp_path / "alone.weights.h5")


KILLED = """
import os, signal, sys
from stackcls import cli
from stackcls.engines.graphs import import_tensorflow
import_tensorflow()
from stackcls.finetuning import networks
left, vary = int(sys.argv[1]), networks.Augmentation.__call__
def varying(self, *arguments):
    global left
    left -= 1
    if not left:
        os.kill(os.getpid(), signal.SIGKILL)
    return vary(self, *arguments)
networks.Augmentation.__call__ = varying
cli.main(sys.argv[2:])
"""


@pytest.mark.skipif(os.name != "posix", reason="needs POSIX signals")
def test_killed_in_epoch_three_it_ends_as_if_it_had_not_been(images, tmp_path):
    changes = {"epochs": 4, "patience": 4, "start": "random"}
    settings = tuning(images, tmp_path / "killed", **changes)
    batches = -(-len(draw(hash_all(sources.scan(images), Silent(), Limits()), settings.finetune).train) // 8)
    sets = [f"--set=finetune.{key}={value}" for key, value in {**TUNING, **changes}.items()]
    arguments = ["finetune", "mini_vgg", "--images", str(images), "--artifacts", str(settings.artifacts), *sets]
    command = [sys.executable, "-c", KILLED, str(2 * batches + 3), *arguments]
    assert subprocess.run(command, capture_output=True, check=False, cwd=tmp_path).returncode == -signal.SIGKILL
    files = settings.files.finetuned("mini_vgg-scratch")
    kept = checkpoints.load(files.checkpoint)
    assert len(kept.history) == 2
    assert not files.model.exists()
    resumed = finetune.run(settings, "mini_vgg")
    assert resumed.history[:2] == list(kept.history)
    assert not files.checkpoint.exists()
    whole = finetune.run(tuning(images, tmp_path / "whole", **changes), "mini_vgg")
    for mine, theirs in zip(resumed.history, whole.history, strict=True):
        # Sums in another order, as threads give them, are all that may differ.
        assert mine.validation_loss == pytest.approx(theirs.validation_loss, rel=1e-3)
        assert mine.loss == pytest.approx(theirs.loss, rel=1e-3)
    assert (resumed.best, resumed.accuracy) == (whole.best, pytest.approx(whole.accuracy, abs=0.02))


def test_stopping_early_is_said(images, tmp_path, monkeypatch, stackcls):
    from stackcls.finetuning import learning

    monkeypatch.setattr(learning, "_merit", lambda epoch: -epoch.epoch)
    sets = [f"--set=finetune.{key}={value}" for key, value in {**TUNING, "epochs": 4, "patience": 1}.items()]
    arguments = ["finetune", "mini_vgg", "--head-only", "--images", images, "--artifacts", tmp_path / "a", *sets]
    status, _, err = stackcls(*arguments)
    assert status == 0
    assert "stopped after epoch 2 of 4: none was better since epoch 1; a larger finetune.patience goes on" in err


def test_a_comparison_on_the_command_line(images, tmp_path, stackcls):
    from stackcls.report import curves

    artifacts = tmp_path / "a"
    sets = [f"--set=finetune.{key}={value}" for key, value in {**TUNING, "epochs": 1}.items()]
    arguments = ["finetune", "mini_vgg", "--compare", "--images", images, "--artifacts", artifacts, "--seed", 3, *sets]
    status, out, err = stackcls(*arguments)
    assert (status, out.splitlines()[-1]) == (0, f"wrote {artifacts}/finetune/mini_vgg-comparison.png")
    rows = [[cell.strip() for cell in line.split("|")[1:4]] for line in out.splitlines()[2:5]]
    assert rows == [
        ["mini_vgg-scratch", "random", "all"],
        ["mini_vgg-head", "mini_vgg.keras", "head"],
        ["mini_vgg-tuned", "mini_vgg.keras", "all"],
    ]
    assert "epoch 1 of 1: loss" in err
    assert curves.is_ours(artifacts / "finetune/mini_vgg-comparison.png")
    reports = [artifacts / f"finetune/mini_vgg-{way}/report.json" for way in ("scratch", "head", "tuned")]
    assert stackcls("report", *reports)[1] == "\n".join(out.splitlines()[:5]) + "\n"


@pytest.mark.parametrize("changes", [{"unfreeze": "conv2d_99"}, {"multipliers": {"conv2d_99": 0.1}}])
def test_a_comparison_finds_a_wrong_layer_before_anything_learns(images, tmp_path, changes):
    settings = tuning(images, tmp_path / "a", **changes)
    with pytest.raises(ConfigError, match=f"finetune.{next(iter(changes))}: 'conv2d_99' is not .* or a layer"):
        finetune.compare(settings, "mini_vgg")
    assert not (tmp_path / "a").exists()


def test_photos_that_cannot_be_read_are_listed(tmp_path, stackcls):
    images = write_photos(tmp_path / "photos", 24)
    for path in itertools.chain(*((images / name).glob("1*.png") for name in ("red", "blue"))):
        path.write_bytes(path.read_bytes()[:60])
    sets = [f"--set=finetune.{key}={value}" for key, value in {**TUNING, "epochs": 1, "memory": 0}.items()]
    arguments = ["finetune", "mini_vgg", "--head-only", "--images", images, "--artifacts", tmp_path / "a", *sets]
    status, _, err = stackcls(*arguments, "--strict")
    assert status == 1
    assert "20 images could not be read" in err
    assert "red/10.png: damaged or cut short" in err


def test_a_checkpoint_with_no_epoch_left_is_finished(images, tmp_path, monkeypatch):
    settings = tuning(images, tmp_path / "a", unfreeze="none", epochs=1)

    def broken(*arguments):
        raise OSError("the disk is gone")

    with monkeypatch.context() as patched:
        patched.setattr("stackcls.report.tuned.Tuned.save", broken)
        with pytest.raises(OSError, match="the disk is gone") as error:
            finetune.run(settings, "mini_vgg")
    assert "and the same command goes on from there" in error.value.__notes__[0]
    files = settings.files.finetuned("mini_vgg-head")
    assert not files.model.exists()
    kept = checkpoints.load(files.checkpoint)
    assert tuple(finetune.run(settings, "mini_vgg").history) == kept.history
