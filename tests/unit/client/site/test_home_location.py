"""A copy of a site's home knows that it is one."""

import shutil

import pytest

from mamfed_client.site.home_location import FILE, check_home_location, record_home_location


@pytest.fixture
def home(tmp_path):
    (tmp_path / "north").mkdir()
    record_home_location(tmp_path / "north")
    return tmp_path / "north"


def test_a_home_that_stayed_says_nothing(home):
    assert check_home_location(home) == ""


def test_a_copy_says_so_once_and_the_first_stays_as_it_was(home, tmp_path):
    copy = shutil.copytree(home, tmp_path / "north-new")
    said = check_home_location(copy)
    assert str(home) in said
    assert "share one identity" in said
    assert check_home_location(copy) == ""
    assert check_home_location(home) == ""


def test_a_home_that_was_renamed_is_the_same_home(home, tmp_path):
    home.rename(tmp_path / "south")
    assert check_home_location(tmp_path / "south") == ""


@pytest.mark.parametrize("text", [None, "", "{}"])
def test_a_home_of_mamfed_0_1_0_is_noted_from_now_on(home, tmp_path, text):
    (home / FILE).unlink() if text is None else (home / FILE).write_text(text)
    assert check_home_location(home) == ""
    copy = shutil.copytree(home, tmp_path / "copy")
    assert check_home_location(copy)


def test_what_is_there_is_kept(home, tmp_path):
    copy = shutil.copytree(home, tmp_path / "copy")
    record_home_location(copy)  # init is called again on what it has made
    assert check_home_location(copy)
