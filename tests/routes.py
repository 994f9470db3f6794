"""Every route of the service, each in exactly one list, with a request that works for who may make it."""

from typing import Any

import flask
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

# Method and path of a route -> the JSON that it takes; None where it takes none. Of signed-in readers only.
API: dict[str, Any] = {
    "GET /notifications": None,
    "GET /notifications/unread": None,
    "GET /notifications/<int:id>": None,
    "POST /notifications/<int:id>/read": None,
    "POST /notifications/<int:id>/unread": None,
    "POST /notifications/<int:id>/archive": None,
    "POST /notifications/<int:id>/unarchive": None,
    "POST /notifications/read": {"through": 1},
    "POST /notifications/unread": {"ids": [1]},
    "POST /notifications/archive": {"ids": [1]},
    "POST /notifications/seen": {"through": 1},
    "POST /notifications/undo": {"undo": 2},
    "GET /preferences": None,
    "PUT /preferences/<type>": {"muted": False},
}
# The same for pages: the form that they take.
PAGES: dict[str, Any] = {
    "GET /": None,
    "POST /<any(read, unread, archive, unarchive, seen):verb>": {"through": "1"},
    "POST /undo": {"undo": "1"},
    "GET /types": None,
    "POST /types": {"type": "comment", "muted": "1"},
}
# For everybody.
OPEN: dict[str, Any] = {
    "GET /login": None,
    "POST /login": {"username": "alice", "password": "wrong"},
    "POST /logout": {},
    "GET /tickets/<ticket>": None,
    "POST /tickets/<ticket>": {},
    "GET /static/<path:filename>": None,
    "GET /openapi.json": None,
    "GET /livez": None,
    "GET /metrics": None,
    "GET /readyz": None,
    "GET /doctor": None,
}

# The senders' API, below /api/v1: method, path and the scope that a key must have.
SENDERS = [
    ("POST", "/events", "publish"),
    ("POST", "/events/batch", "publish"),
    ("GET", "/events/1", "publish"),
    ("DELETE", "/events/1", "publish"),
    ("PUT", "/users/alice", "people"),
    ("DELETE", "/users/alice", "people"),
    ("GET", "/users/alice/export", "people"),
    ("POST", "/users/alice/sign-out", "people"),
    ("POST", "/tickets", "tickets"),
]

EXAMPLES = {
    "<any(read, unread, archive, unarchive, seen):verb>": "read",
    "<int:id>": "1",
    "<ticket>": "unknown",
    "<type>": "comment",
    "<path:filename>": "js/poller.js",
}


def of(app: flask.Flask) -> set[str]:
    """The routes that the app really has, but for the senders', which tests/test_credentials.py holds."""
    return {
        f"{method} {rule.rule}"
        for rule in app.url_map.iter_rules()
        if not rule.rule.startswith("/api/v1/")
        for method in (rule.methods or set()) - {"HEAD", "OPTIONS"}
    }


def path_of(route: str) -> str:
    path = route.split(" ", 1)[1]
    for variable, value in EXAMPLES.items():
        path = path.replace(variable, value)
    return path


def call(browser: FlaskClient, route: str, reader: int = 0, **options: Any) -> TestResponse:
    """Makes the route's request; `reader` is the user for whom a page's form was drawn."""
    method = route.split(" ", 1)[0]
    body = {**API, **PAGES, **OPEN}[route]
    if route in PAGES and body is not None:
        body = {**body, "reader": reader}
    if body is not None:
        options["json" if route in API else "data"] = body
    return browser.open(path_of(route), method=method, **options)
