"""What `make check` makes of pip-audit's report."""

import datetime
import re
from typing import Any

import pytest

from tests import postgres, vulnerabilities
from tests.vulnerabilities import Accepted, judge

TODAY = datetime.date(2026, 11, 20)
HOLE = {"id": "PYSEC-2026-1", "aliases": ["CVE-2026-1"], "fix_versions": ["2.0"], "description": "a hole"}
SOUND = {"name": "flask", "version": "3.1.3", "vulns": []}
HOLED = {"name": "thing", "version": "1.0", "vulns": [HOLE]}
UNKNOWN = {"name": "other", "skip_reason": "Dependency not found on PyPI and could not be audited: other (1.0)"}
A_WEEK = datetime.timedelta(days=7)


def report(*packages: dict[str, Any]) -> dict[str, Any]:
    return {"dependencies": list(packages), "fixes": []}


def test_a_known_hole_fails_and_says_what_mends_it() -> None:
    assert judge(report(SOUND), {}, TODAY) == (["Looked for known holes in 1 packages."], True)
    lines, is_good = judge(report(SOUND, HOLED), {}, TODAY)
    assert not is_good
    assert lines[0] == "thing 1.0: PYSEC-2026-1, mended in 2.0."


@pytest.mark.parametrize("name", ["PYSEC-2026-1", "CVE-2026-1"])
def test_an_accepted_hole_passes_until_its_day(name: str) -> None:
    for until, good in ((TODAY, True), (TODAY + A_WEEK, True), (TODAY - A_WEEK, False)):
        lines, is_good = judge(report(HOLED), {name: Accepted("we never call it", until)}, TODAY)
        assert (is_good, "we never call it" in lines[0]) == (good, True)


def test_what_could_not_be_asked_about_is_said_and_passes() -> None:
    lines, is_good = judge(report(SOUND, UNKNOWN), {}, TODAY)
    assert (lines, is_good) == (["Not looked for known holes in 1 of 2 packages: no data here."], True)


def test_what_is_at_its_end_is_said_each_time_and_pinned() -> None:
    lines, is_good = judge(report({"name": "bleach", "version": "6.4.0", "vulns": []}), {}, TODAY)
    assert is_good
    assert lines[0].startswith("bleach had its last release")
    for name in vulnerabilities.AT_ITS_END:
        pinned = re.search(rf"^{name}==([0-9.]+)", (postgres.ROOT / "requirements.txt").read_text(), re.MULTILINE)
        assert pinned
        assert f"## {name}, and its end of life" in (postgres.ROOT / "docs/decisions.md").read_text()


def test_every_package_is_pinned_by_its_hash() -> None:
    for name in vulnerabilities.LISTS:
        lines = (postgres.ROOT / name).read_text().replace("\\\n", "").splitlines()
        packages = [line for line in lines if line and not line.startswith((" ", "#"))]
        assert packages
        assert [line for line in packages if "==" not in line or "--hash=sha256:" not in line] == []


def test_make_check_asks_for_known_holes_and_for_bad_habits() -> None:
    check = (postgres.ROOT / "Makefile").read_text().partition("\ncheck:")[2].partition("\n\n")[0]
    assert "python -m tests.vulnerabilities" in check
    assert "ruff check" in check
    chosen = re.search(r"^select = \[([^\]]*)\]", (postgres.ROOT / "pyproject.toml").read_text(), re.MULTILINE)
    assert chosen
    assert '"S"' in chosen[1]
