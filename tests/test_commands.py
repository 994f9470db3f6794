"""What holds for every command; and `flask stats`, `flask demo`."""

from collections.abc import Callable, Iterator

import click
import flask
import pytest
import sqlalchemy

from app import console, db, embedded, retention
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
        for arguments in (["stats"], ["user", "list"], ["cleanup"]):
            done = run(lonely, *arguments)
            assert (done.exit_code, done.stdout) == (1, "")
            assert done.stderr.startswith("Error: The database does not answer: ")
            assert done.stderr.count("\n") == 1


def test_before_the_migrations_a_command_says_what_to_run(app: flask.Flask) -> None:
    with postgres.database(migrated=False) as empty, another_app(database_url=empty) as new:
        done = run(new, "stats")
        assert (done.exit_code, done.stdout) == (1, "")
        assert done.stderr == 'Error: relation "notifications" does not exist. Has `flask db upgrade` been run?\n'

        done = run(new, "doctor", "--no-network")
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

    run_json(app, "key", "create", "shop")
    for chore in retention.ALL_CHORES:
        db.write(retention.note, chore, is_done=True)

    found = run_json(app, "stats")

    sizes = [found.pop(name) for name in ("bytes", "bytes_of_events", "bytes_of_notifications")]
    [key] = found.pop("senders")
    assert found.pop("oldest_unread") is not None
    assert found.pop("last_clean_up") is not None
    assert found == {
        "users": 2,
        "disabled": 1,
        "events": 3,
        "notifications": 4,
        "unread": 2,
        "expired": 2,
        "events_in_24_hours": 2,
    }
    assert all(size >= 8192 for size in sizes)
    assert (key["name"], key["state"], key["last_used_at"]) == ("shop", "good", None)


def test_stats_tell_how_old_the_oldest_unread_is(app: flask.Flask, alice: Person, publish: Publish) -> None:
    publish("alice", title="old, and read")
    publish("alice", title="old, and over")
    oldest = publish("alice").event_id
    publish("alice")
    alice.post("/notifications/1/read")
    rows.change("UPDATE notifications SET expires_at = now() WHERE id = 2")
    rows.change("UPDATE events SET created_at = '2026-01-02 03:04Z' WHERE id = :id", id=oldest)

    assert run_json(app, "stats")["oldest_unread"] == "2026-01-02T03:04:00Z"
    assert "oldest unread" in run(app, "stats").stdout
    assert "2026-01-02 03:04 UTC" in run(app, "stats").stdout


def test_stats_for_a_person_are_a_line_each(app: flask.Flask, alice: Person) -> None:
    run_json(app, "key", "create", "shop")
    lines = run(app, "stats").stdout.splitlines()

    assert lines[0].split() == ["users", "1"]
    assert len(lines) == 13
    assert len({len(line) for line in lines[:-1]}) == 1
    assert lines[-1].endswith("used none  shop")


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
