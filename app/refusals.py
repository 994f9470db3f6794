"""The answers that the worker itself gives, before or instead of the application: the one shape of errors, as bytes."""

from collections.abc import Mapping
from typing import Any

import orjson

from app import headers
from app.request_head import REASONS

DETAILS = {
    400: "This is no request that everybody reads in the same way (RFC 9112).",
    408: "The request took too long to arrive.",
    414: "The address is too long.",
    417: "Nothing can be expected but 100-continue.",
    431: "There are too many header fields, or one is too long.",
    500: "Something went wrong on this side. It has been written down.",
    501: "No transfer coding is known but chunked.",
}
# What the log says of a request that could not be read.
UNREAD = {"REQUEST_METHOD": "-", "RAW_URI": "-", "SERVER_PROTOCOL": "HTTP/1.1"}


def headers_for(application: Any) -> Mapping[str, str]:
    """What protects refusals in this application's name; a benchmark's bare one has no settings, and gets none."""
    settings = getattr(application, "extensions", {}).get("settings")
    return headers.of_refusal(settings) if settings else {}


def answer(status: int, protection: Mapping[str, str], request_id: str) -> bytes:
    """The last answer on a connection, as problem details (RFC 9457)."""
    content = {
        "type": "about:blank",
        "title": REASONS[status],
        "status": status,
        "detail": DETAILS[status],
        "request_id": request_id,
        "errors": [],
    }
    body = orjson.dumps(content)
    lines = [
        f"HTTP/1.1 {status} {REASONS[status]}",
        "Connection: close",
        "Content-Type: application/problem+json",
        f"Content-Length: {len(body)}",
        *(f"{name}: {value}" for name, value in protection.items()),
        "\r\n",
    ]
    return "\r\n".join(lines).encode("latin-1") + body
