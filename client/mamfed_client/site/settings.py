"""A site's home folder and its ``site.yaml``.

==================  ===========================================================================
``site.yaml``       the site's data, devices and policy
``keys/``           ``node.key`` and ``tls.key``, created here; they never leave
``request.json``    the request for a certificate, to be sent to the coordinator
``welcome.json``    the coordinator's welcome: its address and keys
``certs/``          ``ca.pem`` of the federation's authority, and ``site.pem`` of this site
``plans/``          the plans received, and this site's decisions about them
``audit.jsonl``     the audit log: everything that left
``privacy.json``     what differential privacy has spent (``policy.privacy.patients``)
``answers.json``    the questions answered, so that each is answered once
``data.json``       what lies here, in counts; it never leaves
``state/``          the round in training
``models/``         the shared model of each run, and the personal model adapted from it
``notify.json``     what people were told, so that each notice is sent once
``status.json``     the current status
``logs/``           the logs of the processes
``lock``            held by a running ``mamfed-client start``
==================  ===========================================================================
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, Self, TypeVar

from pydantic import Field, model_validator

from mamfed_client.site.archive_settings import ArchiveSettings
from mamfed_client.site.executor_settings import ExecutorSettings
from mamfed_client.site.hardware import Hardware
from mamfed_client.site.policy import Policy
from mamfed_common.config import SITE_NAME, Config
from mamfed_common.errors import SetupError
from mamfed_common.notify.settings import Notify
from mamfed_common.runtime.documents import read_yaml
from mamfed_common.runtime.file_kinds import FileKind, expecting
from mamfed_common.runtime.places import expanded

_Settings = TypeVar("_Settings", bound=Config)

if TYPE_CHECKING:  # reading settings must not load what reads images
    from mamfed_client.preparation.site_data import Site


@dataclass(frozen=True)
class SiteHome:
    """The paths of a site's home."""

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
        """Return the key that identifies the node to Flower: EC P-384, OpenSSH."""
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
        """Return the audit log of everything that left."""
        return self.path / "audit.jsonl"

    @property
    def privacy(self) -> Path:
        """Return the ledger of what differential privacy has spent."""
        return self.path / "privacy.json"

    @property
    def answers(self) -> Path:
        """Return the memory of the questions that this site has answered."""
        return self.path / "answers.json"

    @property
    def data_account(self) -> Path:
        """Return the counts of this site's data, see ``data_account.py``."""
        return self.path / "data.json"

    @property
    def state(self) -> Path:
        """Return the folder of the round in training."""
        return self.path / "state"

    @property
    def models(self) -> Path:
        """Return the folder of the models that this site keeps, see ``model_store.py``."""
        return self.path / "models"

    @property
    def status(self) -> Path:
        """Return the status file."""
        return self.path / "status.json"

    @property
    def logs(self) -> Path:
        """Return the folder of logs."""
        return self.path / "logs"

    @property
    def lock(self) -> Path:
        """Return the file that a running site keeps locked."""
        return self.path / "lock"


class DataSet(Config):
    """One of a site's data sets.

    Attributes:
        name: Its name, which seeds the split of its patients and must not change.
        folder: Its folder, in a layout that ``mamfed-client data`` reads.
    """

    name: str = Field(pattern=SITE_NAME)
    folder: Path


