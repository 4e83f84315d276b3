"""The Flower app bundle (FAB) of a run: a name and two references, no code.

Flower sends the bundle of a run to every site. Ours holds only a ``pyproject.toml``, is the same
everywhere and is never unpacked: a site runs the ClientApp that it has installed, and refuses any
other bundle by its hash (Flower 1.41-1.42).
"""

from __future__ import annotations

import hashlib
from functools import cache

from mamfed_common.protocol.flower_compat import build_fab_from_files

FAB_ID = "mamfed/federation"
FAB_VERSION = "1.0.0"

PYPROJECT = b"""\
[project]
name = "federation"
version = "1.0.0"
description = "mamfed: each site runs its own, installed ClientApp"
license = "Apache-2.0"
dependencies = []

[tool.flwr.app]
publisher = "mamfed"

[tool.flwr.app.components]
serverapp = "mamfed_server.run.run:app"
clientapp = "mamfed_client.node.client_app:app"

[tool.flwr.app.config]
"""


@cache
def bundle() -> bytes:
    """Return the bundle, about 1 kB."""
    content, _ = build_fab_from_files({"pyproject.toml": PYPROJECT})
    return content


def bundle_sha256() -> str:
    """Return the bundle's SHA-256, by which Flower and the sites identify it."""
    return hashlib.sha256(bundle()).hexdigest()
