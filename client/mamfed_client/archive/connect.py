"""Choose how an archive is reached, and open the connection."""

from __future__ import annotations

from enum import StrEnum

from mamfed_client.archive.objects import Archive
from mamfed_client.site.archive_settings import ArchiveSettings
from mamfed_client.site.settings import SiteHome, load_site_settings
from mamfed_common.errors import SetupError


class Way(StrEnum):
    """A protocol by which an archive is reached."""

    DICOMWEB = "dicomweb"
    DIMSE = "dimse"


def archive_settings(home: SiteHome) -> ArchiveSettings:
    """Return a site's settings of its archive.

    Raises:
        SetupError: ``site.yaml`` has none, or is invalid.
    """
    settings = load_site_settings(home).archive
    if settings is None:
        raise SetupError(
            f"{home.settings_path}: names no archive; set archive, e.g. archive: "
            "{dicomweb: {url: https://pacs.example/dicom-web}}"
        )
    return settings


def ways(settings: ArchiveSettings) -> list[Way]:
    """Return the ways that are set, the preferred one first."""
    return [way for way in Way if getattr(settings, way.value) is not None]


def describe(settings: ArchiveSettings, way: Way | None = None) -> str:
    """Return what tells an archive from others."""
    if (way or ways(settings)[0]) is Way.DICOMWEB and settings.dicomweb is not None:
        return settings.dicomweb.url
    found = settings.dimse
    return f"{found.called}@{found.host}:{found.port}" if found is not None else ""


def connect(settings: ArchiveSettings, way: Way | None = None, *, move: bool = False) -> Archive:
    """Prepare a connection.

    Args:
        settings: The site's settings.
        way: The protocol; None: the first that is set.
        move: Whether images come by C-MOVE, to a listener that is opened now.

    Raises:
        SetupError: The way is not set, or its files cannot be used.
    """
    if move:
        return _moving(settings)
    chosen = way or ways(settings)[0]
    if chosen is Way.DICOMWEB and settings.dicomweb is not None:
        from mamfed_client.archive.dicomweb import DicomWeb

        return DicomWeb(settings.dicomweb, settings.timeout_seconds)
    if chosen is Way.DIMSE and settings.dimse is not None:
        from mamfed_client.archive.dimse import Dimse

        return Dimse(settings.dimse, settings.timeout_seconds)
    raise SetupError(f"site.yaml: archive.{chosen} is not set")


def _moving(settings: ArchiveSettings) -> Archive:
    if settings.move is None or settings.dimse is None:
        raise SetupError("site.yaml: --move needs archive.dimse and archive.move")
    from mamfed_client.archive.move import MovingDimse

    return MovingDimse(settings.dimse, settings.move, settings.timeout_seconds)
