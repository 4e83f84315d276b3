"""The check of ``mamfed-client preflight`` that jobs work, end to end."""

from __future__ import annotations

from time import monotonic

from mamfed_client.cluster.job_executor import CHECKS, job_executor
from mamfed_client.cluster.queues import queue_of
from mamfed_client.preparation.site_data import SiteData
from mamfed_client.site.settings import SiteSettings
from mamfed_common.domain import PURPOSES
from mamfed_common.plan import TrainingPlan
from mamfed_common.runtime.wording import counted, span


def try_job(settings: SiteSettings, data: SiteData, plan: TrainingPlan) -> str:
    """Run a job that reads some training images where rounds are computed; describe what it found.

    Raises:
        JobError: It brought no result.
        DataError: It cannot read the images.
        SetupError: The shared folder or the scheduler cannot be used.
    """
    executor = settings.executor
    jobs = job_executor(settings, queue_of(executor), what=CHECKS)
    began = monotonic()
    found = jobs.probe(data.samples(PURPOSES, "train"), plan)
    seconds = span(monotonic() - began)
    return (
        f"{executor.kind}: a job on {found.host} read {counted(found.images, 'image')} and found "
        f"{', '.join(found.devices)}; {seconds} from submission to answer"
    )
