"""A feature file whose checksum holds may be made by anyone: what it says is looked at before it is used."""

import json

import h5py
import numpy as np
import pytest

from stackcls.errors import StoreError
from stackcls.store import Store
from tests.sealing import seal
from tests.test_store import FEATURES, ONE, N, write


@pytest.fixture
def written(tmp_path):
    return write(tmp_path / "artifacts" / "features.h5")


def put(name, **options):
    """A change that puts another dataset in the place of one."""

    def change(file):
        attributes = dict(file[name].attrs)
        del file[name]
        file.create_dataset(name, **options).attrs.update(attributes)

    return change


def described(**changes):
    """A change of the identity, with a description of the backbone that fits it."""

    def change(file):
        attributes = file["features/one"].attrs
        attributes["identity"] = json.dumps({**json.loads(attributes["identity"]), **changes})
        configured = {**json.loads(attributes["provenance"])["configured"], **changes}
        attributes["provenance"] = json.dumps({"configured": {key: configured[key] for key in vars(ONE)}})

    return change


def renamed(name):
    return lambda file: file.move("features/one", f"features/{name}")


def link_elsewhere(file):
    del file["features/one"]
    file["features/one"] = h5py.ExternalLink("other.h5", "x")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (put("features/one", data=np.zeros((N, 4))), "features/one: is float64 of shape"),
        (put("features/one", data=np.zeros((N - 1, 4), np.float32)), "features/one: .*float32 with 5 rows is needed"),
        (put("features/one", shape=(N, 4), dtype=np.float32), "features/one has not all the values that it says"),
        (put("features/one", data=np.zeros((N, 4), np.float32), compression="gzip"), "no plain dataset"),
        (put("features/one", data=np.zeros((N, 4, 1), np.float32)), "no plain dataset with 2 dimensions"),
        (put("features/one", shape=(N, 4), dtype="f4", external="/etc/hostname"), "features/one: .*not|no plain"),
        (link_elsewhere, "features/one: "),
        (put("images/path", shape=(10**12,), dtype=h5py.string_dtype()), "its images: images/path has not all"),
        (put("images/label", data=np.zeros(N - 1, np.int32)), "its images: images/label has 4 rows, images/path 5"),
        (put("images/label", data=np.zeros(N)), "its images: images/label is float64; int32 is needed"),
        (lambda file: file.attrs.update(class_names='{"a": 1}'), "its images: class_names is no list of names"),
        (lambda file: file["features/one"].attrs.update(identity="{}"), "features/one: "),
        (lambda file: file["features/one"].attrs.update(provenance="[]"), "its provenance does not say which backbone"),
        (lambda file: file["features/one"].attrs.update(provenance="{}"), "its provenance does not say which backbone"),
        (lambda file: file["features/one"].attrs.update(identity="[" * 10**5), "features/one: "),
        (lambda file: file["features/one"].attrs.update(sha256="x"), "features/one: 'x' is no SHA-256"),
        (lambda file: file.attrs.update(class_names='["x", "\\ud800", "y"]'), "its images: .*surrogates not allowed"),
        (described(precision=["float32"]), r"features/one: backbone 'one': precision \['float32'\]"),
        (described(input_size="32"), "features/one: backbone.input_size: Input should be a valid integer"),
        (described(layer=0), "features/one: backbone.layer: Input should be a valid string"),
        (described(weights=7), "features/one: backbone.weights: Input should be a valid string"),
        (described(architecture="__class__"), "features/one: backbone.architecture: '__class__' is not a known one"),
        (described(preprocessing="mine"), "features/one: backbone.preprocessing: Input should be 'keras'"),
        (renamed("stack"), "features/stack: is no name of a backbone"),
        (put("features/one", shape=(N, 0), dtype=np.float32), "features/one"),
        (lambda file: file["features/one"].attrs.__delitem__("sha256"), "features/one: "),
        (lambda file: file.attrs.update(created_with="1"), "created_with: "),
        (lambda file: file.attrs.update(created_with='{"numpy": 2}'), "created_with: "),
    ],
)
def test_a_store_made_by_someone_else_is_looked_at_first(written, change, message):
    with h5py.File(written.parent / "other.h5", "w") as other:
        other["x"] = FEATURES["one"]
    with h5py.File(written, "r+") as file:
        change(file)
    with pytest.raises(StoreError, match=f"the checksum holds, but the content is not as format 1 says: .*{message}"):
        Store(seal(written))
