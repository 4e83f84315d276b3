"""Export as a MONAI Deploy application: a folder that ``monai-deploy package`` makes into a MAP.

The application reads the mammograms of a study, runs the bundle's TorchScript and writes DICOM
SEG. It finds the breast and writes the SEG by mamfed's own code, so that it marks what
``mamfed-client predict`` would: ``app/mamfed.zip`` holds that code, which Python imports from
there. This module only copies text: a coordinator needs no DICOM library.
"""

from __future__ import annotations

import io
import json
import zipfile
from importlib.metadata import PackageNotFoundError, requires
from importlib.util import find_spec
from pathlib import Path

from packaging.requirements import Requirement

from mamfed_common import __version__
from mamfed_common.errors import OutputError
from mamfed_common.runtime.bounded import DOCUMENT_BYTES, read_bytes
from mamfed_common.runtime.files import private_directory, write_atomic
from mamfed_server.export import bundle
from mamfed_server.export.card import ENVIRONMENT
from mamfed_server.export.checks import Predictor
from mamfed_server.export.network import ExportModel

MODEL = "model/malignancy"
"""The bundle within the folder."""
APP = ("__main__.py", "app.py", "malignancy.py", "app.yaml", "requirements.txt")
NEEDS = (
    *("cryptography", "highdicom", "imagecodecs", "numpy", "opencv-python-headless", "packaging"),
    *("pydantic", "pydicom", "pyyaml", "rich", "safetensors", "scipy", "torch", "typer", "click"),
)
"""What the application's modules import, of all that mamfed asks for."""
SDK = "monai-deploy-app-sdk>=4,<5"
"""The SDK with which the application was tested."""
SOURCES = ("mamfed_client", "mamfed_common")


def write(folder: Path, model: ExportModel) -> None:
    """Write the folders ``app`` and ``model``.

    Raises:
        OutputError: The installation has not the code of a site.
    """
    bundle.write(private_directory(folder / MODEL), model)
    settings = json.dumps(model.preprocessing, indent=2) + "\n"
    write_atomic(folder / MODEL / "preprocessing.json", settings)
    app = private_directory(folder / "app")
    for name in APP:
        template = ENVIRONMENT.get_template(f"map/{name}.jinja")
        write_atomic(app / name, template.render(version=__version__, requirements=_requirements()))
    write_atomic(app / "mamfed.zip", _sources())


def load(folder: Path) -> Predictor:
    """Load the network of the bundle, see :func:`mamfed_server.export.bundle.load`."""
    return bundle.load(folder / MODEL)


def _requirements() -> list[str]:
    """Return what ``pip`` installs for the application, within mamfed's own ranges."""
    found: dict[str, Requirement] = {}
    try:
        for text in requires("mamfed") or ():
            asked = Requirement(text)
            if asked.marker is None or asked.marker.evaluate({"extra": "client"}):
                found.setdefault(asked.name, asked)
    except PackageNotFoundError:
        pass
    lines = [f"{name}{found[name].specifier}" if name in found else name for name in NEEDS]
    return [SDK, *lines]


def _sources() -> bytes:
    """Return the Python files of a site and of what it shares, as a ZIP with equal bits each time.

    Raises:
        OutputError: They are not installed as files.
    """
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for package in SOURCES:
            spec = find_spec(package)
            if spec is None or not spec.submodule_search_locations:
                raise OutputError(f"{package} is not installed; reinstall mamfed")
            root = Path(spec.submodule_search_locations[0])
            for path in sorted(root.rglob("*.py")):
                entry = zipfile.ZipInfo(f"{package}/{path.relative_to(root).as_posix()}")
                entry.compress_type = zipfile.ZIP_DEFLATED
                archive.writestr(entry, read_bytes(path, DOCUMENT_BYTES))
    return buffer.getvalue()
