"""Jobs in threads: in order, within shared memory, and given up when they hang; nothing waits for such a thread."""

import io
import subprocess
import sys
import threading

import numpy as np
import pytest
from PIL import Image

from stackcls import decoding, extraction, images
from stackcls.errors import SourceError, UnreadableImage
from stackcls.extraction import ImageInput
from stackcls.settings import Limits
from stackcls.stages import features, fit
from stackcls.views import Frame
from tests.conftest import make_settings, write_photos

HANGS = "took longer than 0.2 s to decode; raise features.image_seconds"


@pytest.fixture
def release():
    """Lets threads that hang go when the test ends."""
    event = threading.Event()
    yield event
    event.set()


@pytest.fixture(autouse=True)
def nothing_stuck(monkeypatch):
    """What other tests left hanging is not of this one."""
    monkeypatch.setattr(decoding, "_stuck", [])


@pytest.fixture
def hold(monkeypatch, release):
    """A job that takes a third of what may be stuck, and hangs."""
    monkeypatch.setattr(decoding, "STUCK_BYTES", 3 * (decoding.BYTES_PER_THREAD + 4000))

    def run(turn):
        turn.counting = True
        turn.admit_pixels(1000)
        release.wait()

    return run


@pytest.fixture
def hang(monkeypatch, release):
    """Let the decoding of images with these names never end, whatever folder they are in."""
    decode = images.decode

    def start(*names):
        def stuck(data, name, *given):
            if name.rpartition("/")[2] in names:
                release.wait()
            return decode(data, name, *given)

        monkeypatch.setattr(images, "decode", stuck)

    return start


def in_order(jobs, seconds=0.2, ahead=6, workers=2):
    return list(decoding.in_order(jobs, lambda number: f"{number} late", seconds, ahead, workers))


def job(value, release=None, waits=False):
    def run(turn):
        turn.counting = True
        if waits:
            release.wait()
        return value

    return run


def test_jobs_that_hang_are_given_up_and_others_keep_their_order(release):
    # More of them than there are threads.
    jobs = [job(number, release, number in {1, 2, 3, 8}) for number in range(12)]
    expected = [f"{number} late" if number in {1, 2, 3, 8} else number for number in range(12)]
    assert in_order(jobs) == expected


def test_all_jobs_may_hang(release):
    assert in_order([job(0, release, True)] * 5) == [f"{number} late" for number in range(5)]


def test_waiting_for_a_thread_or_for_memory_is_no_part_of_a_jobs_time(monkeypatch, release):
    monkeypatch.setattr(decoding, "PIXELS", 10)
    monkeypatch.setattr(decoding, "TICKS", 2)

    def long(turn):
        turn.counting = True
        turn.admit_pixels(10)
        threading.Event().wait(0.3)
        return "done"

    # Together they take longer than one may, one after the other as they are.
    assert in_order([long] * 4, seconds=0.7, workers=4) == ["done"] * 4


@pytest.mark.parametrize("share", ["FILE_BYTES", "PIXELS"])
@pytest.mark.parametrize("amount", [1, 5, 10, 99])
def test_jobs_hold_no_more_than_the_share_together_or_one_alone(monkeypatch, share, amount):
    monkeypatch.setattr(decoding, share, 10)
    lock, held, most = threading.Lock(), 0, []

    def take(turn):
        nonlocal held
        (turn.admit_file if share == "FILE_BYTES" else turn.admit_pixels)(amount)
        with lock:
            held += amount
            most.append(held)
        threading.Event().wait(0.005)
        with lock:
            held -= amount
        return amount

    assert in_order([take] * 30, seconds=60, ahead=30, workers=8) == [amount] * 30
    assert max(most) <= max(10, amount)


def test_what_a_job_that_hangs_holds_is_given_back(monkeypatch, release):
    monkeypatch.setattr(decoding, "PIXELS", 10)

    def hog(turn):
        turn.counting = True
        turn.admit_pixels(10)
        release.wait()

    def needs(turn):
        turn.admit_pixels(10)
        return "done"

    assert in_order([hog, needs, hog, needs]) == ["0 late", "done", "2 late", "done"]


