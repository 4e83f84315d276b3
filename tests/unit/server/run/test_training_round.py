"""The round loop over three sites, some of which misbehave."""

import gc
import json
import math
import stat
import weakref

import pytest
import torch
from flwr.app import Array, ConfigRecord, Context, Error, Message, MetricRecord, RecordDict
from tests.unit.server.sites import (
    NAMES,
    NODES,
    Scripted,
    Sites,
    description,
    final,
    run,
    score,
    with_federation,
    with_stages,
)

from mamfed_common.checkpoint import load_checkpoint
from mamfed_common.errors import OutputError, RunError
from mamfed_common.model.malignancy_net import MalignancyNetwork
from mamfed_common.model.state_dict import state_of, state_sha256
from mamfed_common.plan import TRAINED_ON, FederationPlan
from mamfed_common.protocol.messages import ARRAYS, WEIGHTS, pack, unpack_body, unpack_painter
from mamfed_common.protocol.tasks import EvaluateTask, PrivacySpent, TrainReport, TrainTask
from mamfed_server.report.page import report_run
from mamfed_server.run.run import Job, run_job
from mamfed_server.run.server_app import make_server_app
from mamfed_server.run.transport import GridTransport
from mamfed_server.run_folder.event_log import as_log_line, read_events
from mamfed_server.run_folder.folder import RunFolder
from mamfed_simulations.federation.in_process import InProcessTransport


def test_an_undisturbed_run_leaves_everything_in_its_folder(tmp_path, tiny_plan):
    folder = run(Sites(), tiny_plan, tmp_path / "run")
    summary = folder.read_summary()
    assert (summary["status"], summary["complete"], summary["warnings"]) == ("finished", True, [])
    assert [record.stage for record in folder.rounds()] == [
        "pretraining",
        "finetuning",
        "finetuning",
    ]
    for name in ("latest", "best", "final"):
        assert load_checkpoint(folder.checkpoint_path(name)).facts.accepted == NAMES
    assert summary["arms"]["federated"]["mean_dice"] == 0.5
    assert summary["plan_sha256"] == tiny_plan.sha256()
    assert not [
        p for p in folder.path.rglob("*") if p.is_file() and stat.S_IMODE(p.stat().st_mode) != 0o600
    ]


@pytest.mark.parametrize(("every", "scored"), [(1, [1, 2, 3, 4, 5]), (2, [2, 4, 5]), (9, [5])])
def test_weights_are_scored_every_so_many_rounds_and_after_the_last(
    tmp_path, tiny_plan, every, scored
):
    finetuning = tiny_plan.finetuning.model_copy(update={"rounds": 5})
    evaluation = tiny_plan.evaluation.model_copy(update={"every": every})
    plan = tiny_plan.model_copy(update={"finetuning": finetuning, "evaluation": evaluation})
    folder = run(Sites(), plan, tmp_path / "run")
    rounds = [record for record in folder.rounds() if record.stage == "finetuning"]
    assert [record.server_round for record in rounds if record.validation] == scored
    assert load_checkpoint(folder.checkpoint_path("best")).facts.server_round in scored
    report_run(folder.path)
    assert "finished" in (folder.path / "report.html").read_text()


def test_the_average_is_weighted_by_examples(tmp_path, tiny_plan):
    """Sites add 0, 1 and 2 a round; weights 10:20:30 make that 4/3, three rounds make it 4."""
    folder = run(Sites(), with_federation(tiny_plan, weights="examples"), tmp_path / "run")
    weights = load_checkpoint(folder.checkpoint_path("final")).state
    start = 0.1  # the offset's initial value
    torch.testing.assert_close(weights["subtraction.offset"], torch.tensor([start + 4.0]))
    shares = {site: c.share for site, c in folder.rounds()[0].accepted.items()}
    assert shares == pytest.approx({"ada": 1 / 6, "bea": 1 / 3, "cleo": 1 / 2})


