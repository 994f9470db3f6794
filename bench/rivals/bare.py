"""The floors: an empty 304 from a bare WSGI function, and from a bare Flask. They know nobody and ask nothing."""

from collections.abc import Iterable
from wsgiref.types import StartResponse, WSGIEnvironment

import flask


def wsgi(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    start_response("304 Not Modified", [("ETag", '"0.1.100.0.20"'), ("X-Poll-Interval", "30")])
    return []


def create_app() -> flask.Flask:
    app = flask.Flask(__name__)

    @app.get("/notifications/unread")
    def unread() -> flask.Response:
        return flask.Response(status=304, headers={"ETag": '"0.1.100.0.20"', "X-Poll-Interval": "30"})

    return app
