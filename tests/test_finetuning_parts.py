"""What a fine-tuning is made of, but for the network: which images, as pixels, its checkpoints, reports and curves."""

import numpy as np
import pytest
from PIL import Image

from stackcls import sources, splits
from stackcls.errors import ConfigError, SourceError, SourceMissing, TrainingError
from stackcls.extraction import ImageInput
from stackcls.finetuning import checkpoints
from stackcls.finetuning.checkpoints import Checkpoint
from stackcls.finetuning.pictures import Pictures
from stackcls.finetuning.plan import draw
from stackcls.listener import Silent
from stackcls.listing import hash_all
from stackcls.report import curves
from stackcls.report.tuned import Epoch, Tuned, is_tuned
from stackcls.settings import FinetuneSettings, Limits, Settings
from stackcls.stages import compare
from tests.conftest import read_csv, write_photo, write_photos

HALF = FinetuneSettings(share=0.5, validation=0.4)


@pytest.fixture
def photos(tmp_path):
    """Three classes of 20 photos each."""
    return write_photos(tmp_path / "photos", 20)


def listing(folder):
    return hash_all(sources.scan(folder), Silent(), Limits())


def parts(plan):
    return [{entry.path for entry in part} for part in (plan.train, plan.validation, plan.rest)]


def test_every_image_is_in_one_part_and_the_share_decides(photos):
    train, validation, rest = parts(draw(listing(photos), HALF))
    assert len(train) + len(validation) + len(rest) == len(train | validation | rest) == 60
    assert train
    assert validation
    assert all(1 - splits.place(path) <= 0.5 for path in train | validation)
    assert all(1 - splits.place(path) > 0.5 for path in rest)
    assert parts(draw(listing(photos), HALF.model_copy(update={"share": 1.0})))[2] == set()


def test_the_parts_stay_when_the_folder_moves_or_grows(photos, tmp_path):
    before = parts(draw(listing(photos), HALF))
    moved = photos.rename(tmp_path / "elsewhere")
    write_photos(moved, 25, ("red", "white"), seed=3)
    after = parts(draw(listing(moved), HALF))
    unchanged = {path for part in before for path in part if not path.startswith("red/")}
    assert [part & unchanged for part in after] == [part & unchanged for part in before]
    assert any("white/" in path for path in after[0])


def test_a_hold_out_is_drawn_from_the_other_end(photos):
    train, validation, _ = parts(draw(listing(photos), HALF))
    assert not {path for path in train | validation if splits.place(path) < 0.4}


def test_what_is_held_out_is_in_no_part_nor_are_its_copies(photos):
    held = next(
        path for path in sorted(photos.rglob("*.png")) if splits.place(path.relative_to(photos).as_posix()) < 0.3
    )
    names = (f"red/copy{number}.png" for number in range(99))
    copy = next(name for name in names if splits.place(name) > 0.6)
    (photos / copy).write_bytes(held.read_bytes())
    everything = FinetuneSettings(share=1.0, validation=0.3)
    found = set().union(*parts(draw(listing(photos), everything, 0.3)))
    rest = [path.relative_to(photos).as_posix() for path in photos.rglob("*.png")]
    assert found == {path for path in rest if splits.place(path) >= 0.3} - {copy}
    assert copy in set().union(*parts(draw(listing(photos), everything)))


def test_groups_and_copies_are_in_one_part(photos):
    for number in range(6):
        (photos / f"red/copy{number}.png").write_bytes((photos / "red/00.png").read_bytes())
    rows = [
        f"{path.relative_to(photos)},{path.parent.name},{'g' if path.parent.name == 'blue' else ''}"
        for path in sorted(photos.rglob("*.png"))
    ]
    (photos / "all.csv").write_text("path,label,group\n" + "\n".join(rows) + "\n")
    found = parts(draw(listing(photos / "all.csv"), FinetuneSettings(share=0.7, validation=0.3)))
    copies = {f"red/copy{number}.png" for number in range(6)} | {"red/00.png"}
    assert sum(bool(part & copies) for part in found) == 1
    assert sum(any(path.startswith("blue/") for path in part) for part in found) <= 1


def test_what_a_split_keeps_back_is_in_no_part(photos):
    rows = [f"{path.relative_to(photos)},{path.parent.name}" for path in sorted(photos.rglob("*.png"))]
    lines = [f"{row},{'Test' if '/00' in row else ' val ' if '/01' in row else 'train'}" for row in rows]
    (photos / "all.csv").write_text("path,label,split\n" + "\n".join(lines) + "\n")
    found = parts(draw(listing(photos / "all.csv"), HALF))
    assert sum(map(len, found)) == 54
    assert not any(path.endswith(("00.png", "01.png")) for part in found for path in part)