def test_a_run_with_compact_weights_ends_where_float32_ends(tmp_path, tiny_plan):
    exact = run(Sites(), tiny_plan, tmp_path / "float32")
    plan = with_federation(tiny_plan, wire="compact")
    compact = run(Sites(), plan, tmp_path / "compact")
    expected = load_checkpoint(exact.checkpoint_path("final")).state
    found = load_checkpoint(compact.checkpoint_path("final")).state
    for name, tensor in expected.items():  # each site moves every weight by at most 2 a round
        torch.testing.assert_close(found[name], tensor, atol=3 * 2 / 254, rtol=0)
    for one, other in zip(compact.rounds(), exact.rounds(), strict=True):
        assert one.bytes_sent < other.bytes_sent  # by little: so small a network is mostly header
    again = run(Sites(), plan, tmp_path / "again")
    assert final(again) == final(compact)


def test_a_site_that_sends_float32_where_compact_was_asked_is_refused(tmp_path, tiny_plan):
    sites = Sites()
    sites.train_answer["bea"] = lambda message, task, state: reply(message, state)
    folder = run(sites, with_federation(tiny_plan, wire="compact"), tmp_path / "run")
    assert "is missing" in folder.rounds()[0].refused["bea"]


def refused_with(answer, tmp_path, plan):
    sites = Sites()
    sites.train_answer["bea"] = answer
    folder = run(sites, plan, tmp_path / "run")
    record = folder.rounds()[0]
    assert set(record.accepted) == {"ada", "cleo"}
    honest = load_checkpoint(folder.checkpoint_path("final")).state["subtraction.offset"]
    # 0 and 2, each with half, since no site has more than that: 1 a round, three rounds
    torch.testing.assert_close(honest, torch.tensor([0.1 + 3]))
    without = run(Sites(), plan, tmp_path / "honest", training_sites=frozenset({"ada", "cleo"}))
    assert [final(folder, name) for name in ("best", "final")] == [
        final(without, name) for name in ("best", "final")
    ]
    summary = folder.read_summary()
    assert summary["complete"] is False
    assert any("bea left out" in warning for warning in summary["warnings"])
    return record.refused["bea"]


def reply(message, state, num_examples=None, loss=0.25, site="bea"):
    """Answer as a site does, or claim another number of the images that the stage is about."""
    task = unpack_body(message.content, TrainTask)
    used = description(site).images_used(task.plan, task.stage)
    if num_examples is not None:
        used[TRAINED_ON[task.stage]] = num_examples
    return Message(pack(TrainReport(num_examples=used, loss=loss), state), reply_to=message)


def test_nan_weights_are_refused_by_name(tmp_path, tiny_plan):
    def answer(message, task, state):
        state["backbone.head.bias"] = torch.full_like(state["backbone.head.bias"], math.nan)
        return reply(message, state)

    assert "backbone.head.bias" in refused_with(answer, tmp_path, tiny_plan)


def test_what_a_site_states_of_its_privacy_is_in_the_record_the_events_and_the_page(
    tmp_path, tiny_plan
):
    spent = PrivacySpent(epsilon=2.5, delta=1e-5)

    def answer(message, task, state):
        used = description("bea").images_used(task.plan, task.stage)
        report = TrainReport(num_examples=used, loss=None, privacy=spent)
        return Message(pack(report, state), reply_to=message)

    sites = Sites()
    sites.train_answer["bea"] = answer
    folder = run(sites, tiny_plan, tmp_path / "run")
    accepted = folder.rounds()[0].accepted
    assert accepted["bea"].privacy == spent
    assert "privacy" not in accepted["ada"].model_dump(mode="json")
    events = [event for event in read_events(folder.path) if event["event"] == "privacy"]
    assert {(e["site"], e["epsilon"], e["delta"]) for e in events} == {("bea", 2.5, 1e-5)}
    assert " privacy stage=pretraining server_round=1 site=bea " in as_log_line(events[0])
    page = report_run(folder.path)
    assert "bea states that it trained with differential privacy" in page.read_text()


