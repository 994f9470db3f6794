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
USER_IDS = text("SELECT id FROM users ORDER BY id")


def prepare(database_url: str) -> list[str]:
    """Fills the empty database; gives back each user's session cookie as a browser sends it."""
    environment = {**os.environ, "DATABASE_URL": database_url, "SECRET_KEY": data.SECRET_KEY}
    subprocess.run([sys.executable, "-m", "flask", "db", "upgrade"], cwd=data.ROOT, env=environment, check=True)
    data.fill(database_url, FILL)
    app = create_app(database_url=database_url, secret_key=data.SECRET_KEY)
    with app.app_context():
        user_ids = db.read(lambda connection: connection.execute(USER_IDS).scalars().all())
    cookies = [_cookie(app, user_id) for user_id in user_ids]
    with app.app_context():
        db.engine().dispose()
    return cookies


def _cookie(app: flask.Flask, user_id: int) -> str:
    # Not within another context: Flask-Login keeps the user in `g`, and signing in would end that user's session.
    with app.test_request_context(headers={"User-Agent": data.USER_AGENT}):
        auth.start_session(user_id, hours=12)
        response = app.response_class()
        app.session_interface.save_session(app, flask.session, response)
        return response.headers["Set-Cookie"].partition(";")[0]
