"""A job whose rounds are tracked."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

from mamfed_server.run.job import Job
from mamfed_server.run_folder.round_record import RoundRecord
from mamfed_server.trackers.tracking import Trackers


@contextmanager
def tracked(job: Job) -> Iterator[Job]:
    """Yield a job whose rounds are tracked once they are on disk."""
    trackers = Trackers(job.folder)

    def on_round(record: RoundRecord) -> None:
        trackers.round(record)
        if job.on_round:
            job.on_round(record)

    try:
        yield replace(job, on_round=on_round)
    finally:
        trackers.end()