@pytest.mark.parametrize("privacy", ['{"epsilon": 1e999, "delta": 1e-5}', '{"epsilon": 1}', "2"])
def test_a_statement_of_privacy_that_makes_no_sense_is_refused(tmp_path, tiny_plan, privacy):
    def answer(message, task, state):
        used = json.dumps(description("bea").images_used(task.plan, task.stage))
        content = pack(TrainReport(num_examples={"benign": 20}, loss=1), state)
        text = f'{{"num_examples": {used}, "loss": 1, "privacy": {privacy}}}'
        content["body"] = ConfigRecord({"json": text})
        return Message(content, reply_to=message)

    assert refused_with(answer, tmp_path, tiny_plan).startswith("TrainReport.privacy: ")


def test_a_wrong_shape_is_refused(tmp_path, tiny_plan):
    def answer(message, task, state):
        return reply(message, {**state, "subtraction.gain": torch.ones(7)})

    assert "shape (7,)" in refused_with(answer, tmp_path, tiny_plan)


def test_a_missing_array_is_refused(tmp_path, tiny_plan):
    def answer(message, task, state):
        del state["subtraction.gain"]
        return reply(message, state)

    assert "missing" in refused_with(answer, tmp_path, tiny_plan)


@pytest.mark.parametrize("claimed", [1, 21, 10**7])
def test_another_number_of_examples_than_declared_is_refused(tmp_path, tiny_plan, claimed):
    def answer(message, task, state):
        return reply(message, state, num_examples=claimed)

    expected = f"claims {claimed} benign examples but declared 20"
    assert refused_with(answer, tmp_path, tiny_plan) == expected


@pytest.mark.parametrize(
    "written", ["-5", "0", "1e18", "1e400", "20.0", "true", '"20"', "NaN", "null", "9" * 5000]
)
def test_a_number_of_examples_that_is_no_count_is_refused(tmp_path, tiny_plan, written):
    def answer(message, task, state):
        content = pack(TrainReport(num_examples={"benign": 20}, loss=1), state)
        body = f'{{"num_examples": {{"benign": {written}}}, "loss": 0.5}}'
        content["body"] = ConfigRecord({"json": body})
        return Message(content, reply_to=message)

    assert refused_with(answer, tmp_path, tiny_plan)


@pytest.mark.parametrize(
    "record", [ConfigRecord({"name": "x"}), MetricRecord({"n": 1}), ConfigRecord()]
)
def test_an_extra_record_is_refused_and_its_name_goes_nowhere(tmp_path, tiny_plan, record):
    def answer(message, task, state):
        content = pack(TrainReport(num_examples={"benign": 20}, loss=1), state)
        content["Jane Doe"] = record
        return Message(content, reply_to=message)

    reason = refused_with(answer, tmp_path, tiny_plan)
    assert reason == "sends 1 records that were not asked for"
    written = [p.read_bytes() for p in (tmp_path / "run").rglob("*") if p.is_file()]
    assert not any(b"Jane" in content for content in written)


def test_a_word_beside_the_body_is_refused(tmp_path, tiny_plan):
    def answer(message, task, state):
        content = pack(TrainReport(num_examples={"benign": 20}, loss=1), state)
        content["body"]["patient"] = "Jane Doe"
        return Message(content, reply_to=message)

    assert "not asked for" in refused_with(answer, tmp_path, tiny_plan)


def test_an_unknown_array_is_refused_and_its_name_goes_nowhere(tmp_path, tiny_plan):
    def answer(message, task, state):
        return reply(message, {**state, "Jane Doe": torch.ones(2)})

    assert refused_with(answer, tmp_path, tiny_plan) == (
        "has 1 arrays that the network does not have"
    )


def test_bytes_that_break_the_decoder_are_refused(tmp_path, tiny_plan):
    def answer(message, task, state):
        content = pack(TrainReport(num_examples={"benign": 20}, loss=1), state)
        content[ARRAYS][WEIGHTS] = Array("uint8", (9,), "numpy.ndarray", b"\xff" * 9)
        return Message(content, reply_to=message)

    assert "cannot be decoded" in refused_with(answer, tmp_path, tiny_plan)