class SiteSettings(Config):
    """A site's ``site.yaml``. Relative paths in the file start at the site's home.

    Attributes:
        name: This site's name in the federation.
        data: The data sets that it trains on.
        cache: Folder of prepared images; None: ``~/.cache/mamfed``.
        key: Key file of encrypted prepared folders.
        device: ``auto``, ``cpu``, ``cuda``, ``cuda:0`` ... or ``mps``.
        devices: Number of such devices that share each batch; ``auto``: all GPUs.
        threads: CPU threads of each training process; None: torch's default.
        activation_checkpointing: Whether to save memory at the cost of time.
        checkpoint_seconds: Seconds of training between checkpoints: the most that a crash loses.
        executor: Where rounds are computed: here, or as jobs of a scheduler.
        metrics_port: Port of 127.0.0.1 at which Prometheus reads metrics; None: none.
        notify: Who is told of what while nobody looks.
        policy: Which plans this site follows and what may leave.
        archive: How it reaches its image archive; None: not at all.
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
    executor: ExecutorSettings = ExecutorSettings()
    metrics_port: int | None = Field(default=None, ge=1, le=65535)
    notify: Notify = Notify()
    policy: Policy = Policy()
    archive: ArchiveSettings | None = None

    def source(self) -> str:
        """Return who sends this site's notices."""
        return f"site {self.name}"

    @model_validator(mode="after")
    def _no_name_twice(self) -> Self:
        names = [data_set.name for data_set in self.data]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"data: found the name {twice[0]!r} twice, expected different names")
        return self

    @model_validator(mode="after")
    def _single_device_is_one(self) -> Self:
        is_single = self.device == "mps" or self.device.startswith("cuda:")
        if is_single and self.devices not in (1, "auto"):
            raise ValueError(
                f"devices: found {self.devices}, but device {self.device!r} is a single device"
            )
        return self

    @model_validator(mode="after")
    def _jobs_get_no_key(self) -> Self:
        if self.key is not None and self.executor.kind != "local":
            raise ValueError(
                f"executor: found {self.executor.kind!r} and a key of encrypted prepared folders, "
                "which no job may have; expected executor: local, or folders prepared without a key"
            )
        return self

    def site(self) -> Site:
        """Return the site as :func:`mamfed_client.preparation.site_data.load_site` expects it."""
        from mamfed_client.preparation.sample_store import default_cache_dir
        from mamfed_client.preparation.site_data import Site

        cohorts = tuple((data_set.name, data_set.folder) for data_set in self.data)
        return Site(self.name, cohorts, self.cache or default_cache_dir(), self.key)

    def hardware(self) -> Hardware:
        """Return the devices and threads that this site trains with."""
        return Hardware(self.device, self.devices, self.threads, self.activation_checkpointing)


def check_home(home: SiteHome) -> None:
    """Refuse a folder that is not a site's home.

    Raises:
        SetupError: It holds no ``site.yaml``.
    """
    if not home.settings_path.exists():
        raise SetupError(
            f"{home.settings_path}: not found; create a site's home with mamfed-client init, or "
            "name an existing one with --home"
        )


def load_site_settings(home: SiteHome) -> SiteSettings:
    """Read a site's ``site.yaml`` and make its paths absolute.

    Raises:
        SetupError: There is none, or it has an unknown, missing or invalid key, which is named.
    """
    check_home(home)
    with expecting(FileKind.SITE_SETTINGS, home.settings_path):
        settings = read_yaml(SiteSettings, home.settings_path)
    base = home.path.absolute()
    data = tuple(d.model_copy(update={"folder": _below(base, d.folder)}) for d in settings.data)
    paths = {"cache": settings.cache, "key": settings.key}
    absolute = {k: path and _below(base, path) for k, path in paths.items()}
    executor = _absolute(settings.executor, base)
    archive = settings.archive and _absolute(settings.archive, base)
    update = {"data": data, "executor": executor, "archive": archive, **absolute}
    return settings.model_copy(update=update)


def _absolute(settings: _Settings, base: Path) -> _Settings:
    """Return settings with every path, at every level, made absolute."""
    changed: dict[str, object] = {}
    for name in type(settings).model_fields:
        value = getattr(settings, name)
        if isinstance(value, Path):
            changed[name] = _below(base, value)
        elif isinstance(value, Config):
            changed[name] = _absolute(value, base)
    return settings.model_copy(update=changed)


def _below(base: Path, path: Path) -> Path:
    return base / expanded(path)
