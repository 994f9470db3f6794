"""Belfry's own database: made by the migrations, filled by SQL, its sessions started as sign-in does."""

import os
import subprocess
import sys

import flask
from sqlalchemy import text

from app import auth, create_app, db
from bench import data

FILL = f"""
    CREATE TEMPORARY TABLE content ON COMMIT DROP AS {data.CONTENT};
    INSERT INTO users (subject, inbox_version)
        SELECT subject, count(*) FROM content GROUP BY who, subject ORDER BY who;
    INSERT INTO events (type, title, body_text, body_html, url, actor_name, actor_url, data, priority, received,
            only_user_id, created_at, expires_at)
        SELECT type, title, body, body_html, url, actor_name, actor_url, data, priority, 1,
            users.id, content.created_at, expires_at
        FROM content JOIN users USING (subject) ORDER BY number, who;
    INSERT INTO notifications (user_id, id, event_id, seen_at, read_at, expires_at)
        SELECT users.id, number, events.id, content.seen_at, content.read_at, content.expires_at
        FROM content JOIN users USING (subject) JOIN events USING (url) ORDER BY number, who;
"""
VERSIONS = text("SELECT id, inbox_version FROM users ORDER BY id")
USER_IDS = text("SELECT id FROM users ORDER BY id")


def prepare(database_url: str) -> list[str]:
    """Fills the empty database; gives back each user's session cookie as a browser sends it."""
    environment = {**os.environ, "DATABASE_URL": database_url, "SECRET_KEY": data.SECRET_KEY}
    subprocess.run([sys.executable, "-m", "flask", "db", "upgrade"], cwd=data.ROOT, env=environment, check=True)
    data.fill(database_url, FILL)
    app = create_app(database_url=database_url, secret_key=data.SECRET_KEY)
    with app.app_context():
        user_ids = db.read(lambda connection: connection.execute(USER_IDS).scalars().all())
    cookies = [session_cookie(app, user_id) for user_id in user_ids]
    with app.app_context():
        db.engine().dispose()
    return cookies


def session_cookie(app: flask.Flask, user_id: int) -> str:
    # Not within another context: Flask-Login keeps the user in `g`, and signing in would end that user's session.
    with app.test_request_context(headers={"User-Agent": data.USER_AGENT}):
        auth.start_session(user_id, hours=12)
        response = app.response_class()
        app.session_interface.save_session(app, flask.session, response)
        return response.headers["Set-Cookie"].partition(";")[0]


def prepare_many(database_url: str, users: int, fill: str = "") -> list[tuple[str, str]]:
    """Fills the empty database with so many users; gives back each one's cookie and the tag that is true for it.

    Signing in would take a millisecond each, so the cookies are one real cookie with other claims, signed again.
    """
    environment = {**os.environ, "DATABASE_URL": database_url, "SECRET_KEY": data.SECRET_KEY}
    subprocess.run([sys.executable, "-m", "flask", "db", "upgrade"], cwd=data.ROOT, env=environment, check=True)
    usual = f"INSERT INTO users (subject) SELECT 'user-' || n FROM generate_series(1, {users}) AS n"
    data.fill(database_url, fill or usual)
    app = create_app(database_url=database_url, secret_key=data.SECRET_KEY)
    serializer = app.session_interface.get_signing_serializer(app)  # type: ignore[attr-defined]
    with app.app_context():
        found = db.read(lambda connection: connection.execute(VERSIONS).all())
        name, _, value = session_cookie(app, found[0].id).partition("=")
        session = serializer.loads(value)
        epoch, until = session["_user_id"].split(".")[1:3]
        polls = [
            (
                f"{name}={serializer.dumps({**session, '_user_id': f'{row.id}.{epoch}.{until}.session-{row.id}'})}",
                f'"{app.extensions["settings"].epoch}.{row.id}.{row.inbox_version}.0.20"',
            )
            for row in found
        ]
        db.engine().dispose()
    return polls
