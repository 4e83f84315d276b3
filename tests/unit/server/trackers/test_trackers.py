"""The curves of a run, read back by TensorBoard and by MLflow; a tracker's failure is one line."""

import json
import logging
import socket
import threading
import time

import pytest
from tests.unit.server.sites import Sites, run

from mamfed_server.run_folder.folder import RunFolder
from mamfed_server.trackers import mlflow_sender, tracking
from mamfed_server.trackers.tensorboard import FOLDER, EventFiles


def curves(folder):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder / FOLDER))
    events.Reload()
    return {
        tag: [(e.step, e.value) for e in events.Scalars(tag)] for tag in events.Tags()["scalars"]
    }


@pytest.fixture
def folder(tmp_path, tiny_plan):
    return run(Sites(), tiny_plan, tmp_path / "runs" / "first").path


@pytest.mark.filterwarnings("ignore")
def test_tensorboard_reads_loss_and_dice_by_site_and_overall(folder):
    rounds, found = RunFolder(folder).rounds(), curves(folder)
    for site in ("ada", "bea", "cleo"):
        losses = [v for tag in found for _, v in found[tag] if tag.endswith(f"/{site}")
                  and tag.startswith("loss/")]  # fmt: skip
        assert losses == pytest.approx([r.accepted[site].loss for r in rounds])
    dices = [(n, r.pooled_validation_dice) for n, r in enumerate(rounds, 1) if r.validation]
    assert found["validation_dice/all_images"] == [(n, pytest.approx(d)) for n, d in dices]
    assert [step for step, _ in found["round/seconds"]] == [1, 2, 3]


@pytest.mark.filterwarnings("ignore")
def test_a_resumed_run_has_each_round_once(folder):
    [earlier] = (folder / FOLDER).iterdir()
    earlier.rename(earlier.with_name("events.out.tfevents.1.earlier"))
    EventFiles(folder).close()
    assert [step for step, _ in curves(folder)["round/seconds"]] == [1, 2, 3]
    assert len(list((folder / FOLDER).iterdir())) == 1


def test_a_tracker_that_fails_is_one_line_and_the_run_finishes(
    tmp_path, tiny_plan, monkeypatch, caplog
):
    class Broken:
        def __init__(self, folder):
            raise OSError("disk full")

    monkeypatch.setattr(tracking, "EventFiles", Broken)
    with caplog.at_level(logging.WARNING):
        folder = run(Sites(), tiny_plan, tmp_path / "runs" / "first")
    assert folder.read_summary()["status"] == "finished"
    lines = [r.getMessage() for r in caplog.records if r.name == tracking.__name__]
    assert lines == ["no TensorBoard files: OSError: disk full"]


def test_an_mlflow_that_is_not_installed_is_one_line(folder, monkeypatch, caplog):
    monkeypatch.setenv(tracking.TRACKING_URI, "http://127.0.0.1:1")
    monkeypatch.setattr(tracking, "find_spec", lambda name: None)
    trackers = tracking.Trackers(folder)
    trackers.round(RunFolder(folder).rounds()[-1])
    trackers.end()
    assert "but MLflow is missing" in caplog.text


def test_mlflow_has_each_round_once_also_after_a_resume(folder, tmp_path, monkeypatch):
    mlflow = pytest.importorskip("mlflow")
    store = tmp_path / "store"
    monkeypatch.setenv(tracking.TRACKING_URI, store.as_uri())
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    records = RunFolder(folder).rounds()
    for done in (1, 3, 3):
        monkeypatch.setattr(RunFolder, "rounds", lambda self, done=done: records[:done])
        mlflow_sender.Sender(folder).send()
    state = json.loads((folder / mlflow_sender.STATE).read_text())
    assert state["sent"] == 3
    client = mlflow.MlflowClient(store.as_uri())
    seconds = client.get_metric_history(state["run_id"], "round/seconds")
    assert [point.step for point in seconds] == [1, 2, 3]
    assert client.get_run(state["run_id"]).info.run_name == "first"


def test_a_server_that_never_answers_ends_with_the_run_within_its_time(folder, monkeypatch, caplog):
    pytest.importorskip("mlflow")
    monkeypatch.setattr(tracking, "LAST_SECONDS", 1.0)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        monkeypatch.setenv(tracking.TRACKING_URI, f"http://127.0.0.1:{silent.getsockname()[1]}")
        trackers = tracking.Trackers(folder)
        trackers.round(RunFolder(folder).rounds()[-1])
        began = time.monotonic()
        trackers.end()
        assert time.monotonic() - began < 5
    assert "MLflow lacks the last rounds" in caplog.text


def test_what_mlflow_raises_is_said_once(folder, monkeypatch, capsys):
    class Failing:
        def __init__(self, folder):
            pass

        def send(self):
            raise ConnectionError("http://user:secret@example.org")

    monkeypatch.setattr(mlflow_sender, "Sender", Failing)
    monkeypatch.setattr(mlflow_sender, "LOOK_SECONDS", 0.01)
    monkeypatch.setattr(mlflow_sender, "AGAIN_SECONDS", 0.01)
    stopping = threading.Event()
    threading.Timer(0.2, stopping.set).start()
    mlflow_sender.follow(folder, stopping)
    assert capsys.readouterr().err == "MLflow is not told of the rounds: ConnectionError\n"
