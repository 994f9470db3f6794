"""Asks pip-audit whether a hole is known in what we install: `python -m tests.vulnerabilities`, a part of `make check`.

A known one fails, unless it is accepted below. Where nobody can be asked, on a machine without PyPI's data, it says so.
"""

import datetime
import json
import subprocess
import sys
from collections.abc import Mapping
from typing import Any, NamedTuple

from tests import postgres

LISTS = ("requirements.txt", "requirements-embedded.txt", "requirements-dev.txt")


class Accepted(NamedTuple):
    """Why a known hole is none for us, and the day on which somebody has to look again."""

    reason: str
    until: datetime.date


# By the identifier that pip-audit prints.
ACCEPTED: Mapping[str, Accepted] = {}

# What may never be mended, and what we have decided to do about it.
AT_ITS_END = {"bleach": "had its last release on 2026-06-05; docs/decisions.md says when it goes"}


def main() -> int:
    command = [sys.executable, "-m", "pip_audit", "--disable-pip", "--require-hashes", "--format", "json"]
    lists = [part for name in LISTS for part in ("--requirement", name)]
    done = subprocess.run(
        [*command, "--progress-spinner", "off", *lists], cwd=postgres.ROOT, capture_output=True, text=True, check=False
    )
    try:
        report = json.loads(done.stdout)
    except ValueError:
        last = done.stderr.strip().splitlines()[-1:] or ["no word"]
        sys.stdout.write(f"Not looked for known holes: pip-audit could not ask ({last[0][:200]}).\n")
        return 0
    lines, is_good = judge(report, ACCEPTED, datetime.datetime.now(tz=datetime.UTC).date())
    sys.stdout.write("\n".join([*lines, ""]))
    return 0 if is_good else 1


def judge(report: Any, accepted: Mapping[str, Accepted], today: datetime.date) -> tuple[list[str], bool]:
    """What pip-audit's report says, line by line, and whether nothing has to be done about it."""
    packages = report["dependencies"]
    asked = [package for package in packages if "skip_reason" not in package]
    lines, is_good = [], True
    for package in asked:
        for hole in package["vulns"]:
            names = {hole["id"], *hole.get("aliases", [])}
            mended = ", ".join(hole.get("fix_versions", [])) or "no release"
            found = f"{package['name']} {package['version']}: {hole['id']}, mended in {mended}"
            known = next((accepted[name] for name in sorted(names) if name in accepted), None)
            if known is None:
                lines.append(f"{found}.")
            elif today > known.until:
                lines.append(f"{found}; accepted until {known.until} only: {known.reason}.")
            else:
                lines.append(f"{found}; accepted until {known.until}: {known.reason}.")
                continue
            is_good = False
    lines += [
        f"{package['name']} {AT_ITS_END[package['name']]}." for package in packages if package["name"] in AT_ITS_END
    ]
    if len(asked) < len(packages):
        lines.append(
            f"Not looked for known holes in {len(packages) - len(asked)} of {len(packages)} packages: no data here."
        )
    else:
        lines.append(f"Looked for known holes in {len(packages)} packages.")
    return lines, is_good


if __name__ == "__main__":
    sys.exit(main())
