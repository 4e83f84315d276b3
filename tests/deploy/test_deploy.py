"""Everything in deploy/ is read by the program it is for, and names only what exists."""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import typer
import yaml

import mamfed_client.cli.main
import mamfed_server.cli.main
from mamfed_client.site.settings import SiteHome, load_site_settings
from mamfed_common import errors
from mamfed_common.plan import read_plan
from mamfed_common.runtime.lock import exclusive_lock
from mamfed_server.fleet.connections import MOST_CONNECTIONS, RESERVED_DESCRIPTORS
from mamfed_server.settings import ServerHome, load_settings

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
BIN = Path(sys.executable).parent
DOCKERFILES = sorted(DEPLOY.rglob("Dockerfile*"))
COMPOSE = sorted(DEPLOY.glob("compose*.yaml"))
UNITS = sorted((DEPLOY / "systemd").iterdir())
PAGES = [DEPLOY / "README.md", DEPLOY / "RUNBOOK.md"]
PROGRAMS = {
    "mamfed-client": typer.main.get_command(mamfed_client.cli.main.app),
    "mamfed-server": typer.main.get_command(mamfed_server.cli.main.app),
}


def run(*command, **options):
    return subprocess.run(
        [str(part) for part in command], capture_output=True, text=True, timeout=60, **options
    )


def name_of(path):
    return str(path.relative_to(DEPLOY))


def check_command(program, arguments):
    """Parse a command line as the program would, without running it."""
    command, words = PROGRAMS[program], list(arguments)
    context = command.make_context(program, words, resilient_parsing=True)
    while hasattr(command, "commands"):
        word = words.pop(0)
        assert word in command.commands, f"{program} has no command {word!r}"
        command = command.commands[word]
    command.make_context(command.name, words, parent=context, resilient_parsing=False)


def test_a_command_that_does_not_exist_would_be_noticed():
    check_command("mamfed-server", ["start", "--plan", "plan.yaml"])
    with pytest.raises(AssertionError):
        check_command("mamfed-server", ["begin"])
    with pytest.raises(typer.core.click.exceptions.UsageError):
        check_command("mamfed-server", ["start", "--plans", "plan.yaml"])


# Examples


def test_the_example_settings_and_plan_are_read(tmp_path):
    for name in ("server.yaml", "site.yaml"):
        shutil.copy(DEPLOY / "examples" / name, tmp_path)
    server = load_settings(ServerHome(tmp_path))
    site = load_site_settings(SiteHome(tmp_path))
    plan = read_plan(DEPLOY / "examples/plan.yaml")
    assert site.policy.release.arrays == ("*",)
    assert server.port == 9443
    assert server.hosts[0] == "mamfed.example.org"
    assert plan.federation.min_sites >= 3


def test_what_the_examples_leave_commented_out_is_read_too(tmp_path):
    """A line that begins with ``#`` and one space is a comment, any other a setting."""
    for name in ("server.yaml", "site.yaml"):
        text = (DEPLOY / "examples" / name).read_text()
        (tmp_path / name).write_text(re.sub(r"^#(?! \S)", "", text, flags=re.M))
    for settings in (load_settings(ServerHome(tmp_path)), load_site_settings(SiteHome(tmp_path))):
        assert settings.metrics_port in (9464, 9465)
        assert all((settings.notify.webhook, settings.notify.email, settings.notify.command))
        defaults = type(settings.notify)()
        for key in ("gone_minutes", "certificate_days", "disk_free_gib"):
            assert getattr(settings.notify, key) == getattr(defaults, key)


def test_the_example_site_takes_the_example_plan(tmp_path):
    """By its bounds: a reader who copies both is not refused."""
    shutil.copy(DEPLOY / "examples/site.yaml", tmp_path)
    bounds = load_site_settings(SiteHome(tmp_path)).policy.bounds
    plan = read_plan(DEPLOY / "examples/plan.yaml")
    stages = (plan.pretraining, plan.finetuning)
    assert plan.image_size <= bounds.max_image_size
    assert sum(stage.rounds for stage in stages) <= bounds.max_rounds
    assert max(stage.local_epochs or 0 for stage in stages) <= bounds.max_local_epochs
    assert max(stage.local_steps or 0 for stage in stages) <= bounds.max_local_steps
    assert max(stage.learning_rate for stage in stages) <= bounds.max_learning_rate
    assert max(stage.batch_size for stage in stages) <= bounds.max_batch_size
    assert plan.federation.min_sites >= bounds.min_min_sites