def test_what_hangs_may_hold_so_much_and_no_more(monkeypatch, release, hold):
    with pytest.raises(decoding.TooMuchStuck, match="4 jobs do not end") as caught:
        in_order([hold] * 9, ahead=1)
    assert caught.value.answers == ["0 late", "1 late", "2 late", "3 late"]
    # Of the whole process: other work that meets one more cannot go on either, what meets none can.
    with pytest.raises(decoding.TooMuchStuck, match="5 jobs do not end"):
        in_order([job(7), hold])
    assert in_order([job(7)]) == [7]
    release.set()
    for turn in decoding._stuck:
        assert turn.done.wait(60)
    release.clear()
    assert in_order([job(7), hold]) == [7, "1 late"]


def test_what_still_hangs_when_the_reader_stops_counts_too(release, hold):
    outcomes = decoding.in_order([job(7), hold, hold], lambda number: f"{number} late", 0.2, 3, 3)
    assert next(outcomes) == 7
    threading.Event().wait(0.05)
    outcomes.close()
    assert sorted(turn.answer for turn in decoding._stuck) == ["1 late", "2 late"]


def test_a_single_image_may_hold_more(monkeypatch, release, hold):
    monkeypatch.setattr(decoding, "STUCK_BYTES", 1)
    assert in_order([hold, job(7)]) == ["0 late", 7]


def test_features_ends_with_the_names_when_too_much_is_stuck(
    photos, tmp_path, fake_engine, hang, stackcls, monkeypatch
):
    monkeypatch.setattr(decoding, "STUCK_BYTES", 5 * decoding.BYTES_PER_THREAD)
    settings = make_settings(photos, tmp_path / "artifacts", features={"image_seconds": 0.2})
    hang("05.png", "06.png", "07.png")
    with pytest.raises(
        SourceError, match=r"images: [5-9] took longer .* keep too much memory: .*blue/05\.png.*"
    ) as caught:
        features.run(settings)
    assert "what was finished is kept" in caught.value.__notes__[0]
    for name in ("05.png", "06.png", "07.png"):
        for folder in ("blue", "green", "red"):
            (photos / folder / name).unlink()
    assert features.run(settings).n_images == 18
    assert fake_engine.computed["one"] <= 18 + 4  # a batch may have been under way


def test_what_a_job_raises_is_raised_and_no_thread_is_left():
    def fail(turn):
        raise KeyError("x")

    before = set(threading.enumerate())
    with pytest.raises(KeyError, match="x"):
        in_order([job(1), fail, job(2)])
    begun = [thread for thread in threading.enumerate() if thread not in before]
    for thread in begun:
        thread.join(10)  # it may still be on its way out
    assert not [thread for thread in begun if thread.is_alive()]


def write_slow_jpeg(path):
    """A megabyte that takes libjpeg half an hour: the last scan of a progressive picture, repeated."""
    buffer = io.BytesIO()
    Image.new("L", (4000, 4000), 128).save(buffer, "JPEG", progressive=True)
    data = buffer.getvalue()
    path.write_bytes(data[:-2] + data[data.rindex(b"\xff\xda") : -2] * 100_000 + data[-2:])


def test_a_run_ends_though_a_decoder_does_not(tmp_path):
    write_slow_jpeg(tmp_path / "slow.jpg")
    Image.new("RGB", (8, 8), "red").save(tmp_path / "good.png")
    script = """
import sys
from pathlib import Path
from stackcls import extraction
from stackcls.settings import Limits
from stackcls.views import Frame
inputs = [extraction.ImageInput(name, Path(name)) for name in ("slow.jpg", "good.png", "slow.jpg")]
for loaded in extraction.load(inputs, (Frame(4),), 3, Limits(seconds=0.5), workers=2):
    print(loaded if isinstance(loaded, Exception) else loaded[Frame(4)][0, 0].tolist())
"""
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=tmp_path, timeout=300
    )
    late = "slow.jpg: took longer than 0.5 s to decode; raise features.image_seconds"
    assert done.stdout.splitlines() == [late, "[255, 0, 0]", late]


