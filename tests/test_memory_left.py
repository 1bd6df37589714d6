"""How much memory a process can still take, as machines, containers and batch systems limit it."""

import subprocess
import sys

import pytest

from stackcls import processes

GIB = 2**30
linux = pytest.mark.skipif(sys.platform != "linux", reason="control groups are Linux's")


def write_group(folder, names, limit, used, files):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / names[0]).write_text(f"{limit}\n")
    (folder / names[1]).write_text(f"{used}\n")
    (folder / "memory.stat").write_text(f"anon {used - files}\ninactive_file {files - 100}\nactive_file 100\n")


UNIFIED, FIRST = ("memory.max", "memory.current"), ("memory.limit_in_bytes", "memory.usage_in_bytes")


@pytest.fixture
def groups(tmp_path, monkeypatch):
    """A machine with 64 GiB, and groups in a folder."""
    monkeypatch.setattr("psutil.virtual_memory", lambda: type("Found", (), {"available": 64 * GIB}))
    monkeypatch.setattr(processes, "PROC", tmp_path / "proc")
    monkeypatch.setattr(processes, "GROUPS", tmp_path / "groups")
    (tmp_path / "proc" / "self").mkdir(parents=True)

    def say(text):
        (tmp_path / "proc" / "self" / "cgroup").write_text(text)
        return tmp_path / "groups"

    return say


@linux
def test_without_limits_the_machine_s_memory_is_left(groups):
    folder = groups("0::/user.slice\n")
    write_group(folder / "user.slice", UNIFIED, "max", 3 * GIB, GIB)
    assert processes.available_memory() == 64 * GIB


@linux
def test_a_group_s_limit_counts_and_what_is_kept_of_files_does_not(groups):
    folder = groups("0::/job/step\n")
    write_group(folder / "job" / "step", UNIFIED, "max", 3 * GIB, GIB)
    write_group(folder / "job", UNIFIED, 16 * GIB, 6 * GIB, GIB)
    assert processes.available_memory() == 11 * GIB
    write_group(folder / "job" / "step", UNIFIED, 4 * GIB, 3 * GIB, GIB)
    assert processes.available_memory() == 2 * GIB


@linux
@pytest.mark.parametrize(("high", "limit", "left"), [(4, "max", 2), (4, 8, 2), (8, 4, 2), ("max", 4, 2), ("max",) * 3])
def test_a_group_that_is_slowed_down_before_its_limit_has_that_left(groups, high, limit, left):
    folder = groups("0::/\n")
    limit, high, left = (item if item == "max" else item * GIB for item in (limit, high, left))
    write_group(folder, UNIFIED, limit, 2 * GIB, 0)
    (folder / "memory.high").write_text(f"{high}\n")
    assert processes.available_memory() == (64 * GIB if left == "max" else left)


@linux
def test_in_a_container_the_limit_is_at_the_top(groups):
    folder = groups("0::/docker/0123\n")
    write_group(folder, UNIFIED, 8 * GIB, 2 * GIB, 0)
    assert processes.available_memory() == 6 * GIB


@linux
def test_groups_of_the_first_kind(groups):
    folder = groups("5:name=systemd:/x\n4:cpu,cpuacct:/x\n3:memory:/job\n")
    write_group(folder / "memory" / "job", FIRST, 5 * GIB, GIB, 200)
    write_group(folder / "memory", FIRST, 9223372036854771712, 9 * GIB, GIB)
    assert processes.available_memory() == 4 * GIB + 200


@linux
def test_more_used_than_allowed_leaves_nothing(groups):
    write_group(groups("0::/\n"), UNIFIED, GIB, 2 * GIB, 100)
    assert processes.available_memory() == 0


@linux
@pytest.mark.parametrize("limit", ["AS", "DATA"])
def test_a_process_s_own_limit_counts(limit):
    code = (
        f"import resource; from stackcls import processes; kind = resource.RLIMIT_{limit};"
        "resource.setrlimit(kind, (2**31, 2**31)); print(processes.available_memory() <= 2**31 - 2**22)"
    )
    found = subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.PIPE, text=True)
    assert found.stdout.strip() == "True"
