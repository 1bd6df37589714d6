"""`stackcls check`: what is wrong with a feature file or a model is found and named; nothing of it is executed."""

import json
from dataclasses import replace

import h5py
import numpy as np
import pytest

from stackcls import damage, soundness, store, storewriter
from stackcls.listener import Silent
from stackcls.stages import check, features, fit
from tests import test_store as stores
from tests.sealing import seal


def write(target, table=stores.TABLE, matrices=stores.FEATURES, infos=stores.INFOS):
    rows = {name: [(np.arange(len(table.paths)), matrix)] for name, matrix in matrices.items()}
    storewriter.write(target, table, infos, rows, {"numpy": "2.0"})
    return target


@pytest.fixture
def written(tmp_path):
    return write(tmp_path / "features.h5")


@pytest.fixture
def fitted(settings, fake_engine):
    """Settings whose artifacts hold a fitted model."""
    features.run(settings)
    fit.run(settings)
    return settings


def check_store(path):
    return soundness.check_store(path, Silent())


def test_what_is_sound_says_what_it_is(fitted, stackcls):
    status, out, err = stackcls("check", "--artifacts", fitted.artifacts)
    assert (status, err) == (0, "")
    lines = out.splitlines()
    for name in ("features.h5", "model.safetensors", "model.joblib"):
        assert f"{fitted.artifacts / name}: sound" in lines
    for line in ("images: 27", "classes: 3", "rejected: 0", f"source: {fitted.images}", "fitted on: 27 images"):
        assert f"  {line}" in lines
    assert "  one: features 8, precision float32, pooling average, engine fake, processor test" in lines
    assert "  one: precision float32, pooling average, weights random:1" in lines
    assert sum(line.startswith("  made with: ") for line in lines) == 3
    assert out.count("  remark: ") == 1
    assert "  remark: file: opening it can run any code: do so only if you trust who made it" in lines


def test_json_is_for_programs(fitted, stackcls):
    fitted.files.features.write_bytes(b"no store")
    files = fitted.files.safe_model, fitted.files.features
    status, out, _ = stackcls("check", *files, "--format", "json")
    assert status == 1
    good, bad = json.loads(out)
    assert list(good) == list(bad) == ["path", "kind", "sound", "problems", "remarks", "facts"]
    assert (good["path"], good["kind"], good["sound"], good["problems"]) == (str(files[0]), "model", True, [])
    assert good["facts"]["backbones"]["two"]["weights"] == "random:2"
    assert (bad["sound"], bad["facts"]) == (False, {})
    assert bad["problems"][0]["what"].startswith("not a feature file of stackcls")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("gone.h5", None, "no feature file there; `stackcls features` makes one"),
        ("gone.safetensors", None, "no such file; `stackcls fit` writes"),
        ("gone.joblib", None, "no such file; `stackcls fit` writes"),
        ("gone.csv", None, "is neither a feature file"),
        ("empty.h5", b"", "damaged (it is empty)"),
        ("text.h5", b"text", "not a feature file of stackcls"),
        ("new.h5", f"stackcls-features 2 sha256={'0' * 64}\n".encode().ljust(600, b"\0"), "format version 2, this"),
        ("cut.h5", f"stackcls-features 1 sha256={'0' * 64}\n".encode().ljust(600, b"\0"), "its checksum does not"),
        ("model.skops", b"PK", "is neither a feature file (.h5, .hdf5) nor a model (.safetensors, .joblib)"),
        ("model.safetensors", b"PK", "not a model of stackcls in the safetensors format"),
        ("model.joblib", b"PK", "model.json: no such file"),
    ],
)
def test_what_is_no_such_file_is_refused_with_the_reason(stackcls, tmp_path, name, content, message):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    status, out, err = stackcls("check", tmp_path / name)
    assert (status, err) == (1, "")
    assert out.startswith(f"{tmp_path / name}: NOT SOUND\n  problem: file: ")
    assert message in out


def test_an_empty_folder_holds_nothing_to_check(stackcls, tmp_path):
    status, out, err = stackcls("check", tmp_path)
    assert (status, out) == (1, "")
    assert "holds no features.h5, model.safetensors or model.joblib; name a file" in err


def test_every_flipped_bit_of_the_first_block_is_found(written, monkeypatch):
    monkeypatch.setattr(damage, "find", lambda path: [])  # takes a process each time
    data = written.read_bytes()
    for place in range(512 * 8):
        flip(written, data, place)
        result = check_store(written)
        assert not result.sound, place
        assert result.problems[0].where == "file"


