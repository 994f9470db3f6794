"""A small web product with people and a session of its own, and Belfry's bell in its pages.

BELFRY_URL=http://127.0.0.1:8000 BELFRY_KEY=blf_… JWT_KEY=… flask --app flask_host run
"""

from __future__ import annotations

import html
import os
import re
import secrets
import time
import uuid
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import flask
import jwt
from belfry_client import BelfryError, Client, Event
from flask.typing import ResponseReturnValue
from flask_login import LoginManager, UserMixin, current_user, login_required, login_user, logout_user
from werkzeug.security import check_password_hash, generate_password_hash

PEOPLE = {"ada": "Ada Lovelace", "grace": "Grace Hopper", "charles": "Charles Babbage"}
PASSWORD_HASH = generate_password_hash("bell")  # of all of them: this is an example
TOKEN_SECONDS = 300
MENTION = re.compile(r"(?<![\w@.+-])@(\w+)")


class Person(UserMixin):  # type: ignore[misc]
    """Somebody who is signed in here. The id is the subject that Belfry knows the person by."""

    def __init__(self, subject: str) -> None:
        self.id = subject
        self.name = PEOPLE[subject]


class Comment(NamedTuple):
    """What somebody wrote."""

    id: str
    author: str
    text: str


def host(belfry_url: str, belfry_key: str, jwt_key: str, **limits: Any) -> flask.Flask:
    """The product. Its comments live as long as the process; `limits` are the client's."""
    app = flask.Flask(__name__)
    # A name of its own: cookies know no ports, and "session" is what every other example calls its own.
    app.config.update(SECRET_KEY=secrets.token_bytes(32), SESSION_COOKIE_NAME="flask-host")
    app.config["SESSION_COOKIE_SAMESITE"] = "Lax"  # so no other site's page can send these forms
    manager = LoginManager(app)
    manager.login_view = "sign_in"
    # A page is waiting: what Belfry does not take in three seconds is given up. A queue could try for longer.
    client = Client(belfry_url, belfry_key, **{"attempts": 2, "deadline": 3, "timeout": 2, **limits})
    comments: list[Comment] = []
    bell = "{0.scheme}://{0.netloc}".format(urlsplit(belfry_url))

    @manager.user_loader  # type: ignore[untyped-decorator]
    def load(subject: str) -> Person | None:
        return Person(subject) if subject in PEOPLE else None

    @app.route("/sign-in", methods=["GET", "POST"])
    def sign_in() -> ResponseReturnValue:
        if flask.request.method == "POST":
            subject, password = flask.request.form["name"], flask.request.form["password"]
            if subject in PEOPLE and check_password_hash(PASSWORD_HASH, password):
                login_user(Person(subject))
                return flask.redirect(flask.url_for("notes"), 303)
        return flask.render_template("sign_in.html", people=PEOPLE)

    @app.post("/sign-out")
    @login_required  # type: ignore[untyped-decorator]
    def sign_out() -> ResponseReturnValue:
        try:
            client.sign_out_user(current_user.id)  # Belfry's own session, if `inbox` below began one
        except BelfryError as error:
            app.logger.error("%s may still be signed in at Belfry: %s", current_user.id, error)
        logout_user()
        return flask.redirect(flask.url_for("sign_in"), 303)

    @app.get("/")
    @login_required  # type: ignore[untyped-decorator]
    def notes() -> ResponseReturnValue:
        return flask.render_template("notes.html", comments=comments, people=PEOPLE, belfry=belfry_url)

    @app.post("/comments")
    @login_required  # type: ignore[untyped-decorator]
    def write() -> ResponseReturnValue:
        comment = Comment(uuid.uuid4().hex, current_user.id, flask.request.form["text"][:2000])
        comments.append(comment)
        link = flask.url_for("notes", _external=True, _anchor=comment.id)
        events = to_events(comment, {earlier.author for earlier in comments}, link)
        try:
            if events:
                client.batch(events, idempotency_key=f"comment-{comment.id}")
        except BelfryError as error:
            app.logger.error("nobody was notified of comment %s: %s", comment.id, error)
        return flask.redirect(link, 303)

    # A host that has its own session already needs no other sign-in for its bell. These are the ten lines.
    @app.get("/bell-token")
    def bell_token() -> ResponseReturnValue:
        if not current_user.is_authenticated:
            return {"error": "You are not signed in."}, 401
        claims = {"sub": current_user.id, "exp": int(time.time()) + TOKEN_SECONDS}
        response = flask.jsonify(token=jwt.encode(claims, jwt_key, "HS256"))
        response.headers["Cache-Control"] = "no-store"
        return response

    # The other way: Belfry's own session, for its inbox page or for a bell on the same site.
    @app.get("/inbox")
    @login_required  # type: ignore[untyped-decorator]
    def inbox() -> ResponseReturnValue:
        client.save_user(current_user.id, display_name=current_user.name)
        return flask.redirect(client.ticket(current_user.id), 303)

    @app.errorhandler(BelfryError)
    def apologise(error: BelfryError) -> ResponseReturnValue:
        app.logger.error("Belfry: %s", error)
        return "Your inbox does not answer just now. Try again in a minute.", 503

    @app.after_request
    def protect(response: flask.Response) -> flask.Response:
        response.headers["Content-Security-Policy"] = (
            f"default-src 'none'; script-src {bell}; style-src 'self' {bell}; img-src 'self' {bell};"
            f" connect-src 'self' {bell}; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
        )
        return response

    return app


def to_events(comment: Comment, authors: set[str], url: str) -> list[Event]:
    """Who hears of a comment: who is named in it, and who wrote before. Nobody hears of their own."""
    named = {name for name in MENTION.findall(comment.text.lower()) if name in PEOPLE} - {comment.author}
    others = authors - named - {comment.author}
    name = PEOPLE[comment.author]
    about: dict[str, Any] = {
        "body": html.escape(comment.text[:500], quote=False),  # Belfry reads bodies as HTML, and this is text
        "url": url,
        "actor": name,
        "group_key": "note-g",
    }
    events = [
        Event(sorted(named), f"{name} mentioned you in “Note G”", "mention", **about) if named else None,
        Event(sorted(others), f"{name} commented on “Note G”", "comment", **about) if others else None,
    ]
    return [event for event in events if event]


def create_app() -> flask.Flask:
    """The product as its environment has it."""
    url, key, jwt_key = (os.environ.get(name, "") for name in ("BELFRY_URL", "BELFRY_KEY", "JWT_KEY"))
    if not (url and key and jwt_key):
        raise SystemExit("Set BELFRY_URL, BELFRY_KEY and JWT_KEY.")
    return host(url, key, jwt_key)
