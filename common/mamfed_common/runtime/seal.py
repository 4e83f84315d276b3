"""Seal a JSON object with the SHA-256 of its own text, so that a damaged file is recognised.

A seal detects damage, not forgery. Text without a seal is accepted, because earlier versions wrote
none; a damaged seal leaves an unknown key, which the reader of the object refuses.
"""

from __future__ import annotations

import hashlib
import re

_SEAL = re.compile(r'(,?)(\s*)"sha256": "([0-9a-f]{64})"(\s*\}\s*)\Z')


def sealed(text: str) -> str:
    """Return a JSON object with its seal as the last key; the object has no key ``sha256``."""
    content = text.rstrip()
    assert content.endswith("}"), "only an object can be sealed"
    inside = content[:-1].rstrip()
    comma = "" if inside.endswith("{") else ","
    blank, end = ("\n  ", "\n}") if "\n" in content else (" ", "}")
    return f'{inside}{comma}{blank}"sha256": "{_digest(inside)}"{end}'


def unsealed(text: str) -> str:
    """Return a JSON object without its seal, or as it is if it has none.

    Raises:
        ValueError: The seal does not belong to the text.
    """
    found = _SEAL.search(text)
    if found is None:
        return text
    inside = text[: found.start()]
    if _digest(inside) != found[3]:
        raise ValueError("damaged: its content does not match its SHA-256")
    return inside + "}"


def _digest(inside: str) -> str:
    return hashlib.sha256(inside.encode()).hexdigest()
