"""A site's home folder and its ``site.yaml``.

==================  ===========================================================================
``site.yaml``       what this site has and what it allows
``keys/``           ``node.key`` and ``tls.key``, both made here; they never leave
``request.json``    what the coordinator is asked for
``welcome.json``    what the coordinator answered: its address, its keys
``certs/``          ``ca.pem``, the federation's authority, and ``site.pem``, this site's own
``plans/``          plans that came, and what this site decided about them
``audit.jsonl``     everything that left
``state/``          the round being trained
``models/``         the final model of each run, and this site's own made of it
``status.json``     how it goes now
``logs/``           what the processes say
``lock``            held by a running ``mamfed-client start``
==================  ===========================================================================
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, Self

from pydantic import Field, model_validator

from mamfed_client.site.hardware import Hardware
from mamfed_client.site.policy import Policy
from mamfed_common.config import SITE_NAME, Config
from mamfed_common.errors import SetupError
from mamfed_common.runtime.documents import read_yaml
from mamfed_common.runtime.file_kinds import FileKind, expecting
from mamfed_common.runtime.places import expanded

if TYPE_CHECKING:  # images and plans are loaded where data are
    from mamfed_client.preparation.site_data import Site


@dataclass(frozen=True)
class SiteHome:
    """Where everything of a site lies."""

    path: Path

    @property
    def settings_path(self) -> Path:
        """Return ``site.yaml``."""
        return self.path / "site.yaml"

    @property
    def keys(self) -> Path:
        """Return the folder of private keys."""
        return self.path / "keys"

    @property
    def node_key(self) -> Path:
        """Return the key by which Flower knows the node: EC P-384, OpenSSH."""
        return self.keys / "node.key"

    @property
    def tls_key(self) -> Path:
        """Return the key of the site's certificate: EC P-384, PEM."""
        return self.keys / "tls.key"

    @property
    def request(self) -> Path:
        """Return the request to the coordinator."""
        return self.path / "request.json"

    @property
    def welcome(self) -> Path:
        """Return the coordinator's welcome."""
        return self.path / "welcome.json"

    @property
    def certs(self) -> Path:
        """Return the folder of certificates."""
        return self.path / "certs"

    @property
    def ca(self) -> Path:
        """Return the certificate of the federation's authority, PEM."""
        return self.certs / "ca.pem"

    @property
    def certificate(self) -> Path:
        """Return this site's certificate, PEM."""
        return self.certs / "site.pem"

    @property
    def plans(self) -> Path:
        """Return the folder of plans and decisions."""
        return self.path / "plans"

    @property
    def audit(self) -> Path:
        """Return the record of everything that left."""
        return self.path / "audit.jsonl"

    @property
    def state(self) -> Path:
        """Return the folder of the round being trained."""
        return self.path / "state"

    @property
    def models(self) -> Path:
        """Return the folder of the models that this site keeps, see ``model_store.py``."""
        return self.path / "models"

    @property
    def status(self) -> Path:
        """Return the file that says how it goes."""
        return self.path / "status.json"

    @property
    def logs(self) -> Path:
        """Return the folder of logs."""
        return self.path / "logs"

    @property
    def lock(self) -> Path:
        """Return the file that a running site holds locked."""
        return self.path / "lock"


class DataSet(Config):
    """One of a site's data sets.

    Attributes:
        name: Its name, which seeds the split of its patients: keep it.
        folder: Where it lies, as ``mamfed-client data`` reads it.
    """

    name: str = Field(pattern=SITE_NAME)
    folder: Path


class SiteSettings(Config):
    """A site's ``site.yaml``. Relative paths in the file start at the site's home.

    Attributes:
        name: What the federation calls this site.
        data: The data sets that it trains on.
        cache: Where prepared images are kept; None: mamfed's own place.
        key: Key file of prepared folders that are encrypted.
        device: ``auto``, ``cpu``, ``cuda`` or ``mps``.
        devices: How many of it share each batch; ``auto``: all GPUs.
        threads: CPU threads of each training process; None: torch's choice.
        activation_checkpointing: Whether to train in less memory, at the cost of time.
        checkpoint_seconds: How much of a round a kill may cost, in seconds of training.
        policy: What may come in and what may leave.
    """

    name: str = Field(pattern=SITE_NAME)
    data: tuple[DataSet, ...] = Field(min_length=1)
    cache: Path | None = None
    key: Path | None = None
    device: str = Field(default="auto", pattern=r"^(auto|cpu|mps|cuda(:\d+)?)$")
    devices: Literal["auto"] | Annotated[int, Field(ge=1, le=64)] = 1
    threads: int | None = Field(default=None, ge=1, le=1024)
    activation_checkpointing: bool = False
    checkpoint_seconds: float = Field(default=60, ge=0)
    policy: Policy = Policy()

    @model_validator(mode="after")
    def _no_name_twice(self) -> Self:
        names = [data_set.name for data_set in self.data]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"data: the name {twice[0]!r} is given twice")
        return self

    @model_validator(mode="after")
    def _one_where_one_is_named(self) -> Self:
        one = self.device == "mps" or self.device.startswith("cuda:")
        if one and self.devices not in (1, "auto"):
            raise ValueError(f"devices: found {self.devices}, device {self.device!r} is one")
        return self

    def site(self) -> Site:
        """Return what :func:`mamfed_client.preparation.site_data.load_site` reads."""
        from mamfed_client.preparation.sample_store import default_cache_dir
        from mamfed_client.preparation.site_data import Site

        cohorts = tuple((data_set.name, data_set.folder) for data_set in self.data)
        return Site(self.name, cohorts, self.cache or default_cache_dir(), self.key)

    def hardware(self) -> Hardware:
        """Return what this site trains with."""
        return Hardware(self.device, self.devices, self.threads, self.activation_checkpointing)


def check_home(home: SiteHome) -> None:
    """Refuse a folder that is no site's home.

    Raises:
        SetupError: It holds no ``site.yaml``.
    """
    if not home.settings_path.exists():
        raise SetupError(
            f"{home.settings_path}: not found; make a site's home by mamfed-client init, or name "
            "it by --home"
        )


def load_site_settings(home: SiteHome) -> SiteSettings:
    """Read a site's ``site.yaml``; its paths come back absolute.

    Raises:
        SetupError: There is none, or a key in it is unknown, missing or wrong; it is named.
    """
    check_home(home)
    with expecting(FileKind.SITE_SETTINGS, home.settings_path):
        settings = read_yaml(SiteSettings, home.settings_path)
    base = home.path.absolute()
    data = tuple(d.model_copy(update={"folder": _below(base, d.folder)}) for d in settings.data)
    paths = {"cache": settings.cache, "key": settings.key}
    absolute = {k: path and _below(base, path) for k, path in paths.items()}
    return settings.model_copy(update={"data": data, **absolute})


def _below(base: Path, path: Path) -> Path:
    return base / expanded(path)
