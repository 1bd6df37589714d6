"""Small pictures: of every image that can be read, in order, within the limits."""

import io

import numpy as np
import pytest
from PIL import Image

from stackcls import decoding, images, thumbnails
from stackcls.settings import Limits
from tests.conftest import write_photo


@pytest.fixture
def files(tmp_path):
    """Photos of many sizes; the third is none, the fourth is not there."""
    paths = [write_photo(tmp_path / f"{number}.png", (200, 30, 30), number, (300, 150)) for number in range(3)]
    paths[2].write_bytes(b"no image")
    return [*paths, tmp_path / "gone.png", write_photo(tmp_path / "small.png", (30, 30, 200), 9, (20, 30))]


def test_they_are_webp_in_order_and_none_where_there_is_no_image(files):
    made = thumbnails.thumbnails(files, Limits(), 96)
    assert [item is None for item in made] == [False, False, True, True, False]
    pictures = [Image.open(io.BytesIO(item)) for item in made if item]
    assert {picture.format for picture in pictures} == {"WEBP"}
    assert [picture.size for picture in pictures] == [(96, 48), (96, 48), (20, 30)]
    assert np.asarray(pictures[2]).mean(axis=(0, 1)).argmax() == 2  # blue


def test_pixels_are_what_pillow_makes_of_the_image(files):
    made = thumbnails.pixels(files, Limits(), 96)
    expected = images.decode(files[0].read_bytes(), "0")
    expected.thumbnail((96, 96))
    np.testing.assert_array_equal(made[0], np.asarray(expected))
    assert [item is None for item in made] == [False, False, True, True, False]


def test_the_limits_hold(files):
    assert thumbnails.thumbnails(files[:2], Limits(max_pixels=1000), 96) == [None, None]


def test_where_too_many_images_hang_the_rest_is_left_out(files, monkeypatch):
    def stuck(jobs, late, seconds, ahead):
        yield next(iter(jobs))(decoding.Turn(lambda turn: None, lambda: None, (decoding._Share(9), decoding._Share(9))))
        raise decoding.TooMuchStuck([None])

    monkeypatch.setattr(decoding, "in_order", stuck)
    assert [item is None for item in thumbnails.thumbnails(files[:2], Limits(), 96)] == [False, True]


def test_a_large_jpeg_is_decoded_small(tmp_path):
    Image.effect_noise((1600, 1200), 50).convert("RGB").save(tmp_path / "large.jpg")
    data, seen = (tmp_path / "large.jpg").read_bytes(), []
    assert images.decode(data, "large", admit=seen.append, draft=128).size == (200, 150)
    assert seen == [200 * 150]
    assert images.decode(data, "large").size == (1600, 1200)
    (made,) = thumbnails.pixels([tmp_path / "large.jpg"], Limits(), 128)
    assert made.shape == (96, 128, 3)