# Images


def instructions(path):
    """Return a Dockerfile's (instruction, rest) pairs, continued lines joined."""
    text = re.sub(r"^#.*\n", "", path.read_text(), flags=re.M).replace("\\\n", " ")
    return [tuple(line.split(None, 1)) for line in text.splitlines() if line.strip()]


def last_stage(path):
    found = instructions(path)
    return found[max(i for i, (word, _) in enumerate(found) if word == "FROM") :]


@pytest.mark.parametrize("path", DOCKERFILES, ids=name_of)
def test_hadolint_finds_nothing_worth_a_warning(path):
    result = run(BIN / "hadolint", "--failure-threshold", "warning", path)
    assert result.returncode == 0, result.stdout


def test_hadolint_finds_what_is_wrong(tmp_path):
    (tmp_path / "Dockerfile").write_text("FROM python\nRUN cd /tmp && sudo pip install x\n")
    result = run(BIN / "hadolint", "--failure-threshold", "warning", tmp_path / "Dockerfile")
    assert result.returncode == 1


@pytest.mark.parametrize("path", DOCKERFILES, ids=name_of)
def test_an_image_installs_what_pyproject_names_from_files_that_exist(path):
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    torch = next(item for item in project["dependencies"] if item.startswith("torch"))
    installs = [
        shlex.split(rest)[-1]
        for word, rest in instructions(path)
        if word == "RUN" and " install " in rest and "pip" in rest
    ]
    assert installs[0] == torch
    extra = re.fullmatch(r"\.(?:\[(\w+)\])?", installs[1])
    assert extra[1] in {None, *project["optional-dependencies"]}
    ignored = (ROOT / ".dockerignore").read_text().splitlines()
    for word, rest in instructions(path):
        if word == "COPY" and "--from" not in rest:
            for source in shlex.split(rest)[:-1]:
                assert (ROOT / source).exists()
                assert f"!{source}" in ignored


@pytest.mark.parametrize("path", DOCKERFILES, ids=name_of)
def test_an_image_runs_a_command_of_ours_as_nobody_in_particular(path):
    final = dict(last_stage(path))
    assert not re.search(r"\b(apt-get|gcc|build-essential)\b", path.read_text())
    assert final["USER"] == "10001:10001"
    program = json.loads(final["ENTRYPOINT"])[0]
    check_command(program, json.loads(final["CMD"]))
    assert ("EXPOSE" in final) == (program == "mamfed-server")


def health(path, home):
    """Run an image's health check on a home; return whether it is well."""
    check = dict(last_stage(path))["HEALTHCHECK"]
    command = json.loads(check[check.index("[") :])
    homes = dict.fromkeys(("MAMFED_SERVER_HOME", "MAMFED_SITE_HOME"), str(home))
    result = run(*command, env={**os.environ, **homes, "PATH": f"{BIN}:{os.environ['PATH']}"})
    assert result.returncode in (0, 1)
    assert not result.stderr
    return result.returncode == 0


@pytest.mark.parametrize("path", DOCKERFILES, ids=name_of)
def test_an_image_is_well_only_while_its_program_runs(path, tmp_path):
    for settings in ("server.yaml", "site.yaml"):
        shutil.copy(DEPLOY / "examples" / settings, tmp_path)
    assert not health(path, tmp_path)
    with (
        exclusive_lock(ServerHome(tmp_path).lock, "a server"),
        exclusive_lock(SiteHome(tmp_path).lock, "this site"),
    ):
        assert health(path, tmp_path)


# Compose


@pytest.mark.parametrize("path", COMPOSE, ids=name_of)
def test_a_compose_file_follows_the_compose_specification(path):
    result = run(BIN / "check-jsonschema", "--builtin-schema", "vendor.compose-spec", path)
    assert result.returncode == 0, result.stdout


def test_an_unknown_key_in_a_compose_file_is_noticed(tmp_path):
    path = tmp_path / "compose.yaml"
    path.write_text("services:\n  site:\n    image: x\n    capdrop: [ALL]\n")
    assert run(BIN / "check-jsonschema", "--builtin-schema", "vendor.compose-spec", path).returncode


