"""Takes every check out of a copy of the service, one by one, and fails where no test misses it.

`python -m tests.taken_out` does all of tests/checks.py, `python -m tests.taken_out marking inbox` those of two modules.
"""

import concurrent.futures
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
# Written, not asked; or asked about numbers and not about anybody's rows.
ELSEWHERE = {"checkup", "models", "vitals", "retention"}
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


def copy_to(folder: Path) -> None:
    for name in COPIED:
        if (postgres.ROOT / name).exists():
            shutil.copytree(postgres.ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__", "rivals"))
    for path in postgres.ROOT.iterdir():
        if path.is_file():
            shutil.copy(path, folder / path.name)


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


def run(folder: Path, arguments: list[str], seconds: int = 120) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-n0", "-p", "no:randomly", "-p", "no:cacheprovider"]
    environment = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1"}
    return subprocess.run(
        [*command, *arguments], cwd=folder, env=environment, capture_output=True, text=True, timeout=seconds
    )


def take_out(check: Check, folder: Path) -> str:
    """What is to be said of a check: nothing where a test has missed it."""
    path = folder / "app" / f"{check.module}.py"
    whole = path.read_text()
    path.write_text(whole.replace(check.text, check.without))
    try:
        done = run(folder, [*tests_of(check), *(["-k", check.only] if check.only else [])])
    except subprocess.TimeoutExpired:
        return "the tests did not end"
    finally:
        path.write_text(whole)
    if done.returncode == 0:
        return "nobody misses it"
    if done.returncode != 1 or "FAILED " not in done.stdout:
        return f"the tests could not be run: {done.stdout[-600:]}{done.stderr[-300:]}"
    return ""


def main(modules: list[str]) -> None:
    everything = [*CHECKS, *scopes()]
    if wrong := misplaced(everything):
        sys.exit("\n".join(wrong))
    checks = [check for check in everything if not modules or check.module in modules]
    began = time.monotonic()
    with postgres.server(), tempfile.TemporaryDirectory(prefix="belfry-taken-out-") as place:
        folders: queue.Queue[Path] = queue.Queue()
        for number in range(COPIES):
            copy_to(Path(place) / str(number))
            folders.put(Path(place) / str(number))

        def in_a_copy(check: Check | None) -> str:
            folder = folders.get()
            try:
                return take_out(check, folder) if check else untouched(checks, folder)
            finally:
                folders.put(folder)

        if wrong_before := in_a_copy(None):
            sys.exit(wrong_before)
        with concurrent.futures.ThreadPoolExecutor(COPIES) as pool:
            survivors = 0
            for check, said in zip(checks, pool.map(in_a_copy, checks), strict=True):
                survivors += bool(said)
                first = check.text.strip().splitlines()[0]
                sys.stdout.write(f"{check.module}: {first}\n" if not said else f"{check.module}: {first}\n  {said}\n")
                sys.stdout.flush()
    sys.stdout.write(f"{len(checks)} checks taken out in {time.monotonic() - began:.0f} s, {survivors} not missed\n")
    sys.exit(bool(survivors))


def untouched(checks: list[Check], folder: Path) -> str:
    """The tests of all checks, with every check in its place: what they say if one of them fails."""
    every_test = sorted({test for check in checks for test in tests_of(check)})
    done = run(folder, [*every_test, "-n", str(COPIES)], seconds=300)
    if done.returncode == 0:
        return ""
    return f"The tests fail with every check in its place: {done.stdout[-3000:]}{done.stderr[-1000:]}"


if __name__ == "__main__":
    main(sys.argv[1:])
