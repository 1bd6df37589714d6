"""Finished blocks outlive their process, whole or not at all."""

import zipfile

import numpy as np
import pytest

from stackcls.bases import Basis
from stackcls.blocks import Block, BlockFolder

IDENTITY, OTHER = "1" * 64, "2" * 64


def make_block(first=0, rows=3, identities=(IDENTITY,)):
    rng = np.random.default_rng(first)
    return Block(
        tuple(f"{first + row:064d}" for row in range(rows)),
        {digest: rng.normal(size=(rows, 5)).astype(np.float32) for digest in identities},
        {digest: {"engine": "fake", "configured": {"name": "猫"}} for digest in identities},
    )


def same(mine, theirs):
    assert (mine.sha256, mine.provenance) == (theirs.sha256, theirs.provenance)
    assert mine.features.keys() == theirs.features.keys()
    for key, matrix in mine.features.items():
        assert theirs.features[key].dtype == np.float32
        assert np.array_equal(matrix, theirs.features[key])


def test_blocks_are_found_again(tmp_path):
    written = [make_block(0), make_block(10, 1, (IDENTITY, OTHER))]
    for block in written:
        BlockFolder(tmp_path / "sub" / "blocks").add(block)
    found = sorted(BlockFolder(tmp_path / "sub" / "blocks").read(), key=lambda block: block.sha256)
    assert len(found) == 2
    for mine, theirs in zip(written, found, strict=True):
        same(mine, theirs)


def test_a_folder_that_is_not_there_holds_nothing(tmp_path):
    folder = BlockFolder(tmp_path / "none")
    assert list(folder.read()) == []
    folder.clear()
    assert not (tmp_path / "none").exists()


def test_a_block_written_again_is_there_once(tmp_path):
    folder = BlockFolder(tmp_path)
    for _ in range(2):
        folder.add(make_block())
    assert len(list(folder.read())) == 1


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.9, 0.999])
def test_a_block_cut_short_is_dropped_and_the_others_stay(tmp_path, share):
    folder = BlockFolder(tmp_path)
    folder.add(make_block(0))
    (cut,) = tmp_path.glob("*.npz")
    folder.add(make_block(10))
    data = cut.read_bytes()
    cut.write_bytes(data[: int(len(data) * share)])
    assert [block.sha256 for block in folder.read()] == [make_block(10).sha256]


def test_a_block_with_a_flipped_bit_in_its_features_is_dropped(tmp_path):
    folder = BlockFolder(tmp_path)
    block = make_block(rows=50)
    folder.add(block)
    (path,) = tmp_path.glob("*.npz")
    data = bytearray(path.read_bytes())
    at = data.find(block.features[IDENTITY].tobytes())
    assert at > 0
    data[at + 400] ^= 1
    path.write_bytes(data)
    assert list(folder.read()) == []


def test_a_flipped_bit_anywhere_gives_no_wrong_feature(tmp_path):
    folder, block = BlockFolder(tmp_path), make_block(rows=1)
    folder.add(block)
    (path,) = tmp_path.glob("*.npz")
    data = path.read_bytes()
    dropped = 0
    for at in range(0, len(data), 7):
        for bit in (1, 64):
            flipped = bytearray(data)
            flipped[at] ^= bit
            path.write_bytes(flipped)
            found = list(folder.read())
            dropped += not found
            # What zip keeps twice or not at all may differ; what is read may not.
            for item in found:
                assert item.sha256 == block.sha256
                for key, matrix in item.features.items():
                    assert np.array_equal(matrix, block.features[key])
    assert dropped > 150


@pytest.mark.parametrize("content", [b"", b"no archive", b"PK\3\4 no archive either"])
def test_what_is_no_block_is_dropped(tmp_path, content):
    (tmp_path / "x.npz").write_bytes(content)
    assert list(BlockFolder(tmp_path).read()) == []


def test_an_archive_without_meta_is_dropped(tmp_path):
    with zipfile.ZipFile(tmp_path / "x.npz", "w") as archive:
        archive.writestr("other.txt", "x")
    assert list(BlockFolder(tmp_path).read()) == []


def test_nothing_pickled_is_loaded(tmp_path):
    np.savez(tmp_path / "x.npz", meta=np.array([{"sha256": []}], dtype=object))
    assert list(BlockFolder(tmp_path).read()) == []


def test_a_write_that_fails_leaves_no_block(tmp_path, monkeypatch):
    monkeypatch.setattr("stackcls.files.os.replace", lambda *_: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OSError, match="disk full"):
        BlockFolder(tmp_path).add(make_block())
    assert list(tmp_path.iterdir()) == []


def test_clear_removes_what_a_killed_writer_left(tmp_path):
    folder = BlockFolder(tmp_path / "blocks")
    folder.add(make_block())
    (tmp_path / "blocks" / ".abc.npz.123.tmp").write_bytes(b"half")
    assert len(list(folder.read())) == 1
    folder.clear()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("kind", ["block", "basis"])
def test_no_flipped_bit_ends_a_run(tmp_path, kind):
    """In archives as large as those in use, read in pieces; two bits of each byte that is no feature."""
    folder, block = BlockFolder(tmp_path), make_block(rows=300)
    basis = Basis("int8-ranges", '["a"]', np.arange(3000, dtype=np.float32))
    if kind == "block":
        folder.add(block)
    else:
        folder.keep_basis("x", basis)
    (path,) = tmp_path.iterdir()
    data = path.read_bytes()
    raw = (block.features[IDENTITY] if kind == "block" else basis.values).tobytes()
    start, size = data.index(raw), len(raw)
    assert size > 4096
    hashes = data.find(b"0" * 50)  # and of the many hashes, which are alike
    places = [at for at in range(len(data)) if not (start < at < start + size or hashes + 99 < at < start - 400)]
    for at in [*places, *range(start, start + size, 997)]:
        for bit in (at % 8, (at + 3) % 8):
            flipped = bytearray(data)
            flipped[at] ^= 1 << bit
            path.write_bytes(flipped)
            for found in folder.read():
                same(block, found)
            if (read := folder.basis("x")) is not None:
                assert (read.kind, read.layout) == (basis.kind, basis.layout)
                assert np.array_equal(read.values, basis.values)
