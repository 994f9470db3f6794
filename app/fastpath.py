"""The short way in for polls, in front of Flask: with nothing new they are answered 304 from what this worker knows.

What it does not know it asks the database, by the functions that the ordinary way uses. It answers the plain common
case and passes everything else on; switched off, polls only cost more.
"""

import time
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any, cast

import flask
from flask.sessions import SecureCookieSessionInterface
from itsdangerous import BadSignature
from werkzeug.exceptions import SecurityError
from werkzeug.wsgi import get_host

from app import auth, changes, headers, inbox, known, metrics, polling, steering
from app.people import Reader
from app.poll_counter import PollCounter
from app.polling import Answer
from app.recent import Recent
from app.settings import Settings

POLL = "/notifications/unread"
# Every query that a bell sends, and the limit that it asks for.
LIMITS = {"": 20, **{f"limit={limit}": limit for limit in range(1, 101)}}
# How the tag of its answer ends.
ENDINGS = {query: f'{limit}"' for query, limit in LIMITS.items()}
MOST_HOSTS = 64
MOST_READERS = 10_000  # cookies whose signature need not be computed anew
READER_SECONDS = 60


def init_app(app: flask.Flask, settings: Settings) -> None:
    if settings.fast_path:
        what_we_know: known.Known = app.extensions["known"]
        hub: changes.Changes = app.extensions["changes"]
        hub.listener.in_between = lambda connection: what_we_know.keep_up(partial(inbox.positions, connection))
        app.wsgi_app = FastPath(app, settings)  # type: ignore[method-assign]


class FastPath:
    """The application with the short way in front of it."""

    def __init__(self, app: flask.Flask, settings: Settings) -> None:
        self.app = app
        self.application: Callable[..., Iterable[bytes]] = app.wsgi_app
        self.known: known.Known = app.extensions["known"]
        self.polls: PollCounter = app.extensions["polls"]
        # The proxy in front may take the prefix off or leave it on, as for app/guard.py.
        self.paths = {POLL, settings.prefix + POLL}
        self.beginning = f'"{settings.epoch}'
        self.cookie_name: str = app.config["SESSION_COOKIE_NAME"]
        self.trusted_hosts: list[str] = app.config["TRUSTED_HOSTS"]
        self.hosts: set[str] = set()
        self.unchanged = list(headers.of_unchanged(settings).items())
        self.snapshot = [("Content-Type", "application/json"), *headers.of_snapshot(settings).items()]
        interface = cast(SecureCookieSessionInterface, app.session_interface)
        self.signatures = interface.get_signing_serializer(app)
        self.readers: Recent[bytes, Reader] = Recent(READER_SECONDS, MOST_READERS)
        self.answered_200, self.answered_304 = metrics.POLLS.of("200"), metrics.POLLS.of("304")

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        if environ.get("PATH_INFO") in self.paths and self._is_plain(environ):
            cookie = self._cookie(environ["HTTP_COOKIE"])
            if cookie is not None:
                tag = self._unchanged_tag(environ, cookie)
                if tag is not None:
                    return self._answer(Answer(tag, None), start_response)
                answer = self._ask(environ, cookie)
                if answer is not None:
                    return self._answer(answer, start_response)
        return self.application(environ, start_response)

    def _is_plain(self, environ: dict[str, Any]) -> bool:
        return (
            environ["REQUEST_METHOD"] == "GET"
            and "HTTP_COOKIE" in environ
            and not environ.get("SCRIPT_NAME")
            # Another caller than the cookie's, another page than ours, or a reader who wants to be made sure of.
            and "HTTP_AUTHORIZATION" not in environ
            and "HTTP_ORIGIN" not in environ
            and "HTTP_BELFRY_USER" not in environ
            and self._is_our_host(environ)
        )

    def _unchanged_tag(self, environ: dict[str, Any], cookie: str) -> str | None:
        """The caller's tag, if it is known to be true for the cookie's session, and that may poll."""
        tag: str = environ.get("HTTP_IF_NONE_MATCH", "").removeprefix("W/")  # a compressing proxy weakens it
        parts = tag.split(".")
        if len(parts) != 5 or parts[0] != self.beginning or parts[4] != ENDINGS.get(environ.get("QUERY_STRING", "")):
            return None
        caller = self._caller(parts[1], parts[2], parts[3], cookie)
        return tag if caller and not self.polls.count(*caller) else None

    def _caller(self, user: str, version: str, until: str, cookie: str) -> tuple[int, str] | None:
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
        session_id = found.session_of(cookie)
        if session_id is None:
            return None
        found.asked = now
        return user_id, f"session/{session_id}"

    def _answer(self, answer: Answer, start_response: Any) -> Iterable[bytes]:
        headers = [("ETag", answer.tag), ("X-Poll-Interval", str(self._steering().interval()))]
        if answer.body is None:
            self.answered_304.count += 1
            start_response("304 NOT MODIFIED", [*self.unchanged, *headers])
            return ()
        self.answered_200.count += 1
        start_response("200 OK", [*self.snapshot, *headers, ("Content-Length", str(len(answer.body)))])
        return (answer.body,)

    def _ask(self, environ: dict[str, Any], cookie: str) -> Answer | None:
        """The answer from the database; None where the poll is to be refused, for Flask to say why."""
        limit, reader = LIMITS.get(environ.get("QUERY_STRING", "")), self._reader(cookie)
        if limit is None or reader is None or self.polls.wait(reader.user_id, reader.counted_as):
            return None
        started = time.monotonic()
        try:
            with self.app.app_context():
                answer = polling.answer(reader, limit, environ.get("HTTP_IF_NONE_MATCH"), cookie)
        except Exception as error:  # whatever it is, Flask knows what to answer
            environ[polling.TROUBLE] = error
            return None
        finally:
            self._steering().note(time.monotonic() - started)
        # None where others of the same reader's polls were faster.
        return None if self.polls.count(reader.user_id) else answer

    def _steering(self) -> steering.Steering:
        found: steering.Steering = self.app.extensions["steering"]
        return found

    def _reader(self, cookie: str) -> Reader | None:
        """Whom the cookie names, by Flask's own signature; one that was seen lately is not computed anew."""
        key = known.digest(cookie)
        reader = self.readers.get(key)
        if reader is None and self.signatures is not None:
            try:
                session = self.signatures.loads(cookie)
            except BadSignature:
                return None
            signed_in = auth.load(str(session.get("_user_id", "")))
            if signed_in is not None:
                reader = signed_in.reader
                self.readers.put(key, reader, time.monotonic())
        return reader

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
