"""Which network a fine-tuning begins with, and what it never replaces."""

from pathlib import Path

import pytest

from stackcls import config, splits
from stackcls.backbones import bundled_file
from stackcls.errors import ConfigError, WeightsError
from stackcls.files import digest_file
from stackcls.finetuning import jobs
from stackcls.finetuning.checkpoints import Checkpoint
from stackcls.listener import Silent
from stackcls.listing import hash_all
from stackcls.printable import printable
from stackcls.report import curves
from stackcls.settings import Limits
from stackcls.sources import scan
from stackcls.stages import finetune
from tests.conftest import write_photo, write_photos
from tests.test_finetuning_parts import epochs, tuned
from tests.test_seen import tuned as seen_by


@pytest.fixture
def photos(tmp_path):
    return write_photos(tmp_path / "photos", 20)


def settings(photos, *backbones, **tuning):
    features = {"backbones": list(backbones)} if backbones else {}
    raw = {"images": str(photos), "artifacts": str(photos.parent / "artifacts"), "features": features}
    return config.build({**raw, "finetune": tuning})


def job(photos, backbone, *backbones, name=None, **tuning):
    listing = hash_all(scan(photos), Silent(), Limits())
    return jobs.make(settings(photos, *backbones, **tuning), backbone, name, listing, True, Silent())


def test_a_backbone_of_the_settings_or_any_that_can_be_named(photos):
    entry = {"name": "mine", "architecture": "MobileNet", "weights": "random", "seed": 4, "input_size": 64}
    mine = job(photos, "mine", entry)
    assert (mine.name, mine.start, mine.located.backbone.seed, mine.fresh) == ("mine-tuned", "random", 4, False)
    mini = job(photos, "mini_resnet", entry, unfreeze="none")
    assert (mini.name, mini.start) == ("mini_resnet-head", "mini_resnet.keras")


def test_what_is_made_of_the_feature_map_later_does_not_matter(photos):
    given = settings(photos, {"name": "mini_vgg", "pooling": ["covariance", "max"]})
    given = given.model_copy(update={"features": given.features.model_copy(update={"views": ("original", "hflip")})})
    listing = hash_all(scan(photos), Silent(), Limits())
    assert jobs.make(given, "mini_vgg", None, listing, True, Silent()).digest == job(photos, "mini_vgg").digest


def test_random_weights_for_architectures_and_for_saved_models(photos):
    scratch = job(photos, "mobilenet", start="random", seed=7)
    assert (scratch.name, scratch.located.identity.weights, scratch.fresh) == ("mobilenet-scratch", "random:7", False)
    saved = job(photos, "mini_vgg", start="random", name="new")
    assert (saved.name, saved.start, saved.fresh) == ("new", "random", True)


def test_a_file_to_begin_with(photos):
    file = str(bundled_file("mini_resnet"))
    bundled = job(photos, "mini_vgg", start=file)
    assert (bundled.located.backbone.weights, bundled.start) == (file, "mini_resnet.keras")
    own = job(
        photos, "mine", {"name": "mine", "model": str(bundled_file("mini_vgg")), "preprocessing": "none"}, start=file
    )
    assert (own.located.backbone.weights, own.located.backbone.preprocessing) == (file, "none")
    known = job(photos, "mobilenet", start=file)
    assert (known.located.backbone.weights, known.located.backbone.architecture) == (file, "MobileNet")


@pytest.mark.parametrize(
    ("backbone", "tuning", "message"),
    [
        (
            "mini_vgg",
            {"start": "imagenet"},
            "'mini_vgg' is a saved model, of which there are no ImageNet",
        ),
        ("mini_vgg", {"start": __file__}, r"finetune.start: '.*\.py' is no .keras file, which 'mini_vgg' needs"),
        ("mobilenet", {"start": "none.h5"}, r"finetune.start: 'none.h5' is not imagenet, random or a file; .*--from"),
        ("mobilenett", {}, "'mobilenett' is not a known architecture; did you mean mobilenet"),
        ("a/b", {}, "'a/b' is no backbone; `stackcls backbones` lists the names"),
    ],
)
def test_what_cannot_be_begun_with(photos, backbone, tuning, message):
    with pytest.raises(ConfigError, match=message):
        job(photos, backbone, **tuning)


def test_weights_that_are_not_there_are_not_fetched_offline(photos, tmp_path, monkeypatch):
    monkeypatch.setenv("KERAS_HOME", str(tmp_path / "empty"))
    with pytest.raises(WeightsError, match="--offline forbids fetching it"):
        job(photos, "mobilenet")


