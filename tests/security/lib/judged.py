"""Attempts that are judged by a condition, with what was found."""

from tests.security.lib.attempts import Attempts


class Judged(Attempts):
    """Attempts of a suite that says what it found whether an attempt held or not."""

    def judge(self, name: str, held: object, found: object = "") -> None:
        """Note an attempt by whether it held."""
        words = str(found)
        self.note(name, flaw="" if held else words or "it went through", fact=words)
