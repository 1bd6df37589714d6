"""`features`, killed at any moment, loses no finished block and leaves nothing behind; the same for gentler ends."""

import json
import os
import signal
import subprocess
import sys

import pytest

from stackcls.stages import features, fit
from tests.conftest import write_photos
from tests.test_features_resumed import config_file
from tools import kill_features

pytestmark = pytest.mark.skipif(os.name != "posix", reason="needs POSIX signals")


@pytest.mark.slow
def test_thirty_kills_at_random_moments(tmp_path):
    scene = kill_features.Scene(tmp_path / "scene")
    *_, seen = kill_features.torment(scene, times=30, seed=0)
    assert seen.problems == []
    assert seen.kills.total() == 30
    assert set(seen.kills) == set("pcwr")  # while planning, computing, writing the store, removing blocks


@pytest.mark.slow
def test_kills_while_networks_are_compiled_and_ranges_fitted(tmp_path):
    scene = kill_features.Scene(tmp_path / "scene", cold=True)
    *_, seen = kill_features.torment(scene, times=4, seed=0, phases="pc")
    assert seen.problems == []
    assert seen.kills.total() == 4
    assert seen.half_made  # which a later run has removed, or it would be among the problems


KILLED_BETWEEN_RENAMES = """
import os, signal, sys
from stackcls import cli
left, replace = int(sys.argv[1]), os.replace
def replacing(old, new):
    global left
    if left == 0:
        os.kill(os.getpid(), signal.SIGKILL)
    left -= 1
    replace(old, new)
os.replace = replacing
cli.main(sys.argv[2:])
"""


@pytest.mark.slow
def test_a_fit_killed_between_two_renames_is_found_out(settings, fake_engine, stackcls, tmp_path):
    features.run(settings)
    fit.run(settings)
    file = config_file(settings, tmp_path)
    old = {path.name: path.read_bytes() for path in settings.artifacts.iterdir()}
    for renames in range(len(old) - 1):  # the feature file stays
        for name, content in old.items():
            (settings.artifacts / name).write_bytes(content)
        command = [sys.executable, "-c", KILLED_BETWEEN_RENAMES, str(renames), "fit", "-c", str(file), "--seed", "7"]
        assert subprocess.run(command, capture_output=True, check=False).returncode == -signal.SIGKILL
        status, _, err = stackcls("predict", settings.images / "red/00.png", "-c", file)
        if renames:
            assert status == 1
            assert "model.safetensors: not the file that model.json describes: `stackcls fit` was interrupted" in err
        else:
            assert status == 0, err
            assert all((settings.artifacts / name).read_bytes() == content for name, content in old.items())
        assert stackcls("fit", "-c", file, "--seed", "7")[0] == 0
        assert stackcls("predict", settings.images / "red/00.png", "-c", file)[0] == 0
        assert {path.name for path in settings.artifacts.iterdir()} == set(old)


ENDED_BY_A_SIGNAL = """
import os, signal, sys, threading
from stackcls import cli, computation, extraction
computation.IMAGES_PER_BLOCK = 8
extract = extraction.extract
def stopping(inputs, *arguments):
    for number, batch in enumerate(extract(inputs, *arguments)):
        if number == 5:
            os.kill(os.getpid(), int(sys.argv[1]))
        yield batch
extraction.extract = stopping
signal.signal(signal.SIGHUP, signal.SIG_DFL)  # whoever runs these tests may ignore it
cli.main(sys.argv[2:])
"""


@pytest.mark.parametrize(
    ("number", "status", "word"),
    [(signal.SIGTERM, 143, "terminated"), (signal.SIGHUP, 129, "terminated"), (signal.SIGINT, 130, "interrupted")],
)
def test_signals_end_a_run_in_order(tmp_path, number, status, word):
    write_photos(tmp_path / "photos")
    raw = {"images": "photos", "features": {"backbones": ["mini_vgg"], "engine": "openvino", "batch_size": 4}}
    (tmp_path / "pipeline.yaml").write_text(json.dumps(raw))
    command = [sys.executable, "-c", ENDED_BY_A_SIGNAL, str(int(number)), "features"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (status, "")
    said = done.stderr.splitlines()[-1]
    assert said.startswith(f"{word}; what was finished is kept (3 blocks of up to 8 images in ")
    assert said.endswith("and the same command goes on from there")
    assert "Traceback" not in done.stderr
    # The five batches that were shown as done are there; the lock is not.
    assert sorted(path.name for path in (tmp_path / "artifacts").iterdir()) == [".features-blocks"]
    command = [sys.executable, "-m", "stackcls", "features"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert "mini_vgg: 7 to compute, 20 there" in done.stderr
    assert [path.name for path in (tmp_path / "artifacts").iterdir()] == ["features.h5"]


LOST_IN_A_FINALISER = """
import signal, time
import click
from stackcls import exits

class Dying:
    def __del__(self):
        signal.raise_signal(signal.SIGTERM)

def work():
    try:
        Dying()
        time.sleep(60)
    finally:
        time.sleep(3 * exits.REPEAT)
        print("in order")

exits.REPEAT = 0.1
raise SystemExit(exits.run(click.Command("work", callback=work), []))
"""


def test_a_signal_that_is_lost_in_a_finaliser_is_repeated_until_it_is_heard():
    done = subprocess.run([sys.executable, "-c", LOST_IN_A_FINALISER], capture_output=True, text=True, timeout=50)
    assert (done.returncode, done.stdout) == (143, "in order\n")
    assert done.stderr.endswith("terminated\n")


def test_an_ignored_hangup_stays_ignored(tmp_path):
    """As `nohup` asks."""
    script = (
        "import signal, sys; signal.signal(signal.SIGHUP, signal.SIG_IGN); from stackcls import exits, cli; "
        "exits._run = lambda *_: signal.raise_signal(signal.SIGHUP) or 7; cli.main([])"
    )
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 7
