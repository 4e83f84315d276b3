"""What the site's page reads from its home."""

import os
import stat
import sys
from datetime import UTC, datetime, timedelta
from typing import get_args

import numpy as np
import pytest
import yaml
from tests.unit.client.dashboard.conftest import STUDY, page_of

from mamfed_client.dashboard import machine_view
from mamfed_client.dashboard.data_view import PurposeRow, data_view
from mamfed_client.dashboard.left_view import left_view
from mamfed_client.dashboard.models_view import models_view, verdict
from mamfed_client.dashboard.plans_view import decide, plans_view
from mamfed_client.dashboard.snapshot import SiteReader
from mamfed_client.dashboard.studies_view import check_predictions, page, studies_view
from mamfed_client.dashboard.value_words import VALUE_WORDS
from mamfed_client.dashboard.work_view import work_view
from mamfed_client.disclosure.plan_store import Decision, PlanStore
from mamfed_client.site.policy import MetricName
from mamfed_client.site.status import Task, update_status
from mamfed_common.errors import SetupError
from mamfed_common.metrics.bootstrap import patient_bootstrap
from mamfed_common.runtime.lock import exclusive_lock

NOW = datetime(2026, 11, 30, 12, tzinfo=UTC)


class TestData:
    def test_before_the_first_count_only_names_are_known(self, home):
        assert data_view(home).when == ""
        assert data_view(home).data_sets == ("pacs",)

    def test_counts_of_all_data_sets_with_the_meaning_of_each_doubt_and_reason(self, home, account):
        two = account.model_copy(update={"data_sets": account.data_sets * 2})
        home.data_account.write_text(two.model_dump_json())
        seen = data_view(home)
        assert (seen.files, seen.accepted, seen.patients) == (46, 40, 28)
        assert [(v.what, v.number) for v in seen.vendors] == [("HOLOGIC", 24), ("GE", 16)]
        assert seen.rows[1] == PurposeRow(
            "Malignant with an outline, stage 2", (10, 2, 4), (8, 2, 4)
        )
        assert seen.doubts[0].number == 4
        assert seen.doubts[0].why
        assert seen.rejected[0].why.startswith("The file ends before")
        assert seen.notes == ("pacs: 4 masks are boxes",) * 2

    def test_a_damaged_count_says_how_to_count_again(self, home):
        home.data_account.write_text("{}")
        with pytest.raises(SetupError, match="preflight"):
            data_view(home)


def test_every_value_that_a_policy_can_release_has_words():
    assert VALUE_WORDS.keys() == set(get_args(MetricName))


class TestPlans:
    def test_one_that_waits_is_told_in_words_beside_each_bound(self, home, arrived):
        (plan,) = plans_view(home).plans
        assert plan.waits
        assert plan.sentences[0] == "It trains on images of 32 x 32 pixels."
        rounds = next(bound for bound in plan.bounds if bound.key.endswith("max_rounds"))
        assert (rounds.found, rounds.limit, rounds.fits) == ("3", "at most 100", True)

    def test_what_may_leave_is_told_with_it(self, home):
        assert plans_view(home).release == (
            "Of the network's weights, every array may leave. These are numbers; none is an image.",
            "Of other values: counts that describe the data, numbers of training images.",
            "No result rests on fewer than 10 patients, and no round trains on fewer than 10 "
            "(or half of this site's).",
        )
        settings = yaml.safe_load(home.settings_path.read_text())
        del settings["policy"]["release"]
        home.settings_path.write_text(yaml.safe_dump(settings))
        assert plans_view(home).release[0] == "Nothing may leave: policy.release is empty."

    def test_a_decision_counts_and_is_shown(self, home, arrived):
        decide(home, arrived.sha256(), Decision.APPROVED)
        (plan,) = plans_view(home).plans
        assert plan.standing == "approved"
        assert plan.decided.startswith("approved by ")
        assert PlanStore(home.plans).decisions() == {arrived.sha256(): Decision.APPROVED}

    def test_no_decision_about_a_plan_that_never_arrived(self, home):
        with pytest.raises(SetupError, match="found 0 plans"):
            decide(home, "0" * 64, Decision.APPROVED)

    def test_one_outside_the_bounds_is_blocked_and_names_the_key(self, home, arrived):
        settings = yaml.safe_load(home.settings_path.read_text())
        settings["policy"]["bounds"]["max_rounds"] = 2
        home.settings_path.write_text(yaml.safe_dump(settings))
        (plan,) = plans_view(home).plans
        assert not plan.waits
        assert [bound.key for bound in plan.bounds if not bound.fits] == [
            "policy.bounds.max_rounds"
        ]
        assert "set policy.bounds.max_rounds: 3" in plan.blocked

    def test_plans_that_wait_come_first(self, home, arrived):
        decide(home, arrived.sha256(), Decision.REFUSED)
        later = arrived.model_copy(update={"seed": 9})
        PlanStore(home.plans).remember(later)
        newest = arrived.model_copy(update={"seed": 10})
        PlanStore(home.plans).remember(newest)
        decide(home, newest.sha256(), Decision.APPROVED)
        seen = [plan.sha256 for plan in plans_view(home).plans]
        assert seen[0] == later.sha256()
        assert set(seen[1:]) == {arrived.sha256(), newest.sha256()}


