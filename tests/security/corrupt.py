"""Flip, cut and extend every file that mamfed keeps: ``python tests/security/corrupt.py``.

Each damage must be noticed: the reader raises an error in one line that names the file, or goes on
with what it kept before, or the content is what it was (a changed blank). Nothing else.
"""

import argparse
import random
import sys
import tempfile
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parent / "lib")]
import sound_files  # noqa: E402
from attempts import Attempts  # noqa: E402
from kept_files import kept_files  # noqa: E402

from mamfed_common.errors import MamfedError  # noqa: E402


def damaged(data, rng):
    """Return damaged bytes, and in words how."""
    way = rng.choice(["bit", "bit", "bit", "byte", "cut", "zeros", "repeated", "empty"])
    at = rng.randrange(len(data))
    if way == "bit":
        bit = 1 << rng.randrange(8)
        return data[:at] + bytes([data[at] ^ bit]) + data[at + 1 :], f"bit {bit} of byte {at}"
    if way == "byte":
        return data[:at] + rng.randbytes(1) + data[at + 1 :], f"byte {at}"
    if way == "cut":
        return data[:at], f"cut at {at}"
    if way == "zeros":  # as some file systems leave after a power cut
        return data[:at] + bytes(len(data) - at), f"zeros from {at}"
    if way == "repeated":
        return data + data[at:], f"repeated from {at}"
    return b"", "empty"


def flaw_of(kept, before):
    """Return what a reader of a damaged file did that it must not; empty if it behaved."""
    try:
        found = kept.read()
    except MamfedError as error:
        text = str(error)
        named = kept.path.name in text or kept.path.stem in text or kept.path.parent.name in text
        if "\n" in text or not (named or not kept.names):
            return f"not named in one line: {text}"
        return ""
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    fallen_back = found is None if kept.falls_back == "none" else found == kept.falls_back
    if found == before or (kept.falls_back is not None and fallen_back):
        return ""
    return "damage was not noticed"


def run(seed, count):
    """Damage every kind of file; print a line a kind."""
    print(f"seed {seed}", flush=True)
    rng, noted, total = random.Random(seed), Attempts(), 0
    with tempfile.TemporaryDirectory() as folder:
        material = sound_files.make(Path(folder) / "material")
        kinds = kept_files(material, Path(folder))
        for kept in kinds:
            data, before, flaws = kept.path.read_bytes(), kept.read(), []
            for _ in range(count // len(kinds) + 1):
                changed, how = damaged(data, rng)
                if changed == data:
                    continue
                kept.path.write_bytes(changed)
                if flaw := flaw_of(kept, before):
                    flaws.append(f"{how}: {flaw}")
                kept.path.unlink(missing_ok=True)
                kept.path.write_bytes(data)
                kept.path.chmod(0o600)
                total += 1
            words = f"{len(flaws)} unnoticed, such as {flaws[0]}" if flaws else ""
            noted.note(kept.name, words, f"{count // len(kinds) + 1} damages")
    print(f"{total} damages", flush=True)
    noted.finish()


def main():
    """Parse the options and run."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=21)
    parser.add_argument("--quick", action="store_true", help="a tenth of the damages")
    options = parser.parse_args()
    run(options.seed, 100 if options.quick else 1000)


if __name__ == "__main__":
    main()
