"""What doctor learns by coming in as a reader does, through PUBLIC_URL: what the service then sees of a request.

The service tells that to doctor alone: who asks has signed the question with SECRET_KEY, for a minute (app/mirror.py).
"""

import contextlib
import http.client
import ipaddress
import json
import ssl
import time
from collections.abc import Iterator
from typing import NamedTuple
from urllib.parse import urlsplit

from itsdangerous import BadSignature, URLSafeSerializer

from app.findings import Finding, broken, look, ok
from app.settings import Settings

HEADER = "Belfry-Doctor"
PATH = "/doctor"
GOOD_FOR = 60  # seconds, as much again for clocks that differ
PATIENCE = 5  # seconds
READER = "nobody%2Fdoctor"  # no subject has a slash

# As many as TRUSTED_PROXIES can count, of addresses that nobody has (RFC 5737): the one that is believed tells by how
# many the setting is too high.
FORGED = [f"192.0.2.{number}" for number in range(1, 9)]


class Seen(NamedTuple):
    """What the service saw of a request."""

    address: str
    scheme: str
    host: str
    forwarded_for: list[str]
    reader: str | None


def sign(secret_key: str) -> str:
    """What a request of doctor's carries, good for a minute."""
    return str(_serializer(secret_key).dumps(int(time.time())))


def is_signed(secret_key: str, given: str) -> bool:
    """Whether that is doctor, by a signature of the last minute."""
    try:
        return abs(time.time() - float(_serializer(secret_key).loads(given))) < GOOD_FOR
    except (BadSignature, TypeError, ValueError):
        return False


def _serializer(secret_key: str) -> URLSafeSerializer:
    return URLSafeSerializer(secret_key, salt="belfry.doctor")


def check_way_in(settings: Settings, secret_key: str) -> Iterator[Finding]:
    """Comes in through the public address with forged headers, and says what of them was believed."""
    url = settings.own_url
    try:
        status, body = _ask(f"{url}{PATH}", _headers(settings, secret_key))
    except ssl.SSLError as error:
        advice = "renew the certificate; if its authority is your own, have SSL_CERT_FILE name a file with that"
        yield look("way in", f"{url}: {getattr(error, 'verify_message', '') or error.reason}", advice)
        return
    except (OSError, http.client.HTTPException) as error:
        advice = "start the service; or this machine cannot reach that address: run doctor where it can"
        yield look("way in", f"{url} does not answer: {type(error).__name__}", advice)
        return
    if status == 400:
        advice = "have the proxy pass Host on (nginx: proxy_set_header Host $http_host), or add to TRUSTED_HOSTS"
        yield broken("way in", f"{url} refuses the Host that reaches it", advice)
    elif status != 200 or (seen := _seen(body)) is None:
        advice = (
            "is it this installation, of this release, with this SECRET_KEY, and does the proxy pass every path on?"
        )
        yield look("way in", f"{url}{PATH} answers {status}" + ", and not as doctor knows it" * (status == 200), advice)
    else:
        yield ok("way in", url)
        yield _address(settings, seen)
        yield _scheme(settings, seen)
        yield _host(settings, seen)
        yield _reader(seen)
        yield from _metrics(settings, seen)


def _seen(body: bytes) -> Seen | None:
    """What the service says that it saw; None where it is another one that answers."""
    try:
        return Seen(**json.loads(body))
    except (ValueError, TypeError):
        return None


def _headers(settings: Settings, secret_key: str) -> dict[str, str]:
    return {
        HEADER: sign(secret_key),
        "X-Forwarded-For": ", ".join(FORGED),
        "X-Forwarded-Proto": "http" if settings.is_https else "https",
        "X-Forwarded-Host": "forged.invalid",
        "Forwarded": "for=192.0.2.1;host=forged.invalid",
        "Belfry-User": READER,
    }


def _ask(url: str, headers: dict[str, str]) -> tuple[int, bytes]:
    parts = urlsplit(url)
    made = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
    connection = made(parts.netloc, timeout=PATIENCE)
    try:
        connection.request("GET", parts.path, headers=headers)
        response = connection.getresponse()
        return response.status, response.read(65536)
    finally:
        connection.close()


def _address(settings: Settings, seen: Seen) -> Finding:
    """Each proxy adds one entry to `X-Forwarded-For`, or sets it anew; the rest is the caller's own invention."""
    subject, trusted = "addresses", settings.trusted_proxies
    there = len([entry for entry in seen.forwarded_for if entry not in FORGED])
    advice = f"set TRUSTED_PROXIES to {there}, which is how many proxies add to X-Forwarded-For"
    if seen.address in FORGED:
        return broken(subject, "an invented X-Forwarded-For is believed: no limit by address holds", advice)
    if there != trusted:
        return broken(subject, f"everybody's is {seen.address}, a proxy's: they share each other's limits", advice)
    return ok(subject, f"we are {seen.address} to it; an invented one is not believed")


def _scheme(settings: Settings, seen: Seen) -> Finding:
    expected = "https" if settings.is_https else "http"
    if seen.scheme != expected:
        advice = "have the proxy set X-Forwarded-Proto itself (nginx: proxy_set_header X-Forwarded-Proto $scheme)"
        return look("scheme", f"{seen.scheme} is seen where it is {expected}", advice)
    return ok("scheme", seen.scheme)


def _host(settings: Settings, seen: Seen) -> Finding:
    expected = urlsplit(settings.own_origin).netloc
    if seen.host != expected:
        advice = "have the proxy pass Host on (nginx: proxy_set_header Host $http_host)"
        return broken("host", f"{seen.host} is seen where it is {expected}: sign-in fails in some browsers", advice)
    return ok("host", seen.host)


def _reader(seen: Seen) -> Finding:
    if seen.reader != READER:
        advice = "have the proxy pass the header Belfry-User on, as it is"
        return broken("Belfry-User", "does not arrive: a page could mark what is somebody else's", advice)
    return ok("Belfry-User", "arrives")


def _metrics(settings: Settings, seen: Seen) -> Iterator[Finding]:
    """Behind a proxy nobody may ask for figures but from the addresses that METRICS_ALLOW names."""
    if settings.public_url is None:
        return
    status = 0
    with contextlib.suppress(OSError, http.client.HTTPException):  # to hang up is one way to deny it
        status, _ = _ask(f"{settings.own_url}/metrics", {})
    if status != 200:
        yield ok("metrics", "out of strangers' sight")
    elif any(ipaddress.ip_address(seen.address) in ipaddress.ip_network(net) for net in settings.metrics_allow):
        yield ok("metrics", f"shown to {seen.address}, as METRICS_ALLOW says")
    else:
        yield broken("metrics", "strangers can read them", "have the proxy deny /metrics, as the files in deploy/ do")
