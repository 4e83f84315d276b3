"""Feed hostile documents to every parser: ``python tests/security/fuzz_parsers.py``.

Whatever the bytes, a parser returns or raises its documented error: in one short printable line,
within 20 s of CPU time and 3 GiB. Hypothesis draws the bytes: sound files with changes, values that
a format allows and a reader does not expect, and noise. DICOM pixels are ``tests/fault``'s.
"""

import argparse
import json
import random
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, NamedTuple

import hypothesis
from hypothesis import strategies as st

sys.path[:0] = [str(Path(__file__).parent / "lib")]
import sound_files  # noqa: E402
from attempts import Attempts  # noqa: E402
from fuzz_targets import Target, targets  # noqa: E402

SECONDS, BYTES = 20, 3 << 30
LONGEST = 4000
"""Characters of an error; most have under 200, and a few list ten problems."""
TOKENS = [
    *(b"\0", b"\xff\xfe", b"\xef\xbb\xbf", b"\n", b'"', b"{", b"[", b"&a ", b"*a", b"!!int ''"),
    *(b"9" * 5000, b"-1", b"1e999", b"NaN", b"0x" + b"f" * 9000, b"2026-13-45", b"null", b"true"),
    *(b"\x1b[2J", b"../../etc/passwd", b"[" * 3000, b"<!DOCTYPE x [<!ENTITY a 'b'>]>", b"&a;"),
    *(
        b"!!python/object/apply:os.getcwd []",
        b"-----BEGIN CERTIFICATE-----",
        b"sep=,\n",
        b"," * 999,
    ),
]
SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(10**40), 10**40),
    st.floats(),
    st.text(max_size=20),
    st.sampled_from(["\x1b[2J", "x" * 5000, "2026-13-45", "0x1", "../.."]),
)


class Change(NamedTuple):
    """A change of a sound file: at a share of its length, some bytes become others."""

    at: float
    removed: int
    added: bytes


CHANGES = st.lists(
    st.builds(
        Change,
        st.floats(0, 1),
        st.sampled_from([0, 1, 1, 2, 8, 100, 10**9]),
        st.one_of(st.binary(max_size=8), st.sampled_from(TOKENS)),
    ),
    min_size=1,
    max_size=4,
)


def changed(data, changes):
    """Apply changes to bytes."""
    for change in changes:
        at = int(change.at * len(data))
        data = data[:at] + change.added + data[at + change.removed :]
    return data


def reshaped(values, rng, odd):
    """Replace one value somewhere in a document by an odd one, or add a key."""
    if isinstance(values, dict) and values and rng.random() < 0.9:
        key = rng.choice(sorted(values, key=str))
        if rng.random() < 0.1:
            return {**values, rng.choice(["x", "\x1b", "0" * 300]): odd}
        return {**values, key: reshaped(values[key], rng, odd)}
    if isinstance(values, list) and values and rng.random() < 0.7:
        at = rng.randrange(len(values))
        return [*values[:at], reshaped(values[at], rng, odd), *values[at + 1 :]]
    return odd


def documents(sound):
    """Return a strategy of bytes near a sound file."""
    ways = [CHANGES.map(lambda changes: changed(sound, changes)), st.binary(max_size=200)]
    try:
        values: Any = json.loads(sound)
    except ValueError:
        return st.one_of(*ways)
    odd = st.recursive(
        SCALARS,
        lambda inner: st.one_of(
            st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=9), inner, max_size=3)
        ),
        max_leaves=8,
    )
    ways.append(
        st.builds(
            lambda value, seed: json.dumps(reshaped(values, random.Random(seed), value)).encode(),
            odd,
            st.integers(0, 2**32),
        )
    )
    return st.one_of(*ways)


def flaw_of(target: Target, data: bytes) -> str:
    """Return what a parser did that it must not do; empty if it behaved."""
    since = time.process_time()
    try:
        target.read(data)
    except target.errors as error:
        text = str(error)
        if len(text) > LONGEST:
            return f"an error of {len(text)} characters"
        if not text.isprintable():
            return f"an error that a terminal obeys: {text[:200]!r}"
    except BaseException as error:
        return f"{type(error).__name__}: {error}"[:300]
    spent = time.process_time() - since
    return f"{spent:.0f} s" if spent > SECONDS else ""


