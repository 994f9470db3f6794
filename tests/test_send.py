"""`flask send`: one event by arguments, or each line of a file, which is published whole or not at all, and once.

To everyone once too.
"""

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import flask
import pytest
from sqlalchemy import text

from app import db
from app.console import SECONDS_BEFORE_A_BAR
from app.settings import current
from tests import postgres, rows
from tests.cast import Person
from tests.commands import run, run_json, terminal
from tests.crashes import add_users
from tests.service import wait_until

EVENT = {"recipient": "alice", "type": "comment", "title": "A line"}


def line(**changed: Any) -> str:
    return json.dumps({**EVENT, **changed})


def send_file(app: flask.Flask, *lines: str, end: str = "\n") -> Any:
    """What `flask send --file -` says about these lines."""
    return run_json(app, "send", "--file", "-", stdin="".join(line + end for line in lines))


def refusal(app: flask.Flask, stdin: str | bytes, *more: str) -> list[str]:
    """The lines on standard error with which a file is refused; nothing is published and nobody is made."""
    before = rows.count("users"), rows.count("events"), rows.count("idempotency_keys")
    result = run(app, "send", "--file", "-", *more, stdin=stdin)
    assert result.exit_code == 1
    assert result.stdout == ""
    assert (rows.count("users"), rows.count("events"), rows.count("idempotency_keys")) == before
    return result.stderr.splitlines()


# Arguments


def test_an_event_by_arguments_reaches_everybody_named(app: flask.Flask, alice: Person, mallory: Person) -> None:
    given = (
        "--type",
        "alert",
        "--title",
        "Disk &amp; fire",
        "--body",
        "<b>now</b>",
        "--url",
        "/disk",
        "--expires-in",
        "60",
    )
    done = run(app, "send", "alice", "newcomer", "alice", *given, "--group-key", "disk")

    assert done.exit_code == 0
    event_id = rows.one("SELECT id FROM events")
    assert done.stdout == f"Published event {event_id} to 2 people.\n"
    (received,) = alice.poll().get_json()["notifications"]
    assert (received["type"], received["title"], received["body_html"]) == ("alert", "Disk & fire", "<b>now</b>")
    assert received["url"] == "/disk"
    assert rows.one("SELECT extract(epoch FROM expires_at - created_at) FROM events") == 60
    assert rows.column("SELECT DISTINCT group_key FROM notifications") == ["disk"]
    assert mallory.unread_ids() == []


def test_an_event_by_arguments_says_what_came_of_it_as_json(app: flask.Flask, alice: Person) -> None:
    said = run_json(app, "send", "alice", "bob", "--type", "comment", "--title", "x")

    assert said == {"event_id": rows.one("SELECT id FROM events"), "recipients": 2, "created": 2, "muted": 0}


def test_the_same_arguments_twice_are_two_events(app: flask.Flask, alice: Person) -> None:
    for _ in range(2):
        run_json(app, "send", "alice", "--type", "comment", "--title", "x")

    assert len(alice.unread_ids()) == 2


def test_a_life_that_is_not_named_is_the_setting(app: flask.Flask, alice: Person) -> None:
    run_json(app, "send", "alice", "--type", "comment", "--title", "x")

    days = rows.one("SELECT extract(epoch FROM expires_at - created_at) / 86400 FROM events")
    assert days == current().notification_ttl_days


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], ["recipients must not be empty"]),
        (["alice"], ["type is required", "title is required"]),
        (["--type", "a", "--title", "b"], ["recipients must not be empty"]),
        (["alice", "--type", "a", "--title", ""], ["title must be 1 to 200 characters"]),
        (["alice", "--type", "A", "--title", "b"], ["type must match"]),
        (["a/b", "--type", "a", "--title", "b"], ["recipients[0] must not contain a /"]),
        (["a", "", "--type", "a", "--title", "b"], ["recipients[1] must not be empty"]),
        (["alice", "--type", "a", "--title", "b", "--url", "javascript:x"], ["url must start with"]),
        (["alice", "--type", "a", "--title", "b", "--expires-in", "0"], ["expires_in must be at least 1"]),
        (["\udcff", "--type", "a", "--title", "b"], ["The arguments must be UTF-8."]),
        (["alice", "--type", "a", "--title", "\udcff"], ["The arguments must be UTF-8."]),
        (["alice", "--type", "a", "--title", "b", "--group-key", "\udc80"], ["The arguments must be UTF-8."]),
    ],
)
def test_arguments_that_make_no_event_are_refused_line_by_line(
    app: flask.Flask, arguments: list[str], said: list[str]
) -> None:
    done = run(app, "send", *arguments)

    assert done.exit_code == 1
    lines = done.stderr.removeprefix("Error: ").splitlines()
    assert len(lines) == len(said)
    assert all(line.startswith(words) for line, words in zip(lines, said, strict=True))
    assert (rows.count("events"), rows.count("users")) == (0, 0)


