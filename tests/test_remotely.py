"""Workers that see other files than the one who asks."""

import pytest

from stackcls import images, remotely
from stackcls.errors import ClusterError, UnreadableFile
from stackcls.extraction import ImageInput
from stackcls.settings import Limits
from stackcls.tarfiles import TarMember
from stackcls.tasks import Hashed

LIMITS = Limits()


@pytest.fixture
def items(tmp_path):
    """Images of equal size."""
    for number in range(3):
        (tmp_path / f"{number}.png").write_bytes(bytes([number]) * 9)
    return [ImageInput(path.name, path) for path in sorted(tmp_path.iterdir())]


def found(items, sizes=(9, 9, 9)):
    return Hashed("tcp://a:1", [images.hash_file(item.content, item.name, LIMITS) for item in items], list(sizes))


def test_the_same_files_are_the_same(items):
    remotely._check_hashes(items, found(items), LIMITS)


def test_a_file_of_another_size_ends_the_run(items):
    with pytest.raises(
        ClusterError, match=r"^1\.png: the worker tcp://a:1, or one before it, sees another file.*/1\.png"
    ):
        remotely._check_hashes(items, found(items, (9, 8, 9)), LIMITS)


def test_of_files_of_the_same_size_the_content_of_one_is_compared(items):
    answer = found(items)
    answer.outcomes[:] = ["0" * 64] * 3
    with pytest.raises(ClusterError, match="sees another file than this machine"):
        remotely._check_hashes(items, answer, LIMITS)


def test_what_is_gone_here_too_or_no_file_of_its_own_is_not_compared(items):
    answer = found(items, (None, 9, 9))
    answer.outcomes[:2] = ["0" * 64, UnreadableFile("1.png", "file not found")]
    items[1].content.unlink()
    remotely._check_hashes(items, answer, LIMITS)


def test_a_block_that_differs_from_what_another_worker_hashed_ends_the_run(items):
    (item,) = (ImageInput(item.name, item.content, "0" * 64) for item in items[:1])
    failures = {0: UnreadableFile("0.png", "changed while this run was reading it; run again")}
    with pytest.raises(ClusterError, match="let every worker see the same images under the same path"):
        remotely._check_failures([item], failures, LIMITS, "tcp://a:1")


def test_members_of_another_shard_end_the_run(tmp_path):
    (tmp_path / "a.tar").write_bytes(bytes(2048))
    item = ImageInput("a.tar/0.png", TarMember(tmp_path / "a.tar", 512, 9))
    with pytest.raises(ClusterError, match=r"under the same path \(.*/a\.tar\)"):
        remotely._check_hashes([item], found([item], [4096]), LIMITS)


def test_a_file_that_a_worker_hashed_otherwise_is_not_rejected_for_having_changed(items):
    changed = [UnreadableFile(item.name, "changed while this run was reading it; run again") for item in items]
    seen = [ImageInput(item.name, item.content, images.hash_file(item.content, item.name, LIMITS)) for item in items]
    remotely.check_hashed(seen, changed, LIMITS)
    seen[2] = ImageInput(items[2].name, items[2].content, "0" * 64)
    remotely.check_hashed(seen, changed[:2], LIMITS)
    with pytest.raises(ClusterError, match=r"^2\.png: the worker that hashed it, or one before it, sees another file"):
        remotely.check_hashed(seen, changed, LIMITS)