def test_an_update_of_fifty_times_the_length_is_refused(tmp_path, tiny_plan):
    def answer(message, task, state):
        return reply(message, {name: tensor + 100 - 1 for name, tensor in state.items()})

    reason = refused_with(answer, tmp_path, tiny_plan)
    # ada moves by 0, cleo by 2, bea by 100: the median is cleo's, 50 times smaller
    assert "is over 10 times the median" in reason


def test_an_update_within_the_plans_ratio_is_accepted(tmp_path, tiny_plan):
    sites = Sites()
    sites.train_answer["bea"] = lambda message, task, state: reply(
        message, {name: tensor + 100 - 1 for name, tensor in state.items()}
    )
    plan = with_federation(tiny_plan, max_update_norm_ratio=51)
    assert set(run(sites, plan, tmp_path / "run").rounds()[0].accepted) == set(NAMES)


def test_a_long_update_is_shortened_to_a_multiple_of_the_median_and_named(tmp_path, tiny_plan):
    """Ada moves every weight by 0, cleo by 2, the median, and bea by 18: 9 times the median."""
    sites = Sites()
    sites.train_answer["bea"] = lambda message, task, state: reply(
        message, {name: tensor + 18 - 1 for name, tensor in state.items()}
    )
    plan = with_federation(tiny_plan, weights="equal", clip_update_norm_ratio=1.5)
    plan = plan.changed(finetuning={**plan.finetuning.model_dump(), "rounds": 0})
    folder = run(sites, plan, tmp_path / "run")
    (record,) = folder.rounds()
    assert record.accepted["bea"].clipped_from == pytest.approx(9)
    assert record.accepted["cleo"].clipped_from is None
    assert "clipped_from" not in record.accepted["cleo"].model_dump(mode="json")
    weights = load_checkpoint(folder.checkpoint_path("final")).state
    moved = weights["subtraction.offset"] - 0.1
    torch.testing.assert_close(moved, torch.tensor([(0 + 1.5 * 2 + 2) / 3]))
    (warning,) = [e["warning"] for e in read_events(folder.path) if e["event"] == "shortened"]
    assert warning == (
        "pretraining round 1: the update of bea was 9 times as long as the median, shortened to 1.5"
    )


def test_updates_within_the_bound_keep_their_bits(tmp_path, tiny_plan):
    """Ada moves by 0, bea by 1, the median, and cleo by 2."""
    bounds = (2.1, 1e6)
    folders = [
        run(
            Sites(),
            with_federation(tiny_plan, clip_update_norm_ratio=bound),
            tmp_path / f"{bound}",
        )
        for bound in bounds
    ]
    assert len({final(folder) for folder in folders}) == 1


def test_the_default_bound_leaves_the_hash_of_a_plan_as_it_was(tiny_plan):
    bounds = ("max_share_ratio", "clip_update_norm_ratio")
    default = FederationPlan()
    plan = with_federation(tiny_plan, **{key: getattr(default, key) for key in bounds})
    assert not any(key in plan.to_yaml() for key in bounds)
    assert plan.federation == default


def test_a_site_that_grows_during_a_stage_weighs_by_what_it_had_at_first(tmp_path, tiny_plan):
    """Its new description is believed, and its weight stays: counts are no lever in mid-run."""
    plan = with_federation(tiny_plan, weights="examples", max_share=1, join_seconds=0)
    plan = plan.changed(pretraining={**plan.pretraining.model_dump(), "rounds": 3})
    sites = Sites()
    grown = description("bea", benign=10**7, malignant=10**7)

    def train(message, task, state):
        used = description("bea").images_used(task.plan, task.stage)
        if (str(task.stage), task.server_round) != ("pretraining", 1):
            sites.descriptions["bea"] = grown
            used = grown.images_used(task.plan, task.stage)
        return Message(pack(TrainReport(num_examples=used, loss=1), state), reply_to=message)

    sites.train_answer["bea"] = train
    folder = run(sites, plan, tmp_path / "run", Scripted(sites), names=lambda: NODES, min_sites=2)
    first, second, third = folder.rounds()[:3]
    assert second.refused == {"bea": "claims 10000000 benign examples but declared 20"}
    assert third.accepted["bea"].num_examples == {"benign": 10**7}
    assert third.accepted["bea"].share == first.accepted["bea"].share == pytest.approx(20 / 60)
    assert (
        "bea has 10000000 images of pretraining and weighs by the 20 at first"
        in folder.read_summary()["warnings"]
    )


