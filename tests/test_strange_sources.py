"""Servers and shards that are larger, slower or less honest than expected."""

import io
import tarfile

import pytest

from stackcls import images, sources
from stackcls.settings import Limits
from stackcls.stages import features
from stackcls.store import Store
from stackcls.urls import place
from tests.conftest import make_settings, write_photo
from tests.test_shards import write_tar

QUICK = Limits(read_tries=2)


@pytest.mark.parametrize("pieces", [True, False])
def test_a_shard_that_takes_several_pieces_is_read_from_a_server_that_gives_some(served, tmp_path, pieces):
    samples = {f"c/{n}.png": bytes([n]) * 700_000 for n in range(3)} | {"c/empty.png": b""}
    write_tar(tmp_path / "s.tar", samples)
    served.handler.pieces = pieces
    if not pieces:
        with pytest.raises(sources.SourceError, match="gives no pieces of files"):
            sources.scan(place(f"{served.url}/s.tar"), QUICK)
        return
    source = sources.scan(place(f"{served.url}/s.tar"), QUICK)
    assert source.entries == sources.scan(tmp_path / "s.tar").entries
    for entry in source.entries:
        assert images.read_bytes(source.locate(entry), "x") == samples[entry.path.removeprefix("s.tar/")]


def write_named(path, names):
    """A shard of photos whose names only a header of PAX can have."""
    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as tar:
        for number, name in enumerate(names):
            file = write_photo(path.parent / "photo.png", (9, 40 * number, 9), number)
            info = tarfile.TarInfo(f"{number}.png")
            info.size, info.pax_headers = file.stat().st_size, {"path": name}
            tar.addfile(info, io.BytesIO(file.read_bytes()))
            file.unlink()
    return path


def test_names_and_labels_with_a_nul_are_rejected_and_the_rest_is_stored(tmp_path, fake_engine):
    (tmp_path / "classes.txt").write_bytes(b"a\0b\nc\n")
    write_named(tmp_path / "s.tar", ["c0/1.png", "c1/2.png", "c1/x\0y.png"])
    write_tar(tmp_path / "t.tar", {"z.png": b"z", "z.cls": b"0"})
    settings = make_settings(tmp_path / "{s,t}.tar", tmp_path / "artifacts")
    result = features.run(settings)
    assert result.n_images == 2
    assert set(result.rejected) == {"s.tar/c1/x\\x00y.png", "t.tar/z.png"}
    assert not features.run(settings).written
    with Store(settings.files.features) as store:
        assert store.table.rejected == result.rejected


def test_names_with_a_nul_on_a_server_are_rejected(served, tmp_path, monkeypatch):
    monkeypatch.setattr("stackcls.remote.find", lambda *_: {"c/a\0b.png": 1, "c/ok.png": 1, "c//\0.png": 1})
    source = sources.scan(place(f"{served.url}/"), QUICK)
    assert [entry.path for entry in source.entries] == ["c/ok.png"]
    assert set(source.rejected) == {"c/a\\x00b.png", "c//\\x00.png"}
