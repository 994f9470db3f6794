"""The ordinary stack: Flask-Login, Flask-Limiter, Flask-SQLAlchemy and jsonify, put together as their quick starts do.

It answers the same content as Belfry, but has no versions, no tags and no sign-out on the server.
"""

import os
from datetime import datetime
from typing import Any

import flask
from flask_limiter import Limiter
from flask_login import LoginManager, UserMixin, current_user, login_required, login_user
from flask_sqlalchemy import SQLAlchemy
from sqlalchemy import JSON, DateTime, ForeignKey, Index, func, text
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from bench import data


class Base(DeclarativeBase):
    pass


database = SQLAlchemy(model_class=Base)
login_manager = LoginManager()
limiter = Limiter(key_func=lambda: current_user.get_id(), storage_uri="memory://")
api = flask.Blueprint("api", __name__)


class User(UserMixin, database.Model):  # type: ignore[name-defined,misc]
    id: Mapped[int] = mapped_column(primary_key=True)
    username: Mapped[str] = mapped_column(unique=True)
    password_hash: Mapped[str | None]
    created_at: Mapped[datetime] = mapped_column(DateTime(timezone=True), server_default=func.now())


class Notification(database.Model):  # type: ignore[name-defined,misc]
    __table_args__ = (Index("notification_unread", "user_id", "read_at"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    user_id: Mapped[int] = mapped_column(ForeignKey("user.id"))
    type: Mapped[str]
    title: Mapped[str]
    body: Mapped[str]
    body_html: Mapped[str]
    url: Mapped[str | None]
    actor_name: Mapped[str | None]
    actor_url: Mapped[str | None]
    actor_image: Mapped[str | None]
    data: Mapped[dict[str, Any]] = mapped_column(JSON)
    priority: Mapped[str]
    count: Mapped[int] = mapped_column(server_default=text("1"))
    created_at: Mapped[datetime] = mapped_column(DateTime(timezone=True))
    expires_at: Mapped[datetime] = mapped_column(DateTime(timezone=True))
    seen_at: Mapped[datetime | None] = mapped_column(DateTime(timezone=True))
    read_at: Mapped[datetime | None] = mapped_column(DateTime(timezone=True))
    archived_at: Mapped[datetime | None] = mapped_column(DateTime(timezone=True))

    def to_dict(self) -> dict[str, Any]:
        return {
            "id": self.id,
            "type": self.type,
            "title": self.title,
            "body": self.body,
            "body_html": self.body_html,
            "url": self.url,
            "actor": {"name": self.actor_name, "url": self.actor_url, "image": self.actor_image},
            "data": self.data,
            "priority": self.priority,
            "count": self.count,
            "created_at": self.created_at.isoformat(),
            "expires_at": self.expires_at.isoformat(),
            "seen_at": self.seen_at.isoformat() if self.seen_at else None,
            "read_at": self.read_at.isoformat() if self.read_at else None,
            "archived_at": self.archived_at.isoformat() if self.archived_at else None,
        }


@login_manager.user_loader
def load_user(user_id: str) -> User | None:
    return database.session.get(User, int(user_id))


@api.get("/notifications/unread")
@login_required
@limiter.limit(lambda: flask.current_app.config["POLL_LIMIT"])
def unread() -> flask.Response:
    mine = (
        Notification.user_id == current_user.id,
        Notification.read_at.is_(None),
        Notification.archived_at.is_(None),
        Notification.expires_at > func.now(),
    )
    newest = database.select(Notification).where(*mine).order_by(Notification.id.desc()).limit(20)
    unread_count = database.select(func.count()).select_from(Notification).where(*mine)
    unseen_count = unread_count.where(Notification.seen_at.is_(None))
    return flask.jsonify(
        user=current_user.username,
        notifications=[notification.to_dict() for notification in database.session.scalars(newest)],
        unread_count=database.session.scalar(unread_count),
        unseen_count=database.session.scalar(unseen_count),
    )


def create_app(**config: str) -> flask.Flask:
    app = flask.Flask(__name__)
    app.config.update(config or from_environment())
    database.init_app(app)
    login_manager.init_app(app)
    limiter.init_app(app)
    app.register_blueprint(api)
    return app


def from_environment() -> dict[str, str]:
    return {
        "SECRET_KEY": os.environ["SECRET_KEY"],
        "SQLALCHEMY_DATABASE_URI": os.environ["DATABASE_URL"],
        "POLL_LIMIT": os.environ["POLL_LIMIT"],
    }


FILL = f"""
    CREATE TEMPORARY TABLE content ON COMMIT DROP AS {data.CONTENT};
    INSERT INTO "user" (username) SELECT subject FROM content GROUP BY who, subject ORDER BY who;
    INSERT INTO notification (user_id, type, title, body, body_html, url, actor_name, actor_url, data, priority,
            created_at, expires_at, seen_at, read_at)
        SELECT "user".id, type, title, body, body_html, url, actor_name, actor_url, data, priority,
            content.created_at, expires_at, seen_at, read_at
        FROM content JOIN "user" ON username = subject ORDER BY number, who;
"""


def prepare(database_url: str) -> list[str]:
    """Fills the empty database; gives back each user's session cookie as a browser sends it."""
    app = create_app(SECRET_KEY=data.SECRET_KEY, SQLALCHEMY_DATABASE_URI=database_url)
    with app.app_context():
        database.create_all()
        data.fill(database_url, FILL)
        users = database.session.scalars(database.select(User).order_by(User.id)).all()
        cookies = [_cookie(app, user) for user in users]
        database.session.remove()
        database.engine.dispose()
    return cookies


def _cookie(app: flask.Flask, user: User) -> str:
    browser = {"User-Agent": data.USER_AGENT}
    with app.test_request_context(headers=browser, environ_overrides={"REMOTE_ADDR": "127.0.0.1"}):
        login_user(user)
        response = app.response_class()
        app.session_interface.save_session(app, flask.session, response)
        return response.headers["Set-Cookie"].partition(";")[0]
