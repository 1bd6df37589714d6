"""Stage one: what is computed, what is reused, what is rejected."""

from stackcls.stages import features


def test_a_second_run_computes_nothing(settings, fake_engine):
    first = features.run(settings)
    assert first.written
    assert fake_engine.computed == {"one": 27, "two": 27}
    before = settings.files.features.read_bytes()
    second = features.run(settings)
    assert not second.written
    assert fake_engine.computed == {"one": 27, "two": 27}
    assert settings.files.features.read_bytes() == before