@pytest.mark.parametrize("name", ["a/b", "..", "stack", "a+b"])
def test_names_that_no_backbone_can_have(photos, name):
    with pytest.raises(ConfigError, match=r"--name .* cannot be a backbone's name"):
        job(photos, "mini_vgg", name=name)


OTHER = {"name": "mine", "architecture": "MobileNet", "weights": "random"}


@pytest.mark.parametrize(
    ("backbone", "entries", "name", "message"),
    [
        ("mini_vgg", [OTHER], "mine", "--name 'mine': features.backbones has another backbone of that name"),
        ("mine", [OTHER], "mine", "--name 'mine': features.backbones has another backbone of that name"),
        ("mine", [OTHER, {**OTHER, "name": "mine-tuned"}], None, "--name 'mine-tuned': .*; give another --name$"),
        (
            "mini_vgg",
            ["mini_vgg", {"name": "new", "model": "elsewhere/model.keras", "preprocessing": "tf"}],
            "new",
            "--name 'new': features.backbones has another",
        ),
        ("mini_vgg", [], "resnet50", "--name 'resnet50': is the name of a known backbone"),
        ("mini_vgg", ["mini_vgg"], "mini_resnet", "--name 'mini_resnet': is the name of a known backbone"),
    ],
)
def test_a_name_that_another_backbone_has_is_refused(photos, backbone, entries, name, message):
    with pytest.raises(ConfigError, match=message):
        job(photos, backbone, *entries, name=name)


def test_a_result_that_the_settings_name_may_be_trained_anew(photos):
    file = settings(photos).files.finetuned("new").model
    entry = {"name": "new", "model": str(file), "preprocessing": "tf"}
    assert job(photos, "mini_vgg", "mini_vgg", entry, name="new").files.model == file


def test_what_decides_the_outcome_decides_the_digest(photos):
    first = job(photos, "mini_vgg").digest
    assert job(photos, "mini_vgg", name="other", memory=5).digest == first
    others = [{"rate": 0.02}, {"start": "random"}, {"augment": {"flip": False}}, {"seed": 1}, {"share": 0.4}]
    digests = [job(photos, "mini_vgg", **tuning).digest for tuning in others]
    digests += [job(photos, "mini_resnet").digest]
    (photos / "red/00.png").write_bytes((photos / "blue/00.png").read_bytes())
    assert len({first, *digests, job(photos, "mini_vgg").digest}) == len(digests) + 2


def test_what_slows_the_network_down_is_not_said_of_one_from_scratch(photos):
    given = {"head": 2.0, "backbone": 0.001, "conv2d_5": 0.1}
    chosen, listing = settings(photos, multipliers=given), hash_all(scan(photos), Silent(), Limits())
    found = {
        made.name: made.tuning.multipliers for made in jobs.make_all(chosen, "mini_vgg", "m", listing, True, Silent())
    }
    assert found == {"m-scratch": {"head": 2.0}, "m-head": given, "m-tuned": given}


def test_images_of_both_kinds_share_the_memory(photos):
    made = job(photos, "mini_vgg", memory=1, share=0.9, validation=0.3)
    side = int((2**20 / 3 / len(made.plan.train)) ** 0.5)
    train, validation = (labelled.pictures for labelled in finetune._sets(made, side))
    assert (train.kept, validation.kept) == (True, False)
    assert len(validation) * side * side * 3 < 2**20, "it would fit alone"
    assert train.n_bytes + validation.n_bytes <= 2**20
    train, validation = (labelled.pictures for labelled in finetune._sets(made, round(1.1 * side)))
    assert (train.kept, validation.kept) == (False, True), "what the first do not take is left to the second"


@pytest.mark.parametrize("folder", ["artifacts", "a, b: {c} # d", "猫 \u202e"])
def test_the_entry_that_is_printed_is_read_from_any_folder(photos, tmp_path, monkeypatch, folder):
    monkeypatch.chdir(tmp_path)
    chosen = config.build({"images": str(photos), "artifacts": folder})
    listing = hash_all(scan(photos), Silent(), Limits())
    made = jobs.make(chosen, "mini_vgg", None, listing, True, Silent())
    done = Checkpoint("", epochs(1), 1, {}, [], [], [])
    report = finetune._report(made, done, 0.5, 9, {"preprocessing": "tf", "pooling": "max"})
    said = curves.summary(report)
    assert said == "\n".join(map(printable, said.split("\n")))
    (tmp_path / "other").mkdir()
    lines = said.splitlines()
    (tmp_path / "other/pipeline.yaml").write_text("\n".join(lines[-3:]), "utf-8")
    (entry,) = config.read(tmp_path / "other/pipeline.yaml").features.backbones
    assert (entry.name, entry.preprocessing, entry.pooling) == ("mini_vgg-tuned", "tf", ("max",))
    assert Path(entry.model) == tmp_path / folder / "finetune/mini_vgg-tuned/model.keras"
    assert report.entry["model"] == str(entry.model)


