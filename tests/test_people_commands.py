"""`flask user …`: people, for operators."""

from typing import Any

import flask
import pytest
from sqlalchemy import text
from werkzeug.security import check_password_hash

from app import db, people
from tests import rows
from tests.cast import Person
from tests.commands import run, run_json


def user(subject: str = "ada") -> dict[str, Any]:
    """What the database holds about somebody."""
    query = text("SELECT display_name, password_hash, is_active, session_epoch FROM users WHERE subject = :subject")
    return db.read(lambda connection: dict(connection.execute(query, {"subject": subject}).one()._mapping))


def test_adding_somebody_creates_and_then_changes(app: flask.Flask) -> None:
    assert run(app, "user", "add", "ada").stdout == "Created ada.\n"
    assert run(app, "user", "add", "ada", "--name", "Ada Lovelace").stdout == "Changed ada.\n"
    assert user() == {"display_name": "Ada Lovelace", "password_hash": None, "is_active": True, "session_epoch": 0}

    assert run_json(app, "user", "add", "ada", "--password", "correct horse") == {"subject": "ada", "created": False}
    assert run_json(app, "user", "add", "grace") == {"subject": "grace", "created": True}
    changed = user()
    assert check_password_hash(changed["password_hash"], "correct horse")
    assert (changed["display_name"], changed["session_epoch"]) == ("Ada Lovelace", 1)


@pytest.mark.parametrize("typed", ["correct horse\n", "correct horse\r\n", "correct horse", "correct horse\nmore\n"])
def test_a_password_comes_from_standard_input(app: flask.Flask, typed: str) -> None:
    assert run(app, "user", "add", "ada", "--password-stdin", stdin=typed).exit_code == 0
    assert check_password_hash(user()["password_hash"], "correct horse")


def test_a_password_keeps_its_spaces_and_letters(app: flask.Flask) -> None:
    assert run(app, "user", "add", "ada", "--password-stdin", stdin="  pässwörd 🐎 \n").exit_code == 0
    assert check_password_hash(user()["password_hash"], "  pässwörd 🐎 ")


@pytest.mark.parametrize(
    "arguments", [["user", "add", "ada", "--password-stdin"], ["user", "password", "ada", "--stdin"]]
)
@pytest.mark.parametrize("typed", ["", "\n", "seven77\n"])
def test_a_short_password_is_refused(app: flask.Flask, arguments: list[str], typed: str) -> None:
    db.write(people.save_user, "ada", None, None)

    done = run(app, *arguments, stdin=typed)

    assert done.exit_code == 1
    assert done.stderr == "Error: password must be at least 8 characters\n"
    assert user()["password_hash"] is None


def test_a_password_can_be_typed_twice_unseen(app: flask.Flask) -> None:
    db.write(people.save_user, "ada", None, None)

    done = run(app, "user", "password", "ada", stdin="correct horse\ncorrect horse\n")

    assert done.exit_code == 0
    assert "correct horse" not in done.output
    assert done.stdout.endswith("ada has a new password; all sessions have ended.\n")
    assert check_password_hash(user()["password_hash"], "correct horse")


@pytest.mark.parametrize(
    ("subject", "said"),
    [
        ("", "subject must be 1 to 255 characters"),
        ("x" * 256, "subject must be 1 to 255 characters"),
        ("a/b", "subject must not contain a /"),
        (".", "subject must not contain a /"),
        ("..", "subject must not contain a /"),
        ("a\nb", "subject must not contain control characters"),
        ("a\x7f", "subject must not contain control characters"),
        ("\udcff", "subject must not contain control characters or unpaired surrogates"),
    ],
)
def test_a_name_that_can_be_no_subject_is_refused(app: flask.Flask, subject: str, said: str) -> None:
    done = run(app, "user", "add", subject)

    assert done.exit_code == 1
    assert done.stderr.startswith(f"Error: {said}")
    assert rows.count("users") == 0


@pytest.mark.parametrize("subject", ["x" * 255, "ada@example.com", "Ada Lovelace", "...", "\u5f35\u4e09", "\u2028"])
def test_any_other_name_is_a_subject(app: flask.Flask, subject: str) -> None:
    assert run_json(app, "user", "add", subject)["created"] is True
    assert run_json(app, "user", "list")[0]["subject"] == subject


@pytest.mark.parametrize(
    "arguments",
    [
        ["user", "password", "nobody", "--stdin"],
        ["user", "link", "nobody"],
        ["user", "disable", "nobody"],
        ["user", "enable", "nobody"],
        ["user", "sign-out", "nobody"],
    ],
)
def test_a_command_about_nobody_is_one_clear_line(app: flask.Flask, alice: Person, arguments: list[str]) -> None:
    done = run(app, *arguments, stdin="correct horse\n")

    assert (done.exit_code, done.stdout) == (1, "")
    assert done.stderr.startswith("Error: There is no such user")
    assert done.stderr.endswith(": nobody.\n")
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize(
    "arguments",
    [
        ["password", "\udcff", "--stdin"],
        ["link", "\udcff"],
        ["disable", "\udcff"],
        ["enable", "\udcff"],
        ["sign-out", "\udcff"],
        ["add", "ada", "--name", "\udcff"],
        ["add", "ada", "--password", "\udcff\udcff\udcff\udcff\udcff\udcff\udcff\udcff"],
    ],
)
def test_bytes_that_are_no_utf8_are_one_clear_line(app: flask.Flask, arguments: list[str]) -> None:
    done = run(app, "user", *arguments, stdin="correct horse\n")

    assert (done.exit_code, done.stdout) == (1, "")
    assert done.stderr == "Error: The arguments and the input must be UTF-8.\n"
    assert rows.count("users") == 0


