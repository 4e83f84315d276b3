"""Who may import what Flower does not document, and whether the installed Flower still has it."""

import ast
from importlib import import_module
from pathlib import Path

import pytest

from mamfed_client.node import flower_compat as of_sites
from mamfed_common.protocol import flower_compat as of_all
from mamfed_common.protocol.versions import flower_version
from mamfed_server.fleet import flower_compat as of_coordinator

ROOT = Path(__file__).parents[2]
SOURCES = [
    path
    for package in ("client", "common", "server", "simulations")
    for path in sorted((ROOT / package).rglob("*.py"))
]
PUBLIC = ("flwr.app", "flwr.clientapp", "flwr.serverapp", "flwr.simulation")
OTHER_SIDE = {
    "tests/security/lib/attempts_credentials.py",
    "tests/security/lib/attempts_http.py",  # whatever a node may send, and what it may not
    "tests/security/lib/attempts_keys.py",
    "tests/security/lib/attempts_load.py",
    "tests/security/lib/attempts_messages.py",
    "tests/security/lib/door.py",
    "tests/security/lib/keys_scene.py",
    "tests/security/lib/scene.py",
    "tests/security/lib/flower_wire.py",  # what a recording proxy makes of a site's requests
    "tests/unit/client/site/test_enrolment.py",  # Flower takes the keys that a site makes
    "tests/unit/server/fleet/federation.py",  # a node's requests to the listener
    "tests/unit/server/fleet/test_listener.py",  # a node's requests to the listener
    "tests/unit/server/fleet/test_superlink.py",  # what the Fleet API does for a node
    "tests/unit/server/fleet/test_waiting.py",  # a node that waits
}
"""Tests that play Flower's part, and so need more of it than mamfed itself."""
HOMES = {Path(home.__file__).resolve() for home in (of_sites, of_all, of_coordinator)}
"""The only modules that import anything else of Flower."""


def flower_imports(path):
    """Every name that a module imports from Flower, as (module, name)."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] == "flwr":
            yield from ((node.module, alias.name) for alias in node.names)
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names if alias.name.partition(".")[0] == "flwr"]
            yield from ((name, "") for name in names)


PRIVATE = sorted(
    {
        found
        for path in sorted({*HOMES, *(ROOT / name for name in OTHER_SIDE)})
        for found in flower_imports(path)
        if found[0] not in PUBLIC
    }
)


def test_only_three_modules_and_their_tests_import_what_flower_does_not_document():
    allowed = HOMES | {ROOT / name for name in OTHER_SIDE}
    strays = [
        f"{path.relative_to(ROOT)}: {module}.{name}"
        for path in [*SOURCES, *sorted((ROOT / "tests").rglob("*.py"))]
        for module, name in flower_imports(path)
        if path.resolve() not in allowed and module not in PUBLIC
    ]
    assert not strays, f"import these through a flower_compat module: {strays}"


def test_what_is_imported_from_a_public_module_is_documented():
    named = {found for path in SOURCES for found in flower_imports(path) if found[0] in PUBLIC}
    assert named
    hidden = [found for found in sorted(named) if found[1] not in import_module(found[0]).__all__]
    assert not hidden, f"Flower {flower_version()} does not export {hidden}"


@pytest.mark.parametrize(("module", "name"), PRIVATE)
def test_the_installed_flower_has_every_undocumented_name_that_is_used(module, name):
    """A Flower that drops one fails here, by name."""
    try:
        found = getattr(import_module(module), name, None) or import_module(f"{module}.{name}")
    except ModuleNotFoundError:
        found = None
    assert found is not None, f"Flower {flower_version()} has no {module}.{name}"


@pytest.mark.parametrize("home", [of_sites, of_all, of_coordinator])
def test_a_home_exports_nothing_that_nobody_uses(home):
    path = Path(home.__file__).resolve()
    others = "".join(p.read_text() for p in SOURCES if p.resolve() != path)
    own = path.read_text().partition("]\n")[2]
    assert not [name for name in home.__all__ if name not in others + own]
