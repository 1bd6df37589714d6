"""Servers and shards that are larger, slower or less honest than expected."""

import pytest

from stackcls import images, sources
from stackcls.settings import Limits
from stackcls.urls import place
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
