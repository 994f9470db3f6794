"""What holds for every command; and `flask stats`, `flask doctor`, `flask demo`."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import click
import flask
import pytest
import sqlalchemy

from app import checkup, console, db, embedded, retention, settings
from app.publishing import Published
from tests import postgres, rows
from tests.cast import Person
from tests.commands import run, run_json, terminal
from tests.variants import another_app

Publish = Callable[..., Published]


def url() -> str:
    return db.engine().url.render_as_string(hide_password=False)


def commands(group: click.Group) -> Iterator[tuple[str, click.Command]]:
    for name, command in group.commands.items():
        if isinstance(command, click.Group):
            for inner, found in commands(command):
                yield f"{name} {inner}", found
        else:
            yield name, command


def ours(app: flask.Flask) -> dict[str, click.Command]:
    return {name: found for name, found in commands(app.cli) if not name.startswith("db ")}


def test_the_commands_are_those_of_the_documentation(app: flask.Flask) -> None:
    people = {f"user {verb}" for verb in ("add", "link", "password", "list", "disable", "enable", "sign-out")}
    people |= {"user erase", "user export"}
    keys = {"key create", "key list", "key revoke"}

    assert set(ours(app)) == {"send", "cleanup", "stats", "doctor", "demo", "serve", *people, *keys}


def test_every_command_answers_in_json_if_asked_and_has_a_sentence_of_help(app: flask.Flask) -> None:
    for name, command in ours(app).items():
        assert command.help, name
        takes_json = "--json" in [option for parameter in command.params for option in parameter.opts]
        # `serve` runs until Ctrl-C: there is no answer to print.
        assert takes_json == (name != "serve"), name


def test_without_a_database_a_command_is_one_clear_line(app: flask.Flask) -> None:
    with another_app(database_url="postgresql://belfry@127.0.0.1:1/belfry") as lonely:
        for arguments in (["stats"], ["user", "list"], ["cleanup"], ["doctor", "--json"]):
            done = run(lonely, *arguments)
            assert (done.exit_code, done.stdout) == (1, "")
            assert done.stderr.startswith("Error: The database does not answer: ")
            assert done.stderr.count("\n") == 1


def test_before_the_migrations_a_command_says_what_to_run(app: flask.Flask) -> None:
    with postgres.database(migrated=False) as empty, another_app(database_url=empty) as new:
        done = run(new, "stats")
        assert (done.exit_code, done.stdout) == (1, "")
        assert done.stderr == 'Error: relation "users" does not exist. Has `flask db upgrade` been run?\n'

        done = run(new, "doctor")
        assert done.exit_code == 1
        assert "broken  migrations: at None" in done.stdout
        assert done.stdout.endswith("-> flask db upgrade\n")


@pytest.mark.parametrize(
    ("trouble", "said"),
    [
        (db.LostRace("a recipient was erased meanwhile"), "a recipient was erased meanwhile"),
        (db.UncertainCommit("the connection was lost while committing"), "the connection was lost while committing"),
        (sqlalchemy.exc.TimeoutError("no connection was free"), "no connection was free"),
    ],
)
def test_trouble_with_the_database_is_one_clear_line(trouble: Exception, said: str) -> None:
    def fail() -> None:
        raise trouble

    with pytest.raises(click.ClickException) as told:
        console.explained(fail)

    assert told.value.message == f"The database does not answer: {said}"


def test_a_private_server_that_cannot_run_is_one_clear_line() -> None:
    def fail() -> None:
        raise embedded.EmbeddedUnavailable("no PostgreSQL: set DATABASE_URL")

    with pytest.raises(click.ClickException, match="no PostgreSQL: set DATABASE_URL"):
        console.explained(fail)


@pytest.mark.parametrize("arguments", [["nonsense"], ["stats", "--nonsense"], ["user", "nonsense"], ["user", "add"]])
def test_a_command_that_does_not_exist_fails(app: flask.Flask, arguments: list[str]) -> None:
    done = run(app, *arguments)

    assert done.exit_code != 0
    assert done.stdout == ""


def test_a_terminal_that_looks_on_sees_a_bar_when_it_takes_longer_than_a_second(
    app: flask.Flask, alice: Person, publish: Publish
) -> None:
    publish(*[f"person-{number}" for number in range(240)])
    rows.change("UPDATE notifications SET expires_at = now()")
    with terminal(url(), "cleanup", "--batch", "10") as looked_at:
        pass

    # So long do 24 batches take at least, with a pause after each.
    assert 24 * retention.PAUSE > console.SECONDS_BEFORE_A_BAR
    assert looked_at.stdout == "Deleted 240 notifications.\n"
    assert "Deleting" in looked_at.drawn
    assert "100%" in looked_at.drawn


# stats


def test_stats_count_what_is_there(app: flask.Flask, alice: Person, mallory: Person, publish: Publish) -> None:
    for _ in range(3):
        publish("alice", "mallory")
    alice.post("/notifications/1/read")
    mallory.post("/notifications/1/archive")
    rows.change("UPDATE notifications SET expires_at = now() WHERE id = 3")
    rows.change("UPDATE events SET created_at = now() - interval '25 hours' WHERE id = (SELECT min(id) FROM events)")
    run_json(app, "user", "disable", "mallory")

    found = run_json(app, "stats")

    size = found.pop("bytes")
    assert found == {
        "users": 2,
        "disabled": 1,
        "events": 3,
        "notifications": 4,
        "unread": 2,
        "expired": 2,
        "events_in_24_hours": 2,
    }
    assert size >= 8192


def test_stats_for_a_person_are_a_line_each(app: flask.Flask, alice: Person) -> None:
    lines = run(app, "stats").stdout.splitlines()

    assert lines[0].split() == ["users", "1"]
    assert len(lines) == 8
    assert len({len(line) for line in lines}) == 1


# doctor


def findings(app: flask.Flask, status: int | None = None) -> dict[str, dict[str, Any]]:
    """What the doctor found, by its subject; the exit status is 1 where something is broken."""
    done = run(app, "doctor", "--json")
    found = json.loads(done.stdout)
    assert done.exit_code == int(any(finding["verdict"] == "broken" for finding in found))
    assert status is None or done.exit_code == status
    return {finding["subject"]: finding for finding in found}


def test_the_doctor_looks_at_everything_and_says_what_to_do(app: flask.Flask) -> None:
    found = findings(app)

    looked_at = "PostgreSQL autovacuum clean-up clock fsync migrations proxies secret key synchronous_commit"
    assert set(found) == {"public address", *looked_at.replace("secret key", "").split(), "secret key"}
    assert {finding["verdict"] for finding in found.values()} <= {"ok", "look", "broken"}
    assert all(bool(finding["advice"]) == (finding["verdict"] != "ok") for finding in found.values())
    assert found["migrations"]["verdict"] == "ok"
    assert found["clock"]["verdict"] == "ok"
    assert found["fsync"]["detail"] == rows.one("SHOW fsync")


def test_the_doctor_says_it_in_lines_for_a_person(app: flask.Flask) -> None:
    lines = run(app, "doctor").stdout.splitlines()

    assert "look    public address: unset: links lead to" in lines[0]
    assert lines[0].endswith("-> set PUBLIC_URL to the address that readers use")
    assert "ok      secret key: set" in lines


@pytest.mark.parametrize(
    ("chosen", "verdicts"),
    [
        ({}, ("look", "ok")),
        ({"public_url": "http://app.example"}, ("look", "look")),
        ({"public_url": "https://app.example"}, ("ok", "look")),
        ({"public_url": "https://app.example/belfry", "trusted_proxies": 1}, ("ok", "ok")),
    ],
)
def test_the_doctor_knows_an_address_that_readers_can_trust(
    app: flask.Flask, chosen: dict[str, Any], verdicts: tuple[str, str]
) -> None:
    with another_app(**chosen) as other:
        found = findings(other)

    assert (found["public address"]["verdict"], found["proxies"]["verdict"]) == verdicts


def test_the_doctor_notices_that_nobody_runs_the_clean_up(app: flask.Flask, alice: Person, publish: Publish) -> None:
    publish("alice")
    for hours, verdict in ((25, "ok"), (27, "look")):
        rows.change("UPDATE notifications SET expires_at = now() - make_interval(hours => :h)", h=hours)
        assert findings(app)["clean-up"]["verdict"] == verdict


def test_the_doctor_notices_older_tables(app: flask.Flask) -> None:
    head = rows.one("SELECT version_num FROM alembic_version")
    rows.change("UPDATE alembic_version SET version_num = 'older'")
    try:
        found = findings(app, status=1)
    finally:
        rows.change("UPDATE alembic_version SET version_num = :head", head=head)

    assert found["migrations"]["verdict"] == "broken"
    assert found["migrations"]["detail"] == f"at older, the code is at {head}"
    assert "clean-up" not in found


def test_the_doctor_notices_a_secret_key_that_others_can_read(app: flask.Flask, tmp_path: Path) -> None:
    chosen = settings.load(database_url=None, secret_key=None)
    assert checkup.check_secret_key(chosen, tmp_path).verdict == "ok"

    settings.kept_secret_key(tmp_path)
    assert checkup.check_secret_key(chosen, tmp_path).verdict == "ok"

    (tmp_path / "secret_key").chmod(0o644)
    finding = checkup.check_secret_key(chosen, tmp_path)
    assert finding.verdict == "broken"
    assert "chmod 600" in finding.advice


def test_the_doctor_finds_nothing_broken_on_a_server_that_keeps_what_it_acknowledged(
    app: flask.Flask, tmp_path: Path
) -> None:
    with embedded.running(tmp_path / "postgres") as durable:
        postgres.upgrade(durable)
        with another_app(database_url=durable) as sound:
            found = findings(sound, status=0)

    assert found["fsync"] == {"subject": "fsync", "verdict": "ok", "detail": "on", "advice": ""}


# demo


def test_the_sample_people_have_something_to_look_at(app: flask.Flask) -> None:
    assert run_json(app, "demo") == {"people": 2, "events": 6}

    ada, grace = Person(app, "ada"), Person(app, "grace")
    notifications = ada.poll().get_json()["notifications"]
    assert {notification["count"] for notification in notifications} == {1, 2}
    assert len(notifications) == 4
    assert len(grace.unread_ids()) == 3
    assert "Ada Lovelace" in [user["display_name"] for user in run_json(app, "user", "list")]


def test_the_samples_come_once(app: flask.Flask) -> None:
    run_json(app, "demo")
    before = rows.count("events")

    done = run(app, "demo")

    assert done.stdout == "2 people and 0 new events. Sign in with: flask user link ada\n"
    assert rows.count("events") == before == 6


def test_the_samples_disturb_nobody_who_is_there(app: flask.Flask, alice: Person) -> None:
    run_json(app, "user", "add", "ada", "--password", "correct horse")
    ada = Person(app, "ada")
    run_json(app, "demo")

    assert alice.unread_ids() == []
    assert ada.poll().status_code == 200
    assert rows.one("SELECT password_hash IS NOT NULL FROM users WHERE subject = 'ada'")
