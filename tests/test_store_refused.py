"""Feature files that are damaged, cut short, newer, or none at all."""

import json

import h5py
import pytest

from stackcls.bases import Basis
from stackcls.errors import StoreError, StoreMissing
from stackcls.stages import features
from stackcls.store import Store
from tests import test_store
from tests.conftest import make_settings
from tests.sealing import seal

written = test_store.written


def test_a_flipped_bit_anywhere_is_refused(written):
    data = written.read_bytes()
    # The first block closely, the rest in steps, and the last byte.
    places = [*range(0, 512, 3), *range(512, len(data), 151), len(data) - 1]
    for at in places:
        flipped = bytearray(data)
        flipped[at] ^= 1 << (at % 8)
        written.write_bytes(flipped)
        with pytest.raises(StoreError, match=r"damaged|format version"):
            Store(written)


@pytest.mark.parametrize("length", [0, 100, 512, 513, 3000, -1])
def test_a_file_cut_short_is_refused(written, length):
    written.write_bytes(written.read_bytes()[:length])
    with pytest.raises(StoreError, match="damaged"):
        Store(written)


def test_a_file_with_something_appended_is_refused(written):
    with open(written, "ab") as file:
        file.write(b"\0")
    with pytest.raises(StoreError, match=r"its checksum does not hold\); delete it and run `stackcls features`"):
        Store(written)


def test_a_newer_version_is_refused(written):
    data = written.read_bytes()
    written.write_bytes(data.replace(b"stackcls-features 1 ", b"stackcls-features 2 ", 1))
    with pytest.raises(StoreError, match="format version 2, this stackcls reads 1; use a newer stackcls"):
        Store(written)


def test_other_files_are_refused(tmp_path):
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["x"] = 1
    (tmp_path / "text.h5").write_text("hello")
    for name in ("other.h5", "text.h5"):
        with pytest.raises(StoreError, match=rf"{name}: not a feature file of stackcls"):
            Store(tmp_path / name)


def test_a_checksum_alone_is_not_enough(tmp_path):
    path = tmp_path / "f.h5"
    with h5py.File(path, "w", userblock_size=512) as file:
        file["x"] = 1
    seal(path)
    with pytest.raises(StoreError, match=r"content is not as format 1 says: .*; delete it and run `stackcls features`"):
        Store(path)


def test_a_missing_file_says_how_to_make_one(tmp_path):
    with pytest.raises(StoreMissing, match=r"features\.h5: no feature file there; `stackcls features` makes one"):
        Store(tmp_path / "features.h5")


@pytest.mark.parametrize("damage", ["fewer", "gone"])
def test_a_store_with_other_components_than_it_says_is_refused(photos, tmp_path, fake_engine, damage):
    settings = make_settings(photos, tmp_path / "artifacts", features={"pooling": "covariance"})
    features.run(settings)
    with h5py.File(settings.files.features, "r+") as file:
        dataset, group = file["features/one+covariance"], file["bases/one+covariance"]
        values = group["values"][:5]
        said = {**json.loads(dataset.attrs["identity"]), "basis": ""}
        del file["bases/one+covariance"]
        if damage == "fewer":
            basis = Basis("principal-components", '{"channels": 8, "components": 8, "length": 10.0}', values)
            group = file.create_group("bases/one+covariance")
            group.attrs["kind"] = basis.kind
            group.create_dataset("layout", data=basis.layout, dtype=h5py.string_dtype("utf-8"))
            group.create_dataset("values", data=values)
            said["basis"] = basis.digest
        dataset.attrs["identity"] = json.dumps(said, sort_keys=True)
    seal(settings.files.features)
    with pytest.raises(
        StoreError, match=r"features/one\+covariance: .*(5 numbers|basis is missing; principal-components is needed)"
    ):
        Store(settings.files.features)
