"""What `flask doctor` says of one thing that it looked at."""

from typing import NamedTuple


class Finding(NamedTuple):
    """`verdict`: ok, look (somebody should) or broken (it does not work or is not safe); `advice`: what to do."""

    subject: str
    verdict: str
    detail: str
    advice: str = ""


def ok(subject: str, detail: str) -> Finding:
    return Finding(subject, "ok", detail)


def look(subject: str, detail: str, advice: str) -> Finding:
    return Finding(subject, "look", detail, advice)


def broken(subject: str, detail: str, advice: str) -> Finding:
    return Finding(subject, "broken", detail, advice)
