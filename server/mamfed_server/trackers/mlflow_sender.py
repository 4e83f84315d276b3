"""``python -m mamfed_server.trackers.mlflow_sender FOLDER``: send a run's curves to MLflow.

It follows ``rounds.jsonl`` until its standard input is closed. A run that is resumed goes on with
the same run of MLflow (``mlflow.json``). A server that is down, slow or wrong costs this process
some time, and the run none.
"""

from __future__ import annotations

import json
import os
import sys
import threading
from pathlib import Path
from typing import Any

from mamfed_common.runtime.bounded import DOCUMENT_BYTES, read_values
from mamfed_common.runtime.files import write_atomic
from mamfed_common.runtime.lifeline import hold_lifeline
from mamfed_server.run_folder.folder import RunFolder
from mamfed_server.trackers.curves import numbered, points_of

LOOK_SECONDS = 2.0
AGAIN_SECONDS = 60.0
"""Seconds until a server that did not answer is tried again."""
STATE = "mlflow.json"
EXPERIMENT = "mamfed"
LIMITS = {
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "DO_NOT_TRACK": "true",
}


class Sender:
    """Sends the rounds of one run that were not sent yet."""

    def __init__(self, folder: Path) -> None:
        """Prepare; the server is asked at the first :meth:`send`."""
        self._folder = folder
        self._client: Any = None
        self._run_id, self._sent = _read(folder / STATE)

    def send(self) -> None:
        """Send all new rounds.

        Raises:
            Exception: What MLflow raises; nothing that was sent is lost.
        """
        fresh = [
            each for each in numbered(RunFolder(self._folder).rounds()) if each[0] > self._sent
        ]
        if not fresh:
            return
        if self._client is None:
            self._client = self._connected()
        from mlflow.entities import Metric

        for step, record in fresh:
            points = [
                Metric(tag, value, 0, number) for tag, number, value in points_of(record, step)
            ]
            self._client.log_batch(self._run_id, metrics=points)
            self._sent = step
            self._keep()

    def _connected(self) -> Any:
        from mlflow import MlflowClient

        client = MlflowClient()
        if not self._run_id:
            found = client.get_experiment_by_name(EXPERIMENT)
            experiment = found.experiment_id if found else client.create_experiment(EXPERIMENT)
            run = client.create_run(experiment, run_name=self._folder.name)
            self._run_id = run.info.run_id
            self._keep()
        return client

    def _keep(self) -> None:
        text = json.dumps({"run_id": self._run_id, "sent": self._sent})
        write_atomic(self._folder / STATE, text + "\n")


def follow(folder: Path, stopping: threading.Event) -> None:
    """Send rounds as they come, and once more at the end; say each failure once."""
    sender, said, wait = Sender(folder), "", LOOK_SECONDS
    is_last = False
    while not is_last:
        is_last = stopping.wait(wait)
        try:
            sender.send()
            wait = LOOK_SECONDS
        except Exception as error:  # whatever MLflow raises, the run goes on
            wait = AGAIN_SECONDS
            if (kind := type(error).__name__) != said:
                said = kind
                print(f"MLflow is not told of the rounds: {kind}", file=sys.stderr, flush=True)


def main() -> None:
    """Follow the run folder that the command line names."""
    hold_lifeline()
    os.umask(0o077)
    for name, value in LIMITS.items():
        os.environ.setdefault(name, value)
    stopping = threading.Event()

    def wait_for_the_end() -> None:
        sys.stdin.read()
        stopping.set()

    threading.Thread(target=wait_for_the_end, daemon=True).start()
    follow(Path(sys.argv[1]), stopping)


def _read(path: Path) -> tuple[str, int]:
    try:
        values = read_values(path, DOCUMENT_BYTES)
        return str(values["run_id"]), int(values["sent"])
    except (OSError, ValueError, KeyError, TypeError):
        return "", 0


if __name__ == "__main__":
    main()
