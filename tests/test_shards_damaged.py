"""Of damaged shards what can be read is; nothing worse happens."""

import contextlib
import tarfile

import numpy as np
import pytest

from stackcls import images, sources
from stackcls.errors import SourceError, UnreadableFile
from tests.test_shards import write_tar


def cut(data):
    return data[: len(data) // 2 + 700]


def flip(data):
    middle = 2 * 1536  # the header of the third member
    return data[:middle] + bytes(512 - 12) + b"not a header"[:12] + data[middle + 512 :]


def without_end(data):
    return data.rstrip(b"\0").ljust(5 * 1536, b"\0")[: 5 * 1536]


@pytest.mark.parametrize(("damage", "left"), [(cut, 3), (flip, 2), (without_end, 5), (lambda data: b"x" * 3000, 0)])
def test_of_a_damaged_shard_what_can_be_read_is(tmp_path, damage, left):
    path = write_tar(tmp_path / "bad.tar", {f"{n}.jpg": bytes([65 + n]) * 1000 for n in range(5)}, tarfile.USTAR_FORMAT)
    path.write_bytes(damage(path.read_bytes()))
    write_tar(tmp_path / "good.tar", {"z.jpg": b"z"})
    source = sources.scan(tmp_path)
    assert len(source.entries) == left + 1
    assert "is damaged or cut short" in source.rejected["bad.tar"]
    for entry in source.entries[:left]:
        assert images.read_bytes(source.locate(entry), "x") == bytes([65 + int(entry.path[8])]) * 1000


@pytest.mark.parametrize("form", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_no_damage_does_more_than_lose_images(tmp_path, form):
    samples = {f"{'long' * 40 if n == 2 else n}.jpg": bytes(600) for n in range(4)} | {"1.cls": b"dog", "3.json": b"{}"}
    path = write_tar(tmp_path / "s.tar", samples, form)
    good = path.read_bytes()
    rng = np.random.default_rng(0)
    for _ in range(150):
        data = bytearray(good)
        for place_ in rng.integers(0, len(data), rng.integers(1, 5)):
            data[place_] = rng.choice([0, 0x80, 0xFF, ord("9"), rng.integers(256)])
        path.write_bytes(data[: rng.integers(0, len(data))] if rng.random() < 0.3 else data)
        try:
            source = sources.scan(path)
        except SourceError:
            continue
        for entry in source.entries:
            with contextlib.suppress(UnreadableFile):
                images.read_bytes(source.locate(entry), entry.path)
