"""Packages that not every role has: what is missing, and the one command that brings it.

mamfed is on no package index, where anyone could register its name: the command names the folder,
file or repository that this mamfed was installed from (PEP 610, ``direct_url.json``).
"""

from __future__ import annotations

import json
import shlex
import shutil
import sys
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, distribution
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from mamfed_common.errors import MamfedError

NAME = "mamfed"
WHEELS = "FOLDER-OF-WHEELS"

OF_ROLE = {
    "client": ("pydicom", "imagecodecs", "highdicom", "jinja2"),
    "report": ("jinja2", "matplotlib"),
    "simulations": ("pydicom", "imagecodecs", "highdicom", "jinja2", "matplotlib"),
}
"""What a role's extra brings, by the extra."""
OF_USE = {
    "ray": "ray",
    "dynamic_network_architectures": "peers",
    "segmentation_models_pytorch": "peers",
    "torchvision": "peers",
    "timm": "peers",
    "onnx": "export",
    "onnxruntime": "export",
    "onnxscript": "export",
}
"""The extra that brings a module for one use; it brings its role's modules too."""


def extra_of(module: str, role: str) -> str | None:
    """Return the one extra that brings a module to a role; None for what no extra brings."""
    if module in OF_ROLE[role]:
        return role
    return OF_USE.get(module) or next((e for e, found in OF_ROLE.items() if module in found), None)


def missing_line(missing: str, extra: str) -> str:
    """Say what is missing and how to get it."""
    return f"this needs {missing}: {install_command(extra)}"


def check_installed(extra: str, *modules: str) -> None:
    """Refuse before the work what could not be finished.

    Raises:
        MamfedError: Modules are not installed; all of them are named.
    """
    if missing := [name for name in modules if not _is_there(name)]:
        raise MamfedError(missing_line(", ".join(missing), extra))


def install_command(extra: str) -> str:
    """Return the command that installs this mamfed with an extra, into this Python."""
    return f"{_pip()} install {_source(extra)}"


def _is_there(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except ValueError:  # its place in sys.modules is taken by something without a spec
        return False


def _pip() -> str:
    """Return ``pip`` where that is this Python's own, else how this Python calls its pip."""
    found = shutil.which("pip")
    if found and Path(found).parent == Path(sys.executable).parent:
        return "pip"
    return f"{shlex.quote(sys.executable)} -m pip"


def _source(extra: str) -> str:
    found = _direct_url()
    if found is None:
        return f"--no-index --find-links {WHEELS} '{NAME}[{extra}]', with the wheels it came from"
    url = str(found.get("url", ""))
    place = Path(unquote(urlsplit(url).path)) if url.startswith("file:") else None
    if place is not None and "vcs_info" not in found:
        editable = "-e " * bool(found.get("dir_info", {}).get("editable"))
        gone = "" if place.exists() else f" (put {place} back first: it was installed from there)"
        return f"{editable}{_quoted(f'{place}[{extra}]')}{gone}"
    vcs = found.get("vcs_info", {})
    at = f"{vcs['vcs']}+{url}@{vcs['commit_id']}" if vcs else url
    return _quoted(f"{NAME}[{extra}] @ {at}")


def _quoted(text: str) -> str:
    return f"'{text}'" if "'" not in text else shlex.quote(text)


def _direct_url() -> Mapping[str, Any] | None:
    """Return where this mamfed was installed from; None where pip took it from an index."""
    try:
        text = distribution(NAME).read_text("direct_url.json")
        found = json.loads(text) if text else None
    except (PackageNotFoundError, OSError, ValueError):
        return None
    return found if isinstance(found, dict) else None
