"""A Flower bundle whose code leaves a mark when it is imported or run."""

from __future__ import annotations

import hashlib
from pathlib import Path

from mamfed_common.protocol.flower_compat import build_fab_from_files

PROJECT = """\
[project]
name = "federation"
version = "1.0.0"
dependencies = []

[tool.flwr.app]
publisher = "mamfed"

[tool.flwr.app.components]
serverapp = "evil:app"
clientapp = "evil:app"

[tool.flwr.app.config]
"""


def foreign_bundle(mark: Path) -> tuple[bytes, str]:
    """Return a bundle that creates a file where it runs, and its SHA-256."""
    code = f"open({str(mark)!r}, 'w').close()\napp = None\n"
    content, _ = build_fab_from_files(
        {"pyproject.toml": PROJECT.encode(), "evil.py": code.encode()}
    )
    return content, hashlib.sha256(content).hexdigest()