@pytest.mark.parametrize("pretraining", [1, 0])
def test_the_final_test_brings_the_painter_of_a_run_with_stage_1(tmp_path, tiny_plan, pretraining):
    sites, asked = Sites(), []
    honest = sites.evaluate

    def evaluate(message, context):
        task = unpack_body(message.content, EvaluateTask)
        state = state_of(MalignancyNetwork(task.plan.network))
        painter = unpack_painter(message.content, task, state)
        asked.append((task.part, None if painter is None else state_sha256(painter)))
        return honest(message, context)

    sites.evaluate = evaluate
    stage = {**tiny_plan.pretraining.model_dump(), "rounds": pretraining}
    folder = run(sites, tiny_plan.changed(pretraining=stage), tmp_path / "run")
    painter = final(folder, "pretrained") if pretraining else None
    assert {part: sha256 for part, sha256 in asked} == {"val": None, "test": painter}


@pytest.mark.parametrize(
    "claim",
    [
        score(0.9, images=2),
        score(0.9, lesions_found=2),
        score(0.9, images_without_malignancy=1),
        score(0.9, false_positive_pixels=32 * 32 + 1),
        score(0.9, images=0),
        score(None, images=0, iou=0.5),
        score(None, images=0, dice_at=(0.5,) * 9),
        score(0.9, auroc=0.5),
        score(0.9, lesions=0, lesions_found=0, sensitivity_at_1=1),
        score(0.9, lesions_redrawn=2),
        score(0.9, lesions_redrawn=1, redrawn_as_tissue=2),
        score(0.9, lesions_redrawn=0, redrawn_minus_ring=0.1),
        score(0.9, redrawn_as_tissue=1),
    ],
)
def test_a_result_over_more_than_was_declared_does_not_count(tmp_path, tiny_plan, claim):
    sites = Sites()
    honest = sites.evaluate

    def evaluate(message, context):
        if sites.name(context) == "bea":
            return Message(pack(claim), reply_to=message)
        return honest(message, context)

    sites.evaluate = evaluate
    folder = run(sites, tiny_plan, tmp_path / "run")
    assert all("bea" not in record.validation for record in folder.rounds())
    summary = folder.read_summary()
    assert set(summary["arms"]["federated"]["sites"]) == {"ada", "cleo"}
    assert [w.split(": ")[:2] for w in summary["warnings"]] == [
        ["validation of round 1", "bea"],
        ["validation of round 2", "bea"],
        ["test", "bea"],
    ]


def test_no_average_is_made_of_fewer_sites_than_the_floor(tmp_path, tiny_plan):
    sites = Sites()
    sites.train_answer["bea"] = lambda message, *_: Message(Error(2, "x"), reply_to=message)
    with pytest.raises(RunError, match="2 of 3 updates accepted, quorum is 3"):
        run(sites, tiny_plan, tmp_path / "run", min_sites=3)
    assert not (tmp_path / "run" / "checkpoints" / "latest.safetensors").exists()


def test_fewer_sites_than_the_floor_are_not_asked_to_train_for_nothing(tmp_path, tiny_plan):
    sites = Sites()
    with pytest.raises(RunError, match="0 of 2 updates accepted, quorum is 3"):
        run(sites, tiny_plan, tmp_path / "r", min_sites=3, training_sites=frozenset(NAMES[:2]))
    assert sites.trained == []


def test_updates_lie_on_disk_during_the_round_only(tmp_path, tiny_plan):
    sites, seen = Sites(), []
    folder = tmp_path / "run"

    def answer(message, task, state):
        seen.append(sorted(path.name for path in (folder / "updates").iterdir()))
        return reply(message, state, site="cleo")

    sites.train_answer["cleo"] = answer
    run(sites, tiny_plan, folder)
    assert seen[0] == ["ada.update", "bea.update"]
    assert list((folder / "updates").iterdir()) == []


