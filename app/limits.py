"""Rate limits: the numbers, who counts against which, and what is said to whoever is over one.

Polls are counted by a counter of their own, a reader's other calls by Flask-Limiter: for all workers together in Redis
where there is one; otherwise each of N workers allows its N-th part, so that the sum never exceeds the limit. Sign-ins
and the calls of senders' keys are counted in PostgreSQL, so that their limits hold across workers and restarts.
"""

import hashlib
import ipaddress
import math
import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, cast

import flask
import limits
from flask.typing import RouteCallable
from flask_limiter import Limiter, RequestLimit
from limits.strategies import FixedWindowRateLimiter

from app import metrics
from app.counters import PostgresStorage
from app.errors import Problem
from app.poll_counter import PollCounter, SharedPollCounter
from app.settings import IN_MEMORY, Settings
from app.shared_counters import SharedCounters

POLLS = "inbox_api.unread"  # the endpoint that POLL_LIMIT is for
# Whoever watches the service must be told how it is, however many others come from the same address.
WATCHING = {"ops.livez", "ops.readyz", "ops.show_metrics"}
CALLS = "300 per minute"  # each other route, per session; per address for who is not signed in
BULK = "60 per minute"  # the calls that change many notifications at once, in sum: one may change 10,000 rows
BULK_VERBS = ("mark_many_read", "mark_many_unread", "archive_many", "mark_many_seen")
PUBLISH, PEOPLE = SENDERS = ("publish_api", "people_api")  # the blueprints that keys call
REFUSED_CALLS = "2400 per minute"  # of its routes in sum, per address: without a good key, or over the key's limit
CALLS_PER_KEY = limits.parse("1200 per minute")
SIGN_INS_PER_ACCOUNT = limits.parse("10 per 15 minutes")
SIGN_INS_PER_ADDRESS = limits.parse("50 per 15 minutes")

ONE_HASH = threading.BoundedSemaphore(1)
HASH_PATIENCE = 0.3  # seconds

# Some proxies write `1.2.3.4:5678` or `[2001:db8::1]:5678` into X-Forwarded-For.
PORT = re.compile(r"^(?:\[([0-9A-Fa-f:.]+)\](?::\d+)?|([0-9.]+):\d+)$")


def init_app(app: flask.Flask, settings: Settings, caller: Callable[[], str], address: Callable[[], str]) -> None:
    """Counts every route but the poll's, after the guard has let a request through.

    `caller` names for whom, `address` where a call of the sender's API comes from.
    """
    workers, uri = settings.web_concurrency, settings.ratelimit_storage_uri
    shared = None if uri == IN_MEMORY else SharedCounters(uri, workers, installation=settings.own_url)
    metrics.UNSHARED.ask = shared.is_alone if shared else lambda: 0
    options: Any = {"workers": workers, "shared": shared}
    extension = Limiter(
        caller,
        app=app,
        storage_uri="counters://",
        storage_options=options,
        headers_enabled=False,  # they would send Retry-After on 200, and polite clients would slow down
        default_limits=[CALLS],
        on_breach=refuse,
    )
    # Good keys are left to their own limit, which all workers share: a connection that is kept alive always leads to
    # the same worker, and a part of the limit would be all that its sender gets.
    senders = extension.shared_limit(REFUSED_CALLS, "senders", key_func=address, deduct_when=_is_refused)
    for name in SENDERS:
        senders(cast(flask.Blueprint, app.blueprints[name]))
    for endpoint in (POLLS, *WATCHING):
        extension.exempt(app.view_functions[endpoint])
    bulk = extension.shared_limit(BULK, scope="bulk")
    for endpoint in [f"inbox_api.{verb}" for verb in BULK_VERBS]:
        app.view_functions[endpoint] = cast(RouteCallable, bulk(app.view_functions[endpoint]))
    app.extensions["polls"] = (
        SharedPollCounter(limits.parse_many(settings.poll_limit), shared)
        if shared
        else PollCounter(limits.parse_many(share(settings.poll_limit, workers)))
    )


def _is_refused(response: flask.Response) -> bool:
    return response.status_code in (401, 429)