def flip(path, data, place):
    """Write the file with one bit flipped."""
    flipped = bytearray(data)
    flipped[place // 8] ^= 1 << place % 8
    path.write_bytes(flipped)


def test_every_flipped_bit_is_found(written, monkeypatch):
    monkeypatch.setattr(damage, "find", lambda path: [])
    data = written.read_bytes()
    places = [*range(512 * 8, 512 * 8 + 64), *np.random.default_rng(0).integers(0, len(data) * 8, 1000)]
    for place in map(int, [*places, len(data) * 8 - 1]):
        flip(written, data, place)
        assert not check_store(written).sound, place


def test_a_damaged_matrix_is_named(written):
    with h5py.File(written) as file:
        starts = {name: dataset.id.get_offset() for name, dataset in file["features"].items()}
        first_text = written.read_bytes().index("überprüfung".encode())
    data = written.read_bytes()
    damaged = damage.Finding("file", "damaged (its checksum does not hold); delete it and run `stackcls features`")
    for name, start in starts.items():
        flip(written, data, start * 8 + 77)
        what = "its values are not those that were written"
        assert check_store(written).problems == (damaged, damage.Finding(f"features/{name}", what))
    flip(written, data, first_text * 8)
    assert check_store(written).problems == (damaged, damage.Finding("file", damage.ELSEWHERE))
    written.write_bytes(data[:-3000])
    assert check_store(written).problems == (damaged, damage.Finding("file", damage.UNREADABLE))


def test_a_structure_on_which_hdf5_never_returns_is_given_up(written, monkeypatch):
    monkeypatch.setattr(damage, "SECONDS", 0.0)  # no process is up by then
    assert damage.find(written) == [damage.Finding("file", damage.UNREADABLE)]


@pytest.mark.parametrize(
    ("changes", "where", "what"),
    [
        ({"paths": ("b", "a", "c", "d", "e")}, "images/path", "not sorted at 'a'"),
        ({"paths": ("a", "a", "c", "d", "e")}, "images/path", "empty or more than once: 'a'"),
        ({"sha256": ("x", *stores.TABLE.sha256[1:])}, "images/sha256", "no SHA-256 at 'a b.png'"),
        (
            {"labels": np.array([-2, 3, 1, 2, 0], np.int32)},
            "images/label",
            "2 outside -1..2: 'a b.png (-2)', 'x/é.jpg (3)'",
        ),
        ({"groups": np.array([2, -1, 0, 0, 0], np.int64)}, "images/group", "1 outside -1..1: 'a b.png (2)'"),
        ({"class_names": ("x", "x", "")}, "class_names", "empty or more than once: 'x', ''"),
        ({"group_names": ("g", "g")}, "groups/names", "empty or more than once: 'g'"),
        ({"rejected": {"a b.png": "bad"}}, "rejected/path", "also among the images: 'a b.png'"),
    ],
)
def test_what_is_wrong_with_the_images_is_named(tmp_path, changes, where, what):
    result = check_store(write(tmp_path / "f.h5", replace(stores.TABLE, **changes)))
    assert f"the checksum holds, but the content is not as format 1 says: its images: {where}: {what}" in said(result)


def said(result):
    (problem,) = result.problems
    assert problem.where == "file"
    return problem.what


def change_identity(infos):
    return {**infos, "one": replace(infos["one"], identity=replace(infos["one"].identity, pooling="max"))}


@pytest.mark.parametrize(
    ("change", "what"),
    [
        (change_identity, "backbone 'one': its identity is not the one of its settings"),
        (
            lambda infos: {**infos, "one": replace(infos["one"], provenance={})},
            "its provenance does not say which backbone made it",
        ),
    ],
)
def test_a_description_that_contradicts_itself_is_named(tmp_path, change, what):
    result = check_store(write(tmp_path / "f.h5", infos=change(stores.INFOS)))
    assert f"features/one: {what}; delete it and run `stackcls features`, or ask who made it" in said(result)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_values_that_are_not_finite_are_named(tmp_path, monkeypatch, value):
    monkeypatch.setattr(store, "ROWS", 2)  # in pieces, as a matrix larger than memory is read
    strange = stores.FEATURES["zwei 2"].copy()
    strange[2:4, 1] = value
    result = check_store(write(tmp_path / "f.h5", matrices={**stores.FEATURES, "zwei 2": strange}))
    assert result.problems == (damage.Finding("features/zwei 2", "NaN or infinite in 2 rows, first at '犬/1.jpg'"),)


def test_a_matrix_that_was_exchanged_under_a_valid_checksum_is_named(written):
    with h5py.File(written, "r+") as file:
        file["features/one"][0, 0] = 7
    seal(written)
    assert check_store(written).problems == (
        damage.Finding("features/one", "its SHA-256 does not hold: its values are not those that were written"),
    )


def test_what_a_file_says_cannot_steer_the_terminal(tmp_path):
    table = replace(stores.TABLE, source="a\x1b[2J\nb\u202e")
    path = write(tmp_path / "f.h5", table)
    assert "  source: a\\x1b[2J\\nb\\u202e\n" in check.as_text([check_store(path)])