class TestWork:
    def test_a_site_that_never_started(self, home):
        seen = work_view(home)
        assert (seen.site, seen.mood, seen.running) == ("north", "warn", False)
        assert seen.certificate == "none yet"

    def test_a_round_in_training_has_steps_and_time_left(self, home, arrived, account):
        began = NOW - timedelta(seconds=30)
        task = Task(
            kind="train", stage="finetuning", server_round=2, steps=1,
            plan_sha256=arrived.sha256(), began=began,
        )  # fmt: skip
        update_status(home, state="training", task=task, last_contact=NOW - timedelta(seconds=4))
        with exclusive_lock(home.lock, "this site"):
            seen = work_view(home, NOW)
        assert seen.mood == "good"
        assert seen.silent_seconds == 4
        assert seen.progress.what == "training, finetuning round 2"
        # 5 malignant training images, 2 a step, one epoch: 3 steps
        assert (seen.progress.steps, seen.progress.of_steps, seen.progress.rounds) == (1, 3, 2)
        assert seen.progress.left == "about 1 minute left"


class TestMachine:
    def test_its_cores_memory_and_disk(self, home):
        seen = machine_view.machine_view(home.path)
        assert seen.cores == os.cpu_count()
        assert 0 <= seen.busy <= 1
        assert 0 < seen.memory_used < 1
        assert 0 < seen.disk_free <= seen.disk_bytes

    def script(self, tmp_path, body):
        program = tmp_path / "nvidia-smi"
        program.write_text(f"#!/bin/sh\n{body}\n")
        program.chmod(program.stat().st_mode | stat.S_IXUSR)
        return str(program)

    def test_graphics_cards_as_nvidia_smi_lists_them(self, tmp_path):
        lines = "echo 'NVIDIA H200, 97, 1024, 143771'; echo 'Broken, [N/A], 1, 2'"
        (card,) = machine_view.gpus(self.script(tmp_path, lines))
        assert card == ("NVIDIA H200", 97, 1024, 143771)

    def test_none_where_the_program_is_missing_fails_or_hangs(self, tmp_path, monkeypatch):
        monkeypatch.setattr(machine_view, "GPU_SECONDS", 0.2)
        assert machine_view.gpus("no-such-program") == ()
        assert machine_view.gpus(self.script(tmp_path, "exit 9")) == ()
        assert machine_view.gpus(self.script(tmp_path, "exec sleep 5")) == ()


class TestLeft:
    def test_nothing_yet(self, home):
        seen = left_view(home)
        assert (seen.messages, seen.lines) == (0, ())
        assert seen.intact == "Nothing has left this site."

    def test_each_message_in_words_the_newest_first(self, home, left):
        fault, train, describe = left_view(home).lines
        assert fault.refused
        assert fault.what.startswith("No answer, only code 112: ")
        assert (
            train.what
            == "Weights of the network, trained in finetuning round 2: 0 arrays of numbers"
        )
        assert train.values == ("mean training loss: 0.3126", "numbers of training images: 40")
        assert train.behind == "train of 12 patients"
        assert train.withheld == ("mean Dice: <b>4 patients</b>, 10 are needed",)
        assert describe.what == "Counts that describe the data"

    def test_a_changed_log_is_not_shown_as_if_it_were_true(self, home, left):
        home.audit.write_text(home.audit.read_text().replace("31000", "31001"))
        seen = left_view(home)
        assert "line 2 was changed" in seen.broken
        assert seen.lines == ()

    def test_budgets_of_the_year(self, home):
        rounds, scores, _ = left_view(home).budgets
        assert (rounds.used, rounds.allowed) == (0, 4)
        assert scores.key == "policy.bounds.max_scores_a_year"


