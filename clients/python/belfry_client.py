"""A client for Belfry, the notification bell of your web product. One file, the standard library only.

    client = Client("https://app.example/belfry", os.environ["BELFRY_KEY"])
    client.notify("alice", "Grace replied to you", type="comment", url="/notes/7")

Every call may safely be made again, so what fails for a moment is: no connection, an answer cut off, 429, 502, 503,
504, and 409 while an equal call is at work. Waits grow with full jitter and obey `Retry-After`; `attempts` and
`deadline` end them. Publishing carries the same idempotency key each time, so nothing arrives twice.

A `Client` holds no connection: threads may share one.
"""

from __future__ import annotations

import email.utils
import http.client
import json
import random
import time
import urllib.error
import urllib.parse
import urllib.request
import uuid
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any, Callable, NamedTuple, TypeVar

__version__ = "0.1.0"
__all__ = ["BelfryError", "Client", "Event", "FieldError", "Published", "Refused", "State", "Unreachable", "User"]

FIRST_WAIT = 0.5  # seconds; the longest wait doubles with every attempt
LONGEST_WAIT = 30.0
PASSING = {429, 502, 503, 504}  # statuses that say: not now
AT_WORK = 409  # an equal call has the idempotency key and has not ended

Answer = TypeVar("Answer")


class FieldError(NamedTuple):
    """What is wrong with one field, such as `events[10].title`."""

    field: str
    message: str


class BelfryError(Exception):
    """Whatever keeps a call from succeeding."""


class Unreachable(BelfryError):
    """No answer came, as often as it was tried; `__cause__` is the last reason."""


class Refused(BelfryError):
    """The service's answer is no. Its text says why; the attributes are those of the problem it answered with."""

    def __init__(
        self, status: int, detail: str, errors: Sequence[FieldError] = (), request_id: str | None = None
    ) -> None:
        shown = "; ".join(f"{error.field} {error.message}" for error in errors) or detail
        super().__init__(f"{status}: {shown}" + (f" (request {request_id})" if request_id else ""))
        self.status = status
        self.detail = detail
        self.errors = list(errors)
        self.request_id = request_id


@dataclass(frozen=True)
class Event:
    """What happened, and who is to hear of it: one subject, or a list of up to 1,000."""

    recipients: str | Sequence[str]
    title: str
    type: str
    body: str | None = None
    url: str | None = None
    actor: str | Mapping[str, str | None] | None = None  # a name, or {"name", "url", "image"}
    data: Mapping[str, Any] | None = None
    priority: str | None = None  # "low", "normal" or "high"
    group_key: str | None = None
    expires_in: int | None = None  # seconds
    expires_at: datetime | None = None

    def as_json(self) -> dict[str, Any]:
        """The event as the service takes it, without what was left out."""
        if self.recipients == "everyone":  # or a person would be made of that name, and nobody would hear of it
            raise ValueError('everyone is reached by notify_everyone, and a person of that name as ["everyone"]')
        content = {name: value for name, value in vars(self).items() if value is not None}
        content["recipients"] = [self.recipients] if isinstance(self.recipients, str) else list(self.recipients)
        if isinstance(self.actor, str):
            content["actor"] = {"name": self.actor}
        if self.expires_at is not None:
            if self.expires_at.tzinfo is None:
                raise ValueError("expires_at must have a time zone: datetime.now(timezone.utc) + …")
            content["expires_at"] = self.expires_at.isoformat()
        return content


class Published(NamedTuple):
    """What became of an event. Recipients who muted its type count as `muted`, and got no notification."""

    event_id: int
    recipients: int
    created: int
    muted: int


class State(NamedTuple):
    """In how many inboxes an event arrived, in how many it is still, and how many of those saw it and read it."""

    event_id: int
    type: str
    created_at: datetime
    expires_at: datetime
    retracted_at: datetime | None
    received: int
    held: int
    seen: int
    read: int


class User(NamedTuple):
    """A person as the service knows them."""

    subject: str
    display_name: str | None
    is_active: bool