@contextmanager
def one_poll(user_id: int, session: str) -> Iterator[None]:
    """Lets a poll be answered; raises 429 where there were too many.

    An answered poll counts against its user, by whichever session; a refused one against its session, for whoever
    replays an ended one must not use up what its owner is allowed. Polls of nobody are not counted: they are answered
    401 at once, and an address may stand for a whole company.
    """
    polls: PollCounter = flask.current_app.extensions["polls"]
    _require_no_wait(polls.wait(user_id, session))
    try:
        yield
    except Exception:
        polls.count(session)
        raise
    _require_no_wait(polls.count(user_id))


def _require_no_wait(seconds: float) -> None:
    if seconds:
        raise too_many("polls", seconds)


def share(rates: str, workers: int) -> str:
    """One worker's part of a limit: the parts of all workers together never exceed it."""
    parts = limits.parse_many(rates)
    return "; ".join(f"{part.amount // workers} per {part.multiples} {part.GRANULARITY.name}" for part in parts)


def refuse(limit: RequestLimit) -> None:
    """Raises 429 with the time to wait."""
    name = next((shared for shared in ("bulk", "senders") if f"/{shared}/" in limit.key), "calls")
    raise too_many(name, limit.reset_at - time.time())


def too_many(limit: str, seconds: float) -> Problem:
    """The refusal of who is over a limit, which is counted under the limit's name."""
    metrics.REFUSALS.of(limit).add()
    return Problem(429, "Too many requests. Try again later.", retry_after=max(1, math.ceil(seconds)))


def count_sign_in(account: str, address: str) -> None:
    """Counts one attempt for the account and for the address; raises 429 where either has had too many.

    Called before any hashing: a password check costs a tenth of a second of CPU. Right and wrong passwords count
    alike. Nobody is locked out for longer than the window, and sign-in links are not counted here.
    """
    limiter = FixedWindowRateLimiter(PostgresStorage())
    for name, limit, key in [
        ("address", SIGN_INS_PER_ADDRESS, f"address/{network(address)}"),
        ("account", SIGN_INS_PER_ACCOUNT, _account_key(account)),
    ]:
        if not limiter.hit(limit, "sign-in", key):
            raise too_many(name, limiter.storage.get_expiry(limit.key_for("sign-in", key)) - time.time())


@contextmanager
def one_hash() -> Iterator[None]:
    """Lets one password be checked at a time in this worker; raises 503 for who would wait for longer than a moment.

    A check takes a tenth of a second of CPU and a lot of memory: a crowd at the door would stop everybody's polls.
    """
    if not ONE_HASH.acquire(timeout=HASH_PATIENCE):
        metrics.REFUSALS.of("passwords").add()
        raise Problem(503, "Too many people are signing in just now. Try again in a moment.", retry_after=1)
    try:
        yield
    finally:
        ONE_HASH.release()


def network(address: str) -> str:
    """The address without a port, or for IPv6 its /64: one household or server holds all of that."""
    bare = PORT.sub(lambda match: match[1] or match[2], address)
    try:
        parsed = ipaddress.ip_address(bare)
    except ValueError:
        return "unknown"  # some proxies write words, and a stranger's words must not be a counter each
    if isinstance(parsed, ipaddress.IPv6Address):
        return str(parsed.ipv4_mapped or ipaddress.ip_network((parsed, 64), strict=False))
    return str(parsed)


def forget_sign_ins(account: str) -> None:
    """Clears what was counted for an account that is no more."""
    FixedWindowRateLimiter(PostgresStorage()).clear(SIGN_INS_PER_ACCOUNT, "sign-in", _account_key(account))


def _account_key(account: str) -> str:
    # A digest, for the account is whatever a stranger typed and may be long.
    return "account/" + hashlib.sha256(account.encode("utf-8", "surrogatepass")).hexdigest()


def count_call(key_id: int) -> None:
    """Counts one call of a sender's key; raises 429 where it has had too many."""
    limiter = FixedWindowRateLimiter(PostgresStorage())
    if not limiter.hit(CALLS_PER_KEY, "key", str(key_id)):
        raise too_many("key", limiter.storage.get_expiry(CALLS_PER_KEY.key_for("key", str(key_id))) - time.time())