def test_weights_are_let_go_before_the_next_are_taken(tmp_path, tiny_plan):
    """Without the collector's help: it may not come for hours."""
    weights, alive = [], []

    class Watched(Scripted):
        def push(self, node_id, message_type, content, ttl_seconds):
            if ARRAYS in content and node_id == 1:
                weights.append(weakref.ref(content[ARRAYS][WEIGHTS]))
            return super().push(node_id, message_type, content, ttl_seconds)

        def pull(self, message_id):
            alive.append(sum(array() is not None for array in weights))
            message = super().pull(message_id)
            if message is not None and ARRAYS in message.content:
                weights.append(weakref.ref(message.content[ARRAYS][WEIGHTS]))
            return message

    gc.disable()
    try:
        run(Sites(), tiny_plan, tmp_path / "run", Watched(Sites()))
    finally:
        gc.enable()
    assert len(weights) == 3 * (1 + 3) + 2 + 1
    assert max(alive) == 1  # the request's own


def test_over_flowers_grid_the_bits_are_the_same(tmp_path, tiny_plan):
    """A Grid of the few methods that the transport calls; Ray's own is in tests/simulations."""
    sites = Sites()
    inside = Scripted(sites)

    class OwnGrid:
        def get_node_ids(self):
            return list(inside.online())

        def push_messages(self, messages):
            return [
                inside.push(m.metadata.dst_node_id, m.metadata.message_type, m.content, 9)
                for m in messages
            ]

        def pull_messages(self, message_ids):
            return [inside.pull(message_id) for message_id in message_ids]

    job = Job(plan=tiny_plan, folder=tmp_path / "grid", num_nodes=3)
    context = Context(run_id=1, node_id=0, node_config={}, state=RecordDict(), run_config={})
    assert GridTransport(OwnGrid()).online() == {1: "", 2: "", 3: ""}
    make_server_app(job)(OwnGrid(), context)
    direct = run(Sites(), tiny_plan, tmp_path / "direct")
    assert final(RunFolder(job.folder)) == final(direct)


def test_a_nan_loss_is_refused(tmp_path, tiny_plan):
    def answer(message, task, state):
        content = pack(TrainReport(num_examples={"benign": 20}, loss=1), state)
        content["body"] = ConfigRecord({"json": '{"num_examples": {"benign": 20}, "loss": NaN}'})
        return Message(content, reply_to=message)

    assert "loss" in refused_with(answer, tmp_path, tiny_plan)


def test_a_failed_site_is_named_without_its_words(tmp_path, tiny_plan):
    def answer(message, task, state):
        return Message(Error(2, "/data/patient-12345.dcm exploded"), reply_to=message)

    reason = refused_with(answer, tmp_path, tiny_plan)
    assert reason == "the site failed; see its own log"
    assert "12345" not in (tmp_path / "run" / "events.jsonl").read_text()


def test_a_failed_site_is_welcomed_back_in_the_next_round(tmp_path, tiny_plan):
    sites = Sites()

    def answer(message, task, state):
        if task.stage == "pretraining":
            return Message(Error(2, "x"), reply_to=message)
        return reply(message, state)

    sites.train_answer["bea"] = answer
    records = run(sites, tiny_plan, tmp_path / "run").rounds()
    assert [set(r.accepted) == set(NAMES) for r in records] == [False, True, True]


def test_a_site_that_never_answers_is_left_out_after_the_deadline(tmp_path, tiny_plan):
    plan = tiny_plan.changed(
        pretraining={**tiny_plan.pretraining.model_dump(), "rounds": 0},
        finetuning={**tiny_plan.finetuning.model_dump(), "rounds": 1, "deadline_seconds": 0.3},
    )
    transport = Scripted(Sites())
    transport.silent = {NODES["ada"]: {"train"}}
    folder = run(Sites(), plan, tmp_path / "run", transport)
    record = folder.rounds()[0]
    assert record.refused == {"ada": "no answer within 0.3 seconds"}
    assert record.answered == ("bea", "cleo")