def test_a_password_that_is_no_utf8_is_one_clear_line(app: flask.Flask) -> None:
    done = run(app, "user", "add", "ada", "--password-stdin", stdin=b"\xff" * 10 + b"\n")

    assert (done.exit_code, done.stdout) == (1, "")
    assert done.stderr == "Error: The arguments and the input must be UTF-8.\n"
    assert rows.count("users") == 0


def test_disabling_twice_and_enabling_twice_is_no_error(app: flask.Flask, alice: Person) -> None:
    for verb, is_active in [("disable", False), ("disable", False), ("enable", True), ("enable", True)]:
        assert run_json(app, "user", verb, "alice") == {"subject": "alice", "is_active": is_active}
        assert user("alice")["is_active"] is is_active


def test_a_command_about_one_person_changes_nothing_of_another(
    app: flask.Flask, alice: Person, mallory: Person
) -> None:
    before = user("mallory")

    for verb in ("disable", "enable", "sign-out"):
        run_json(app, "user", verb, "alice")
    run_json(app, "user", "password", "alice", "--stdin", stdin="correct horse\n")

    assert user("mallory") == before
    assert mallory.poll().status_code == 200


def test_the_list_is_by_name_in_pages(app: flask.Flask) -> None:
    for subject in ("carol", "Bob", "alice"):
        run_json(app, "user", "add", subject)
    run_json(app, "user", "add", "alice", "--name", "Alice A.", "--password", "correct horse")
    run_json(app, "user", "disable", "carol")

    listed = run_json(app, "user", "list")

    assert [found["subject"] for found in listed] == ["Bob", "alice", "carol"]
    assert set(listed[0]) == {
        *("id", "subject", "display_name", "is_active", "has_password", "inbox_version", "created_at")
    }
    assert [found["has_password"] for found in listed] == [False, True, False]
    assert [found["is_active"] for found in listed] == [True, True, False]
    assert listed[0]["created_at"].endswith("Z")
    assert run(app, "user", "list").stdout == "Bob  -  active\nalice  Alice A.  active\ncarol  -  disabled\n"
    page = run_json(app, "user", "list", "--limit", "1", "--offset", "1")
    assert [found["subject"] for found in page] == ["alice"]


def test_the_list_shows_what_cannot_be_seen_in_a_name(app: flask.Flask) -> None:
    name = "ad\u202ea \u200b\U000e0041é \u0627\U0001f514"
    run(app, "user", "add", name)
    rows.change("UPDATE users SET display_name = 'A\x1b[2J\x07da\u2028\u2066x'")

    said = run(app, "user", "list").stdout

    shown = "ad\\u202ea \\u200b\\udb40\\udc41é \u0627\U0001f514"
    assert said == f"{shown}  A\\u001b[2J\\u0007da\\u2028\\u2066x  active\n"
    assert "\u202e" not in run(app, "user", "list", "--json").stdout
    assert run_json(app, "user", "list")[0]["subject"] == name


def test_no_answer_and_no_refusal_says_a_name_raw(app: flask.Flask) -> None:
    assert run(app, "user", "add", "ad\u202ea").stdout == "Created ad\\u202ea.\n"
    assert run(app, "user", "password", "no\u202eone").stderr == "Error: There is no such user: no\\u202eone.\n"


def test_the_list_of_nobody_says_so(app: flask.Flask) -> None:
    assert run(app, "user", "list").stdout == "There are no users.\n"
    assert run_json(app, "user", "list") == []


def test_the_list_never_shows_a_password(app: flask.Flask) -> None:
    run_json(app, "user", "add", "ada", "--password", "correct horse")

    for said in (run(app, "user", "list").output, run(app, "user", "list", "--json").output):
        assert "correct horse" not in said
        assert "scrypt" not in said


def test_a_link_as_json_says_how_long_it_is_good(app: flask.Flask, alice: Person) -> None:
    said = run_json(app, "user", "link", "alice", "--valid", "60")

    assert (said["subject"], said["valid"]) == ("alice", 60)
    assert alice.browser.get(said["url"]).status_code == 200


@pytest.mark.parametrize("seconds", ["0", "-1", "86401", "soon"])
def test_a_link_that_lasts_too_long_or_not_at_all_is_refused(app: flask.Flask, alice: Person, seconds: str) -> None:
    done = run(app, "user", "link", "alice", "--valid", seconds)

    assert done.exit_code != 0
    assert "--valid" in done.stderr
    assert rows.count("tickets") == 0
