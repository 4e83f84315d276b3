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
from mamfed_common.runtime import places
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


def test_temporary_files_go_where_they_may_or_it_is_one_line(tmp_path):
    """A process that may write no byte of a file has no folder for temporary ones."""
    code = (
        "import resource, sys\n"
        "from mamfed_common.errors import SetupError\n"
        "from mamfed_common.runtime.places import temporary_folder\n"
        "if sys.argv[1:]: resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))\n"
        "try: print(temporary_folder())\n"
        "except SetupError as error: print(f'refused: {error}')\n"
    )
    (tmp_path / "mine").mkdir()

    def said(tmpdir, *argv):
        env = {**os.environ, "TMPDIR": str(tmpdir)}
        done = subprocess.run([sys.executable, "-c", code, *argv], env=env, capture_output=True)
        return done.stdout.decode().strip()

    assert said(tmp_path / "mine") == str(tmp_path / "mine")
    assert Path(said(tmp_path / "not there")).is_dir()
    refused = said(tmp_path / "mine", "nothing")
    assert refused.startswith("refused: no writable folder for temporary files")
    assert "set TMPDIR" in refused