def test_a_failed_quorum_fails_the_run_and_keeps_what_was_reached(tmp_path, tiny_plan):
    sites = Sites()

    def answer(message, task, state):
        if task.stage == "finetuning" and task.server_round == 2:
            return Message(Error(2, "x"), reply_to=message)
        return reply(message, state)

    sites.train_answer["bea"] = answer
    with pytest.raises(RunError, match="finetuning round 2: 2 of 3 updates accepted, quorum is 3"):
        run(sites, with_stages(tiny_plan, quorum=3), tmp_path / "run")
    folder = RunFolder(tmp_path / "run")
    summary = folder.read_summary()
    assert (summary["status"], summary["complete"]) == ("failed", False)
    assert len(folder.rounds()) == 3
    assert load_checkpoint(folder.checkpoint_path("latest")).facts.server_round == 1
    assert not folder.checkpoint_path("final").exists()


def test_a_run_that_fails_at_once_names_no_checkpoint(tmp_path, tiny_plan):
    sites = Sites()
    sites.train_answer["bea"] = lambda message, *_: Message(Error(2, "x"), reply_to=message)
    with pytest.raises(RunError):
        run(sites, with_stages(tiny_plan, quorum=3), tmp_path / "run")
    assert RunFolder(tmp_path / "run").read_summary()["checkpoint"] is None


def test_a_run_that_fails_in_the_second_stage_names_what_it_reached(tmp_path, tiny_plan):
    sites = Sites()

    def answer(message, task, state):
        if task.stage == "finetuning":
            return Message(Error(2, "x"), reply_to=message)
        return reply(message, state)

    sites.train_answer["bea"] = answer
    with pytest.raises(RunError):
        run(sites, with_stages(tiny_plan, quorum=3), tmp_path / "run")
    checkpoint = RunFolder(tmp_path / "run").read_summary()["checkpoint"]
    assert checkpoint == str(tmp_path / "run" / "checkpoints" / "latest.safetensors")


