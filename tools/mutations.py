"""Seeded damage to bytes and texts: flips, cuts, splices, extreme numbers, lying lengths."""

import random

EXTREMES = (0, 1, 2, 0x7F, 0x80, 0xFF, 0x7FFF, 0x8000, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)


def mutate(data: bytes, others: list[bytes], rng: random.Random) -> bytes:
    """Damage `data` in one to four ways; parts of `others` may be put in."""
    changed = bytearray(data)
    for _ in range(rng.choice((1, 1, 1, 2, 3, 4))):
        rng.choice(WAYS)(changed, others, rng)
    return bytes(changed)


def _place(data: bytearray, rng: random.Random) -> int:
    """Anywhere, but half of the time in the first bytes, where headers are."""
    return rng.randrange(min(len(data), 128) if rng.random() < 0.5 else len(data)) if data else 0


def _flip(data: bytearray, _: list[bytes], rng: random.Random) -> None:
    for _unused in range(rng.choice((1, 1, 8, 64))):
        if data:
            data[_place(data, rng)] ^= 1 << rng.randrange(8)


def _noise(data: bytearray, _: list[bytes], rng: random.Random) -> None:
    at = _place(data, rng)
    data[at : at + rng.randrange(1, 65)] = rng.randbytes(rng.randrange(65))


def _cut(data: bytearray, _: list[bytes], rng: random.Random) -> None:
    del data[_place(data, rng) :]


def _remove(data: bytearray, _: list[bytes], rng: random.Random) -> None:
    at = _place(data, rng)
    del data[at : at + rng.randrange(1, 200)]


def _repeat(data: bytearray, _: list[bytes], rng: random.Random) -> None:
    at = _place(data, rng)
    data[at:at] = data[at : at + rng.randrange(1, 200)] * rng.choice((1, 2, 50))


def _splice(data: bytearray, others: list[bytes], rng: random.Random) -> None:
    other = rng.choice(others)
    at, start = _place(data, rng), rng.randrange(len(other))
    data[at : at + rng.choice((0, 64, len(data)))] = other[start : start + rng.randrange(1, 4096)]


def _extreme(data: bytearray, _: list[bytes], rng: random.Random) -> None:
    """Set two or four bytes, such as a size or the length of a chunk, to a number at the edge of their range."""
    size, order = rng.choice((1, 2, 4)), rng.choice(("little", "big"))
    at = _place(data, rng)
    data[at : at + size] = (rng.choice(EXTREMES) % 256**size).to_bytes(size, order)  # type: ignore[arg-type]


WAYS = (_flip, _flip, _noise, _cut, _remove, _repeat, _splice, _extreme, _extreme)
