"""How the tests read the docs: their blocks, and what they say a request is answered with. `…` stands for anything."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from werkzeug.test import TestResponse

from tests import postgres

PAGES = [
    *sorted(postgres.ROOT.glob("*.md")),
    *sorted((postgres.ROOT / "docs").glob("*.md")),
    *sorted((postgres.ROOT / "examples").rglob("*.md")),
    *sorted((postgres.ROOT / "clients").rglob("*.md")),
]
TOKEN = re.compile(r'"(?:[^"\\]|\\.)*"|…|[\[\]{}:,]|[\w.+-]+')


def blocks(page: Path, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", page.read_text(), re.DOTALL | re.MULTILINE)


def pattern(expected: str) -> re.Pattern[str]:
    """A regular expression for the text that the docs show."""
    return re.compile(".*?".join(re.escape(part) for part in expected.strip().split("…")), re.DOTALL)


def json_pattern(expected: str) -> str:
    """A regular expression for the JSON that the docs show, with `…` for anything, inside a string too."""
    parts = []
    for token in TOKEN.findall(expected):
        if token == "…":
            parts.append(r".*?")
        elif token.startswith('"'):
            parts.append('"' + '[^"]*'.join(re.escape(part) for part in token[1:-1].split("…")) + '"')
        else:
            parts.append(re.escape(token))
    return r"\s*".join(parts)


def hold(page: Path, open_: Callable[..., TestResponse], **values: Any) -> int:
    """Sends the requests of a page's `http` blocks and compares the answers; how many there were.

    `{name}` stands for one of the values, for the latest `ETag`, or for a field of the latest answer that had it.
    """
    found = blocks(page, "http")
    for block in found:
        block = re.sub(r"\{(\w+)\}", lambda name: str(values.get(name[1], name[0])), block)
        asked, answered = re.split(r"\n\n(?=\d{3}\n)", block, maxsplit=1)
        head, _, body = asked.strip().partition("\n\n")
        line, *named = head.splitlines()
        method, path = line.split(" ", 1)
        headers = dict(header.split(": ", 1) for header in named)
        answer = open_(path, method=method, headers=headers, data=body or None)
        head, _, expected = answered.strip().partition("\n\n")
        status, *wanted = head.splitlines()
        assert answer.status_code == int(status), (block, answer.text)
        for name, value in (line.split(": ", 1) for line in wanted):
            assert pattern(value).fullmatch(answer.headers[name]), (name, answer.headers[name])
        content = answer.get_json(force=True) if answer.data and answer.is_json else None
        got = json.dumps(content, ensure_ascii=False) if content is not None else ""
        assert re.fullmatch(json_pattern(expected), got, re.DOTALL), (block, got)
        if isinstance(content, dict):
            values.update({name: value for name, value in content.items() if isinstance(value, str | int)})
        values["ETag"] = answer.headers.get("ETag", values.get("ETag"))
    return len(found)