def test_a_stage_without_a_usable_site_fails_before_anything_is_written(tmp_path, tiny_plan):
    sites = Sites()
    sites.descriptions = {site: description(site, malignant=0) for site in NAMES}
    with pytest.raises(RunError, match="finetuning: no site has a usable annotated malignant"):
        run(sites, tiny_plan, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_quorum_above_the_usable_sites_fails_before_anything_is_written(tmp_path, tiny_plan):
    sites = Sites()
    sites.descriptions["ada"] = description("ada", benign=0)
    with pytest.raises(RunError, match="2 sites have usable benign training cases"):
        run(sites, with_stages(tiny_plan, quorum=3), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_each_stage_asks_only_the_sites_that_have_its_cases(tmp_path, tiny_plan):
    sites = Sites()
    sites.descriptions["ada"] = description("ada", malignant=0)
    sites.descriptions["bea"] = description("bea", benign=0)
    records = run(sites, tiny_plan, tmp_path / "run").rounds()
    assert [r.expected for r in records] == [("ada", "cleo"), ("bea", "cleo"), ("bea", "cleo")]


def test_the_best_round_is_the_last_before_validation_fell_apart(tmp_path, tiny_plan):
    sites = Sites()
    sites.val_dice = {"ada": [0.9, 0.0], "bea": [0.5, 0.0], "cleo": [0.4, 0.1]}
    folder = run(sites, tiny_plan, tmp_path / "run")
    assert load_checkpoint(folder.checkpoint_path("best")).facts.server_round == 1
    assert load_checkpoint(folder.checkpoint_path("final")).facts.server_round == 2
    assert folder.read_summary()["mean_validation_dice"] == pytest.approx(0.6)


@pytest.mark.parametrize("name", ["", "second"])
def test_sites_are_told_which_run_it_is(tmp_path, tiny_plan, name):
    sites, told = Sites(), set()

    def listening(answer, task):
        def listen(message, context):
            told.add((task, unpack_body(message.content, task).run))
            return answer(message, context)

        return listen

    sites.train = listening(sites.train, TrainTask)
    sites.evaluate = listening(sites.evaluate, EvaluateTask)
    run_job(
        Job(plan=tiny_plan, folder=tmp_path / "run", num_nodes=3, run=name),
        InProcessTransport(sites.app(), 3),
    )
    assert told == {(TrainTask, name), (EvaluateTask, name)}


def test_two_nodes_of_one_name_are_refused(tmp_path, tiny_plan):
    sites = Sites()
    sites.descriptions["bea"] = description("ada")
    with pytest.raises(RunError, match="two nodes say that they are site 'ada'"):
        run(sites, tiny_plan, tmp_path / "run")


def test_an_earlier_run_is_kept_under_another_name(tmp_path, tiny_plan):
    first = run(Sites(), tiny_plan, tmp_path / "run")
    before = state_sha256(load_checkpoint(first.checkpoint_path("final")).state)
    run(Sites(), tiny_plan.changed(seed=9), tmp_path / "run")
    kept = RunFolder(tmp_path / "run.1")
    assert state_sha256(load_checkpoint(kept.checkpoint_path("final")).state) == before


def test_a_folder_of_something_else_is_never_touched(tmp_path, tiny_plan):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "thesis.tex").write_text("x")
    with pytest.raises(OutputError, match="not a run folder"):
        run(Sites(), tiny_plan, tmp_path / "run")
    assert (tmp_path / "run" / "thesis.tex").read_text() == "x"


def test_rounds_jsonl_is_one_readable_line_a_round(tmp_path, tiny_plan):
    folder = run(Sites(), tiny_plan, tmp_path / "run")
    lines = (folder.path / "rounds.jsonl").read_text().splitlines()
    first = json.loads(lines[0])
    total = sum(math.sqrt(count) for count in (10, 20, 30))
    assert first["accepted"]["ada"] == {
        "num_examples": {"benign": 10},
        "share": math.sqrt(10) / total,
        "loss": 0.25,
    }
    last = json.loads(lines[2])["accepted"]["bea"]
    assert last["num_examples"] == {"malignant": 20, "benign": 20}
    assert first["bytes_sent"] == first["bytes_received"] > 1000


def every_site(plan, **more):
    """Return a plan in whose stage 2 sites without malignant images take part too."""
    stage = {**plan.finetuning.model_dump(), "benign_only_sites": True, **more}
    return plan.changed(finetuning=stage)


def test_a_site_without_malignant_images_takes_part_where_the_plan_says_so(tmp_path, tiny_plan):
    found = {}
    for name, plan in (("as it is", tiny_plan), ("every", every_site(tiny_plan))):
        sites = Sites()
        sites.descriptions["cleo"] = description("cleo", benign=16, malignant=0)
        accepted = run(sites, plan, tmp_path / name).rounds()[-1].accepted
        found[name] = {site: c.num_examples for site, c in accepted.items()}
        shares = {site: c.share for site, c in accepted.items()}
    both = {site: {"malignant": n, "benign": n} for site, n in (("ada", 10), ("bea", 20))}
    assert found == {"as it is": both, "every": {**both, "cleo": {"benign": 16}}}
    total = math.sqrt(12.5) + math.sqrt(25) + math.sqrt(4)
    assert shares["cleo"] == pytest.approx(2 / total)


def test_stage_2_needs_one_site_with_malignant_images(tmp_path, tiny_plan):
    sites = Sites()
    sites.descriptions = {site: description(site, malignant=0) for site in NAMES}
    with pytest.raises(RunError, match="no site has a usable annotated malignant training case"):
        run(sites, every_site(tiny_plan), tmp_path / "run")


def test_a_quorum_counts_sites_without_malignant_images_too(tmp_path, tiny_plan):
    sites = Sites()
    for site in ("bea", "cleo"):
        sites.descriptions[site] = description(site, malignant=0)
    run(sites, every_site(tiny_plan, quorum=3), tmp_path / "run")
    sites.descriptions["cleo"] = description("cleo", malignant=0, benign=0)
    with pytest.raises(RunError, match=r"2 sites have .* or others that it uses, its quorum is 3"):
        run(sites, every_site(tiny_plan, quorum=3), tmp_path / "other")
