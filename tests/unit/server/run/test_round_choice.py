"""The round and the threshold are chosen only as far as validation can tell."""

import random

import pytest
from flwr.app import Message
from tests.unit.server.sites import Sites, run
from tests.unit.server.sites import score as made_score

from mamfed_common.checkpoint import load_checkpoint
from mamfed_common.metrics.site_score import THRESHOLDS, SiteScore
from mamfed_common.metrics.threshold import standard_error
from mamfed_common.plan import Stage
from mamfed_common.protocol.messages import pack, unpack_body
from mamfed_common.protocol.tasks import EvaluateTask
from mamfed_server.aggregation.pooled_scores import pool
from mamfed_server.run.round_choice import (
    RoundChoice,
    choose_threshold,
    chosen_round,
)
from mamfed_server.run_folder.round_record import RoundRecord

CHECKPOINTS = ("best", "final")


def score(dice_at=None, *, images=1000, dice=0.5):
    return SiteScore(
        images=images,
        dice=dice,
        lesions=None,
        lesions_found=None,
        images_without_malignancy=None,
        false_positive_pixels=None,
        dice_at=dice_at,
    )


def curve(values, elsewhere=0.1):
    return tuple(values.get(t, elsewhere) for t in THRESHOLDS)


def validated(number, dice, images=8):
    """A round at which one site has this Dice; None: it was not validated."""
    return RoundRecord(
        stage=Stage.FINETUNING,
        server_round=number,
        expected=("a",),
        answered=("a",),
        accepted={},
        refused={},
        validation={} if dice is None else {"a": score(images=images, dice=dice)},
    )


def rounds(*dice, images=8):
    return [validated(number, d, images) for number, d in enumerate(dice, start=1)]


def test_validation_is_pooled_by_images_at_a_half():
    sites = {"big": score(curve({0.5: 0.5}), images=9), "small": score(images=1, dice=0.9)}
    assert pool(sites) == (pytest.approx(0.54), 10)


def test_a_site_that_withholds_its_images_counts_as_one_and_one_without_any_not_at_all():
    sites = {"a": score(images=3, dice=0.4), "b": score(images=None, dice=0.8)}
    assert pool(sites) == (pytest.approx(0.5), 4)
    assert pool({**sites, "c": score(images=0, dice=None), "d": score(dice=None)}) == (0.5, 4)
    assert pool({"c": score(images=0, dice=None)}) is None
    assert pool({}) is None


@pytest.mark.parametrize(
    ("dice", "images", "number", "threshold_of_error"),
    [
        ((0.3, 0.6, 0.5, 0.45), 8, 4, 0.088),
        ((0.3, 0.6, 0.6, 0.6, 0.5, 0.5, 0.5), 8, 6, 0.088),
        ((0.3, 0.6, 0.6, 0.6, 0.5, 0.5, 0.5), 400, 4, 0.0125),
        ((0.6, 0.6, 0.0, 0.0), 8, 2, 0.088),
        ((0.45, 0.45, 0.2), 8, 2, 0.088),
        ((0.6, None, 0.5, None), 400, 1, 0.0125),
        ((0.6, None, 0.5, None), 8, 3, 0.088),
        ((0.6, 0.1, 0.6, 0.6, 0.6), 400, 5, 0.0125),
    ],
    ids=[
        "few images: the last",
        "a slow fall: until it shows",
        "many images: the peak",
        "a collapse: before it",
        "a collapse that the smoothed curve does not show yet",
        "many, seldom validated",
        "few, seldom validated",
        "a dip is over",
    ],
)
def test_the_latest_round_within_one_standard_error_of_the_peak(
    dice, images, number, threshold_of_error
):
    assert standard_error(images) == pytest.approx(threshold_of_error, abs=5e-4)
    records = rounds(*dice, images=images)
    assert chosen_round(records) is records[number - 1]


def test_without_validation_it_is_the_last_round_unless_the_run_failed():
    records = rounds(None, None)
    assert chosen_round(records) is records[1]
    assert chosen_round(records, ended_well=False) is None
    assert chosen_round([]) is None
    assert chosen_round(rounds(0.4, None), ended_well=False).server_round == 1