def attempt(target: Target, seed: int, examples: int) -> str:
    """Try a parser on many documents; return the first flaw, with the bytes that show it."""
    flaws = {}

    @hypothesis.seed(seed)
    @hypothesis.settings(
        max_examples=examples,
        database=None,
        deadline=None,
        suppress_health_check=list(hypothesis.HealthCheck),
        phases=[hypothesis.Phase.generate],
        report_multiple_bugs=False,
        print_blob=False,
    )
    @hypothesis.given(documents(target.sound))
    def each(data):
        if flaw := flaw_of(target, data):
            flaws.setdefault(flaw, data)

    each()
    return "; ".join(f"{flaw} of {data[:120]!r}" for flaw, data in list(flaws.items())[:3])


def peak_bytes():
    """Return this process's peak memory."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def run(seed, examples, mutants):
    """Try every parser; print a line each."""
    print(f"seed {seed}", flush=True)
    noted = Attempts()
    with tempfile.TemporaryDirectory() as folder:
        material = sound_files.make(Path(folder) / "material")
        for target in targets(material, Path(folder)):
            found = flaw_of(target, target.sound)
            noted.note(f"{target.name}: sound file", found)
            fact = f"{examples} documents"
            noted.note(f"{target.name}: hostile", attempt(target, seed, examples), fact)
        for name, data, target in bombs(targets(material, Path(folder))):
            noted.note(name, flaw_of(target, data))
    peak = peak_bytes()
    noted.note("memory", f"{peak >> 20} MiB" if peak > BYTES else "", f"peak {peak >> 20} MiB")
    if mutants:
        noted.note("DICOM and pictures", decoder_flaw(mutants), f"{mutants} files")
    noted.finish()


def bombs(found):
    """Yield documents that ask for much: time, memory, depth."""
    by_name = {target.name: target for target in found}
    laughs = b"image_size: &a [x,x,x,x,x,x,x,x,x]\n"
    for one, two in zip("abcdefgh", "bcdefghi", strict=True):
        laughs += f"{two}: &{two} [{','.join([f'*{one}'] * 10)}]\n".encode()
    keys = b"".join(b"k%d: 1\n" % n for n in range(100_000))
    json_keys = b"{" + b",".join(b'"k%d":1' % n for n in range(80_000)) + b"}"
    wide = b"image,patient_id" + b"," * 60_000_000
    long = b"image,patient_id\n" + b"a,1\n" * 2_000_000
    yield "plan: a thousand million values", laughs, by_name["plan"]
    yield "plan: 100,000 keys", keys, by_name["plan"]
    yield "plan: 30 MB", b"x: 1\n" * 6_000_000, by_name["plan"]
    yield "site.yaml: deep", b"[" * 500_000, by_name["site.yaml"]
    yield "request: 80,000 keys", json_keys, by_name["request"]
    yield "request: deep", b"[" * 900_000, by_name["request"]
    yield "table: 60 million columns", wide, by_name["table"]
    yield "table: 2 million rows", long, by_name["table"]
    yield "checkpoint: a header of 2**62", b"\xff" * 7 + b"\x3f{}", by_name["checkpoint"]
    yield "description: 1 MiB", json_keys, by_name["wire description"]


def decoder_flaw(mutants):
    """Run the files of tests/fault through the sandbox; return what broke."""
    script = sound_files.ROOT / "tests" / "fault" / "fuzz_files.py"
    command = [sys.executable, script, "--mutants", str(mutants), "--format", "json"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return "" if done.returncode == 0 else (done.stderr or done.stdout)[-300:]


def main():
    """Parse the options and run."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=21)
    parser.add_argument("--quick", action="store_true", help="a few documents, no pictures")
    options = parser.parse_args()
    run(options.seed, *((15, 0) if options.quick else (400, 2000)))


if __name__ == "__main__":
    main()
