import pytest
from typer.testing import CliRunner

from mamfed_client.cli.main import app
from mamfed_client.site.hardware import Hardware
from mamfed_client.site.settings import SiteHome, load_site_settings
from mamfed_common.errors import SetupError


def test_paths_in_site_yaml_start_at_its_folder(tmp_path):
    home = SiteHome(tmp_path)
    text = "name: a\ndata: [{name: a, folder: images}]\ncache: ../cache\nkey: /k\n"
    home.settings_path.write_text(text)
    settings = load_site_settings(home)
    assert settings.data[0].folder == tmp_path / "images"
    assert settings.cache == tmp_path / "../cache"
    assert str(settings.key) == "/k"


def test_rounds_are_computed_here_unless_the_file_says_where(tmp_path):
    home = SiteHome(tmp_path)
    text = "name: a\ndata: [{name: a, folder: x}]\n"
    for more in ("", "executor: local\n", "executor: {kind: local}\n"):
        home.settings_path.write_text(text + more)
        assert load_site_settings(home).executor.kind == "local"
    home.settings_path.write_text(text + "executor: {kind: slurm, shared_folder: jobs}\n")
    assert load_site_settings(home).executor.shared_folder == tmp_path / "jobs"


def test_what_a_site_trains_with_is_read(tmp_path):
    home = SiteHome(tmp_path)
    text = "name: a\ndata: [{name: a, folder: x}]\n"
    home.settings_path.write_text(text)
    assert load_site_settings(home).hardware() == Hardware()
    more = "device: cuda\ndevices: auto\nthreads: 4\nactivation_checkpointing: true\n"
    home.settings_path.write_text(text + more)
    assert load_site_settings(home).hardware() == Hardware("cuda", "auto", 4, True)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ("threads: 0", "threads: found 0"),
        ("device: gpu", "device: found 'gpu'"),
        ("devices: 0", "devices"),
        ("devices: all", "devices"),
        ("device: mps\ndevices: 2", "devices: found 2, but device 'mps' is a single device"),
        ("device: cuda:1\ndevices: 2", "devices: found 2, but device 'cuda:1' is a single device"),
        ("activation_checkpointing: much", "activation_checkpointing: found 'much'"),
        ("executor: ray", "executor.kind: found 'ray'"),
        ("executor: slurm", "shared_folder: expected a folder that the jobs of kind 'slurm'"),
        ("executor: {kind: command, shared_folder: s}", 'a command line with "{folder}"'),
        ("executor: {kind: slurm, shared_folder: s}\nkey: k", "which no job may have"),
        ("executor: {kind: slurm, shared_folder: s, memory: much}", "executor.memory"),
        ("polcy: {}", "unknown key 'polcy'"),
        ("policy: {release: {metrics: [age]}}", "policy.release.metrics.0: found 'age'"),
    ],
)
def test_a_mistake_in_site_yaml_is_named(tmp_path, change, words):
    home = SiteHome(tmp_path)
    home.settings_path.write_text(f"name: a\ndata: [{{name: a, folder: x}}]\n{change}\n")
    with pytest.raises(SetupError) as caught:
        load_site_settings(home)
    assert str(caught.value).startswith(f"{home.settings_path}: ")
    assert words in str(caught.value)


def test_a_folder_that_is_no_home_says_what_to_do(tmp_path):
    for command in (["enroll"], ["join", str(tmp_path / "w.json")]):
        result = CliRunner().invoke(app, [*command, "--home", str(tmp_path)])
        assert isinstance(result.exception, SetupError)
    with pytest.raises(SetupError, match="mamfed-client init"):
        load_site_settings(SiteHome(tmp_path))