def test_a_process_that_starts_anywhere_makes_the_same_choice():
    draw = random.Random(0)
    for images in (2, 30, 400):
        records = rounds(*(draw.choice([None, draw.random()]) for _ in range(12)), images=images)
        whole = RoundChoice(records)
        for cut in range(12):
            halves = RoundChoice(records[:cut])
            for record in records[cut:]:
                halves.add(record)
            assert halves.chosen is whole.chosen
            assert halves.smoothed == whole.smoothed
            assert halves.why() == whole.why()


@pytest.mark.parametrize(
    ("dice", "why"),
    [
        ((0.3, 0.6, 0.3), "the last round: 8 validation images cannot tell it from the best"),
        ((0.3, 0.6), "the last round: none has a higher smoothed Dice on 8 validation images"),
        (
            (0.6, 0.0),
            "round 1: later ones are worse by more than the standard error of "
            "8 validation images, 0.09",
        ),
        ((None, None), "the last round: no validation Dice was measured"),
    ],
)
def test_the_choice_is_told_in_words(dice, why):
    assert RoundChoice(rounds(*dice)).why() == why


def test_a_choice_whose_weights_are_lost_starts_anew():
    choice = RoundChoice(rounds(0.9, 0.1))
    choice.forget()
    assert choice.chosen is None
    assert choice.why() == "the last round: the checkpoint of the chosen one was damaged"
    assert choice.add(validated(3, 0.1))


@pytest.mark.parametrize("best", [0.1, 0.3, 0.5, 0.9])
def test_many_images_choose_their_best_threshold(best):
    assert choose_threshold([{"a": score(curve({best: 0.6}))}]) == best


@pytest.mark.parametrize(("images", "threshold"), [(2, 0.5), (3, 0.3), (9, 0.3), (16, 0.2)])
def test_few_images_move_the_threshold_only_as_far_as_they_can_tell(images, threshold):
    """Errors .177, .144, .083 and .0625: of a best .6 they reach down to .42, .46, .52 and .54."""
    dice_at = curve({0.2: 0.6, 0.3: 0.53, 0.5: 0.45})
    assert choose_threshold([{"a": score(dice_at, images=images)}]) == threshold


def test_sites_choose_a_threshold_by_their_images():
    big = score(curve({0.2: 0.9}), images=1000)
    small = score(curve({0.2: 0.0, 0.7: 0.95}), images=3)
    assert choose_threshold([{"big": big, "small": small}]) == 0.2


def test_the_last_three_rounds_choose_a_threshold():
    lucky, usual = ({"a": score(curve({at: 0.6}))} for at in (0.9, 0.4))
    assert choose_threshold([usual, usual, lucky]) == 0.4
    assert choose_threshold([usual, usual, lucky, lucky]) == 0.9


def test_of_two_as_near_to_a_half_the_better_wins():
    assert choose_threshold([{"a": score(curve({0.4: 0.601, 0.6: 0.6}))}]) == 0.4
    assert choose_threshold([{"a": score(curve({0.4: 0.6, 0.6: 0.601}))}]) == 0.6


def test_a_site_that_says_nothing_does_not_count():
    assert choose_threshold([{"a": score(None), "b": score(curve({0.4: 0.6}))}]) == 0.4


@pytest.mark.parametrize("scores", [[], [{}], [{"a": score(None)}], [{"a": score(images=0)}]])
def test_without_any_the_plans_threshold_stays(scores):
    assert choose_threshold(scores) is None


class Choosing(Sites):
    """Sites whose first round of stage 2 is the best, at 0.3, and whose second is at 0.8.

    They have three images, an error of .144: .7 at .3 beats .5 at .5; afterwards .5 at .8 beats the
    smoothed .35 at .3.
    """

    def __init__(self, at=({0.3: 0.7, 0.5: 0.5}, {0.8: 1.0})):
        super().__init__()
        self.at = at
        self.tested = []

    def evaluate(self, message, context):
        task = unpack_body(message.content, EvaluateTask)
        if task.part == "test":
            self.tested.append((str(task.stage), task.server_round, task.threshold))
            return Message(pack(made_score(0.5)), reply_to=message)
        at = self.at[task.server_round - 1]
        answer = made_score(0.9 if task.server_round == 1 else 0.1, dice_at=at and curve(at, 0.0))
        return Message(pack(answer), reply_to=message)