class TestModels:
    def test_a_dice_has_its_interval_over_patients(self, home, models):
        (run,) = models_view(home)
        (shared,) = run.models
        images = models.scores().shared_images
        patients, values = zip(*images, strict=True)
        expected = patient_bootstrap(patients, np.array(values))
        assert (shared.dice, shared.patients) == (0.625, 3)
        assert (shared.low, shared.high) == (expected.low, expected.high)
        assert shared.lesions == "4 of 5"

    def test_scores_of_an_older_version_have_none(self, home, models):
        known = models.scores()
        models.note_score("shared", known.shared)
        (shared,) = models_view(home)[0].models
        assert (shared.dice, shared.low, shared.patients) == (0.625, None, 0)

    def test_a_damaged_model_says_so(self, home, models):
        models.file("shared").write_bytes(b"?")
        assert models_view(home)[0].models[0].error

    def test_the_verdict_says_how_sure_it_is(self):
        shared = tuple((n, 0.5) for n in range(12))
        better = tuple((n, 0.6 + n / 1000) for n in range(12))
        assert "0.106 higher here" in verdict(shared, better)
        assert verdict(shared, better).endswith(").")
        mixed = tuple((n, 0.4 + 0.2 * (n % 2)) for n in range(12))
        assert "too little to tell them apart" in verdict(shared, mixed)
        assert "4 patients are too few" in verdict(shared[:4], better[:4])
        assert verdict(shared, better[:4]) == ""
        assert verdict(shared[:1], better[:1]).endswith("one patient proves nothing.")


class TestStudies:
    def test_a_study_is_its_pseudonym_and_its_strongest_region(self, predictions):
        (seen,) = studies_view([predictions])
        (study,) = seen.studies
        assert (study.name, study.images, study.marked) == (STUDY, 2, 1)
        assert study.strength.region == 0.81
        assert (seen.images, seen.rejected) == (2, 2)
        assert "Secret" not in repr(seen)

    def test_only_pages_that_predict_wrote(self, predictions):
        folders = [predictions]
        assert page(folders, 0, "") == page_of("Predictions").encode()
        assert page(folders, 0, STUDY) == page_of("Study").encode()
        for number, study in [(1, ""), (-1, ""), (0, "../index"), (0, "f" * 32), (0, STUDY[:7])]:
            assert page(folders, number, study) is None

    def test_no_page_through_a_link_and_no_foreign_page(self, predictions, tmp_path):
        path = predictions / "studies" / f"{'a' * 32}.html"
        outside = tmp_path / "outside.html"
        outside.write_text(page_of("Outside"))
        path.symlink_to(outside)
        assert page([predictions], 0, "a" * 32) is None
        path.unlink()
        path.write_text("<!DOCTYPE html><script>alert(1)</script>")
        assert page([predictions], 0, "a" * 32) is None
        path.unlink()
        os.mkfifo(path)
        assert page([predictions], 0, "a" * 32) is None

    def test_a_folder_of_a_link_is_fine_but_its_studies_may_not_lead_out(self, predictions):
        linked = predictions.with_name("linked")
        linked.symlink_to(predictions)
        assert page([linked], 0, STUDY) is not None
        (predictions / "studies").rename(predictions.with_name("elsewhere"))
        (predictions / "studies").symlink_to(predictions.with_name("elsewhere"))
        assert page([predictions], 0, STUDY) is None

    def test_another_folder_is_refused(self, tmp_path):
        with pytest.raises(SetupError, match="mamfed-client predict"):
            check_predictions([tmp_path])

    def test_a_damaged_summary_is_one_line(self, predictions):
        (predictions / "predictions.json").write_text('{"per_image": [{}]}')
        assert studies_view([predictions])[0].error


class TestReader:
    def test_parts_that_cannot_be_read_say_why_and_the_others_are_there(self, reader, account):
        (reader.home.plans).mkdir()
        (reader.home.plans / "decisions.jsonl").write_text("?\n")
        seen = reader.read()
        assert "decide again" in seen.plans.error
        assert seen.data.value.files == 23

    def test_unchanged_files_are_not_read_again(self, reader, left, monkeypatch):
        first = reader.read()
        assert reader.read().left.value is first.left.value
        left.append("fault", values={"fault": 112}, bytes=8, to="North")
        assert reader.read().left.value.messages == 4

    def test_a_decision_shows_at_once(self, home, arrived):
        reader = SiteReader(home)
        assert reader.read().plans.value.plans[0].waits
        decide(home, arrived.sha256(), Decision.APPROVED)
        assert not reader.read().plans.value.plans[0].waits


def test_numbers_of_patients_name_nobody_and_keep_images_together():
    from mamfed_client.models.known_scores import by_image
    from mamfed_common.metrics.scores import score_image

    mask, empty = np.zeros((8, 8), bool), np.zeros((8, 8), bool)
    mask[2:4, 2:4] = True
    scores = [
        score_image("secret", m.astype(np.float32), m, 0.5) for m in (mask, empty, mask, mask)
    ]
    assert by_image(scores, ["B", "A", "B", "C"]) == ((0, 1.0), (0, 1.0), (1, 1.0))


@pytest.mark.skipif(sys.platform != "linux", reason="/proc")
def test_memory_is_unknown_without_proc(tmp_path, monkeypatch):
    monkeypatch.setattr(machine_view, "PROC", tmp_path)
    assert machine_view._memory() == (None, 0)
