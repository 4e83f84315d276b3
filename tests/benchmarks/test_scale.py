"""What the benchmarks of scale and of the demo make of what they measure."""

import sys

import pytest

from benchmarks.commands.profile_demo import OTHER, stack_of, work_of
from benchmarks.federation.round import split
from benchmarks.federation.scale import fit, measure
from mamfed_simulations.federation.engine import Engine


def test_a_fit_finds_the_line_and_how_far_a_point_is_off():
    a, b, worst = fit([10, 100, 1000], [2.5, 7.0, 52.0])
    assert (a, b) == pytest.approx((2, 0.05))
    assert worst == pytest.approx(0, abs=1e-9)
    assert fit([10, 100, 1000], [2.5, 7.0, 104.0])[2] > 0.2


def test_a_federation_of_three_sites_is_timed_in_process():
    found = measure(Engine.PROCESS, 3)
    assert found.sites == 3
    assert 0 < found.seconds < 60
    assert found.mib > 50


def test_a_look_is_filed_under_the_first_rule_that_fits():
    forward = "/x/mamfed_common/model/unet.py:forward\n/x/mamfed_common/training/stages.py:fit"
    assert work_of(forward) == "training: forward"
    assert work_of("/x/torch/autograd/graph.py:f\n" + forward) == "training: backward"
    assert work_of("/x/somewhere.py:else") == OTHER
    inner, *_ = stack_of(sys._getframe())
    assert inner.endswith("test_scale.py:test_a_look_is_filed_under_the_first_rule_that_fits")


def test_rounds_are_told_apart_and_the_first_has_no_beginning():
    assert split([10.0, 11.0, 13.0, 17.0, 22.0], trained=3) == ([1.0, 2.0], [4.0, 5.0])