class Client:
    """A sender: the service's address and an API key of it.

    `timeout` is for one attempt, `deadline` for a call with all its attempts, both in seconds.
    """

    def __init__(
        self,
        url: str,
        key: str,
        *,
        timeout: float = 30,
        attempts: int = 6,
        deadline: float = 90,
        sleep: Callable[[float], None] = time.sleep,
        clock: Callable[[], float] = time.monotonic,
        chance: Callable[[], float] = random.random,
    ) -> None:
        if not url.startswith(("http://", "https://")):
            raise ValueError("url must be the service's address, such as https://app.example/belfry")
        if not key.strip().startswith("blf_"):
            raise ValueError("key must be an API key, as made by `flask key create NAME`: blf_…")
        self.url = url.rstrip("/")
        self._key = key.strip()
        self._timeout = timeout
        self._attempts = attempts
        self._deadline = deadline
        self._sleep = sleep
        self._clock = clock
        self._chance = chance
        self._opener = urllib.request.build_opener(_NoRedirects)

    def notify(
        self,
        recipients: str | Sequence[str],
        title: str,
        *,
        type: str,
        body: str | None = None,
        url: str | None = None,
        actor: str | Mapping[str, str | None] | None = None,
        data: Mapping[str, Any] | None = None,
        priority: str | None = None,
        group_key: str | None = None,
        expires_in: int | None = None,
        expires_at: datetime | None = None,
        idempotency_key: str | None = None,
    ) -> Published:
        """Publishes an event to one person or to a list of up to 1,000.

        Give an `idempotency_key` of your own where your program may make the same call again after a crash.
        """
        event = Event(recipients, title, type, body, url, actor, data, priority, group_key, expires_in, expires_at)
        return _as(Published, self._publish("events", event.as_json(), idempotency_key))

    def notify_everyone(
        self,
        title: str,
        *,
        type: str,
        body: str | None = None,
        url: str | None = None,
        actor: str | Mapping[str, str | None] | None = None,
        data: Mapping[str, Any] | None = None,
        priority: str | None = None,
        group_key: str | None = None,
        expires_in: int | None = None,
        expires_at: datetime | None = None,
        idempotency_key: str | None = None,
    ) -> Published:
        """Publishes an event to all who are users now.

        The same call under the same `idempotency_key` continues where an earlier one was cut off.
        """
        event = Event([], title, type, body, url, actor, data, priority, group_key, expires_in, expires_at)
        content = {**event.as_json(), "recipients": "everyone"}
        return _as(Published, self._publish("events", content, idempotency_key))

    def batch(self, events: Iterable[Event], *, idempotency_key: str | None = None) -> list[Published]:
        """Publishes up to 1,000 events, with up to 10,000 recipients in sum: all of them, or none."""
        content = {"events": [event.as_json() for event in events]}
        answer = self._publish("events/batch", content, idempotency_key)
        return [_as(Published, one) for one in _part(answer, "events")]

    def event(self, event_id: int) -> State:
        """How many received an event of this key's, saw it and read it."""
        answer = self._call("GET", f"events/{event_id}")
        times = {name: _moment(answer.get(name)) for name in ("created_at", "expires_at", "retracted_at")}
        return _as(State, {**answer, **times})

    def retract(self, event_id: int) -> int:
        """Takes an event of this key's back from every inbox; from how many it was taken."""
        return int(_part(self._call("DELETE", f"events/{event_id}"), "removed"))

    def save_user(self, subject: str, **changes: Any) -> User:
        """Creates a person, or changes what is given: `display_name`, `is_active`. Disabling ends all sessions."""
        return _as(User, self._call("PUT", f"users/{_quoted(subject)}", changes))

    def erase_user(self, subject: str) -> None:
        """Deletes a person with everything that is theirs."""
        self._call("DELETE", f"users/{_quoted(subject)}", gone_is_done=True)

    def export_user(self, subject: str) -> dict[str, Any]:
        """Everything that is held about a person."""
        return self._call("GET", f"users/{_quoted(subject)}/export")

    def sign_out_user(self, subject: str) -> None:
        """Ends all sessions of a person."""
        self._call("POST", f"users/{_quoted(subject)}/sign-out")

    def ticket(self, user: str, return_to: str | None = None) -> str:
        """A link that signs a person in, once, within 60 seconds, and then leads to `return_to` or the inbox."""
        content = {"user": user} if return_to is None else {"user": user, "return_to": return_to}
        return str(_part(self._call("POST", "tickets", content), "url"))

    def _publish(self, path: str, content: Mapping[str, Any], key: str | None) -> dict[str, Any]:
        return self._call("POST", path, content, idempotency_key=key or uuid.uuid4().hex)

    def _call(
        self,
        method: str,
        path: str,
        content: Mapping[str, Any] | None = None,
        *,
        idempotency_key: str | None = None,
        gone_is_done: bool = False,
    ) -> dict[str, Any]:
        """One call, tried again while that can help and time is left."""
        body = None if content is None else json.dumps(content, allow_nan=False).encode()
        started = self._clock()
        for attempt in range(1, self._attempts + 1):
            left = self._deadline - (self._clock() - started)
            if attempt > 1 and left <= 0:
                break  # the wait took longer than was asked
            try:
                return self._attempt(method, path, body, idempotency_key, min(self._timeout, left))
            except urllib.error.HTTPError as error:
                with error:
                    failure: BelfryError = _refused(error)
                    asked_to_wait = _retry_after(error.headers.get("Retry-After"))
                if gone_is_done and error.code == 404 and attempt > 1:
                    return {}  # an earlier attempt did it, and its answer was lost
                if error.code not in PASSING and not (error.code == AT_WORK and idempotency_key):
                    raise failure from None
            except (OSError, http.client.HTTPException) as error:
                failure = Unreachable(f"{self.url} does not answer: {getattr(error, 'reason', None) or error!r}")
                failure.__cause__ = error
                asked_to_wait = 0.0
            wait = asked_to_wait + self._chance() * min(LONGEST_WAIT, FIRST_WAIT * 2**attempt)
            if attempt == self._attempts or self._clock() - started + wait >= self._deadline:
                break
            self._sleep(wait)
        raise failure

    def _attempt(self, method: str, path: str, body: bytes | None, key: str | None, timeout: float) -> dict[str, Any]:
        headers = {
            "Authorization": f"Bearer {self._key}",
            "Accept": "application/json, application/problem+json",
            "User-Agent": f"belfry-client/{__version__}",
        }
        if body is not None:
            headers["Content-Type"] = "application/json"
        if key is not None:
            headers["Idempotency-Key"] = key
        request = urllib.request.Request(f"{self.url}/api/v1/{path}", body, headers, method=method)  # noqa: S310 - checked in __init__
        with self._opener.open(request, timeout=timeout) as response:
            raw = response.read()
        answer = _json_object(raw) if raw else {}
        if answer is None:
            raise _something_else()
        return answer


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """A redirect would take the key to another address, and turn a POST into a GET."""

    def redirect_request(self, *_arguments: Any) -> None:
        return None


