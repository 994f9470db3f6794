"""Takes every check out of a copy of the service, one by one, and fails where no test misses it.

`python -m tests.taken_out` does all of tests/checks.py, `python -m tests.taken_out marking inbox` those of two modules.
"""

import concurrent.futures
import json
import os
import queue
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tests import postgres
from tests.checks import CHECKS, Check

COPIES = 2
COPIED = ["app", "migrations", "static", "templates", "tests", "docs", "examples", "clients", "deploy", "bench"]
SCOPES = {"publish": "people", "people": "tickets", "tickets": "people"}
# What a module asks of the rows that it touches, whose they are and whether the session is good. Not the columns that
# are merely written.
OWNED = re.compile(
    r"\b(?:\w+\.)?(?:only_)?user_id = (?::user_id|users\.id|tickets\.user_id)|\bid = :user_id"
    r"|api_key_id = :(?:api_)?key_id|session_epoch = :session_epoch|FROM ended_sessions\b"
    r"|\{MAY_READ[^}]*\}|(?:AND|WHERE) (?:users\.)?is_active\b"
)
# Written, not asked; or asked about numbers, or for the operator, and not about anybody's rows.
ELSEWHERE = {"checkup", "models", "vitals", "retention", "stats"}
# The event that it names is of one key, which is asked for besides.
HELD_OTHERWISE = {"idempotency": "api_key_id = :api_key_id AND key = :key AND CAST"}


def scopes() -> list[Check]:
    """Each route of the senders' API with another scope than its own."""
    found = []
    for module in ("publish_api", "people_api"):
        source = source_of(module)
        for match in re.finditer(
            r'def (\w+)\([^\n]*\n    """[^\n]*"""\n    (?:sender = )?auth\.sender\("(\w+)"\)', source
        ):
            text, scope = match.group(), match[2]
            without = text.replace(f'auth.sender("{scope}")', f'auth.sender("{SCOPES[scope]}")')
            found.append(Check(module, text, without, ("keys::each_call_needs",)))
        assert len(re.findall(r"auth\.sender\(", source)) == sum(check.module == module for check in found), module
    return found


def source_of(module: str) -> str:
    return (postgres.ROOT / "app" / f"{module}.py").read_text()


def misplaced(checks: list[Check]) -> list[str]:
    """What is wrong with the list: texts that are not in the code, once each, and owners that are in no line of it."""
    found = []
    for check in checks:
        if (count := source_of(check.module).count(check.text)) != 1:
            found.append(f"{check.module}: is there {count} times: {check.text!r}")
    for path in sorted((postgres.ROOT / "app").glob("*.py")):
        source = path.read_text()
        held = [
            (start, start + len(check.text))
            for check in checks
            if check.module == path.stem and (start := source.find(check.text)) >= 0
        ]
        for match in OWNED.finditer(source) if path.stem not in ELSEWHERE else ():
            if source.startswith(HELD_OTHERWISE.get(path.stem, " "), match.start()):
                continue
            if not any(start <= match.start() and match.end() <= end for start, end in held):
                line = source[: match.start()].count("\n") + 1
                found.append(f"{path.stem}: line {line} is in no line of tests/checks.py: {match.group()}")
    return found


