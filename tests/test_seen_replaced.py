"""A fine-tuned network that another one takes the place of while it is used: features and record are of one file."""

import shutil

import pytest

from stackcls import computation, loading, seen
from stackcls.errors import WeightsError
from stackcls.files import digest_file
from stackcls.stages import features, fit
from stackcls.store import Store
from tests.test_seen import TOKEN, tuned, with_tuned


@pytest.fixture
def networks(tmp_path, photos):
    """One that saw twelve images, and one that saw a single one."""
    files = sorted(photos.rglob("*.png"))
    one = tuned(tmp_path / "model.keras", [path for path in files if path.stem < "04"])
    return one, tuned(tmp_path / "new.keras", files[:1], TOKEN[::-1])


def test_the_record_is_of_the_file_that_was_hashed(tmp_path, photos, fake_engine, networks, monkeypatch):
    file, new = networks
    digest, record = digest_file(file), seen.read(file)
    real = computation.compute

    def replaced_meanwhile(*given):
        real(*given)
        shutil.copy(new, file)

    monkeypatch.setattr(computation, "compute", replaced_meanwhile)
    settings = with_tuned(photos, tmp_path / "artifacts", file)
    features.run(settings)
    with Store(settings.files.features) as store:
        assert store.matrices["tuned"].identity.weights == digest
        assert store.matrices["tuned"].seen.tolist() == record.tolist()
    as_stored = settings.model_copy(update={"features": type(settings.features)()})
    assert fit.run(as_stored).report.n_images == 15


def test_a_file_replaced_before_its_record_is_read_is_refused(tmp_path, photos, fake_engine, networks, monkeypatch):
    file, new = networks
    real = loading.digest_file

    def replaced_after(path):
        digest = real(path)
        if path == file:
            shutil.copy(new, file)
        return digest

    monkeypatch.setattr(loading, "digest_file", replaced_after)
    with pytest.raises(WeightsError, match=r"model\.keras: was replaced while it was used"):
        features.run(with_tuned(photos, tmp_path / "artifacts", file))
    assert not fake_engine.batches


def test_a_file_replaced_before_the_network_is_built_is_refused(tmp_path, photos, fake_engine, networks, monkeypatch):
    file, new = networks
    real = fake_engine.prepare

    def replaced_before(located, batch_size):
        shutil.copy(new, file)
        return real(located, batch_size)

    monkeypatch.setattr(fake_engine, "prepare", replaced_before)
    with pytest.raises(WeightsError, match="was replaced while it was used"):
        features.run(with_tuned(photos, tmp_path / "artifacts", file))
    assert not fake_engine.computed.get("tuned")
