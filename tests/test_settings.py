"""Settings come from the environment, and one that makes no sense stops the start with its name."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from app import create_app, settings
from app.settings import SettingsError, kept_secret_key, load
from tests import postgres

KEY = "a secret key of forty characters or more"


@pytest.fixture(autouse=True)
def _nothing_set(monkeypatch: pytest.MonkeyPatch) -> None:
    """An environment in which no setting of ours is set."""
    for name in settings.Settings.model_fields:
        for variable in (name.upper(), f"{name.upper()}_FILE"):
            monkeypatch.delenv(variable, raising=False)


def test_without_anything_set_it_starts_with_the_documented_defaults() -> None:
    chosen = load()

    assert chosen.database_url is None
    assert chosen.secret_key is None
    assert (chosen.listens_on, chosen.web_concurrency, chosen.threads) == ("127.0.0.1:8000", 2, 4)
    assert (chosen.own_url, chosen.prefix, chosen.is_https) == ("http://127.0.0.1:8000", "", False)
    assert (chosen.trusted_proxies, chosen.trusted_hosts, chosen.cors_origins) == (0, [], [])
    assert (chosen.session_hours, chosen.poll_interval, chosen.poll_limit) == (12, 30, "100 per minute")
    assert (chosen.notification_ttl_days, chosen.epoch) == (30, "0")


def refused() -> list[tuple[str, str]]:
    bad = {
        "DATABASE_URL": ["mysql://x/y", "sqlite:///x", "host/name", "postgresql:"],
        "SECRET_KEY": ["short", "x" * 31],
        "SECRET_KEY_FALLBACKS": ["short", f"{KEY},short"],
        "BIND": ["localhost", "0.0.0", "0.0.0.0:8000", "[::1]", "*", "unix:/run/belfry"],
        "PORT": ["0", "-1", "65536", "http", "80.5"],
        "WEB_CONCURRENCY": ["0", "65", "-2", "auto"],
        "THREADS": ["0", "65", "x"],
        "PUBLIC_URL": [
            "app.example",
            "/belfry",
            "ftp://app.example",
            "https://",
            "https:///belfry",
            "https://app.example?x=1",
            "https://app.example/?",
            "https://app.example/#x",
            "https://user@app.example",
            "https://user:password@app.example",
            "https://app.example:99999",
            "https://app.example:0",
            "https://app.example:x",
            "https://[::1",
            "https://[::1]",
            "https://[x]",
            "https://a..example",
            "https://app_1.example",
            f"https://{'x' * 64}.example",
            "https://app example",
            "https://app.example/a b",
            "https://app.example/a;b",
            "https://app.example//evil",
            "https://app.example/a%2Fb",
        ],
        "TRUSTED_HOSTS": ["a b", "https://a.example", "a.example:80", "a..b", "a/", "*", "[::1]", "a_b", "b\u00fc"],
        "TRUSTED_PROXIES": ["-1", "9", "yes"],
        "CORS_ORIGINS": [
            "*",
            "app.example",
            "https://app.example/",
            "https://app.example/path",
            "https://app.example,nonsense",
            "null",
            "https://user@app.example",
            "https://app.example:x",
            "https://*.example",
        ],
        "SESSION_HOURS": ["0", "-1", "8761", "nan", "inf", "long"],
        "POLL_INTERVAL": ["0", "3601", "1.5", "x"],
        "POLL_LIMIT": ["many", "0 per minute", "-1 per minute", "100 per fortnight", "5/second; 0/minute"],
        "RATELIMIT_STORAGE_URI": [
            "memory",
            "redis://",
            "redis://h/x",
            "redis://h:0",
            "redis://h:x",
            "rediss://h/0?no_such_thing=1",
            "redis://h?socket_timeout=soon",
            "unix://",
            "http://h",
            "memcached://h",
        ],
        "NOTIFICATION_TTL_DAYS": ["0", "367", "nan", "-1"],
        "EPOCH": ["a.b", 'a"b', "a b", "x" * 33, "\u00e9", "-\x7f"],
    }
    return [(name, value) for name, values in bad.items() for value in values]


@pytest.mark.parametrize(("name", "value"), refused())
def test_a_value_that_makes_no_sense_is_refused_by_its_name(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    monkeypatch.setenv("SECRET_KEY", KEY)
    monkeypatch.setenv(name, value)

    with pytest.raises(SettingsError) as refusal:
        create_app()

    assert refusal.value.message.startswith(f"{name}: ")
    assert "\n" not in refusal.value.message


@pytest.mark.parametrize("name", ["SECRET_KEY", "SECRET_KEY_FALLBACKS", "DATABASE_URL", "RATELIMIT_STORAGE_URI"])
def test_a_secret_that_is_refused_is_not_shown(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv("SECRET_KEY", KEY)
    monkeypatch.setenv(name, "hunter2")

    with pytest.raises(SettingsError) as refusal:
        load()

    assert "hunter2" not in refusal.value.message


def test_every_setting_has_a_sentence_for_the_documentation() -> None:
    for name, field in settings.Settings.model_fields.items():
        assert field.description, name
        assert field.description.endswith((".", "`")), name


def test_everything_that_is_wrong_is_said_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("PORT", "EPOCH", "CORS_ORIGINS"):
        monkeypatch.setenv(name, "!")

    with pytest.raises(SettingsError) as refusal:
        load()

    assert {line.partition(":")[0] for line in refusal.value.message.splitlines()} == {"PORT", "EPOCH", "CORS_ORIGINS"}


def accepted() -> list[tuple[str, str, str, Any]]:
    return [
        ("PORT", "65535", "listens_on", "127.0.0.1:65535"),
        ("BIND", "0.0.0.0", "listens_on", "0.0.0.0:8000"),
        ("BIND", "::1", "listens_on", "[::1]:8000"),
        ("DATABASE_URL", "postgresql://u:p@h/n", "database_url", "postgresql+psycopg://u:p@h/n"),
        ("DATABASE_URL", "postgres://h/n", "database_url", "postgresql+psycopg://h/n"),
        (
            "DATABASE_URL",
            "postgresql+psycopg://h/n?sslmode=require",
            "database_url",
            "postgresql+psycopg://h/n?sslmode=require",
        ),
        ("SECRET_KEY", KEY[:32], "secret_key", KEY[:32]),
        ("SECRET_KEY_FALLBACKS", f"{KEY}, {KEY[::-1]},", "secret_key_fallbacks", [KEY, KEY[::-1]]),
        ("PUBLIC_URL", "https://app.example", "own_url", "https://app.example"),
        ("PUBLIC_URL", "https://app.example/belfry/", "own_url", "https://app.example/belfry"),
        ("PUBLIC_URL", "https://app.example/belfry", "prefix", "/belfry"),
        ("PUBLIC_URL", "https://app.example/", "prefix", ""),
        ("PUBLIC_URL", "HTTPS://App.Example/Belfry", "own_url", "https://app.example/Belfry"),
        ("PUBLIC_URL", "HTTPS://App.Example", "is_https", True),
        ("PUBLIC_URL", "http://app.example:8080/a/b", "own_origin", "http://app.example:8080"),
        ("TRUSTED_HOSTS", "a.example, b.example ,", "trusted_hosts", ["a.example", "b.example"]),
        (
            "CORS_ORIGINS",
            "https://App.example, http://b.example:81",
            "cors_origins",
            ["https://app.example", "http://b.example:81"],
        ),
        ("CORS_ORIGINS", "http://[2001:db8::1]:81", "cors_origins", ["http://[2001:db8::1]:81"]),
        ("SESSION_HOURS", "0.5", "session_hours", 0.5),
        ("SESSION_HOURS", "8760", "session_hours", 8760),
        ("POLL_LIMIT", "5 per second; 100 per minute", "poll_limit", "5 per second; 100 per minute"),
        ("RATELIMIT_STORAGE_URI", "memory://", "ratelimit_storage_uri", "memory://"),
        ("RATELIMIT_STORAGE_URI", "rediss://u:p@h:1/2", "ratelimit_storage_uri", "rediss://u:p@h:1/2"),
        ("RATELIMIT_STORAGE_URI", "unix:///r.sock?db=1", "ratelimit_storage_uri", "unix:///r.sock?db=1"),
        ("EPOCH", "2026-11_b", "epoch", "2026-11_b"),
    ]


@pytest.mark.parametrize(("name", "value", "attribute", "meant"), accepted())
def test_a_value_means_what_it_says(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str, attribute: str, meant: Any
) -> None:
    monkeypatch.setenv("SECRET_KEY", KEY)
    monkeypatch.setenv(name, value)

    assert getattr(load(), attribute) == meant


@pytest.mark.parametrize("name", [name.upper() for name in settings.Settings.model_fields])
def test_an_empty_variable_counts_as_unset(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv(name, "")
    monkeypatch.setenv(f"{name}_FILE", "")

    assert load() == load(**{name.lower(): settings.Settings.model_fields[name.lower()].get_default()})


def test_a_real_server_needs_a_secret_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABASE_URL", "postgresql://h/n")

    for key in (None, ""):
        if key is not None:
            monkeypatch.setenv("SECRET_KEY", key)
        with pytest.raises(SettingsError) as refusal:
            load()
        assert refusal.value.message == "SECRET_KEY: must be set when DATABASE_URL is set"


def test_a_setting_can_come_from_a_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name, content in {"SECRET_KEY": f"{KEY}\n", "DATABASE_URL": "postgresql://h/n\n", "PORT": " 81 "}.items():
        (tmp_path / name).write_text(content)
        monkeypatch.setenv(f"{name}_FILE", str(tmp_path / name))

    chosen = load()

    assert (chosen.secret_key, chosen.port) == (KEY, 81)
    assert chosen.database_url == "postgresql+psycopg://h/n"


def test_the_variable_itself_goes_before_its_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "port").write_text("81")
    monkeypatch.setenv("PORT_FILE", str(tmp_path / "port"))

    assert load().port == 81
    monkeypatch.setenv("PORT", "82")
    assert load().port == 82


@pytest.mark.parametrize("content", [None, b"\xff\xfe"])
def test_a_file_that_cannot_be_read_is_refused_by_its_name(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, content: bytes | None
) -> None:
    path = tmp_path / "key"
    if content is not None:
        path.write_bytes(content)
    monkeypatch.setenv("SECRET_KEY_FILE", str(path))

    with pytest.raises(SettingsError) as refusal:
        load()

    assert refusal.value.message == f"SECRET_KEY_FILE: cannot read {path}"


def test_what_a_file_holds_is_checked_like_the_variable(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "key").write_text("short\n")
    monkeypatch.setenv("SECRET_KEY_FILE", str(tmp_path / "key"))

    with pytest.raises(SettingsError, match="SECRET_KEY: "):
        load()


# Where it stops: one clear line, no traceback, a status that is not 0.


def outcome(*command: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", *command],
        cwd=postgres.ROOT,
        env={"PATH": os.environ["PATH"], **environment},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


@pytest.mark.parametrize(
    ("environment", "said"),
    [
        ({"DATABASE_URL": "postgresql://h/n"}, "SECRET_KEY: must be set when DATABASE_URL is set\n"),
        ({"SESSION_HOURS": "0"}, "SESSION_HOURS: "),
    ],
)
def test_gunicorn_does_not_start(environment: dict[str, str], said: str) -> None:
    done = outcome("gunicorn", "wsgi:app", **environment)

    assert done.returncode != 0
    assert done.stderr.startswith(said)
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize("command", [["cleanup"], ["db", "upgrade"], ["serve"], ["user", "list"]])
def test_no_command_runs(command: list[str]) -> None:
    done = outcome("flask", *command, DATABASE_URL="postgresql://h/n", SECRET_KEY="short")

    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("Error: SECRET_KEY: ")
    assert done.stderr.count("\n") == 1


# The key that is kept where none is set.


def test_the_kept_key_is_long_private_and_stays(tmp_path: Path) -> None:
    folder = tmp_path / "deep" / "instance"

    key = kept_secret_key(folder)

    assert len(key) >= 43
    assert (folder / "secret_key").stat().st_mode & 0o777 == 0o600
    assert folder.stat().st_mode & 0o077 == 0
    assert kept_secret_key(folder) == key
    assert [path.name for path in folder.iterdir()] == ["secret_key"]


@pytest.mark.parametrize("content", ["", "cut off"])
def test_a_damaged_key_is_refused_and_says_what_to_do(tmp_path: Path, content: str) -> None:
    (tmp_path / "secret_key").write_text(content)

    with pytest.raises(SettingsError) as refusal:
        kept_secret_key(tmp_path)

    assert refusal.value.message.startswith(f"SECRET_KEY: {tmp_path / 'secret_key'} is damaged.")
    assert (tmp_path / "secret_key").read_text() == content


def test_two_installations_have_two_keys(tmp_path: Path) -> None:
    assert kept_secret_key(tmp_path / "one") != kept_secret_key(tmp_path / "other")


def test_several_who_start_at_once_agree_on_one_key(tmp_path: Path) -> None:
    program = (
        "import pathlib, sys\n"
        "from app.settings import kept_secret_key\n"
        "sys.stdout.write('ready\\n'); sys.stdout.flush(); sys.stdin.readline()\n"
        "print(kept_secret_key(pathlib.Path(sys.argv[1])))\n"
    )
    started = [
        subprocess.Popen(
            [sys.executable, "-c", program, str(tmp_path / "instance")],
            cwd=postgres.ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(4)
    ]
    for process in started:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    for process in started:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()

    keys = [process.communicate(timeout=120)[0] for process in started]

    assert len(set(keys)) == 1
    assert len(keys[0]) >= 43
