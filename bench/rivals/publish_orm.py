"""Publishing one event as the ordinary stack would: a view that loads, changes and adds objects, and commits.

It does what Belfry's endpoint does: the key, its limit, the checks, clean text, unknown users made, muted types left
out, the inbox's number raised under a lock. It has no idempotency keys and no groups.
"""

import hashlib
import hmac
import os
from datetime import UTC, datetime, timedelta
from typing import Any

import bleach
import flask
from flask_limiter import Limiter
from flask_sqlalchemy import SQLAlchemy
from pydantic import BaseModel, Field, ValidationError
from sqlalchemy import JSON, DateTime, ForeignKey, Index, func
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship

from bench import data

TAGS = ["b", "strong", "i", "em", "code", "br", "a"]


class Base(DeclarativeBase):
    pass


database = SQLAlchemy(model_class=Base)
limiter = Limiter(key_func=lambda: flask.request.headers.get("Authorization", ""), storage_uri="memory://")
api = flask.Blueprint("api", __name__)


class User(database.Model):  # type: ignore[name-defined,misc]
    id: Mapped[int] = mapped_column(primary_key=True)
    username: Mapped[str] = mapped_column(unique=True)
    version: Mapped[int] = mapped_column(default=0)


class ApiKey(database.Model):  # type: ignore[name-defined,misc]
    id: Mapped[int] = mapped_column(primary_key=True)
    prefix: Mapped[str] = mapped_column(unique=True)
    digest: Mapped[str]


class Preference(database.Model):  # type: ignore[name-defined,misc]
    user_id: Mapped[int] = mapped_column(ForeignKey("user.id"), primary_key=True)
    type: Mapped[str] = mapped_column(primary_key=True)
    muted: Mapped[bool]


class Event(database.Model):  # type: ignore[name-defined,misc]
    id: Mapped[int] = mapped_column(primary_key=True)
    api_key_id: Mapped[int] = mapped_column(ForeignKey("api_key.id"))
    type: Mapped[str]
    title: Mapped[str]
    body: Mapped[str]
    body_html: Mapped[str]
    url: Mapped[str | None]
    actor_name: Mapped[str | None]
    data: Mapped[dict[str, Any]] = mapped_column(JSON)
    created_at: Mapped[datetime] = mapped_column(DateTime(timezone=True), server_default=func.now())
    expires_at: Mapped[datetime] = mapped_column(DateTime(timezone=True))


class Notification(database.Model):  # type: ignore[name-defined,misc]
    __table_args__ = (Index("notification_unread", "user_id", "read_at"), Index("notification_event", "event_id"))

    id: Mapped[int] = mapped_column(primary_key=True)
    user_id: Mapped[int] = mapped_column(ForeignKey("user.id"))
    event_id: Mapped[int] = mapped_column(ForeignKey("event.id"))
    version: Mapped[int]
    expires_at: Mapped[datetime] = mapped_column(DateTime(timezone=True), index=True)
    read_at: Mapped[datetime | None] = mapped_column(DateTime(timezone=True))
    event: Mapped[Event] = relationship()


class Actor(BaseModel):
    name: str = Field(max_length=100)


class Body(BaseModel):
    type: str = Field(pattern=r"^[a-z0-9][a-z0-9_.-]{0,49}$")
    title: str = Field(max_length=2000)
    body: str = Field("", max_length=4000)
    url: str | None = Field(None, max_length=2000)
    actor: Actor | None = None
    data: dict[str, Any] = {}
    recipients: list[str] = Field(min_length=1, max_length=1000)


@api.post("/api/v1/events")
@limiter.limit("1000000 per minute")
def publish() -> tuple[flask.Response, int]:
    prefix, _, secret = flask.request.headers.get("Authorization", "").removeprefix("Bearer ").partition("_")
    key = database.session.scalar(database.select(ApiKey).where(ApiKey.prefix == prefix))
    if key is None or not hmac.compare_digest(key.digest, hashlib.sha256(secret.encode()).hexdigest()):
        flask.abort(401)
    try:
        body = Body.model_validate(flask.request.get_json())
    except ValidationError as error:
        return flask.jsonify(errors=error.errors(include_url=False)), 422
    event = Event(
        api_key_id=key.id,
        type=body.type,
        title=bleach.clean(body.title, tags=[], strip=True),
        body=bleach.clean(body.body, tags=[], strip=True),
        body_html=bleach.clean(body.body, tags=TAGS, strip=True),
        url=body.url,
        actor_name=body.actor.name if body.actor else None,
        data=body.data,
        expires_at=datetime.now(UTC) + timedelta(days=30),
    )
    database.session.add(event)
    users = _find_or_make(body.recipients)
    muted = set(
        database.session.scalars(
            database.select(Preference.user_id).where(
                Preference.user_id.in_([user.id for user in users]), Preference.type == body.type, Preference.muted
            )
        )
    )
    created = [user for user in users if user.id not in muted]
    for user in created:
        user.version += 1
        database.session.add(
            Notification(user_id=user.id, event=event, version=user.version, expires_at=event.expires_at)
        )
    database.session.commit()
    answer = {"event_id": event.id, "recipients": len(users), "created": len(created), "muted": len(muted)}
    return flask.jsonify(answer), 201


def _find_or_make(names: list[str]) -> list[User]:
    wanted = database.select(User).where(User.username.in_(names)).order_by(User.id).with_for_update()
    users = list(database.session.scalars(wanted))
    missing = set(names) - {user.username for user in users}
    if missing:
        database.session.add_all(User(username=name) for name in missing)
        database.session.flush()
        users = list(database.session.scalars(wanted))
    return users


def create_app(**config: str) -> flask.Flask:
    app = flask.Flask(__name__)
    app.config["SQLALCHEMY_DATABASE_URI"] = config.get("database_url") or os.environ["DATABASE_URL"]
    database.init_app(app)
    limiter.init_app(app)
    app.register_blueprint(api)
    return app


def prepare(database_url: str, users: int, keys: int) -> list[str]:
    """Fills the empty database; gives back the API keys."""
    app = create_app(database_url=database_url)
    with app.app_context():
        database.create_all()
        data.fill(
            database_url,
            f"""
            INSERT INTO "user" (username, version) SELECT 'user-' || n, 0 FROM generate_series(1, {users}) AS n;
            INSERT INTO api_key (prefix, digest)
                SELECT 'key' || n, encode(sha256(('secret' || n)::bytea), 'hex') FROM generate_series(1, {keys}) AS n
            """,
        )
        database.engine.dispose()
    return [f"key{number}_secret{number}" for number in range(1, keys + 1)]
