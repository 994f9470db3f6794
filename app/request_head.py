"""The head of an HTTP request, request line and fields: read as strictly as RFC 9112 allows, or refused.

What two programs in a row may read differently (RFC 9112 section 11.2) is refused, never guessed at: a proxy in front
and this service must agree on where one request ends and the next begins.
"""

import functools
import re
from typing import NamedTuple
from urllib.parse import unquote_to_bytes

LONGEST_LINE = 8190  # the request line, or a field
MOST_FIELDS = 50  # browsers and proxies send some thirty

REASONS = {
    400: "Bad Request",
    408: "Request Timeout",
    414: "URI Too Long",
    417: "Expectation Failed",
    431: "Request Header Fields Too Large",
    500: "Internal Server Error",
    501: "Not Implemented",
}

REQUEST_LINE = re.compile(r"([A-Z][A-Z-]{0,19}) (?:https?://([^/?# ]+))?(/[\x21-\x7e]*) (HTTP/1\.[01])")
# Control characters anywhere, and ends of lines that are not CR LF.
FORBIDDEN = re.compile(rb"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]|\r(?!\n)|(?<!\r)\n")
NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
LENGTH = re.compile(r"[0-9]{1,18}")
# A second one could be understood in two ways; all others are joined.
ONCE = {"HTTP_HOST", "CONTENT_TYPE", "CONTENT_LENGTH", "HTTP_TRANSFER_ENCODING", "HTTP_AUTHORIZATION"}


class Refused(Exception):
    """A request that is answered with this status, and the last one on its connection."""

    def __init__(self, status: int) -> None:
        super().__init__(status)
        self.status = status


class Head(NamedTuple):
    """What a head says, as WSGI wants it, and what decides about the connection."""

    environ: dict[str, str]
    version: str
    is_last: bool  # on its connection
    length: int  # of the body; 0 where there is none
    is_chunked: bool
    wants_continue: bool


def parse(raw: bytes) -> Head:
    """The head that these bytes are, its last empty line left away. Raises `Refused`."""
    if FORBIDDEN.search(raw):
        raise Refused(400)
    first, *fields = raw.decode("latin-1").split("\r\n")
    if len(first) > LONGEST_LINE:
        raise Refused(414)
    line = REQUEST_LINE.fullmatch(first)
    if line is None or "#" in line[3]:
        raise Refused(400)
    method, host, target, version = line.groups()
    path, _, query = target.partition("?")
    environ = {
        "REQUEST_METHOD": method,
        "RAW_URI": target,
        "PATH_INFO": unquote_to_bytes(path).decode("latin-1") if "%" in path else path,
        "QUERY_STRING": query,
        "SERVER_PROTOCOL": version,
    }
    _add_fields(environ, fields)
    _check_host(environ, host)
    length, is_chunked = _framing(environ, version)
    connection = environ.get("HTTP_CONNECTION", "").lower()
    expects = environ.get("HTTP_EXPECT", "").lower()
    if expects not in ("", "100-continue"):
        raise Refused(417)
    return Head(
        environ,
        version,
        is_last="close" in connection or (version == "HTTP/1.0" and "keep-alive" not in connection),
        length=length,
        is_chunked=is_chunked,
        wants_continue=bool(expects) and version == "HTTP/1.1",
    )


def _add_fields(environ: dict[str, str], fields: list[str]) -> None:
    if len(fields) > MOST_FIELDS:
        raise Refused(431)
    for field in fields:
        if len(field) > LONGEST_LINE:
            raise Refused(431)
        name, colon, value = field.partition(":")
        key = _key(name)
        if not colon or key is None:
            raise Refused(400)
        if key not in environ:
            environ[key] = value.strip(" \t")
        elif key in ONCE:
            raise Refused(400)
        else:
            environ[key] += ("; " if key == "HTTP_COOKIE" else ",") + value.strip(" \t")
    environ.pop("", None)


@functools.lru_cache(maxsize=256)
def _key(name: str) -> str | None:
    """The name of a field in WSGI; None for what is no name.

    One with _ could pretend to be another one with - (`X_Forwarded_For`), so it is passed over, under no name.
    """
    if not NAME.fullmatch(name):
        return None
    if "_" in name:
        return ""
    key = name.upper().replace("-", "_")
    return key if key in ("CONTENT_TYPE", "CONTENT_LENGTH") else f"HTTP_{key}"


def _check_host(environ: dict[str, str], host_of_target: str | None) -> None:
    """Refuses a request without a host (RFC 9112 section 3.2), and one with two: in its target and in its field."""
    host = environ.get("HTTP_HOST")
    if host is None and environ["SERVER_PROTOCOL"] == "HTTP/1.1":
        raise Refused(400)
    if host_of_target is not None and (host or "").lower() != host_of_target.lower():
        raise Refused(400)


def _framing(environ: dict[str, str], version: str) -> tuple[int, bool]:
    """The body's length, and whether it comes in chunks instead (RFC 9112 section 6.3)."""
    length, coding = environ.get("CONTENT_LENGTH"), environ.get("HTTP_TRANSFER_ENCODING")
    if coding is not None:
        if length is not None or version == "HTTP/1.0":
            raise Refused(400)
        if coding.lower() != "chunked":
            raise Refused(501)
        return 0, True
    if length is None:
        return 0, False
    if not LENGTH.fullmatch(length):
        raise Refused(400)
    return int(length), False