def test_bytes_that_are_no_utf8_are_refused_in_a_real_terminal_too(app: flask.Flask) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "flask", "send", b"\xff", "--type", "comment", "--title", "x"],
        cwd=postgres.ROOT,
        env=postgres.environment(db.engine().url.render_as_string(hide_password=False)),
        capture_output=True,
        check=False,
    )

    assert (done.returncode, done.stdout, done.stderr) == (1, b"", b"Error: The arguments must be UTF-8.\n")
    assert rows.count("users") == 0


# Everyone

NEWS = ("--everyone", "--type", "news", "--title", "For all")


@contextlib.contextmanager
def stopped_at(place: int) -> Iterator[None]:
    """Holds the row of the user at that place, so that a fan-out can't go on with those around it."""
    chosen = rows.one("SELECT id FROM users ORDER BY id OFFSET :place LIMIT 1", place=place - 1)
    with db.engine().begin() as connection:
        connection.execute(text("SELECT FROM users WHERE id = :id FOR UPDATE"), {"id": chosen})
        yield


WAITING = "FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"


def test_everyone_who_is_a_user_receives_it_and_the_sender_is_told(
    app: flask.Flask, alice: Person, mallory: Person
) -> None:
    done = run(app, "send", *NEWS, "--body", "<b>now</b>", "--group-key", "all", "--expires-in", "60")

    event_id = rows.one("SELECT id FROM events")
    assert done.stdout == f"Published event {event_id} to 2 people.\n"
    for person in (alice, mallory):
        (received,) = person.poll().get_json()["notifications"]
        assert (received["title"], received["body_html"]) == ("For all", "<b>now</b>")
    assert rows.one("SELECT extract(epoch FROM expires_at - created_at) FROM events") == 60


def test_everyone_as_json_with_those_who_muted_it(app: flask.Flask, alice: Person, mallory: Person) -> None:
    run_json(app, "send", "alice", "--type", "news", "--title", "Earlier")
    alice.browser.put("/preferences/news", json={"muted": True})

    said = run_json(app, "send", *NEWS)

    counts = {"recipients": 2, "created": 1, "muted": 1, "already_published": False}
    assert said == {"event_id": rows.one("SELECT max(id) FROM events"), **counts}
    assert list(said) == ["event_id", "recipients", "created", "muted", "already_published"]
    assert run_json(app, "send", *NEWS) == {**said, "already_published": True}


def test_everyone_may_be_nobody(app: flask.Flask) -> None:
    assert run(app, "send", *NEWS).stdout.endswith(" to 0 people.\n")


def test_the_same_arguments_to_everyone_are_one_event_for_24_hours(app: flask.Flask, alice: Person) -> None:
    run(app, "send", *NEWS)
    again = run(app, "send", "--title", "For all", "--type", "news", "--everyone")

    assert again.stdout == f"Event {rows.one('SELECT id FROM events')} had been published to 1 person before.\n"
    assert alice.unread_ids() == [1]

    rows.change("UPDATE idempotency_keys SET created_at = now() - interval '24 hours'")
    assert run(app, "send", *NEWS).stdout.startswith("Published event ")
    assert alice.unread_ids() == [2, 1]


@pytest.mark.parametrize(
    "other", [("--body", "x"), ("--url", "/x"), ("--group-key", "x"), ("--expires-in", "60"), ("--title", "x")]
)
def test_other_arguments_to_everyone_are_another_event(app: flask.Flask, alice: Person, other: tuple[str, str]) -> None:
    run(app, "send", *NEWS)
    run(app, "send", *NEWS, *other)

    assert rows.count("events") == 2


def test_everyone_and_a_recipient_exclude_each_other(app: flask.Flask, alice: Person) -> None:
    done = run(app, "send", "alice", *NEWS)

    assert done.exit_code != 0
    assert "--everyone takes no RECIPIENT" in done.stderr
    assert rows.count("events") == 0