class Copy:
    """A copy of the service with its tests, to be changed, and the process that runs pytest in it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        without = shutil.ignore_patterns("__pycache__", "rivals")
        for name in COPIED:
            if (postgres.ROOT / name).exists():
                shutil.copytree(postgres.ROOT / name, folder / name, ignore=without)
        for path in postgres.ROOT.iterdir():
            if path.is_file():
                shutil.copy(path, folder / path.name)
        self._changes = 0
        command = [sys.executable, "-m", "tests.forked"]
        self.process = subprocess.Popen(
            command, cwd=folder, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True
        )

    def run(self, arguments: list[str]) -> tuple[int | None, str]:
        """The exit status of pytest, None where it did not end, and what it said."""
        assert self.process.stdin
        assert self.process.stdout
        self.process.stdin.write(json.dumps(arguments) + "\n")
        self.process.stdin.flush()
        status, said = json.loads(self.process.stdout.readline())
        return status, said

    def take_out(self, check: Check) -> str:
        """What is to be said of a check: nothing where a test has missed it."""
        path = self.folder / "app" / f"{check.module}.py"
        whole, times = path.read_text(), path.stat()
        path.write_text(whole.replace(check.text, check.without))
        # Python tells by the time of a file, in seconds, whether what it has compiled is of the present one.
        self._changes += 1
        os.utime(path, (self._changes, self._changes))
        try:
            status, said = self.run([*tests_of(check), *(["-k", check.only] if check.only else [])])
        finally:
            path.write_text(whole)
            os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
        if status is None:
            return "the tests did not end"
        if status == 0:
            return "nobody misses it"
        if status != 1 or "FAILED " not in said:
            return f"the tests could not be run: {said[-900:]}"
        return ""

    def end(self) -> None:
        assert self.process.stdin
        assert self.process.stdout
        self.process.stdin.close()
        self.process.wait()
        self.process.stdout.close()


def tests_of(check: Check) -> list[str]:
    """The tests of a check by their full names."""
    found = []
    for name in check.tests:
        file, _, beginning = name.partition("::")
        path = f"tests/test_{file}.py"
        whole = re.findall(rf"^def (test_{beginning}\w*)", (postgres.ROOT / path).read_text(), re.MULTILINE)
        assert whole, f"there is no test {name}"
        found += [f"{path}::{test}" for test in whole]
    return found


def main(modules: list[str]) -> None:
    everything = [*CHECKS, *scopes()]
    if wrong := misplaced(everything):
        sys.exit("\n".join(wrong))
    checks = [check for check in everything if not modules or check.module in modules]
    began = time.monotonic()
    with postgres.server(), tempfile.TemporaryDirectory(prefix="belfry-taken-out-") as place:
        copies = [Copy(Path(place) / str(number)) for number in range(COPIES)]
        try:
            survivors = all_of(checks, copies)
        finally:
            for copy in copies:
                copy.end()
    sys.stdout.write(f"{len(checks)} checks taken out in {time.monotonic() - began:.0f} s, {survivors} not missed\n")
    sys.exit(bool(survivors))


def all_of(checks: list[Check], copies: list[Copy]) -> int:
    """Takes all of them out, says which are not missed, and how many those are."""
    free: queue.Queue[Copy] = queue.Queue()
    for copy in copies:
        free.put(copy)

    def take_out(check: Check) -> tuple[str, float]:
        copy, began = free.get(), time.monotonic()
        try:
            return copy.take_out(check), time.monotonic() - began
        finally:
            free.put(copy)

    survivors = 0
    with concurrent.futures.ThreadPoolExecutor(len(copies)) as pool:
        for wrong in pool.map(lambda share: untouched(*share), zip(copies, shares_of(checks), strict=True)):
            if wrong:
                sys.exit(wrong)
        for check, (said, seconds) in zip(checks, pool.map(take_out, checks), strict=True):
            survivors += bool(said)
            sys.stdout.write(f"{check.module}: {check.text.strip().splitlines()[0]} ({seconds:.1f} s)\n")
            sys.stdout.write(f"  {said}\n" if said else "")
            sys.stdout.flush()
    return survivors


def shares_of(checks: list[Check]) -> list[list[str]]:
    """The tests of all checks, divided among the copies, those of a file together."""
    files: dict[str, list[str]] = {}
    for test in sorted({test for check in checks for test in tests_of(check)}):
        files.setdefault(test.partition("::")[0], []).append(test)
    shares: list[list[str]] = [[] for _ in range(COPIES)]
    for tests in sorted(files.values(), key=len, reverse=True):
        min(shares, key=len).extend(tests)
    return shares


def untouched(copy: Copy, tests: list[str]) -> str:
    """What these tests say if one fails with every check in its place."""
    if not tests:
        return ""
    status, said = copy.run(tests)
    return "" if status == 0 else f"The tests fail with every check in its place: {said[-3000:]}"


if __name__ == "__main__":
    main(sys.argv[1:])
