"""Optional packages: which are missing, and the command that installs them.

mamfed is not on a package index, and anyone could register its name there. The command therefore
names the folder, file or repository that this mamfed was installed from (PEP 610,
``direct_url.json``).
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

HOSPITAL = ("pydicom", "imagecodecs", "highdicom", "pynetdicom", "dicomweb_client")
OF_ROLE = {
    "client": HOSPITAL,
    "report": ("matplotlib",),
    "simulations": (*HOSPITAL, "matplotlib"),
}
"""The modules that each role's extra installs."""
OF_USE = {
    "ray": "ray",
    "submitit": "cluster",
    "mlflow": "mlflow",
    "dynamic_network_architectures": "peers",
    "segmentation_models_pytorch": "peers",
    "torchvision": "peers",
    "timm": "peers",
    "onnx": "export",
    "onnxruntime": "export",
    "onnxscript": "export",
    "opacus": "privacy",
}
"""The extra that installs a module for a single use; it includes the modules of its role."""


def extra_of(module: str, role: str) -> str | None:
    """Return the extra that installs a module for a role; None if no extra does."""
    if module in OF_ROLE[role]:
        return role
    return OF_USE.get(module) or next((e for e, names in OF_ROLE.items() if module in names), None)


def missing_line(missing: str, extra: str) -> str:
    """Return a message that names a missing package and the command that installs it."""
    return f"this needs {missing}: {install_command(extra)}"


def check_installed(extra: str, *modules: str) -> None:
    """Check, before any work, that modules are installed.

    Raises:
        MamfedError: Some are not; the message names all of them.
    """
    if missing := [name for name in modules if not _is_there(name)]:
        raise MamfedError(missing_line(", ".join(missing), extra))


def install_command(extra: str) -> str:
    """Return the command that installs this mamfed with an extra into this Python."""
    return f"{_pip()} install {_source(extra)}"


def _is_there(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except ValueError:  # sys.modules holds an entry without a spec
        return False


def _pip() -> str:
    """Return ``pip`` if that is this Python's own, otherwise ``PYTHON -m pip``."""
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
    """Return where this mamfed was installed from; None if pip took it from an index."""
    try:
        text = distribution(NAME).read_text("direct_url.json")
        found = json.loads(text) if text else None
    except (PackageNotFoundError, OSError, ValueError):
        return None
    return found if isinstance(found, dict) else None
