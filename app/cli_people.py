"""`flask user …`: people, for operators. Thin: each command parses, calls one function and says what came of it."""

import sys

import click
import flask
import orjson
from flask.cli import AppGroup

from app import db, limits, people, personal_data, settings, stats, tickets
from app.console import Outcome, checked_name, says
from app.errors import FieldError, Problem
from app.validation import BIGINT_MAX
from app.validation import subject as checked_subject

SHORTEST_PASSWORD = 8


def init_app(app: flask.Flask) -> None:
    app.cli.add_command(user)


user = AppGroup("user", help="People: add, change, let in, keep out.")


@user.command("add")
@click.argument("subject")
@click.option("--name", help="What to call the person.")
@click.option("--password", help="For the sign-in page; other people can see it in the list of processes.")
@click.option("--password-stdin", is_flag=True, help="Read the password from standard input.")
@says
def user_add(subject: str, name: str | None, password: str | None, password_stdin: bool) -> Outcome:
    """Create a user, or change what is given."""
    _check_subject(subject)
    if password_stdin:
        password = _typed_password(stdin=True)
    is_new = db.write(
        people.save_user, subject, None if name is None else checked_name(name), _checked_password(password)
    )
    return {"subject": subject, "created": is_new}, f"{'Created' if is_new else 'Changed'} {subject}."


@user.command("password")
@click.argument("subject")
@click.option("--stdin", is_flag=True, help="Read it from standard input instead of asking.")
@says
def user_password(subject: str, stdin: bool) -> Outcome:
    """Set a password, which ends all of the person's sessions."""
    if db.read(people.find_for_sign_in, subject) is None:
        raise Problem(404, f"There is no such user: {subject}.")
    db.write(people.save_user, subject, None, _checked_password(_typed_password(stdin)))
    return {"subject": subject}, f"{subject} has a new password; all sessions have ended."


def _typed_password(stdin: bool) -> str:
    if stdin:
        return sys.stdin.readline().rstrip("\r\n")
    typed: str = click.prompt("Password", hide_input=True, confirmation_prompt=True)
    return typed


def _check_subject(subject: str) -> None:
    try:
        checked_subject(subject)
    except ValueError as error:
        raise Problem(422, "The name is not valid.", [FieldError("subject", str(error))]) from None


def _checked_password(password: str | None) -> str | None:
    if password is not None and len(password) < SHORTEST_PASSWORD:
        message = f"must be at least {SHORTEST_PASSWORD} characters"
        raise Problem(422, "The password is not valid.", [FieldError("password", message)])
    return password


@user.command("link")
@click.argument("subject")
@click.option("--valid", default=600, show_default=True, type=click.IntRange(1, 86400), help="Seconds.")
@click.option(
    "--return-to", help="Where it leads: on the origin of PUBLIC_URL or of CORS_ORIGINS. [default: the inbox]"
)
@says
def user_link(subject: str, valid: int, return_to: str | None) -> Outcome:
    """Print a link that signs the person in, once."""
    chosen = settings.current()
    if return_to is not None:
        try:
            tickets.checked_return_to(return_to, {chosen.own_origin, *chosen.cors_origins})
        except ValueError as error:
            raise Problem(422, f"--return-to {error}") from None
    url = f"{chosen.own_url}/tickets/{db.write(tickets.make_ticket, subject, valid, return_to)}"
    return {"subject": subject, "url": url, "valid": valid}, url


@user.command("list")
@click.option("--limit", default=100, show_default=True, type=click.IntRange(1, 100_000))
@click.option("--offset", default=0, show_default=True, type=click.IntRange(0, BIGINT_MAX))
@says
def user_list(limit: int, offset: int) -> Outcome:
    """List users by name."""
    found = db.read(stats.list_users, limit, offset)
    lines = [f"{u['subject']}  {u['display_name'] or '-'}  {'active' if u['is_active'] else 'disabled'}" for u in found]
    return found, "\n".join(lines) or "There are no users."


@user.command("disable")
@click.argument("subject")
@says
def user_disable(subject: str) -> Outcome:
    """Keep a person out: all sessions end at once."""
    db.write(people.set_active, subject, active=False)
    return {"subject": subject, "is_active": False}, f"{subject} is disabled; all sessions have ended."


@user.command("enable")
@click.argument("subject")
@says
def user_enable(subject: str) -> Outcome:
    """Let a disabled person in again."""
    db.write(people.set_active, subject, active=True)
    return {"subject": subject, "is_active": True}, f"{subject} can sign in again."


@user.command("sign-out")
@click.argument("subject")
@says
def user_sign_out(subject: str) -> Outcome:
    """End all of a person's sessions."""
    db.write(people.end_all_sessions, subject)
    return {"subject": subject}, f"All sessions of {subject} have ended."


@user.command("erase")
@click.argument("subject")
@says
def user_erase(subject: str) -> Outcome:
    """Delete a person with everything that is theirs."""
    db.write(personal_data.erase, subject)
    limits.forget_sign_ins(subject)
    return {"subject": subject}, f"{subject} is erased."


@user.command("export")
@click.argument("subject")
@says
def user_export(subject: str) -> Outcome:
    """Print everything that is held about a person, as JSON."""
    content = db.write(personal_data.export, subject)
    return content, orjson.dumps(content, option=orjson.OPT_UTC_Z | orjson.OPT_INDENT_2).decode()