def _as(kind: type[Answer], content: Mapping[str, Any]) -> Answer:
    """The answer as a `kind`; what a newer service says besides is passed over."""
    return kind(**{name: _part(content, name) for name in kind.__annotations__})


def _part(answer: Any, name: str) -> Any:
    if not isinstance(answer, dict) or name not in answer:
        raise _something_else()
    return answer[name]


def _something_else() -> BelfryError:
    return BelfryError("What is at this url does not answer as Belfry does. Is it the service's address?")


def _quoted(subject: str) -> str:
    return urllib.parse.quote(subject, safe="")


def _moment(text: str | None) -> datetime | None:
    return None if text is None else datetime.fromisoformat(text.replace("Z", "+00:00"))


def _retry_after(text: str | None) -> float:
    """The seconds that the service asks for, which it may say as a number or as a date."""
    if not text:
        return 0.0
    if text.strip().isdigit():
        return float(text)
    try:
        until = email.utils.parsedate_to_datetime(text)
    except (TypeError, ValueError):
        return 0.0
    return max(0.0, (until - datetime.now(timezone.utc)).total_seconds())


def _refused(error: urllib.error.HTTPError) -> Refused:
    try:
        problem = _json_object(error.read()) or {}
    except (OSError, http.client.HTTPException):  # cut off: the status alone has to do
        problem = {}
    detail = problem.get("detail") or problem.get("title") or str(error.reason)
    if 300 <= error.code < 400:
        detail = f"redirects to {error.headers.get('Location')}: give that address to the client"
    listed = problem.get("errors")
    named = [one for one in listed if isinstance(one, dict)] if isinstance(listed, list) else []
    errors = [FieldError(str(one.get("field")), str(one.get("message"))) for one in named]
    return Refused(error.code, str(detail), errors, problem.get("request_id"))


def _json_object(raw: bytes) -> dict[str, Any] | None:
    try:
        content = json.loads(raw)
    except ValueError:
        return None
    return content if isinstance(content, dict) else None
