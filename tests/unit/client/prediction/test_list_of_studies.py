"""The list of studies: a radiologist finds the patient, and what is first deserves it."""

import json
import re
import shutil
from html import unescape
from pathlib import Path

import pytest
from tests.unit.client.prediction.conftest import save_model

from mamfed_client.prediction.study_page import file_of, probability_text, strength_of

EXAMPLES = Path(__file__).parents[4] / "deploy" / "examples"


def record(pixel, *regions):
    lesions = [{"score": score, "area_mm2": area} for score, area in regions]
    return {"score": pixel, "lesions": lesions}


def test_studies_whose_highest_pixels_are_all_1_are_told_apart_by_their_regions():
    strong = strength_of([record(1.0, (0.97, 40.0), (0.6, 900.0)), record(0.2)])
    larger, smaller = (strength_of([record(1.0, (0.9, area))]) for area in (80.0, 20.0))
    nothing, less = strength_of([record(0.49)]), strength_of([record(0.1)])
    ranked = sorted([less, smaller, nothing, strong, larger], reverse=True)
    assert ranked == [strong, larger, smaller, nothing, less]
    assert strong == (0.97, 1.0, 40.0)
    assert strength_of([record(1.0, (0.9, None))]).area_mm2 == 0


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.5, "0.50"),
        (0.9949, "0.99"),
        (0.9951, "0.995"),
        (0.99951, "over 0.999"),
        (1, "over 0.999"),
    ],
)
def test_no_probability_is_written_as_certain(value, text):
    assert probability_text(value) == text


@pytest.mark.parametrize(
    ("source", "shown"),
    [
        ("/data/in/P7/a.dcm", "P7/a.dcm"),
        ("a.dcm", "a.dcm"),
        ("prepared: images/4.png", "prepared: images/4.png"),
    ],
)
def test_a_file_is_shown_with_its_folder(source, shown):
    assert file_of(source) == shown


@pytest.fixture
def listed(write_phantom, predict, tmp_path):
    """Predict two studies; return the list of them."""
    write_phantom("aurora", "L")
    write_phantom("aurora", "R")
    write_phantom("borealis", "L")

    def run(*options):
        result = predict(tmp_path / "in", options=options)
        assert result.exit_code == 0, result.output
        return unescape((tmp_path / "out/index.html").read_text())

    return run


def test_the_list_names_files_and_shows_a_thumbnail_but_no_patient(listed, tmp_path):
    page = listed()
    assert "in/aurora-L-CC-False.dcm" in page
    assert "in/borealis-L-CC-False.dcm" in page
    assert page.count("data:image/jpeg;base64,") == 2
    assert "SECRET" not in page
    shown = [float(found) for found in re.findall(r"<b>([\d.]+)</b> strongest region", page)]
    assert shown == sorted(shown, reverse=True)
    for study in (tmp_path / "out/studies").iterdir():
        text = study.read_text()
        assert text.count('href="../index.html"') == 2
        assert "-CC-False.dcm" in text
        assert "SECRET" not in text
        assert "full colour at" not in text
        assert re.search(r"full colour for differences of \d\.\d\d or more \(black to white", text)


def test_patients_are_named_where_the_policy_says_so_and_forgotten_when_it_does_not(
    listed, tmp_path
):
    home = tmp_path / "home"
    home.mkdir()
    text = (EXAMPLES / "site.yaml").read_text()
    (home / "site.yaml").write_text(
        re.sub("(?m)^policy:", "policy:\n  pages_name_patients: true", text)
    )
    page = listed("--home", home)
    assert "Patient SECRET-aurora" in page
    assert any("SECRET" in p.read_text() for p in (tmp_path / "out/studies").iterdir())
    shutil.copy(EXAMPLES / "site.yaml", home)
    assert "SECRET" not in listed("--home", home)
    for path in (tmp_path / "out").rglob("*"):
        if path.suffix in (".html", ".json"):
            assert "SECRET" not in path.read_text(), path
    page = listed()
    assert "SECRET" not in page
    assert json.loads((tmp_path / "out/predictions.json").read_text())["done_before"] == 3


def test_a_study_with_nothing_marked_says_so(write_phantom, predict, tmp_path, plan):
    write_phantom()
    model = save_model(tmp_path / "other.safetensors", plan, threshold=0.9999)
    assert predict(tmp_path / "in", model=model).exit_code == 0
    page = (tmp_path / "out/index.html").read_text()
    assert "Nothing marked" in page
    assert "strongest region" not in page
