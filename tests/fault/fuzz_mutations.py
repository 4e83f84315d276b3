"""Seeded damage to a file: what disks, networks, careless exporters and attackers do to it."""

import random
import re
import struct

HEADER_NUMBERS = (
    (0x28, 0x10), (0x28, 0x11), (0x28, 0x100), (0x28, 0x101), (0x28, 0x102), (0x28, 0x103),
    (0x28, 0x2), (0x28, 0x8),
)  # fmt: skip
SMALL = (0, 1, 2, 3, 7, 8, 12, 15, 16, 17, 31, 32, 64, 65, 127, 128, 255, 256)
HOSTILE = (*SMALL, 0x7FFF, 0x8000, 0xFFFE, 0xFFFF)
LENGTHS = (0, 1, 0x10000000, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFE, 0xFFFFFFFF)
TEXTS = (
    b"\\" * 8, b"\x1b$B" * 4, b"../../etc/passwd", b"1e999999", b"9" * 40, b"\xff\xfe\xfd",
    b"%s%n%x" * 3, b"\0" * 16, b"nan\\inf", b"\x1b[2J\x07",
)  # fmt: skip
REPRESENTATIONS = b"SQ UN OB DS IS AT FD UL PN ZZ SV UC".split()
LONG = (b"OB", b"OW", b"SQ", b"UN", b"UT", b"OF")
ELEMENT = re.compile(rb"[\x02-\x54\xe0]\x00..[A-Z][A-Z]", re.DOTALL)
MARKER = re.compile(rb"\xff[\x4f-\x93\xc0-\xfe]", re.DOTALL)


def mutate(seed_bytes, others, chance):
    """Damage a file in one to three ways.

    Args:
        seed_bytes: The sound file.
        others: Files to splice pieces from.
        chance: The generator that decides.
    """
    data = bytearray(seed_bytes)
    for _ in range(chance.choice((1, 1, 1, 2, 3))):
        if len(data) > 200:
            chance.choice(WAYS)(data, others, chance)
    return bytes(data)


def _pixels(data):
    """Where the pixel data begin, or a guess."""
    found = data.rfind(b"\xe0\x7f\x10\x00")
    return found if found > 0 else len(data) // 4


def _flip(data, low, high, chance):
    for _ in range(1 << chance.randrange(7)):
        at = chance.randrange(low, max(low + 1, high)) % len(data)
        values = (data[at] ^ 1 << chance.randrange(8), chance.randrange(256), 0, 255, data[at] + 1)
        data[at] = chance.choice(values) % 256


def flip_anywhere(data, others, chance):
    _flip(data, 0, len(data), chance)


def flip_header(data, others, chance):
    _flip(data, 128, _pixels(data), chance)


def flip_pixels(data, others, chance):
    _flip(data, _pixels(data), len(data), chance)


def flip_codestream_header(data, others, chance):
    _flip(data, _pixels(data), _pixels(data) + 220, chance)


def truncate(data, others, chance):
    del data[chance.randrange(len(data)) :]


def truncate_and_close(data, others, chance):
    """Cut amid the pixels, but end as JPEG and DICOM do."""
    del data[chance.randrange(_pixels(data), len(data)) :]
    data += b"\xff\xd9\xfe\xff\xdd\xe0\0\0\0\0"


def number(data, others, chance):
    """Change Rows, Columns, bits and the like (an unsigned short after an 8-byte header)."""
    for _ in range(chance.randrange(1, 4)):
        at = data.find(struct.pack("<HH", *chance.choice(HEADER_NUMBERS)), 132)
        if at > 0:
            hostile = chance.choice(HOSTILE) if chance.random() < 0.8 else chance.randrange(65536)
            data[at + 8 : at + 10] = struct.pack("<H", hostile)


def _element(data, chance):
    found = [match.start() for match in ELEMENT.finditer(data, 132, _pixels(data) + 12)]
    return chance.choice(found) if found else None


def length(data, others, chance):
    at = _element(data, chance)
    if at is None:
        return
    if bytes(data[at + 4 : at + 6]) in LONG:
        data[at + 8 : at + 12] = struct.pack("<I", chance.choice(LENGTHS))
    else:
        data[at + 6 : at + 8] = struct.pack("<H", chance.choice(HOSTILE))


def representation(data, others, chance):
    at = _element(data, chance)
    if at is not None:
        data[at + 4 : at + 6] = chance.choice(REPRESENTATIONS)


def text(data, others, chance):
    for _ in range(3):
        at, hostile = chance.randrange(132, _pixels(data) + 133), chance.choice(TEXTS)
        data[at : at + len(hostile)] = hostile


def marker(data, others, chance):
    """Put hostile numbers just after the codestream's markers."""
    found = [match.start() for match in MARKER.finditer(data, _pixels(data))][:400]
    for _ in range(chance.randrange(1, 4) if found else 0):
        at = chance.choice(found[:12] if chance.random() < 0.7 else found)
        at, width = at + 2 + chance.randrange(40), chance.choice((1, 2, 4))
        value = chance.choice((0, 1, 3, 255, 0x4000, 0x8000, 0xFFFF, 0x10000, *LENGTHS))
        data[at : at + width] = (value % 256**width).to_bytes(width, "big")


def splice(data, others, chance):
    other, size = chance.choice(others), 1 << chance.randrange(4, 15)
    at, source = chance.randrange(len(data)), chance.randrange(len(other))
    data[at : at + size] = other[source : source + size]


def double(data, others, chance):
    at, size = chance.randrange(128, len(data)), 1 << chance.randrange(1, 13)
    data[at:at] = data[at : at + size]


def delete(data, others, chance):
    at = chance.randrange(len(data))
    del data[at : at + (1 << chance.randrange(13))]


def insert(data, others, chance):
    at = chance.randrange(len(data))
    data[at:at] = chance.randbytes(1 << chance.randrange(10))


def blank(data, others, chance):
    at, size = chance.randrange(128, len(data)), 1 << chance.randrange(1, 14)
    size = min(size, len(data) - at)
    data[at : at + size] = chance.choice((b"\0", b"\xff")) * size


WAYS = (
    flip_anywhere, flip_header, flip_pixels, flip_codestream_header, truncate, truncate_and_close,
    number, number, length, representation, text, marker, marker, splice, double, delete, insert,
    blank,
)  # fmt: skip


def mutants(seeds, count, first=0):
    """Yield ``(seed's name, bytes)``; the n-th is the same whatever the count."""
    names, others = sorted(seeds), list(seeds.values())
    for index in range(first, first + count):
        chance = random.Random(index)
        name = names[index % len(names)]
        yield name, mutate(seeds[name], others, chance)