@pytest.mark.parametrize("tuning", [{"start": "random"}, {"unfreeze": "none"}])
def test_a_comparison_needs_three_different_ways(photos, tuning):
    with pytest.raises(ConfigError, match=r"--compare: .* leave out --from random and --head-only"):
        finetune.compare(settings(photos, **tuning), "mini_vgg")


def test_foreign_files_are_never_replaced(photos):
    chosen = settings(photos)
    files = chosen.files.finetuned("mini_vgg-tuned")
    files.folder.mkdir(parents=True)
    files.report.write_text('{"my": "thesis"}')
    with pytest.raises(ConfigError, match=r"report\.json: not a report of `stackcls finetune`.*; it is not replaced"):
        finetune.run(chosen, "mini_vgg", replace=True)
    files.report.unlink()
    for path in (files.curves, files.history, files.model):
        path.write_text("my own")
        with pytest.raises(ConfigError, match=rf"{path.name}: was not written by `stackcls finetune`; give another"):
            finetune.run(chosen, "mini_vgg", replace=True)
    chosen.files.comparison("mini_vgg").write_bytes(b"my picture")
    with pytest.raises(ConfigError, match="no picture of training curves; give another --name"):
        finetune.compare(chosen, "mini_vgg")
    assert {path.read_text() for path in (files.curves, files.history, files.model)} == {"my own"}
    assert chosen.files.comparison("mini_vgg").read_bytes() == b"my picture"


def test_another_result_of_that_name_is_kept(photos):
    chosen = settings(photos)
    files = chosen.files.finetuned("mini_vgg-tuned")
    tuned(digest="of other settings").save(files.report)
    with pytest.raises(ConfigError, match=r"holds a fine-tuning of other images, weights or settings; .* --replace"):
        finetune.run(chosen, "mini_vgg")
    assert sorted(path.name for path in files.folder.iterdir()) == ["report.json"]


def finished(photos):
    """Settings, and the files of a result that these settings gave."""
    chosen = settings(photos)
    files = chosen.files.finetuned("mini_vgg-tuned")
    record = seen_by(files.model, sorted(photos.rglob("*.png"))[:2])
    made = job(photos, "mini_vgg")
    report = tuned(digest=made.digest, sha256=digest_file(record), rest=made.plan.rest_digest(made.listing))
    report.save(files.report)
    return chosen, files, report


class Heard(Silent):
    def __init__(self):
        self.lines = []

    def warn(self, line):
        self.lines.append(line)


def test_a_result_of_an_older_folder_is_said_to_be_one(photos):
    chosen, _, report = finished(photos)
    heard = Heard()
    assert finetune.run(chosen, "mini_vgg", listener=heard) == report
    assert not heard.lines
    names = (f"red/{number}.png" for number in range(99))
    write_photo(photos / next(name for name in names if splits.place(name) < 0.5), (190, 70, 60), 9)
    assert finetune.run(chosen, "mini_vgg", listener=heard) == report
    n_rest = len(job(photos, "mini_vgg").plan.rest)
    assert [line.split(": ", 1)[1] for line in heard.lines] == [
        "its accuracy is of the 10 images left out when it was trained; "
        f"now it would be of {n_rest} others: --replace trains anew, and scores those"
    ]


def test_a_result_is_finished_only_with_its_own_network(photos):
    chosen, files, _ = finished(photos)
    own = files.model.read_bytes()
    seen_by(files.model, sorted(photos.rglob("*.png"))[:3])
    for _ in range(2):
        with pytest.raises(ConfigError, match=r"model\.keras: is gone, or not what report\.json .*or --replace to"):
            finetune.run(chosen, "mini_vgg")
        files.model.unlink(missing_ok=True)
    files.model.write_bytes(own)
    finetune.run(chosen, "mini_vgg")
    files.model.write_text("my own")
    for replace in (False, True):
        with pytest.raises(ConfigError, match=r"model\.keras: was not written by .*, or move it away"):
            finetune.run(chosen, "mini_vgg", replace=replace)
    assert files.model.read_text() == "my own"


def test_options_that_exclude_each_other(stackcls):
    status, _, err = stackcls("finetune", "mini_vgg", "--head-only", "--unfreeze", "conv2d")
    assert status == 2
    assert "--head-only and --unfreeze exclude each other" in err
