"""In which number format a device runs."""

import logging

import pytest
import torch

from mamfed_common.errors import PlanError
from mamfed_common.training import device
from mamfed_common.training.device import autocast, choose_device, float32_instead

CPU = torch.device("cpu")


@pytest.fixture
def has_units(monkeypatch):
    def force(found):
        monkeypatch.setattr(device, "_cpu_has_bfloat16", lambda: found)
        device._warn_once.cache_clear()

    return force


def dtype_of_a_product():
    return torch.mm(torch.ones(2, 2), torch.ones(2, 2)).dtype


@pytest.mark.parametrize(
    ("precision", "units", "dtype"),
    [
        ("bfloat16", True, torch.bfloat16),
        ("bfloat16", False, torch.float32),
        ("float32", True, torch.float32),
        ("auto", True, torch.float32),
        ("auto", False, torch.float32),
    ],
)
def test_a_cpu_takes_bfloat16_only_where_asked_and_where_it_has_units(
    has_units, precision, units, dtype
):
    has_units(units)
    with autocast(CPU, precision):
        assert dtype_of_a_product() is dtype


def test_float32_instead_is_logged_once(has_units, caplog):
    has_units(False)
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            with autocast(CPU, "bfloat16"):
                pass
    assert [record.message for record in caplog.records] == [float32_instead(CPU, "bfloat16")]
    assert "float32 is used instead of bfloat16" in caplog.text


def test_nothing_is_said_where_nothing_is_changed(has_units):
    has_units(False)
    assert not float32_instead(CPU, "auto")
    assert not float32_instead(CPU, "float32")
    assert not float32_instead(torch.device("cuda"), "bfloat16")
    has_units(True)
    assert not float32_instead(CPU, "bfloat16")


@pytest.mark.parametrize(
    ("machine", "avx512", "amx", "onednn", "expected"),
    [
        ("x86_64", False, False, True, False),  # AVX-512 without units: oneDNN would widen
        ("x86_64", True, False, False, True),
        ("x86_64", False, True, False, True),
        ("aarch64", False, False, True, True),
        ("aarch64", True, True, False, False),
    ],
)
def test_the_units_are_those_of_the_cpu(monkeypatch, machine, avx512, amx, onednn, expected):
    monkeypatch.setattr("platform.machine", lambda: machine)
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: avx512)
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: amx)
    monkeypatch.setattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda: onednn)
    assert device._cpu_has_bfloat16() is expected


@pytest.mark.parametrize(
    ("cuda", "mps", "auto"),
    [(True, True, "cuda"), (False, True, "mps"), (False, False, "cpu")],
)
def test_auto_is_the_best_device_and_a_name_is_obeyed(monkeypatch, cuda, mps, auto):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)
    assert choose_device("auto").type == auto
    assert choose_device("cpu").type == "cpu"


@pytest.mark.parametrize("name", ["gpu", "meta:x", "cuda:4711"])
def test_a_device_that_is_not_here_is_named_with_what_could_be(name):
    with pytest.raises(PlanError, match=f"device '{name}' cannot be used .*choose auto, cpu, cuda"):
        choose_device(name)
