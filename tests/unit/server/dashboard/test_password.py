import stat

from typer.testing import CliRunner

from mamfed_common.web.passwords import is_right
from mamfed_server.cli.main import app

PASSWORD = "a long enough secret"


def test_a_password_is_read_from_standard_input_and_changed_later(tmp_path):
    file = tmp_path / "passwords"

    def give(password):
        done = CliRunner().invoke(app, ["password", str(file), "anna"], input=f"{password}\n")
        assert done.exit_code == 0, done.output
        return done.output

    assert "anna added" in give(PASSWORD)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert is_right(file, "anna", PASSWORD)
    assert "anna has a new password" in give("another long secret")
    assert not is_right(file, "anna", PASSWORD)