def test_images_of_classes_that_are_not_learned_are_in_no_part(photos):
    chosen = draw(listing(photos), HALF)
    names = [f"{number:02d}.png" for number in range(99)]
    late = next(name for name in names if 1 - splits.place(f"white/{name}") > 0.5)
    write_photo(photos / "white" / late, (250, 250, 250), 1)
    again = draw(listing(photos), HALF)
    assert (again.classes, parts(again)) == (chosen.classes, parts(chosen))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"share": 0.001}, r"finetune.share 0.001 of 60 labelled images.* gives 0 images of 0 classes to learn from"),
        ({"validation": 0.001}, r"finetune.validation 0.001, gives \d+ images of 3 classes to learn from and 0 to"),
    ],
)
def test_too_few_images_are_an_error(photos, changes, message):
    with pytest.raises(TrainingError, match=message):
        draw(listing(photos), HALF.model_copy(update=changes))


def test_images_without_labels_are_an_error(tmp_path):
    write_photo(tmp_path / "flat/a.png", (9, 9, 9), 1)
    with pytest.raises(TrainingError, match="`finetune` needs class folders"):
        draw(listing(tmp_path / "flat"), HALF)


def pictures(photos, memory):
    files = sorted((photos / "red").iterdir())[:9]
    return Pictures([ImageInput(path.name, path) for path in files], 16, Limits(), memory), files


@pytest.mark.parametrize("memory", [0, 2**20])
def test_batches_are_what_files_hold_in_the_order_asked_for(photos, memory):
    found, files = pictures(photos, memory)
    files[4].write_bytes(b"no image")
    order = np.random.default_rng(0).permutation(9)
    for _ in range(2):
        batches = list(found.batches(order, 4))
        assert sorted(len(rows) for rows, _ in batches) == [2, 3, 3]
        assert np.concatenate([rows for rows, _ in batches]).tolist() == [row for row in order if row != 4]
        for rows, pixels in batches:
            assert pixels.dtype == np.uint8
            for row, image in zip(rows, pixels, strict=True):
                wanted = Image.open(files[row]).resize((16, 16), Image.Resampling.BILINEAR)
                np.testing.assert_array_equal(image, np.asarray(wanted))
    assert list(found.failures) == [files[4].name]


def test_only_what_fits_is_kept(photos):
    kept, files = pictures(photos, 9 * 16 * 16 * 3)
    again, _ = pictures(photos, 9 * 16 * 16 * 3 - 1)
    for some in (kept, again):
        assert sum(len(rows) for rows, _ in some.batches(np.arange(9), 4)) == 9
    for path in files:
        path.unlink()
    assert sum(len(rows) for rows, _ in kept.batches(np.arange(9), 4)) == 9
    assert not list(again.batches(np.arange(9), 4))


def epochs(count):
    numbers = range(1, count + 1)
    return tuple(Epoch(number, 2 / number, 1 - 1 / number, 1 / number, 0.5, 0.01, 1.5) for number in numbers)


def test_a_checkpoint_comes_back_as_it_was(tmp_path):
    weights = [np.arange(6, dtype=np.float32).reshape(2, 3), np.float32(3)]
    checkpoint = Checkpoint("abc", epochs(2), 1, {"猫.png": "why"}, weights, [np.int64(7)], weights[:1])
    checkpoints.save(checkpoint, tmp_path / "c.npz")
    found = checkpoints.load(tmp_path / "c.npz")
    assert (found.digest, found.history, found.best, found.failures) == ("abc", epochs(2), 1, {"猫.png": "why"})
    for mine, theirs in zip(
        [*weights, np.int64(7), weights[0]], [*found.weights, *found.optimizer, *found.best_weights], strict=True
    ):
        np.testing.assert_array_equal(mine, theirs)
    assert checkpoints.load(tmp_path / "none.npz") is None