@pytest.mark.parametrize(
    ("file", "service", "ports"),
    [("compose.yaml", "coordinator", ["9443:9443"]), ("compose.site.yaml", "site", None)],
)
def test_a_service_is_locked_down_and_opens_only_what_it_must(file, service, ports):
    found = yaml.safe_load((DEPLOY / file).read_text())["services"][service]
    dockerfile = ROOT / found["build"]["dockerfile"]
    assert found.get("ports") == ports
    assert found["read_only"] is True
    assert found["cap_drop"] == ["ALL"]
    assert found["security_opt"] == ["no-new-privileges:true"]
    assert found["restart"] == "unless-stopped"
    assert not {"privileged", "network_mode", "cap_add", "user"} & set(found)
    program = json.loads(dict(last_stage(dockerfile))["ENTRYPOINT"])[0]
    check_command(program, found["command"])


# systemd


def unit_values(path, key):
    return re.findall(rf"^{key}=(.*)$", path.read_text(), re.M)


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd is not installed")
@pytest.mark.parametrize("path", UNITS, ids=name_of)
def test_systemd_takes_a_unit_and_finds_it_well_locked_down(path, tmp_path):
    unit = tmp_path / path.name.replace("@", "@breast")
    unit.write_text(path.read_text().replace("/opt/mamfed/bin", str(BIN)))
    result = run("systemd-analyze", "verify", "--man=no", unit)
    complaints = [line for line in result.stderr.splitlines() if unit.name in line]
    assert not complaints
    exposure = run("systemd-analyze", "security", "--offline=yes", "--threshold=25", unit)
    assert exposure.returncode == 0, exposure.stdout


@pytest.mark.parametrize("path", UNITS, ids=name_of)
def test_a_unit_starts_a_command_of_ours(path):
    (line,) = unit_values(path, "ExecStart")
    program, *arguments = shlex.split(line.replace("%i", "breast"))
    assert program.startswith("/opt/mamfed/bin/")
    check_command(Path(program).name, arguments)
    assert unit_values(path, "UMask") == ["0077"]
    assert unit_values(path, "Restart") == ["always"]


def test_a_coordinator_has_descriptors_for_its_connections_and_files():
    needed = MOST_CONNECTIONS + 2 * RESERVED_DESCRIPTORS
    (unit,) = [path for path in UNITS if "server" in path.name]
    assert int(unit_values(unit, "LimitNOFILE")[0]) > needed
    service = yaml.safe_load((DEPLOY / "compose.yaml").read_text())["services"]["coordinator"]
    assert service["ulimits"]["nofile"] > needed


def test_a_unit_stays_down_only_after_documented_codes_that_need_a_person():
    kinds = {k.exit_code for k in vars(errors).values() if isinstance(k, type)}
    page = (DEPLOY / "README.md").read_text()
    rows = dict(re.findall(r"^\| (\d+) \|.*\| ([a-z ]+) \|$", page, re.M))
    assert {int(code) for code in rows} == kinds | {0, 2, 130}
    for path, role in zip(UNITS, ("site", "coordinator"), strict=True):
        (codes,) = unit_values(path, "RestartPreventExitStatus")
        stays = {
            code for code, text in rows.items() if text in (f"the {role} stays down", "stays down")
        }
        assert set(codes.split()) == stays


# The pages


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_command_on_a_page_is_one_of_ours(page):
    text = page.read_text().replace("\\\n", " ")
    blocks = "\n".join(re.findall(r"^```\n(.*?)^```", text, re.M | re.S))
    for service, program in (("coordinator", "mamfed-server"), ("site", "mamfed-client")):
        blocks = blocks.replace(f"run --rm {service}", program)
    pattern = r"(mamfed-(?:client|server)) ([a-z][^\n#`]*)"
    for program, rest in re.findall(pattern, blocks):
        check_command(program, shlex.split(rest))
    named = re.findall(r"`(mamfed-(?:client|server)) ([a-z][a-z -]*?)(?: (?=[A-Z.])|`| --)", text)
    assert named
    for program, words in named:
        command = PROGRAMS[program]
        for word in words.split():
            if hasattr(command, "commands"):
                assert word in command.commands, f"{page.name}: {program} {words}"
                command = command.commands[word]


def test_the_runbook_is_a_table_of_symptom_cause_and_fix():
    rows = [line for line in PAGES[1].read_text().splitlines() if line.startswith("|")]
    assert rows[0] == "| symptom | cause | fix |"
    assert len(rows) >= 22
    assert all(row.count("|") == 4 for row in rows)
