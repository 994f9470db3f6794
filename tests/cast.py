"""The people of the tests."""

import contextvars
from typing import Any

import flask
from flask.testing import FlaskClient
from sqlalchemy import text
from werkzeug.test import TestResponse

from app import db, people
from app.auth import SignedIn
from app.people import Reader


class Browser(FlaskClient):
    """A client whose every request stands alone, as behind gunicorn.

    Tests hold an application context open, and a request inside it would find there who made the last one.
    """

    def open(self, *arguments: Any, **options: Any) -> TestResponse:
        options.setdefault("buffered", True)  # whoever looks at an answer from a file need not close that
        return contextvars.Context().run(super().open, *arguments, **options)


class Person:
    """Somebody with an inbox and a browser of their own."""

    def __init__(self, app: flask.Flask, subject: str) -> None:
        self.app = app
        self.subject = subject
        db.write(people.save_user, subject, None, None)
        self.id: int = db.read(
            lambda c: c.execute(text("SELECT id FROM users WHERE subject = :s"), {"s": subject}).scalar_one()
        )
        self.browser = self.signed_in_browser()

    def signed_in_browser(self) -> FlaskClient:
        """One more browser in which the person has signed in, with a session of its own."""
        reader = self.new_session()
        browser = self.app.test_client()
        with browser.session_transaction() as session:
            session["_user_id"] = SignedIn(reader).get_id()
            session["_fresh"] = True
            session.permanent = True
        return browser

    def new_session(self, hours: float = 12) -> Reader:
        reader = db.read(people.start_session, self.id, hours)
        assert reader is not None
        return reader

    def get(self, path: str, **options: Any) -> TestResponse:
        return self.browser.get(path, **options)

    def post(self, path: str, body: Any = None) -> TestResponse:
        return self.browser.post(path, json=body) if body is not None else self.browser.post(path)

    def poll(self, tag: str | None = None, limit: int | None = None) -> TestResponse:
        headers = {"If-None-Match": tag} if tag else {}
        query = {"limit": limit} if limit else {}
        return self.browser.get("/notifications/unread", headers=headers, query_string=query)

    def unread_ids(self) -> list[int]:
        return [notification["id"] for notification in self.poll().get_json()["notifications"]]