def test_of_a_damaged_checkpoint_nothing_is_taken(tmp_path):
    path, weights = tmp_path / "c.npz", [np.arange(6, dtype=np.float32)]
    checkpoints.save(Checkpoint("abc", epochs(1), 1, {}, weights, [], weights), path)
    content = path.read_bytes()
    for end in (0, 1, len(content) // 2, len(content) - 1):
        path.write_bytes(content[:end])
        assert checkpoints.load(path) is None
    for place in range(len(content)):
        path.write_bytes(content[:place] + bytes([content[place] ^ 0x55]) + content[place + 1 :])
        found = checkpoints.load(path)  # a flipped date, say, changes nothing
        assert found is None or (found.digest, found.history, found.best) == ("abc", epochs(1), 1)
        assert found is None or all(np.array_equal(*pair) for pair in zip(found.weights, weights, strict=True))


def tuned(name="a|b", **changes):
    values = {
        "name": name,
        "backbone": "mn",
        "start": "imagenet",
        "unfreeze": "conv_1",
        "classes": ["x", "y"],
        "n_train": 8,
        "n_validation": 2,
        "n_rest": 10,
        "history": list(epochs(4)),
        "best": 3,
        "accuracy": 0.875,
        "learned": 1234,
        "seconds": 6.0,
        "entry": {"name": name, "model": "m.keras", "preprocessing": "tf"},
        "digest": "d",
        "settings": {"rate": "0.01"},
        "created_with": {"keras": "3"},
    }
    return Tuned(**{**values, **changes})


def test_a_report_comes_back_as_it_was(tmp_path):
    tuned().save(tmp_path / "report.json")
    assert is_tuned(tmp_path / "report.json")
    assert Tuned.load(tmp_path / "report.json") == tuned()


def test_other_files_are_no_reports(tmp_path):
    (tmp_path / "a.json").write_text('{"kind": "evaluation"}')
    (tmp_path / "b.json").write_text("[")
    tuned(best=9).save(tmp_path / "c.json")
    assert [is_tuned(tmp_path / name) for name in ("a.json", "b.json", "none.json")] == [False, False, False]
    for name in ("a.json", "b.json", "c.json"):
        with pytest.raises(SourceError, match=f"{name}: .*report of `stackcls finetune`"):
            Tuned.load(tmp_path / name)
    with pytest.raises(SourceMissing, match=r"none\.json: no report there"):
        Tuned.load(tmp_path / "none.json")


def test_reports_side_by_side(tmp_path):
    tuned().save(tmp_path / "a.json")
    tuned("head", unfreeze="none", accuracy=None, n_rest=0).save(tmp_path / "b.json")
    rows = compare.run([tmp_path / "a.json", tmp_path / "b.json"]).splitlines()
    assert len(rows) == 4
    assert [cell.strip() for cell in rows[2].replace("\\|", "/").split("|")[1:-1]] == [
        *("a/b", "imagenet", "from conv_1", "1,234", "8", "3 of 4", "50.00", "87.50", "6")
    ]
    assert [cell.strip() for cell in rows[3].split("|")[3:9]] == ["head", "1,234", "8", "3 of 4", "50.00", ""]
    one = compare.run([tmp_path / "a.json"])
    assert "10 were left out: no image of the same bytes was learned from." in one
    assert "features:\n  backbones:\n    - {name: a|b, model: m.keras, preprocessing: tf}\n" in one
    assert "None was left out" in compare.run([tmp_path / "b.json"])


def test_a_fine_tuning_has_no_page(tmp_path):
    tuned().save(tmp_path / "a.json")
    with pytest.raises(ConfigError, match="is of `finetune`, whose reports have no page"):
        compare.write_page(tmp_path / "a.json", Settings())


def test_the_history_as_csv(tmp_path):
    (tmp_path / "h.csv").write_text(curves.history_csv(epochs(3)))
    rows = read_csv(tmp_path / "h.csv")
    assert [row["epoch"] for row in rows] == ["1", "2", "3"]
    assert float(rows[1]["loss"]) == 1.0


def test_curves_are_drawn_and_known_again(tmp_path):
    curves.save([tuned("$x_1$ <b>"), tuned("an ever " + "longer " * 20)], tmp_path / "c.png")
    assert curves.is_ours(tmp_path / "c.png")
    drawn = np.asarray(Image.open(tmp_path / "c.png").convert("RGB"))
    assert len(np.unique(drawn.reshape(-1, 3), axis=0)) > 20
    Image.new("RGB", (9, 9)).save(tmp_path / "other.png")
    assert not curves.is_ours(tmp_path / "other.png")
    assert not curves.is_ours(tmp_path / "none.png")


def test_a_single_epoch_is_drawn_at_a_whole_number_with_both_its_values(tmp_path, monkeypatch):
    from matplotlib.figure import Figure

    drawn = []
    saved = Figure.savefig
    monkeypatch.setattr(
        Figure, "savefig", lambda figure, *args, **how: drawn.append(figure) or saved(figure, *args, **how)
    )
    curves.save([tuned(history=list(epochs(1)), best=1)], tmp_path / "c.png")
    for axes in drawn[0].axes:
        low, high = axes.get_xlim()
        assert [tick for tick in axes.get_xticks() if low <= tick <= high] == [1]
        assert sum(line.get_marker() != "None" for line in axes.lines) == 2
