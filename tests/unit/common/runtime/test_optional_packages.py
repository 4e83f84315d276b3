import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from mamfed_common.errors import MamfedError
from mamfed_common.runtime import optional_packages
from mamfed_common.runtime.optional_packages import (
    OF_ROLE,
    OF_USE,
    check_installed,
    extra_of,
    install_command,
)

ROOT = Path(__file__).parents[4]
ENTRIES = {
    "client": "mamfed_client.cli.main",
    "report": "mamfed_server.cli.main",
    "simulations": "mamfed_simulations.cli.main",
}
COMMANDS = {
    "client": "evaluate --checkpoint c --data d --out o.json",
    "report": "report .",
    "simulations": "run --site a=d --out o --dry-run",
}


def installed_from(monkeypatch, **direct_url):
    monkeypatch.setattr(optional_packages, "_direct_url", lambda: direct_url or None)
    monkeypatch.setattr(optional_packages, "_pip", lambda: "pip")


def test_the_command_names_what_this_mamfed_was_installed_from(monkeypatch, tmp_path):
    folder = tmp_path / "a mamfed"
    folder.mkdir()
    installed_from(monkeypatch, url=folder.as_uri(), dir_info={"editable": True})
    assert install_command("client") == f"pip install -e '{folder}[client]'"
    installed_from(monkeypatch, url=folder.as_uri(), dir_info={})
    assert install_command("client") == f"pip install '{folder}[client]'"
    installed_from(monkeypatch, url=(tmp_path / "m.whl").as_uri(), archive_info={})
    assert f"put {tmp_path}/m.whl back first" in install_command("client")


def test_a_repository_and_an_address_are_named_whole(monkeypatch):
    vcs = {"vcs": "git", "commit_id": "c0ffee"}
    installed_from(monkeypatch, url="https://git.example.org/m.git", vcs_info=vcs)
    at = "mamfed[ray] @ git+https://git.example.org/m.git@c0ffee"
    assert install_command("ray") == f"pip install '{at}'"
    installed_from(monkeypatch, url="https://example.org/m.whl", archive_info={})
    assert install_command("ray") == "pip install 'mamfed[ray] @ https://example.org/m.whl'"


def test_where_nobody_knows_no_index_is_asked(monkeypatch):
    installed_from(monkeypatch)
    assert "--no-index" in install_command("client")


def test_this_very_mamfed_knows_where_it_came_from():
    assert f"'{ROOT}[client]'" in install_command("client")


def test_pip_is_this_pythons_own(monkeypatch, tmp_path):
    (tmp_path / "pip").touch(mode=0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert install_command("client").startswith(f"{sys.executable} -m pip install ")
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    assert install_command("client").startswith("pip install ")


def test_one_extra_brings_what_its_role_needs():
    assert extra_of("pydicom", "simulations") == "simulations"
    assert extra_of("pynetdicom", "client") == "client"
    assert extra_of("matplotlib", "report") == "report"
    assert extra_of("ray", "simulations") == "ray"
    assert extra_of("antigravity", "client") is None


def test_extras_bring_what_is_said_of_them():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    declared = project["optional-dependencies"]

    def brought(extra):
        names = set()
        for requirement in declared[extra]:
            if inner := re.fullmatch(r"mamfed\[(.+)\]", requirement):
                names |= {n for e in inner[1].split(",") for n in brought(e)}
            names.add(re.match(r"[\w-]+(\[\w+\])?", requirement)[0].replace("-", "_"))
        return names

    for extra, modules in OF_ROLE.items():
        assert set(modules) <= brought(extra), extra
    known = {
        "ray": "flwr[simulation]", "torchvision": "segmentation_models_pytorch",
        "mlflow": "mlflow_skinny",
    }  # fmt: skip
    for module, extra in OF_USE.items():
        assert known.get(module, module) in brought(extra) | {"timm"}, module
    for extra in ("ray", "peers"):
        assert set(OF_ROLE["simulations"]) <= brought(extra), "one extra is enough"


@pytest.mark.parametrize(
    ("role", "module"),
    [("client", "pydicom"), ("report", "matplotlib"), ("simulations", "matplotlib")],
)
def test_a_command_without_a_package_is_one_line_and_code_1(role, module, tmp_path):
    if role == "report":
        (tmp_path / "plan.yaml").write_text("image_size: 64\n")
    code = (
        "import importlib.abc, sys\n"
        "class Gone(importlib.abc.MetaPathFinder):\n"
        "    def find_spec(self, name, path, target=None):\n"
        f"        if name.partition('.')[0] == {module!r}:\n"
        "            raise ModuleNotFoundError(f'No module named {name!r}', name=name)\n"
        "sys.meta_path.insert(0, Gone())\n"
        f"from {ENTRIES[role]} import main\nmain()\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *COMMANDS[role].split()],
        cwd=tmp_path, capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert done.returncode == 1, done.stderr
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"error: this needs {module}: ")
    assert line.endswith(f" install -e '{ROOT}[{role}]'")


def test_all_that_is_missing_is_named_at_once(not_installed):
    not_installed("ray")
    check_installed("client", "json", "pydicom")
    with pytest.raises(MamfedError, match=r"this needs ray, antigravitas: .*\[ray\]'") as caught:
        check_installed("ray", "json", "ray", "antigravitas")
    assert caught.value.exit_code == 1


def test_no_text_sends_people_to_a_name_that_anyone_could_register():
    folders = ("common", "client", "server", "simulations", "docs", "deploy", "README.md")
    listed = subprocess.run(
        ["git", "ls-files", *folders], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.split()
    bare = re.compile(r"pip install (?!--no-index)(?:-\S+ )*['\"]?mamfed\b(?![\w/.])")
    found = {name for name in listed if bare.search(_text(ROOT / name))}
    assert not found
    assert bare.search("pip install 'mamfed[ray]'")
    assert bare.search("pip install mamfed")


def _text(path):
    return "" if path.suffix == ".png" else path.read_text(errors="replace")


def test_a_record_that_is_damaged_is_none(monkeypatch):
    class Damaged:
        def read_text(self, name):
            return "{"

    monkeypatch.setattr(optional_packages, "distribution", lambda name: Damaged())
    assert optional_packages._direct_url() is None
    monkeypatch.setattr(Damaged, "read_text", lambda self, name: json.dumps([1]))
    assert optional_packages._direct_url() is None
