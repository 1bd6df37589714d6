"""From files to features: order is kept, bad images shift nothing, memory stays bounded, changed files are refused."""

import itertools
import threading
import time

import numpy as np
import pytest

from stackcls import extraction, images
from stackcls.extraction import ImageInput
from stackcls.matrices import bare
from tests.conftest import write_photo


class Recorder:
    """Features that say which image they came from: its mean colour, and its first pixel."""

    def __init__(self, input_size=16):
        self.input_size, self.width, self.batches = input_size, 4, []

    def __call__(self, batch):
        assert batch.dtype == np.uint8
        assert batch.shape[1:] == (self.input_size, self.input_size, 3)
        self.batches.append(len(batch))
        means = batch.reshape(len(batch), -1, 3).mean(axis=1)
        return np.concatenate([means, batch[:, 0, 0, :1]], axis=1).astype(np.float32)


def plain(number):
    return np.full((8, 10, 3), number % 256, dtype=np.uint8)


def array_inputs(count):
    return [ImageInput(f"array {number}", plain(number)) for number in range(count)]


def run(inputs, batch_size=4, extractors=None, **options):
    extractors = extractors or {"one": Recorder()}
    matrices = {name: bare(extractor) for name, extractor in extractors.items()}
    return list(extraction.extract(inputs, matrices, batch_size, **options))


def test_order_is_kept_whoever_decodes_first(monkeypatch):
    slow = {0, 5, 6}
    load = extraction._load

    def dawdle(item, *given):
        if int(item.name.split()[1]) in slow:
            time.sleep(0.03)
        return load(item, *given)

    monkeypatch.setattr(extraction, "_load", dawdle)
    batches = run(array_inputs(11), workers=4)
    assert [batch.positions for batch in batches] == [(0, 1, 2, 3), (4, 5, 6, 7), (8, 9, 10)]
    assert np.concatenate([batch.features["one"][:, 0] for batch in batches]).tolist() == list(range(11))


def test_a_bad_image_shifts_no_other():
    inputs = array_inputs(10)
    for bad in (0, 4, 5):
        inputs[bad] = ImageInput(f"bad {bad}", np.zeros((2, 2)))
    batches = run(inputs)
    assert [batch.positions for batch in batches] == [(1, 2, 3, 6), (7, 8, 9)]
    assert [sorted(batch.failures) for batch in batches] == [[0, 4, 5], []]
    assert batches[0].failures[4].path == "bad 4"
    for batch in batches:
        assert batch.features["one"][:, 0].tolist() == list(batch.positions)


@pytest.mark.parametrize(("count", "sizes"), [(0, []), (3, [3]), (4, [4]), (9, [4, 4, 1])])
def test_batches_are_full_except_the_last(count, sizes):
    recorder = Recorder()
    run(array_inputs(count), extractors={"one": recorder})
    assert recorder.batches == sizes


def test_bad_images_at_the_end_are_reported():
    inputs = [*array_inputs(4), ImageInput("bad", np.zeros((2, 2)))]
    recorder = Recorder()
    first, last = run(inputs, extractors={"one": recorder})
    assert (first.failures, last.positions, last.features) == ({}, (), {})
    assert list(last.failures) == [4]
    assert recorder.batches == [4]


def test_nothing_but_bad_images_runs_no_network():
    recorder = Recorder()
    (only,) = run([ImageInput(str(number), np.zeros(3)) for number in range(9)], extractors={"one": recorder})
    assert sorted(only.failures) == list(range(9))
    assert recorder.batches == []


def test_every_backbone_gets_its_own_size_from_one_reading(tmp_path, monkeypatch):
    reads = []
    read = images.read_bytes
    monkeypatch.setattr(images, "read_bytes", lambda *given: reads.append(given[1]) or read(*given))
    paths = [write_photo(tmp_path / f"{number}.png", (100, 50, 20 * number), number) for number in range(5)]
    extractors = {"small": Recorder(16), "large": Recorder(40), "also small": Recorder(16)}
    batches = run([ImageInput(path.name, path) for path in paths], extractors=extractors)
    assert sorted(reads) == sorted(path.name for path in paths)
    features = {name: np.concatenate([batch.features[name] for batch in batches]) for name in extractors}
    assert np.array_equal(features["small"], features["also small"])
    for size, name in ((16, "small"), (40, "large")):
        pixels = np.stack([images.resize(images.decode(path.read_bytes(), path.name), size) for path in paths])
        assert np.array_equal(features[name], Recorder(size)(pixels))


def test_files_and_arrays_of_the_same_picture_agree(tmp_path):
    path = write_photo(tmp_path / "x.png", (10, 200, 30), 1)
    array = np.asarray(images.decode(path.read_bytes(), "x"))
    (batch,) = run([ImageInput("file", path), ImageInput("array", array)])
    assert np.array_equal(batch.features["one"][0], batch.features["one"][1])


def test_endless_inputs_are_read_only_a_little_ahead():
    taken = itertools.count()
    last = 0

    def endless():
        nonlocal last
        for last in taken:
            yield ImageInput(f"array {last}", plain(last))

    batches = extraction.extract(endless(), {"one": bare(Recorder())}, 4)
    for number in range(5):
        batch = next(batches)
        assert batch.positions == tuple(range(4 * number, 4 * number + 4))
        assert last < 4 * (number + 1 + extraction.AHEAD + 1)
    batches.close()


def decoding_threads():
    return [thread for thread in threading.enumerate() if thread.name.startswith("decode")]


def test_threads_end_when_the_reader_stops_early():
    batches = extraction.extract((ImageInput("x", plain(1)) for _ in itertools.count()), {"one": bare(Recorder())}, 2)
    next(batches)
    assert decoding_threads()
    batches.close()
    assert not decoding_threads()


def test_threads_end_when_a_network_fails():
    def failing(batch):
        raise MemoryError("out of memory")

    failing.input_size = 16
    with pytest.raises(MemoryError, match="out of memory"):
        run(array_inputs(20), extractors={"one": failing})
    assert not decoding_threads()


def test_a_file_that_changed_since_it_was_hashed_is_refused(tmp_path):
    kept, changed = (write_photo(tmp_path / f"{name}.png", (50, 60, 70), 1) for name in ("kept", "changed"))
    inputs = [ImageInput(path.name, path, images.content_hash(path.read_bytes())) for path in (changed, kept)]
    write_photo(changed, (50, 60, 70), 2)
    (batch,) = run(inputs)
    assert batch.positions == (1,)
    assert str(batch.failures[0]) == "changed.png: changed while this run was reading it; run again"


@pytest.mark.parametrize(
    ("content", "reason"), [(None, "file not found"), (b"", "the file is empty"), (b"text", "not an image")]
)
def test_files_that_cannot_be_read_are_failures_with_their_name(tmp_path, content, reason):
    if content is not None:
        (tmp_path / "x.jpg").write_bytes(content)
    (batch,) = run([ImageInput("cats/x.jpg", tmp_path / "x.jpg")])
    assert str(batch.failures[0]).startswith(f"cats/x.jpg: {reason}")
