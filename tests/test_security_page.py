"""docs/security.md keeps its word: every threat is in its table, and every test that it names is there."""

import ast
import re

from tests import postgres

PAGE = postgres.ROOT / "docs/security.md"

# What the page must speak of. Whoever finds another threat adds it here, with its row and its test.
THREATS = [
    "Somebody else's notification, by its id",
    "Columns set by their names (mass assignment)",
    "One kind of credential at the other's door",
    "Unlimited consumption",
    "A form or script of another site (CSRF)",
    "Signing somebody in as another; a session planted beforehand",
    "A stolen or replayed cookie",
    "Guessing passwords",
    "Sign-ins that use up the processor",
    "Finding out who has an account",
    "A link that leads elsewhere after signing in",
    "A sign-in link in the wrong hands",
    "A forged token",
    "Scripts in titles and bodies (XSS)",
    "Links to `javascript:` and the like",
    "A page of ours in a frame; missing headers",
    "One reader's answer for another, out of a cache",
    "Learning from tags what somebody else has",
    "A forged `X-Forwarded-For`",
    "One request that hides another (smuggling)",
    "Slow heads and slow bodies",
    "Secrets out of a stolen dump",
    "Finding keys by time",
    "Lines forged in the log, secrets in it",
    "Hostile JSON, headers and bytes",
    "Names and titles that look like others",
    "Text that takes ages to read",
    "SQL in a value",
    "A page for trying the API out, as a way in",
    "A change for one person that hits all",
    "A short, default or lost secret",
    "A hole in what we depend on",
    "A forged `Host`",
    "Another user of the machine",
    "gunicorn's control socket",
    "Strangers who read `/metrics` or what doctor asks",
]


def rows_of_the_table() -> list[list[str]]:
    """Threat, what stands against it, and the tests' names, of each row."""
    table = PAGE.read_text().partition("| threat |")[2].partition("\n\n")[0]
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in table.splitlines()[2:]]


def names_in(path: str) -> set[str]:
    tree = ast.parse((postgres.ROOT / path).read_text())
    return {node.name for node in tree.body if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")}


def test_every_threat_has_its_row_and_no_other() -> None:
    assert [threat for threat, _against, _proof in rows_of_the_table()] == THREATS


def test_every_test_that_proves_something_is_there() -> None:
    missing = []
    for threat, against, proof in rows_of_the_table():
        names = re.findall(r"`(tests/test_\w+\.py)::(test_\w+)`", proof)
        assert against
        assert names, threat
        assert re.sub(r"`[^`]+`", "", proof).strip() == "", proof
        missing += [f"{path}::{name}" for path, name in names if name not in names_in(path)]
    assert missing == []


def test_the_page_says_whom_to_tell_and_what_is_mended() -> None:
    policy = (postgres.ROOT / "SECURITY.md").read_text()
    for heading in ("Report a hole", "Which releases are mended", "What we promise", "What we depend on"):
        assert f"## {heading}\n" in policy
    assert "SECURITY.md" in PAGE.read_text()
    assert "docs/security.md" in (postgres.ROOT / "README.md").read_text()
