"""The short way in for polls, in front of Flask: a poll with nothing new is answered 304 from what this worker knows.

It answers the plain common case and passes everything else on; switched off, polls only cost more.
"""

import time
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import flask
from werkzeug.exceptions import SecurityError
from werkzeug.wsgi import get_host

from app import changes, guard, inbox, known
from app.settings import Settings

POLL = "/notifications/unread"
# Every query that a bell sends, and how the tag of its answer ends.
ENDINGS = {"": '20"', **{f"limit={limit}": f'{limit}"' for limit in range(1, 101)}}
# With one of these a request is not the plain case: another caller than the cookie's, or another page than ours.
NOT_PLAIN = ("HTTP_AUTHORIZATION", "HTTP_ORIGIN")
MOST_HOSTS = 64


def init_app(app: flask.Flask, settings: Settings) -> None:
    if settings.fast_path:
        what_we_know: known.Known = app.extensions["known"]
        hub: changes.Changes = app.extensions["changes"]
        hub.listener.in_between = lambda connection: what_we_know.keep_up(partial(inbox.positions, connection))
        app.wsgi_app = FastPath(app, settings)  # type: ignore[method-assign]


class FastPath:
    """The application with the short way in front of it."""

    def __init__(self, app: flask.Flask, settings: Settings) -> None:
        self.application: Callable[..., Iterable[bytes]] = app.wsgi_app
        self.known: known.Known = app.extensions["known"]
        self.count_poll: Callable[..., float] = app.extensions["polls"].count
        # The proxy in front may take the prefix off or leave it on, as for app/guard.py.
        self.paths = {POLL, settings.prefix + POLL}
        self.beginning = f'"{settings.epoch}'
        self.cookie_name: str = app.config["SESSION_COOKIE_NAME"]
        self.trusted_hosts: list[str] = app.config["TRUSTED_HOSTS"]
        self.hosts: set[str] = set()
        self.headers = [
            ("X-Poll-Interval", str(settings.poll_interval)),
            *guard.headers_of_unchanged(settings).items(),
        ]

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        if environ.get("PATH_INFO") in self.paths:
            tag = self._unchanged_tag(environ)
            if tag is not None:
                start_response("304 NOT MODIFIED", [*self.headers, ("ETag", tag)])
                return ()
        return self.application(environ, start_response)

    def _unchanged_tag(self, environ: dict[str, Any]) -> str | None:
        """The caller's tag, if the request is plain, the tag is known to be true for its session, and it may poll."""
        given, cookies = environ.get("HTTP_IF_NONE_MATCH"), environ.get("HTTP_COOKIE")
        if given is None or cookies is None or environ["REQUEST_METHOD"] != "GET" or environ.get("SCRIPT_NAME"):
            return None
        if any(name in environ for name in NOT_PLAIN) or not self._is_our_host(environ):
            return None
        tag: str = given.removeprefix("W/")  # a compressing proxy weakens it
        parts = tag.split(".")
        if len(parts) != 5 or parts[0] != self.beginning or parts[4] != ENDINGS.get(environ.get("QUERY_STRING", "")):
            return None
        caller = self._caller(parts[1], parts[2], parts[3], cookies)
        return tag if caller and not self.count_poll(*caller) else None

    def _caller(self, user: str, version: str, until: str, cookies: str) -> tuple[int, str] | None:
        """Whose poll this is, if that inbox is known to be at this version and the cookie known to be its owner's."""
        if not (user.isdecimal() and until.isdecimal()) or len(user) + len(until) > 38:
            return None
        user_id = int(user)
        found = self.known.find(user_id)
        if found is None or str(user_id) != user or str(found.version) != version:
            return None
        now = time.monotonic()
        if now >= found.good_until or (until != "0" and (now + self.known.ahead) * 1_000_000 >= int(until)):
            return None
        cookie = self._cookie(cookies)
        session_id = found.session_of(cookie) if cookie else None
        if session_id is None:
            return None
        found.asked = now
        return user_id, f"session/{session_id}"

    def _cookie(self, cookies: str) -> str | None:
        """The session's cookie where it stands once and plainly; what wants interpreting is Werkzeug's."""
        name = self.cookie_name
        start = cookies.find(f"{name}=")
        if start < 0 or cookies.count(name) != 1 or (start and cookies[max(0, start - 2) : start] != "; "):
            return None
        end = cookies.find(";", start)
        return cookies[start + len(name) + 1 : end if end >= 0 else None]

    def _is_our_host(self, environ: dict[str, Any]) -> bool:
        host = environ.get("HTTP_HOST")
        if host in self.hosts:
            return True
        try:
            if not host or not get_host(environ, self.trusted_hosts):
                return False
        except SecurityError:
            return False
        if len(self.hosts) < MOST_HOSTS:  # a port may be any
            self.hosts.add(host)
        return True