def test_what_makes_no_event_for_everyone_takes_no_key(app: flask.Flask, alice: Person) -> None:
    done = run(app, "send", "--everyone", "--type", "A", "--title", "\u202e")

    assert done.exit_code == 1
    assert [words.split()[0] for words in done.stderr.removeprefix("Error: ").splitlines()] == ["type", "title"]
    assert (rows.count("events"), rows.count("idempotency_keys")) == (0, 0)


@pytest.mark.parametrize("recipients", [["everyone"], ["alice", "everyone"]])
def test_the_word_everyone_is_not_taken_for_a_person(app: flask.Flask, alice: Person, recipients: list[str]) -> None:
    done = run(app, "send", *recipients, "--type", "news", "--title", "For all")

    assert done.exit_code == 2
    assert "--everyone" in done.stderr
    assert (rows.count("events"), rows.count("users")) == (0, 1)


def test_a_killed_run_to_everyone_is_completed_by_repeating_it(app: flask.Flask) -> None:
    url = db.engine().url.render_as_string(hide_password=False)
    add_users(url, 2500)
    command = [sys.executable, "-m", "flask", "send", *NEWS]
    with stopped_at(2200):
        process = subprocess.Popen(command, cwd=postgres.ROOT, env=postgres.environment(url))
        try:
            wait_until(lambda: rows.count("notifications") == 2000, "two chunks are delivered")
        finally:
            process.kill()
            process.wait(timeout=30)
    wait_until(lambda: rows.one(f"SELECT count(*) {WAITING}") == 0, "nothing of the killed run waits")

    said = run_json(app, "send", *NEWS)

    assert (said["recipients"], said["created"], said["already_published"]) == (2500, 2500, False)
    assert (rows.count("events"), rows.count("notifications")) == (1, 2500)
    assert rows.column("SELECT DISTINCT inbox_version FROM users") == [1]


def test_a_terminal_that_looks_on_sees_how_far_a_fan_out_is(app: flask.Flask) -> None:
    url = db.engine().url.render_as_string(hide_password=False)
    add_users(url, 2500)
    long = f"SELECT count(*) {WAITING} AND backend_start < now() - interval '{SECONDS_BEFORE_A_BAR + 0.5} seconds'"
    with terminal(url, "send", *NEWS) as looked_at, stopped_at(2200):
        wait_until(lambda: rows.one(long) == 1, "it has taken longer than a bar waits for")

    assert looked_at.stdout == f"Published event {rows.one('SELECT id FROM events')} to 2500 people.\n"
    assert "Publishing" in looked_at.drawn
    assert "100%" in looked_at.drawn


# Files


