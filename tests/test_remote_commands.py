"""Commands beside features, fit and predict, on images of a server."""

import pytest

from stackcls.stages import duplicates, explain, features, fit, similar
from stackcls.stages import map as map_stage
from tests.conftest import make_settings, write_photos


@pytest.fixture
def photos_there(served, tmp_path, fake_engine):
    """Settings of a store whose images a server has, with what is secret in its address."""
    photos = write_photos(tmp_path / "photos", 5)
    (photos / "red" / "copy.png").write_bytes((photos / "red" / "00.png").read_bytes())
    user = served.url.replace("://", "://someone:pass-word@")
    settings = make_settings(f"{user}/photos/", tmp_path / "artifacts")
    features.run(settings)
    return settings


def test_similar_duplicates_and_map(photos_there, served, tmp_path, monkeypatch):
    for name in ("EARLY", "ITERATIONS"):
        monkeypatch.setattr(f"stackcls.inspect.embedding.{name}", 5)
    asked = f"{photos_there.images.text}red/00.png?sig=abc"
    (found,) = similar.run([asked], photos_there, k=3, sheet=tmp_path / "sheet.png")
    assert found.path == f"{served.url}/photos/red/00.png"
    assert found.neighbours[0].path == "red/copy.png"
    assert (tmp_path / "sheet.png").exists()
    groups = duplicates.run(photos_there, sheet=tmp_path / "d.png")
    ((one, other),) = [group for group in groups if group[0].kind == "exact"]
    assert (one.path, other.path) == ("red/00.png", "red/copy.png")
    map_stage.run(photos_there)
    page = photos_there.files.map_page.read_text("utf-8")
    assert f"{served.url}/photos/red/00.png" in page
    assert "pass-word" not in page
    assert "data:image/webp;base64," in page


def test_explaining(photos_there, served, tmp_path):
    fit.run(photos_there)
    asked = [f"{photos_there.images.text}{name}?sig=abc" for name in ("red/01.png", "red/gone.png")]
    one, gone = explain.run(asked, photos_there.files.safe_model, output=tmp_path / "out")
    assert (one.path, gone.path) == (f"{served.url}/photos/red/01.png", f"{served.url}/photos/red/gone.png")
    assert gone.error == "file not found"
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["01.png"]
