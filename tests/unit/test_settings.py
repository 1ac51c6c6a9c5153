"""Settings: unknown names, Kubernetes' own variables, secrets that stay secret, bad values."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest
from pydantic import ValidationError

from astrid.errors import ConfigError
from astrid.settings import Settings, load_settings

SECRET = "s3cr3t-w0rd"


def refused(**environ: str) -> str:
    with pytest.raises(ConfigError) as caught:
        load_settings({f"ASTRID_{k}": v for k, v in environ.items()})
    return str(caught.value)


def test_nothing_set_is_the_demo() -> None:
    settings = load_settings({"PATH": "/bin", "astronomy": "1"})
    assert settings == Settings()
    assert settings.database_url is None
    assert settings.read_github_tokens() == ()
    assert "archive" not in settings.base_urls


@pytest.mark.parametrize(
    ("variable", "nearest"),
    [
        ("ASTRID_GITHUB_TOKEN", "ASTRID_GITHUB_TOKENS"),
        ("ASTRID_DATABSE_URL", "ASTRID_DATABASE_URL"),
        ("ASTRID_HTPP_PORT", "ASTRID_HTTP_PORT"),
        ("astrid_cloc_speed", "ASTRID_CLOCK_SPEED"),
        ("ASTRID_TESTS", "ASTRID_"),
    ],
)
def test_an_unknown_name_is_refused_with_the_nearest(variable: str, nearest: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_settings({variable: SECRET})
    assert f"unknown setting {variable}: did you mean {nearest}" in str(caught.value)
    assert SECRET not in str(caught.value)


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("ASTRID_HTTP_PORT", "tcp://10.96.0.17:8000"),
        ("ASTRID_API_PORT", "udp://10.96.0.17:53"),
        ("ASTRID_PORT", "tcp://10.96.0.17:80"),
        ("ASTRID_SERVICE_HOST", "10.96.0.17"),
        ("ASTRID_RABBITMQ_SERVICE_HOST", "10.96.0.17"),
        ("ASTRID_RABBITMQ_SERVICE_PORT", "5672"),
        ("ASTRID_RABBITMQ_SERVICE_PORT_AMQP", "5672"),
        ("ASTRID_HTTP_PORT_8000_TCP", "tcp://10.96.0.17:8000"),
        ("ASTRID_HTTP_PORT_8000_TCP_ADDR", "10.96.0.17"),
        ("ASTRID_HTTP_PORT_8000_TCP_PORT", "8000"),
        ("ASTRID_HTTP_PORT_8000_TCP_PROTO", "tcp"),
        ("ASTRID_TEST_SEED", "1"),
    ],
)
def test_what_kubernetes_and_the_tests_write_is_no_setting(variable: str, value: str) -> None:
    assert load_settings({variable: value}) == Settings()


def test_a_port_of_our_own_beside_the_links() -> None:
    assert load_settings({"ASTRID_HTTP_PORT": "9000", "ASTRID_API_PORT": "tcp://10.0.0.1:1"}).http_port == 9000


def test_a_link_in_another_setting_is_a_mistake_and_not_passed_over() -> None:
    assert "ASTRID_DATABASE_URL" in refused(DATABASE_URL="tcp://10.96.0.17:5432")


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("DATABASE_URL", f"mysql://u:{SECRET}@h/d", "must start with postgresql://"),
        ("BROKER_URL", f"http://u:{SECRET}@h", "must start with memory://"),
        ("NOW", "2026-04-01T05:00:00", "has no time zone"),
        ("NOW", "2026-04-01", "has no time zone"),
        ("NOW", "yesterday", "valid datetime"),
        ("CLOCK_SPEED", "0", "greater than 0"),
        ("CLOCK_SPEED", "nan", "ASTRID_CLOCK_SPEED"),
        ("CLOCK_SPEED", "inf", "less than or equal"),
        ("HTTP_PORT", "0", "greater than or equal to 1"),
        ("HTTP_PORT", "65536", "less than or equal to 65535"),
        ("HTTP_PORT", "http", "valid integer"),
        ("GITHUB_URL", "api.github.com", "must start with http"),
        ("GITHUB_URL", "https://", "name a host"),
        ("ARCHIVE_URL", "ftp://x", "must start with http"),
        ("WATCHLIST", "no/such/file.csv", "names no file: no/such/file.csv"),
    ],
)
def test_bad_values_name_the_variable_and_no_secret(name: str, value: str, says: str) -> None:
    message = refused(**{name: value})
    assert message.startswith(f"ASTRID_{name}: ")
    assert says in message
    assert SECRET not in message


def test_all_mistakes_at_once() -> None:
    message = refused(HTTP_PORT="x", NOW="y", BROKER_URL=SECRET)
    assert all(f"ASTRID_{name}: " in message for name in ("HTTP_PORT", "NOW", "BROKER_URL"))
    assert SECRET not in message


def test_secrets_are_in_no_repr_nor_in_the_validation_error() -> None:
    settings = load_settings(
        {
            "ASTRID_DATABASE_URL": f"postgresql://u:{SECRET}@h/d",
            "ASTRID_BROKER_URL": f"amqp://u:{SECRET}@h",
            "ASTRID_GITHUB_TOKENS": SECRET,
        }
    )
    assert SECRET not in repr(settings) + str(settings) + str(settings.model_dump()) + settings.model_dump_json()
    assert settings.read_github_tokens() == (SECRET,)
    with pytest.raises(ValidationError) as caught:
        Settings(database_url=SECRET)  # type: ignore[arg-type]
    assert SECRET not in str(caught.value)


def test_frozen() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        Settings().http_port = 1


def test_environment_is_not_read_behind_the_callers_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ASTRID_HTTP_PORT", "1234")
    assert Settings().http_port == load_settings({}).http_port == 8000


def test_empty_is_unset_overrides_win_urls_lose_their_slash() -> None:
    environ = {"ASTRID_DATABASE_URL": "", "ASTRID_HTTP_PORT": "9000", "ASTRID_NPM_URL": "http://h:1/x//"}
    settings = load_settings(environ, http_port=7000, now=None)
    assert (settings.database_url, settings.http_port, settings.npm_url) == (None, 7000, "http://h:1/x")
    assert load_settings({"ASTRID_ARCHIVE_URL": "http://a/"}).base_urls["archive"] == "http://a"


def test_now_is_kept_in_utc() -> None:
    now = load_settings({"ASTRID_NOW": "2026-04-01T07:00+02:00"}).now
    assert now == datetime(2026, 4, 1, 5, tzinfo=UTC)
    assert now.tzinfo is UTC


class TestTokens:
    @pytest.mark.parametrize("text", ["a,b", " a , b ,", "a b", "a\nb\n", "a,b,a"])
    def test_list(self, text: str) -> None:
        assert load_settings({"ASTRID_GITHUB_TOKENS": text}).read_github_tokens() == ("a", "b")

    def test_file_with_remarks_and_a_byte_order_mark(self, tmp_path: Path) -> None:
        file = tmp_path / "tokens"
        file.write_bytes(b"\xef\xbb\xbfone\r\n# of the work account\r\n\r\n  two  \r\n   # three\r\none\r\n")
        assert load_settings({"ASTRID_GITHUB_TOKENS": str(file)}).read_github_tokens() == ("one", "two")

    def test_file_that_is_not_there_fails_at_the_start(self, tmp_path: Path) -> None:
        message = refused(GITHUB_TOKENS=str(tmp_path / SECRET))
        assert "names a file that cannot be read (No such file or directory)" in message
        assert SECRET not in message

    def test_a_folder_and_bytes_that_are_no_text(self, tmp_path: Path) -> None:
        assert "cannot be read (Is a directory)" in refused(GITHUB_TOKENS=str(tmp_path))
        (tmp_path / "binary").write_bytes(b"\xff\xfe\x00g")
        assert "cannot be read (it is not UTF-8 text)" in refused(GITHUB_TOKENS=str(tmp_path / "binary"))

    @pytest.mark.parametrize("bad", ["ghp_ä", "ghp_\u200b", "ghp_\x00", "ghp_\x7f"])
    def test_what_no_header_can_carry_is_refused_without_being_shown(self, bad: str) -> None:
        message = refused(GITHUB_TOKENS=f"good,{SECRET}{bad}")
        assert "holds something that is no token" in message
        assert SECRET not in message
