"""The user's folders, where a user has a home and where not."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

NOBODY = """
import os, pwd, sys
def unknown(uid):
    raise KeyError(f"getpwuid(): uid not found: {uid}")
pwd.getpwuid = unknown
from mamfed_common import places
from mamfed_common.errors import SetupError
try:
    print(getattr(places, sys.argv[1])())
except SetupError as error:
    print(f"refused: {error}")
"""


def without_home(function, **environment):
    names = ("HOME", "XDG_CACHE_HOME", "XDG_CONFIG_HOME", "LOGNAME", "USER", "LNAME", "USERNAME")
    env = {name: value for name, value in os.environ.items() if name not in names} | environment
    command = [sys.executable, "-c", NOBODY, function]
    return subprocess.run(command, env=env, capture_output=True, text=True, check=True).stdout


@pytest.mark.parametrize(
    ("function", "variable"),
    [("cache_folder", "MAMFED_CACHE"), ("config_folder", "MAMFED_SECRET")],
)
def test_a_user_without_a_home_is_told_what_to_set(function, variable):
    said = without_home(function)
    assert said.startswith("refused: ")
    assert "HOME" in said
    assert variable in said


def test_what_is_set_is_taken(tmp_path):
    assert without_home("cache_folder", XDG_CACHE_HOME=str(tmp_path)).strip() == str(tmp_path)
    assert Path(without_home("config_folder", HOME=str(tmp_path)).strip()).parent == tmp_path


def test_a_user_without_a_name_is_called_by_number():
    assert without_home("user_name").strip() == str(os.getuid())
