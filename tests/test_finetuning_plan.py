"""Images that a fine-tuning neither scores nor is stopped by: those that the network saw before, and others."""

import pytest

from stackcls import splits
from stackcls.errors import TrainingError
from stackcls.files import digest_file
from stackcls.finetuning import jobs
from stackcls.finetuning.plan import draw
from stackcls.listener import Silent
from stackcls.seen import short_hashes
from tests.conftest import write_photo
from tests.test_finetuning_jobs import job, photos, settings  # noqa: F401  (a fixture)
from tests.test_finetuning_parts import HALF, listing, parts
from tests.test_seen import tuned


def hashes(files):
    return short_hashes([digest_file(file) for file in files])


def test_what_the_network_saw_before_tells_nothing(photos):  # noqa: F811
    train, validation, rest = parts(draw(listing(photos), HALF))
    saw = {min(train), min(validation), *sorted(rest)[:5]}
    (photos / "elsewhere").mkdir()
    renamed = (photos / min(rest)).rename(photos / "blue/renamed.png")
    before = hashes([renamed, *(photos / path for path in saw - {min(rest)})])
    again = draw(listing(photos), HALF, before=before)
    found = parts(again)
    assert found[2] == rest - saw
    assert len(found[1]) > 3
    assert not (found[1] | found[2]) & {*saw, "blue/renamed.png"}
    lost = 60 - sum(map(len, found))
    assert again.notes == (
        f"in no part: {lost} images, since the network to begin with saw them, or others of their groups, before; "
        "copies of other bytes are not looked for here",
    )


def test_groups_that_the_network_saw_before_tell_nothing(photos):  # noqa: F811
    rows = [f"{path.relative_to(photos)},{path.parent.name},{path.stem}" for path in sorted(photos.rglob("*.png"))]
    (photos / "all.csv").write_text("path,label,group\n" + "\n".join(rows) + "\n")
    rest = parts(draw(listing(photos / "all.csv"), HALF))[2]
    group = min(rest).split("/")[1]
    again = parts(draw(listing(photos / "all.csv"), HALF, before=hashes([photos / "red" / group])))[2]
    assert rest - again == {f"{colour}/{group}" for colour in ("blue", "green", "red")}


@pytest.fixture
def chained(photos):  # noqa: F811
    """Photos of different pixels in groups of two, of which copies join every second with the next."""
    groups = {f"red/{number:02d}.png": f"g{number // 2}" for number in range(20)}
    for number in range(0, 9, 2):
        copy = f"red/copy{number}.png"
        (photos / copy).write_bytes((photos / f"red/{2 * number:02d}.png").read_bytes())
        groups[copy] = f"g{number + 1}"
    paths = sorted(path.relative_to(photos).as_posix() for path in photos.rglob("*.png"))
    rows = [f"{path},{path.split('/')[0]},{groups.get(path, '')}\n" for path in paths]
    (photos / "all.csv").write_text("path,label,group\n" + "".join(rows))
    families = {
        number: {path for path in paths if groups.get(path) in {f"g{number}", f"g{number + 1}"}}
        for number in range(0, 9, 2)
    }
    return photos, listing(photos / "all.csv"), families


def test_copies_in_two_groups_keep_both_groups_whole(chained):
    _, listed, families = chained
    for share in (0.3, 0.5, 0.7):
        found = parts(draw(listed, HALF.model_copy(update={"share": share})))
        for family in families.values():
            assert len(family) == 5
            assert sum(bool(part & family) for part in found) == 1


def test_copies_in_two_groups_hold_out_both(chained):
    _, listed, families = chained
    held = {number for number in families if min(splits.place(f"g{number}"), splits.place(f"g{number + 1}")) < 0.2}
    assert 0 < len(held) < 5
    drawn = set().union(*parts(draw(listed, HALF.model_copy(update={"share": 0.8}), 0.2)))
    assert {number for number, family in families.items() if not family & drawn} == held
    assert all(family <= drawn for number, family in families.items() if number not in held)


