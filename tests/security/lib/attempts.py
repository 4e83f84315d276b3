"""Attempts of a suite: one line each, and the last line that `make prove` reads."""

import argparse
import random
import sys
import time


class Attempts:
    """Counts attempts and prints each as held or BROKE."""

    def __init__(self):
        self.held, self.broke, self._since = 0, [], time.monotonic()

    def note(self, name, flaw="", fact=""):
        """Note an attempt; ``flaw`` says what broke, ``fact`` what it came to."""
        seconds = time.monotonic() - self._since
        self._since = time.monotonic()
        if flaw:
            self.broke.append(name)
        else:
            self.held += 1
        words = " ".join(str(flaw or fact).split())[:300]
        print(f"{'BROKE' if flaw else 'held'}  {name}  {words}  {seconds:.1f} s", flush=True)

    def finish(self):
        """Print the last line and exit with 1 if anything broke."""
        total = self.held + len(self.broke)
        print(f"{total} attempts, {self.held} held, {len(self.broke)} broke", flush=True)
        sys.exit(1 if self.broke else 0)


def parse_with_seed(parser: argparse.ArgumentParser) -> argparse.Namespace:
    """Add ``--seed`` to a suite's options, parse them, draw the seed if none is given, print it."""
    parser.add_argument("--seed", type=int, default=None)
    given = parser.parse_args()
    if given.seed is None:
        given.seed = random.SystemRandom().randrange(10**6)
    print(f"seed {given.seed}", flush=True)
    return given
