"""All that the site's page shows, read from its home; a part that cannot be read says why."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from threading import Lock
from typing import Any, Generic, NamedTuple, TypeVar

from mamfed_client.dashboard.data_view import DataView, data_view
from mamfed_client.dashboard.left_view import LeftView, left_view
from mamfed_client.dashboard.machine_view import MachineView, machine_view
from mamfed_client.dashboard.models_view import RunRow, models_view
from mamfed_client.dashboard.plans_view import PlansView, plans_view
from mamfed_client.dashboard.studies_view import StudiesView, studies_view
from mamfed_client.dashboard.work_view import WorkView, work_view
from mamfed_client.disclosure.audit_log import head_path_of
from mamfed_client.disclosure.countersignatures import seals_path_of
from mamfed_client.prediction.folder import SUMMARY
from mamfed_client.site.settings import SiteHome
from mamfed_common.errors import MamfedError
from mamfed_common.runtime.files import os_error_line

Value = TypeVar("Value")


class Section(NamedTuple, Generic[Value]):
    """A part of the page: what it shows, or None and why that cannot be read."""

    value: Value | None
    error: str = ""


class Snapshot(NamedTuple):
    """All that the page shows."""

    work: Section[WorkView]
    machine: Section[MachineView]
    data: Section[DataView]
    plans: Section[PlansView]
    left: Section[LeftView]
    models: Section[tuple[RunRow, ...]]
    studies: Section[tuple[StudiesView, ...]]


class SiteReader:
    """Reads a site's home; a part whose files are unchanged is not read again."""

    def __init__(self, home: SiteHome, predictions: Sequence[Path] = ()) -> None:
        """Read this home, and these folders of predictions."""
        self.home = home
        self.predictions = tuple(predictions)
        self._known: dict[str, tuple[object, Section[Any]]] = {}
        self._lock = Lock()

    def read(self) -> Snapshot:
        """Return all parts as they are now; several threads may ask."""
        with self._lock:
            return Snapshot(
                work=_section(lambda: work_view(self.home)),
                machine=_section(lambda: machine_view(self.home.path)),
                data=self._kept("data", data_view, [self.home.data_account]),
                plans=self._kept("plans", plans_view, self._plan_files()),
                left=self._kept("left", left_view, self._audit_files()),
                models=self._kept("models", models_view, self.home.models.glob("*/*")),
                studies=self._kept(
                    "studies",
                    lambda _: studies_view(self.predictions),
                    [folder / SUMMARY for folder in self.predictions],
                ),
            )

    def _plan_files(self) -> list[Path]:
        return [self.home.plans, *self.home.plans.glob("*")]

    def _audit_files(self) -> list[Path]:
        home = self.home
        signed = [home.audit, head_path_of(home.audit), seals_path_of(home.audit)]
        return [*signed, home.answers, home.privacy, home.welcome, home.node_key]

    def _kept(
        self, name: str, read: Callable[[SiteHome], Value], paths: Iterable[Path]
    ) -> Section[Value]:
        stamp = [_stamp(path) for path in (self.home.settings_path, *sorted(paths))]
        if name not in self._known or self._known[name][0] != stamp:
            self._known[name] = stamp, _section(lambda: read(self.home))
        return self._known[name][1]


def _section(read: Callable[[], Value]) -> Section[Value]:
    try:
        return Section(read())
    except MamfedError as error:
        return Section(None, str(error))
    except OSError as error:
        return Section(None, os_error_line(error))


def _stamp(path: Path) -> tuple[str, int, int, int] | None:
    try:
        found = os.stat(path)
    except OSError:
        return None
    return str(path), found.st_mtime_ns, found.st_size, found.st_ino
