"""The load: each request is a poll of another of the 1,000 users, sent by wrk over connections that are kept."""

import contextlib
import http.client
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from bench import data

TOGETHER = 50  # polls that are sent without waiting for an answer
PATH = "/notifications/unread"
ASK = f"GET {PATH} HTTP/1.1\r\nHost: 127.0.0.1\r\nCookie: {{cookie}}\r\nIf-None-Match: {{tag}}\r\n\r\n"
SCRIPT = Path(__file__).with_name("polls.lua")
# What only Belfry answers, and the two numbers that need not agree: an id means something in one database only.
ONLY_OURS = {"version", "more"}


@dataclass(frozen=True)
class Result:
    """What wrk saw in one round, and what it cost the worker; times in milliseconds."""

    requests: int
    rate: float
    p50: float
    p99: float
    failed: int  # answers with another status than expected, and requests without an answer
    cpu: float = 0  # a poll's, in the worker


def require_wrk() -> None:
    """wrk is no Python package: installed where that can be done, else one line that says what is missing."""
    if shutil.which("wrk"):
        return
    if os.geteuid() == 0 and shutil.which("apt-get"):
        print("bench: installing wrk by apt-get", file=sys.stderr)
        subprocess.run(["apt-get", "install", "--yes", "--quiet", "wrk"], check=False, stdout=sys.stderr)
    if not shutil.which("wrk"):
        sys.exit("bench: wrk is missing: apt-get install wrk (Debian, Ubuntu), or brew install wrk (macOS)")


def ask_all(port: int, cookies: Sequence[str]) -> tuple[list[str], dict[str, Any]]:
    """Polls once for every user and stops unless each answer is right; gives back the tags, and one user's content."""
    tags = []
    with contextlib.closing(http.client.HTTPConnection("127.0.0.1", port, timeout=30)) as client:
        for number, cookie in enumerate(cookies, start=1):
            client.request("GET", PATH, headers={"Cookie": cookie, "User-Agent": data.USER_AGENT})
            response = client.getresponse()
            body = response.read()
            if response.status != 200 or response.headers["Set-Cookie"]:
                sys.exit(f"bench: {response.status} instead of a plain 200: {body[:500]!r}")
            content = json.loads(body)
            counts = (len(content["notifications"]), content["unread_count"], content["unseen_count"])
            if (content["user"], counts) != (f"user-{number}", (data.UNREAD, data.UNREAD, 2)):
                sys.exit(f"bench: a wrong answer for user-{number}: {content}")
            tags.append(response.headers["ETag"] or "")
    return tags, _comparable(content)


def _comparable(content: dict[str, Any]) -> dict[str, Any]:
    """The part of an answer on which all contestants have to agree."""
    notifications = [
        {name: _moment(value) if name.endswith("_at") else value for name, value in notification.items()}
        for notification in content["notifications"]
    ]
    for notification in notifications:
        del notification["id"]
    return {**{name: content[name] for name in content.keys() - ONLY_OURS}, "notifications": notifications}


def _moment(value: str | None) -> bool:
    # Their databases were filled some seconds apart, so only the kind of the value can be compared.
    return value is not None and datetime.fromisoformat(value).tzinfo is not None


def run(
    port: int,
    cookies: Sequence[str],
    tags: Sequence[str],
    status: int,
    seconds: float,
    connections: int,
    pace: float | None = None,
) -> Result:
    """One round of wrk. One thread of it is plenty, and leaves the rest of the machine to the contestant.

    With a `pace`, each connection rests between its polls, so long that they all make so many a second.
    """
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as users:
        users.writelines(f"{cookie}\t{tag}\n" for cookie, tag in zip(cookies, tags, strict=True))
        users.flush()
        command = ["wrk", "--threads", "1", "--connections", str(connections), "--duration", f"{seconds:.0f}s"]
        command += ["--timeout", "10s", "--script", str(SCRIPT), f"http://127.0.0.1:{port}{PATH}"]
        command += ["--", users.name, data.USER_AGENT, str(status)]
        command += [str(1000 * connections / pace)] if pace else []
        done = subprocess.run(command, capture_output=True, text=True, check=True)
    return Result(**json.loads(done.stdout.splitlines()[-1]))


def poll_each(port: int, polls: Sequence[tuple[str, str]]) -> None:
    """Polls once with each cookie and its tag over one connection, so of one worker; all are to be answered 304."""
    with socket.create_connection(("127.0.0.1", port), timeout=60) as wire:
        for start in range(0, len(polls), TOGETHER):
            some = polls[start : start + TOGETHER]
            wire.sendall("".join(ASK.format(cookie=cookie, tag=tag) for cookie, tag in some).encode())
            answers = b""
            while answers.count(b"\r\n\r\n") < len(some):  # which a 304 ends with
                received = wire.recv(65536)
                answers += received
                if not received or answers.count(b"HTTP/1.1 ") != answers.count(b"HTTP/1.1 304"):
                    sys.exit(f"bench: not every poll is answered 304: {answers[:500]!r}")