def test_features_rejects_what_takes_too_long_and_shifts_nothing(photos, tmp_path, fake_engine, hang):
    settings = make_settings(photos, tmp_path / "artifacts", features={"image_seconds": 0.2})
    hang("04.png")
    result = features.run(settings)
    assert dict(result.rejected) == dict.fromkeys([f"{name}/04.png" for name in ("blue", "green", "red")], HANGS)
    for name in result.rejected:
        (photos / name).unlink()
    clean = make_settings(photos, tmp_path / "clean")
    features.run(clean)
    with features.Store(settings.files.features) as one, features.Store(clean.files.features) as other:
        assert one.table.paths == other.table.paths
        assert next(one.chunks("one"))[1].tobytes() == next(other.chunks("one"))[1].tobytes()


def test_limits_are_no_part_of_a_matrix(photos, tmp_path, fake_engine):
    features.run(make_settings(photos, tmp_path / "artifacts"))
    changed = {"image_seconds": 5, "max_pixels": 10_000}
    assert not features.run(make_settings(photos, tmp_path / "artifacts", features=changed)).written


def test_8_bit_ranges_are_fitted_on_what_can_be_decoded_in_time(photos, tmp_path, fake_engine, hang):
    hang("03.png")
    extra = {"image_seconds": 0.2, "precision": "int8"}
    result = features.run(make_settings(photos, tmp_path / "artifacts", features=extra))
    assert len(result.rejected) == 3
    assert {len(names) for names in fake_engine.calibrated} == {24}


@pytest.mark.parametrize(
    ("setting", "reason"),
    [("features.image_seconds=0.2", HANGS), ("features.max_pixels=479", "24x20 pixels are over 479: make it smaller")],
)
def test_predict_and_evaluate_keep_the_limits_too(settings, fake_engine, tmp_path, stackcls, hang, setting, reason):
    features.run(settings)
    fit.run(settings)
    new = write_photos(tmp_path / "new", 2, seed=5)
    if reason == HANGS:
        hang("00.png")
    status, out, _ = stackcls("predict", new, "--model", settings.files.model, "--set", setting, "--format", "json")
    assert status == 0
    assert out.count(reason) == (3 if reason == HANGS else 6)
    status, _, err = stackcls("evaluate", new, "--model", settings.files.model, "--set", setting)
    assert reason in err
    assert status == (0 if reason == HANGS else 1)


def test_images_of_any_size_share_memory(tmp_path, monkeypatch):
    monkeypatch.setattr(decoding, "PIXELS", 100)
    for number in range(6):
        Image.new("RGB", (40, 10 + number), (number, 0, 0)).save(tmp_path / f"{number}.png")
    inputs = [ImageInput(str(number), tmp_path / f"{number}.png") for number in range(6)]
    loaded = list(extraction.load(inputs, (Frame(4),), 6, Limits(seconds=60), workers=4))
    assert [int(item[Frame(4)][0, 0, 0]) for item in loaded] == list(range(6))


def test_out_of_memory_rejects_the_image(tmp_path, monkeypatch):
    def fail(*_):
        raise MemoryError

    (tmp_path / "x.png").write_bytes(b"x")
    monkeypatch.setattr(images, "read_bytes", fail)
    (loaded,) = extraction.load([ImageInput("x.png", tmp_path / "x.png")], (Frame(4),), 1)
    assert isinstance(loaded, UnreadableImage)
    assert str(loaded) == "x.png: not enough memory to read it"


def test_features_do_not_depend_on_how_the_image_was_converted(monkeypatch):
    rng = np.random.default_rng(0)
    buffer = io.BytesIO()
    Image.fromarray(rng.integers(0, 256, (50, 30, 4), dtype=np.uint8)).save(buffer, "PNG")
    whole = np.asarray(images.decode(buffer.getvalue(), "x"))
    monkeypatch.setattr(images, "STRIP", 100)
    assert np.array_equal(np.asarray(images.decode(buffer.getvalue(), "x")), whole)
