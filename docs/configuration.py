"""Writes docs/configuration.md from the settings themselves: `make docs`. `--check` fails where the page is stale."""

import sys
import types
import typing
from pathlib import Path
from typing import Any

from app.settings import Settings

PAGE = Path(__file__).parent / "configuration.md"

BEGINNING = """# Configuration

Every setting is an environment variable.
Each can come from a file instead: `SECRET_KEY_FILE=/run/secrets/key` gives `SECRET_KEY` the content of that file.
An empty variable counts as unset.
A value that makes no sense stops the start with a line that names the setting.

This page is made from `app/settings.py` by `make docs`.

| setting | type | default | what it does |
| --- | --- | --- | --- |
"""

ENDING = """
## Limits that are not settings

| what | limit | counted |
| --- | --- | --- |
| polls | `POLL_LIMIT` per user | for all workers where `RATELIMIT_STORAGE_URI` names a Redis; otherwise in each worker's memory, its part of the limit |
| each other route | {calls} per session; per address for who is not signed in | as polls |
| marking many at once | {bulk} per session, over all four verbs | as polls |
| sign-in | {account} per account | in PostgreSQL, over all workers |
| sign-in | {address} per address (IPv6: per /64) | in PostgreSQL, over all workers |
| a sender's calls | {key} per key | in PostgreSQL, over all workers |
| a sender's calls without a good key, or over its limit | {refused} per address | as polls |
| a request's body | 64 KiB; an event's 512 KiB, a batch's 4 MiB | |

Over a limit the answer is 429 with `Retry-After`.
[limits.md](limits.md) says more: why each is what it is, and what holds while Redis does not answer.
"""


def page() -> str:
    from app import limits

    rows = [
        f"| `{name.upper()}` | {_type(field.annotation)} | {_default(field.default)} | {field.description} |"
        for name, field in Settings.model_fields.items()
    ]
    ending = ENDING.format(
        calls=limits.CALLS,
        account=_rate(limits.SIGN_INS_PER_ACCOUNT),
        address=_rate(limits.SIGN_INS_PER_ADDRESS),
        key=_rate(limits.CALLS_PER_KEY),
        refused=limits.REFUSED_CALLS,
        bulk=limits.BULK,
    )
    return BEGINNING + "\n".join(rows) + "\n" + ending


def _rate(rate: Any) -> str:
    span = f"{rate.multiples} {rate.GRANULARITY.name}s" if rate.multiples > 1 else rate.GRANULARITY.name
    return f"{rate.amount} per {span}"


def _type(annotation: Any) -> str:
    words = {str: "text", int: "whole number", float: "number", bool: "0 or 1"}
    if typing.get_origin(annotation) is typing.Literal:
        return " or ".join(f"`{value}`" for value in typing.get_args(annotation))
    if typing.get_origin(annotation) is list:
        return "list"
    if typing.get_origin(annotation) in (types.UnionType, typing.Union):
        return " or ".join(_type(part) for part in typing.get_args(annotation) if part is not type(None))
    if typing.get_origin(annotation) is typing.Annotated:
        return _type(typing.get_args(annotation)[0])
    return words[annotation]


def _default(value: Any) -> str:
    if isinstance(value, list):
        value = ",".join(value) or None
    if isinstance(value, bool):
        value = int(value)
    return "none" if value is None else f"`{value}`"


if __name__ == "__main__":
    if "--check" in sys.argv:
        sys.exit(0 if PAGE.read_text() == page() else "docs/configuration.md is stale: make docs")
    PAGE.write_text(page())