def test_each_line_is_an_event_with_every_field(app: flask.Flask, alice: Person, tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    path.write_text(line(body="<i>b</i>", url="/u", actor={"name": "Ada"}, data={"a": 1}, priority="low") + "\n")

    done = run(app, "send", "--file", str(path))

    assert done.exit_code == 0
    assert done.stdout == "Published 1 of 1 lines; 0 had been published before.\n"
    (received,) = alice.poll().get_json()["notifications"]
    wanted = {"body": "b", "body_html": "<i>b</i>", "url": "/u", "data": {"a": 1}, "priority": "low"}
    assert {name: received[name] for name in wanted} == wanted
    assert received["actor"]["name"] == "Ada"


def test_a_line_may_name_one_recipient_or_a_list(app: flask.Flask, alice: Person, mallory: Person) -> None:
    many = json.dumps({"recipients": ["alice", "mallory", "alice"], "type": "comment", "title": "Many"})

    assert send_file(app, line(), many) == {"lines": 2, "published": 2, "already_published": 0}

    assert alice.unread_ids() == [2, 1]
    assert mallory.unread_ids() == [1]


def test_blank_lines_crlf_and_a_missing_last_line_end_are_fine(app: flask.Flask, alice: Person) -> None:
    text = f"\r\n{line(title='One')}\r\n   \r\n\r\n{line(title='Two')}\r\n{line(title='Three')}"

    assert run_json(app, "send", "--file", "-", stdin=text)["published"] == 3
    titles = [notification["title"] for notification in alice.poll().get_json()["notifications"]]
    assert titles == ["Three", "Two", "One"]
    # The end of a line is no part of it: with other ends it is the same file.
    assert run_json(app, "send", "--file", "-", stdin=text.replace("\r\n", "\n") + "\n")["published"] == 0


def test_line_separators_that_json_allows_in_strings_end_no_line(app: flask.Flask, alice: Person) -> None:
    body = "a\u2028b\u0085c\x0bd".replace("\x0b", "")
    text = json.dumps({**EVENT, "body": body}, ensure_ascii=False)

    assert run_json(app, "send", "--file", "-", stdin=text.encode() + b"\n")["lines"] == 1


@pytest.mark.parametrize("nothing", ["", "\n", " \n\r\n"])
def test_an_empty_file_publishes_nothing(app: flask.Flask, nothing: str) -> None:
    assert run_json(app, "send", "--file", "-", stdin=nothing) == {"lines": 0, "published": 0, "already_published": 0}


def test_every_bad_line_is_named_with_its_fields_and_then_nothing_is_published(app: flask.Flask) -> None:
    lines = [
        line(),
        line(title=""),
        "",
        "not json",
        line(type="A", colour="red"),
        json.dumps({"type": "comment", "title": "x"}),
        line(recipients=["alice"]),
        "[]",
        '{"a": 1, "a": 2}',
        line(recipient="a/b"),
        line(recipient=["alice"]),
        line(expires_at="2000-01-01T00:00:00Z"),
        line(),
    ]

    said = refusal(app, "\n".join(lines))

    assert said[0] == "Error: nothing was published."
    found = [words.split(" ")[0:3] for words in said[1:]]
    assert [(number, field) for _line, number, field in found] == [
        ("2:", "title"),
        ("4:", "The"),
        ("5:", "type"),
        ("5:", "colour"),
        ("6:", "recipients"),
        ("7:", "recipient"),
        ("8:", "The"),
        ("9:", "The"),
        ("10:", "recipients[0]"),
        ("11:", "recipients[0]"),
        ("12:", "expires_at"),
    ]
    assert "The body is not valid JSON" in said[2]
    assert 'line 9: The key "a" is given more than once in one object.' in said


def test_bytes_that_are_no_utf8_are_reported_by_line(app: flask.Flask) -> None:
    good = line().encode()

    said = refusal(app, good + b"\n" + good.replace(b"A line", b"\xff\xfe") + b"\n")

    assert said == ["Error: nothing was published.", "line 2: The body must be UTF-8 without a byte order mark."]


def test_hostile_lines_are_reported_like_any_other(app: flask.Flask) -> None:
    lines = [
        '{"data": ' + '{"a":' * 20_000 + "1" + "}" * 20_000 + "}",
        '{"expires_in": ' + "9" * 5000 + "}",
        '{"title": NaN}',
        '{"title": "\\u0000"}',
        '{"title": "\\ud800"}',
        '"text"',
    ]

    said = refusal(app, "\n".join(lines))

    assert [words.split(":")[0] for words in said[1:]] == [f"line {number}" for number in range(1, 7)]


def test_a_file_with_thousands_of_errors_is_told_in_fifty_lines(app: flask.Flask) -> None:
    said = refusal(app, "x\n" * 3000)

    assert len(said) == 52
    assert said[-1] == "… and 2950 more"


@pytest.mark.parametrize(("recipients", "is_good"), [(1, True), (1000, True), (1001, False), (0, False)])
def test_a_line_has_1_to_1000_recipients(app: flask.Flask, recipients: int, is_good: bool) -> None:
    text = json.dumps({"type": "a", "title": "x", "recipients": [f"person-{n}" for n in range(recipients)]})
    if is_good:
        assert send_file(app, text)["published"] == 1
        assert rows.count("notifications") == recipients
    else:
        assert refusal(app, text)[1].startswith("line 1: recipients must ")


@pytest.mark.parametrize(
    "arguments", [["alice"], ["--everyone"], ["--title", "x"], ["--type", "x"], ["--expires-in", "5"]]
)
def test_a_file_stands_alone(app: flask.Flask, arguments: list[str]) -> None:
    done = run(app, "send", "--file", "-", *arguments, stdin=line())

    assert done.exit_code != 0
    assert "--file stands alone" in done.stderr
    assert rows.count("events") == 0


def test_a_file_that_is_not_there_is_one_clear_line(app: flask.Flask, tmp_path: Path) -> None:
    done = run(app, "send", "--file", str(tmp_path / "missing.jsonl"))

    assert done.exit_code != 0
    assert "missing.jsonl" in done.stderr
    assert "Traceback" not in done.stderr


# Once


def test_equal_lines_in_one_file_are_separate_events(app: flask.Flask, alice: Person) -> None:
    assert send_file(app, line(), line(), line()) == {"lines": 3, "published": 3, "already_published": 0}
    assert len(alice.unread_ids()) == 3


def test_the_same_file_again_publishes_nothing(app: flask.Flask, alice: Person) -> None:
    lines = [line(), line(title="Other"), line()]
    send_file(app, *lines)

    done = run(app, "send", "--file", "-", stdin="\n".join(lines))

    assert done.stdout == "Published 0 of 3 lines; 3 had been published before.\n"
    assert alice.unread_ids() == [3, 2, 1]
    assert rows.count("events") == 3


def test_a_key_of_a_sender_is_none_of_the_files(app: flask.Flask, alice: Person) -> None:
    send_file(app, line())
    rows.change("UPDATE idempotency_keys SET api_key_id = 7")

    send_file(app, line())

    assert rows.count("events") == 2


def test_appended_lines_are_published_and_only_those(app: flask.Flask, alice: Person) -> None:
    send_file(app, line(), line(title="Other"))

    appended = send_file(app, line(), line(title="Other"), line(), line(title="Newest"))

    assert appended == {"lines": 4, "published": 2, "already_published": 2}
    titles = [notification["title"] for notification in alice.poll().get_json()["notifications"]]
    assert titles == ["Newest", "A line", "Other", "A line"]


def test_lines_in_another_order_are_the_same_lines(app: flask.Flask, alice: Person) -> None:
    send_file(app, line(), line(title="Other"))

    assert send_file(app, line(title="Other"), line())["published"] == 0


def test_a_key_is_kept_for_24_hours(app: flask.Flask, alice: Person) -> None:
    send_file(app, line())

    rows.change("UPDATE idempotency_keys SET created_at = now() - interval '23 hours'")
    assert send_file(app, line())["published"] == 0

    rows.change("UPDATE idempotency_keys SET created_at = now() - interval '24 hours'")
    assert send_file(app, line())["published"] == 1
    # Its day begins anew.
    assert send_file(app, line())["published"] == 0
    assert len(alice.unread_ids()) == 2


def test_a_line_that_fails_while_publishing_leaves_its_key_free(app: flask.Flask, alice: Person) -> None:
    rows.change("UPDATE users SET inbox_version = 9223372036854775807")
    with pytest.raises(Exception, match="bigint out of range"):
        send_file(app, line())
    assert (rows.count("events"), rows.count("idempotency_keys")) == (0, 0)

    rows.change("UPDATE users SET inbox_version = 0")
    assert send_file(app, line())["published"] == 1


def test_two_runs_of_one_file_at_once_publish_it_once(app: flask.Flask, alice: Person, tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    path.write_text("\n".join(line(title=f"Number {number // 2}") for number in range(200)))
    command = [sys.executable, "-m", "flask", "send", "--json", "--file", str(path)]
    environment = postgres.environment(db.engine().url.render_as_string(hide_password=False))
    both = [
        subprocess.Popen(command, cwd=postgres.ROOT, env=environment, stdout=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    said = [json.loads(process.communicate(timeout=120)[0]) for process in both]

    assert sum(each["published"] for each in said) == 200 == sum(each["already_published"] for each in said)
    assert rows.count("events") == rows.count("notifications") == 200


def test_a_killed_run_is_completed_by_repeating_it(app: flask.Flask, alice: Person, tmp_path: Path) -> None:
    """Equal lines among them, for those are what a careless repetition would double or lose."""
    path = tmp_path / "events.jsonl"
    lines = [line(title=f"Number {number // 2}") for number in range(3000)]
    path.write_text("\n".join(lines))
    url = db.engine().url.render_as_string(hide_password=False)
    process = subprocess.Popen(
        [sys.executable, "-m", "flask", "send", "--file", str(path)], cwd=postgres.ROOT, env=postgres.environment(url)
    )
    wait_until(lambda: rows.count("events") >= 20, "some lines are published", seconds=120)
    os.kill(process.pid, signal.SIGKILL)
    process.wait(timeout=30)
    # The server notices by itself; until then the last statement may still be at work.
    at_work = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND state <> 'idle'"
    wait_until(lambda: rows.one(at_work) == 1, "only the one who asks is at work")
    done = rows.count("events")
    assert 20 <= done < 3000
    assert rows.count("notifications") == done == rows.count("idempotency_keys")

    # The file's beginning holds all that was done, and more; the rest of it would only cost time.
    head = lines[: done + 50]
    assert send_file(app, *head) == {"lines": done + 50, "published": 50, "already_published": done}

    titles = rows.column("SELECT e.title FROM notifications n JOIN events e ON e.id = n.event_id ORDER BY n.id")
    assert titles == [json.loads(text)["title"] for text in head]
    assert rows.one("SELECT inbox_version FROM users WHERE id = :id", id=alice.id) == done + 50