def test_the_test_is_scored_at_the_threshold_of_the_best_round(tmp_path, tiny_plan):
    sites = Choosing()
    folder = run(sites, tiny_plan, tmp_path / "run")
    assert sites.tested == [("finetuning", 1, 0.3)] * 3
    chosen = {n: load_checkpoint(folder.checkpoint_path(n)).facts.threshold for n in CHECKPOINTS}
    assert chosen == {"best": 0.3, "final": 0.8}
    summary = folder.read_summary()
    assert (summary["threshold"], summary["threshold_from"]) == (0.3, "validation")
    assert (summary["chosen_round"], summary["validation_images"]) == (1, 3)
    assert summary["mean_validation_dice"] == pytest.approx(0.9)
    assert summary["pooled_validation_dice"] == pytest.approx(0.5)
    facts = load_checkpoint(folder.checkpoint_path("best")).facts
    assert (facts.pooled_validation_dice, facts.validation_images) == (0.5, 3)


def test_results_at_a_half_stand_beside_those_at_the_threshold(tmp_path, tiny_plan):
    sites = Choosing()
    choosing = sites.evaluate

    def evaluate(message, context):
        if unpack_body(message.content, EvaluateTask).part == "val":
            return choosing(message, context)
        dice_at = curve({0.3: 0.7, 0.5: 0.4 if sites.name(context) == "ada" else 0.1})
        return Message(pack(made_score(0.7, dice_at=dice_at)), reply_to=message)

    sites.evaluate = evaluate
    arm = run(sites, tiny_plan, tmp_path / "run").read_summary()["arms"]["federated"]
    assert arm["mean_dice"] == pytest.approx(0.7)
    assert arm["mean_dice_at_half"] == pytest.approx(0.2)


@pytest.mark.parametrize("rounds", [1, 2, 3])
def test_a_run_that_was_killed_goes_on_with_the_threshold(tmp_path, tiny_plan, rounds):
    records = []

    def on_round(record):
        records.append(record)
        if len(records) == rounds:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(Choosing(), tiny_plan, tmp_path / "run", on_round=on_round)
    sites = Choosing()
    summary = run(sites, tiny_plan, tmp_path / "run", resume=True).read_summary()
    assert sites.tested == [("finetuning", 1, 0.3)] * 3
    assert (summary["threshold"], summary["threshold_from"]) == (0.3, "validation")


def test_where_no_site_says_what_its_dice_would_be_the_plans_threshold_is_used(tmp_path, tiny_plan):
    sites = Choosing((None, None))
    folder = run(sites, tiny_plan, tmp_path / "run")
    assert sites.tested == [("finetuning", 1, None)] * 3
    summary = folder.read_summary()
    assert (summary["threshold"], summary["threshold_from"]) == (0.5, "plan")


def test_a_site_may_let_dice_at_leave_and_dice_not(tmp_path, tiny_plan):
    sites = Choosing()
    choosing = sites.evaluate

    def evaluate(message, context):
        score = unpack_body(choosing(message, context).content, SiteScore)
        return Message(pack(score.model_copy(update={"dice": None})), reply_to=message)

    sites.evaluate = evaluate
    summary = run(sites, tiny_plan, tmp_path / "run").read_summary()
    assert sites.tested == [("finetuning", 1, 0.3)] * 3
    assert summary["mean_validation_dice"] is None
    assert summary["pooled_validation_dice"] == pytest.approx(0.5)


def test_without_any_validation_the_last_round_is_chosen(tmp_path, tiny_plan):
    sites = Sites()
    sites.val_dice = {site: [None] for site in ("ada", "bea", "cleo")}
    summary = run(sites, tiny_plan, tmp_path / "run").read_summary()
    assert summary["checkpoint_chosen_by"] == "the last round: no validation Dice was measured"
    assert (summary["chosen_round"], summary["threshold_from"]) == (None, "plan")
    facts = load_checkpoint(tmp_path / "run" / "checkpoints" / "best.safetensors").facts
    assert facts.server_round == 2
