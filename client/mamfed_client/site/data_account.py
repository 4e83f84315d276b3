"""What lies at a site, in counts (``data.json``): written whenever its images are described.

``preflight`` and the worker write it, so that the site's page need not read the images again. It
holds counts only, no patient and no file, and it never leaves.
"""

from __future__ import annotations

import logging
from datetime import UTC, datetime
from typing import Any

from mamfed_client.preparation.prepared_folder import is_prepared
from mamfed_client.preparation.site_data import SiteData
from mamfed_client.preparation.summary import summarise_intake
from mamfed_client.site.settings import SiteHome, load_site_settings
from mamfed_common.config import Config
from mamfed_common.domain import Part, Purpose
from mamfed_common.errors import MamfedError, SetupError
from mamfed_common.plan import TrainingPlan
from mamfed_common.runtime.documents import read_json
from mamfed_common.runtime.files import os_error_line, write_atomic

logger = logging.getLogger(__name__)


class DataSetAccount(Config):
    """The counts of one data set.

    Attributes:
        name: Its name in ``site.yaml``.
        prepared: Whether it is a prepared folder.
        summary: The counts of ``data check``
            (:func:`mamfed_client.preparation.summary.summarise_intake`).
        images: Usable images, by purpose and part.
        patients: Patients of these images, by purpose and part.
    """

    name: str
    prepared: bool
    summary: dict[str, Any]
    images: dict[Purpose, dict[Part, int]]
    patients: dict[Purpose, dict[Part, int]]


class DataAccount(Config):
    """The counts of a site's data sets.

    Attributes:
        time: When they were counted.
        plan_sha256: The plan that divides them.
        data_sets: Each data set.
    """

    time: datetime
    plan_sha256: str
    data_sets: tuple[DataSetAccount, ...]


def note_data(home: SiteHome, data: SiteData, plan: TrainingPlan) -> None:
    """Write a site's counts; a full disk must not cost an answer, so it is only logged."""
    try:
        folders = {data_set.name: data_set.folder for data_set in load_site_settings(home).data}
        sets = tuple(
            DataSetAccount(
                name=cohort.name,
                prepared=cohort.name in folders and is_prepared(folders[cohort.name]),
                summary=summarise_intake(cohort.intake),
                images=cohort.counts.images,
                patients=cohort.counts.patients,
            )
            for cohort in data.cohorts
        )
        account = DataAccount(time=datetime.now(UTC), plan_sha256=plan.sha256(), data_sets=sets)
        write_atomic(home.data_account, account.model_dump_json(indent=1) + "\n")
    except OSError as error:
        logger.warning("cannot write what lies here: %s", os_error_line(error))
    except MamfedError as error:
        logger.warning("cannot write what lies here: %s", error)


def read_account(home: SiteHome) -> DataAccount | None:
    """Return a site's counts; None if nothing was counted yet.

    Raises:
        SetupError: The file is damaged.
    """
    if not home.data_account.exists():
        return None
    try:
        return read_json(DataAccount, home.data_account)
    except SetupError as error:
        raise SetupError(
            f"{error}; remove the file, and run mamfed-client preflight to count again"
        ) from None
