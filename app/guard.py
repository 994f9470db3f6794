"""The wall around every route: the cross-site rule, CORS for the hosts' pages, sizes and proxies."""

from collections.abc import Callable, Iterable
from typing import Any
from urllib.parse import urlsplit

import flask
from gunicorn.http.errors import ParseException
from werkzeug.exceptions import RequestEntityTooLarge
from werkzeug.middleware.proxy_fix import ProxyFix
from werkzeug.routing import IntegerConverter

from app import headers
from app.errors import Problem
from app.settings import Settings

BODY_BYTES = 64 * 1024
API = "inbox_api"
PREFERENCES = "preferences_api"
READERS = {API, PREFERENCES}  # the blueprints that pages on other origins may call
SAFE_METHODS = {"GET", "HEAD", "OPTIONS"}


PREFLIGHT = {
    "Access-Control-Allow-Methods": "GET, POST, PUT, DELETE",
    "Access-Control-Allow-Headers": "Authorization, Content-Type, If-None-Match, Belfry-User",
    "Access-Control-Max-Age": "7200",
}
EXPOSED_HEADERS = "ETag, X-Poll-Interval, Retry-After"


class AsciiInteger(IntegerConverter):
    """A number in an address. Werkzeug's own takes every script's digits, so one thing would have many addresses."""

    regex = "[0-9]+"


def init_app(app: flask.Flask, settings: Settings) -> None:
    guard = Guard(settings)
    # Before any route is made, and under the name of Werkzeug's own: no route can forget it.
    app.url_map.converters["int"] = AsciiInteger
    # One byte more than is allowed: of a body in chunks Werkzeug hands over that much and drops the rest silently.
    app.config.update(MAX_CONTENT_LENGTH=BODY_BYTES + 1, TRUSTED_HOSTS=settings.hosts)
    app.before_request(guard.answer_preflight)
    app.before_request(guard.refuse_cross_site)
    app.after_request(guard.add_headers)
    app.wsgi_app = under_prefix(app.wsgi_app, settings.prefix)  # type: ignore[method-assign]
    if settings.trusted_proxies:
        # Exactly as many entries as there are proxies: one more, and a client could name its own address.
        count = settings.trusted_proxies
        known = with_a_known_scheme(app.wsgi_app)
        app.wsgi_app = ProxyFix(known, x_for=count, x_proto=count, x_host=0)  # type: ignore[method-assign]


def with_a_known_scheme(application: Callable[..., Any]) -> Callable[..., Iterable[bytes]]:
    """The application, whatever stands in `X-Forwarded-Proto`: some redirects are put together with it."""

    def known(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        if environ["wsgi.url_scheme"] not in ("http", "https"):
            environ["wsgi.url_scheme"] = "http"
        result: Iterable[bytes] = application(environ, start_response)
        return result

    return known


def under_prefix(application: Callable[..., Any], prefix: str) -> Callable[..., Iterable[bytes]]:
    """The application under the path of `PUBLIC_URL`, whether or not the proxy in front takes that path off."""

    def under(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        path = environ.get("PATH_INFO", "")
        if prefix and (path == prefix or path.startswith(f"{prefix}/")):
            environ["PATH_INFO"] = path.removeprefix(prefix)
        environ["SCRIPT_NAME"] = prefix
        result: Iterable[bytes] = application(environ, start_response)
        return result

    return under if prefix else application


class Guard:
    """Lets through, and adds to answers, what the settings allow."""

    def __init__(self, settings: Settings) -> None:
        self.cors_origins = set(settings.cors_origins)
        self.allowed_origins = self.cors_origins | {settings.own_origin}
        self.transport, self.bodies = headers.of_transport(settings), headers.of_bodies(settings)
        self.exposed_headers = EXPOSED_HEADERS + (", X-Image-Origins" if settings.image_origins else "")

    def refuse_cross_site(self) -> None:
        """The published Fetch-Metadata rule, for every change, as in Go's http.CrossOriginProtection.

        An allowed Origin passes; `Sec-Fetch-Site` must say same-origin or none; without that header the Origin must be
        the host's own; with neither header it is no browser, and nobody's cookies are at stake.
        """
        request = flask.request
        if request.method in SAFE_METHODS or request.headers.get("Authorization", "").lower().startswith("bearer "):
            return  # no browser adds that header by itself: whoever sent it knew a token or a key
        origin = request.headers.get("Origin")
        site = request.headers.get("Sec-Fetch-Site")
        if origin in self.allowed_origins:
            return
        if site is not None:
            passes = site in ("same-origin", "none")
        else:
            passes = origin is None or _host_of(origin) == request.host
        if not passes:
            raise Problem(403, "This request comes from a page of another site.")

    def answer_preflight(self) -> flask.Response | None:
        """Answers a browser that asks whether an allowed page may call the API; no limit counts it."""
        request = flask.request
        if request.method != "OPTIONS" or "Access-Control-Request-Method" not in request.headers:
            return None
        response = flask.Response(status=204)
        if request.blueprint in READERS and request.headers.get("Origin") in self.cors_origins:
            response.headers.update(PREFLIGHT)
        return response

    def add_headers(self, response: flask.Response) -> flask.Response:
        is_static = flask.request.endpoint == "static"
        given = response.headers
        given.update(self.transport)
        if response.status_code != 304 or is_static:
            for name, value in self.bodies.items():
                given.setdefault(name, value)
        if response.mimetype == "text/html":
            given.update(headers.PAGE)
        if is_static:
            given.update(headers.STATIC)
            return response
        given.update(headers.UNKEPT)
        given.update(headers.NOT_ELSEWHERE)
        if response.status_code == 401:
            # RFC 9110 wants the way in named. For this one no browser opens a dialog of its own.
            given["WWW-Authenticate"] = "Bearer"
        if flask.request.blueprint in READERS and self.cors_origins:
            self._add_cors(response)
        return response

    def _add_cors(self, response: flask.Response) -> None:
        response.vary.add("Origin")
        origin = flask.request.headers.get("Origin")
        if origin in self.cors_origins:
            response.headers["Access-Control-Allow-Origin"] = origin
            response.headers["Access-Control-Allow-Credentials"] = "true"
            response.headers["Access-Control-Expose-Headers"] = self.exposed_headers


def _host_of(origin: str) -> str | None:
    try:
        return urlsplit(origin).netloc
    except ValueError:  # `http://[` and the like: no browser says that
        return None


def json_body(longest: int = BODY_BYTES) -> bytes:
    """The request's body, which must call itself JSON; none at all may come without a type. 413, 415."""
    raw = _whole_body(longest)
    if (raw or flask.request.content_type) and flask.request.mimetype != "application/json":
        raise Problem(415, "The body must be application/json.")
    return raw


def form() -> dict[str, str]:
    """The fields of a submitted form, each once, which must be encoded as a plain form. 413, 415."""
    _whole_body()
    if flask.request.mimetype != "application/x-www-form-urlencoded":
        raise Problem(415, "The body must be a form: application/x-www-form-urlencoded.")
    return flask.request.form.to_dict()


def _whole_body(longest: int = BODY_BYTES) -> bytes:
    # One byte more than is allowed: of a body in chunks Werkzeug hands over that much and drops the rest silently.
    flask.request.max_content_length = longest + 1
    try:
        raw = flask.request.get_data()
    except (OSError, ParseException):  # of gunicorn's: what calls itself chunks, and is none
        raise Problem(400, "The body ends before its end, or is not in chunks as it says.") from None
    if len(raw) > longest:
        raise RequestEntityTooLarge
    return raw