def test_copies_in_two_groups_are_known_with_both(chained):
    photos, listed, families = chained  # noqa: F811
    rest = parts(draw(listed, HALF))[2]
    family = next(family for family in families.values() if family <= rest)
    alone = sorted(family)[1]  # the first is the one that was copied
    again = parts(draw(listed, HALF, before=hashes([photos / alone])))
    assert rest - again[2] == family


def test_a_network_that_saw_all_cannot_be_told_when_to_stop(photos):  # noqa: F811
    with pytest.raises(TrainingError, match=r"finetune.start: the network saw all \d+ images before that .*--from"):
        draw(listing(photos), HALF, before=hashes(photos.rglob("*.png")))


def test_a_second_share_is_validated_on_what_the_first_did_not_see(photos):  # noqa: F811
    first = draw(listing(photos), HALF)
    saw = hashes(photos / entry.path for entry in (*first.train, *first.validation))
    second = draw(listing(photos), HALF.model_copy(update={"share": 0.8}), before=saw)
    known = {entry.path for entry in (*first.train, *first.validation)}
    train, validation, rest = parts(second)
    assert validation
    assert not (validation | rest) & known
    assert known & train
    assert rest == {entry.path for entry in first.rest if 1 - splits.place(entry.path) > 0.8}


def test_all_ways_of_a_comparison_have_the_same_images(photos, tmp_path):  # noqa: F811
    rest = parts(job(photos, "mini_vgg").plan)[2]
    file = tuned(tmp_path / "first.keras", [photos / path for path in sorted(rest)[:4]])
    ways = jobs.make_all(settings(photos, start=str(file)), "mini_vgg", None, listing(photos), True, Silent())
    assert [way.start for way in ways] == ["random", "first.keras", "first.keras"]
    assert [parts(way.plan)[2] for way in ways] == [set(sorted(rest)[4:])] * 3


def test_the_record_of_the_file_to_begin_with_decides(photos, tmp_path):  # noqa: F811
    rest = parts(job(photos, "mini_vgg").plan)[2]
    file = tuned(tmp_path / "first.keras", [photos / path for path in sorted(rest)[:4]])
    assert parts(job(photos, "mini_vgg", start=str(file)).plan)[2] == set(sorted(rest)[4:])
    fresh = job(photos, "mine", {"name": "mine", "model": str(file), "preprocessing": "tf"}, start="random")
    assert parts(fresh.plan)[2] == rest


def test_every_labelled_image_is_accounted_for(photos):  # noqa: F811
    names = (f"lost\x1b/{number:02d}.png" for number in range(99))
    for name in [name for name in names if 0.2 < splits.place(name) < 0.5][:4]:  # neither held out nor in the share
        write_photo(photos / name, (9, 9, 9), 1)
    for holdout in (None, 0.2):
        chosen = draw(listing(photos), HALF, holdout)
        counts = [int(note.removeprefix("in no part: ").split()[0]) for note in chosen.notes]
        assert len(counts) == (1 if holdout is None else 2)
        assert sum(map(len, parts(chosen))) + sum(counts) == 64
    assert chosen.notes[0].endswith(" labelled images, held out")
    assert draw(listing(photos), HALF).notes == (
        "in no part: 4 images, since none of the class was drawn to learn from (a larger finetune.share helps): "
        "lost\x1b (4 images)",
    )


@pytest.mark.parametrize(("validation", "few"), [(0.1, True), (0.2, True), (0.6, False)])
def test_few_images_to_validate_on_are_told(photos, validation, few):  # noqa: F811
    chosen = draw(listing(photos), HALF.model_copy(update={"validation": validation}))
    count = len(chosen.validation)
    told = f"{count} image{'s' * (count > 1)} to validate on: so few that chance picks the best epoch; a larger "
    assert few == (count < 10)
    assert any(note.startswith(told) for note in chosen.notes) == few
