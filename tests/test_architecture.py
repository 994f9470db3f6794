"""Who may use what: imports go down the layers, and each ban of the house holds everywhere."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

DOORS = "fastpath inbox_api preferences_api types_page publish_api people_api pages ops mirror"
DOORS += " cli cli_people cli_keys cli_upkeep serve"
AROUND_THEM = "auth guard watch openapi polling demo console"
INBOXES = "inbox marking preferences publishing retracting personal_data readiness retention tickets vitals"
UPKEEP = "checkup checkup_server checkup_way_in stats"  # they ask those how far they have come
WHAT_IS_UNREAD = "unread"  # one rule for both inbox and marking, and it asks people whether the reader may know
PEOPLE = "people keys events limits idempotency known steering"
NOTICES = "changes"

# From the top: a module imports only from the lines below its own.
LAYERS = [
    "worker",
    "wsgi",
    "app",
    DOORS,
    f"{AROUND_THEM} {UPKEEP}",
    INBOXES,
    WHAT_IS_UNREAD,
    PEOPLE,
    f"validation sanitize refusals models counters poll_counter findings {NOTICES}",
    "db errors headers server_log shared_counters",
    "settings logs metrics shared_numbers embedded aside comeback patience recent request_head request_body",
]
LAYER = {module: depth for depth, modules in enumerate(LAYERS) for module in modules.split()}

KNOWS_THE_REQUEST = {*DOORS.split(), *AROUND_THEM.split(), "errors"}
ASKS_DIRECTLY = {NOTICES, "counters", "db", "patience"}
WRITES_SQL = {*UPKEEP.split(), *INBOXES.split(), *WHAT_IS_UNREAD.split(), *PEOPLE.split(), *ASKS_DIRECTLY}
# The tables' own definitions: conditions of indexes and defaults are text, and none of it is ever sent as a query.
DEFINES_TABLES = {"models"}

# What a query is made of; types such as Connection and Row may stand in any signature.
STATEMENTS = {"text", "select", "insert", "update", "delete", "func", "exists", "literal_column", "union", "values"}
EXECUTING = {"execute", "executemany", "exec_driver_sql", "scalar", "scalars", "stream_results", "cursor"}

LONGEST_FILE = 300
LONGEST_FUNCTION = 45
# The private server's lifecycle is one subject: who holds which lock when can only be understood together. And every
# setting stands in one place.
LONG_FILES: set[str] = {"embedded", "settings"}
LONG_FUNCTIONS: set[str] = set()


def sources() -> dict[str, str]:
    """Every module of the service by its name: `app` is the package itself, the others stand without it."""
    found = {"wsgi": (ROOT / "wsgi.py").read_text()}
    for path in (ROOT / "app").rglob("*.py"):
        parts = path.relative_to(ROOT / "app").with_suffix("").parts
        found["app" if parts == ("__init__",) else ".".join(parts)] = path.read_text()
    return found


def imported(module: str, tree: ast.AST) -> Iterator[str]:
    """The modules of ours that a module imports, wherever in it."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name.split(".")[0] == "app":
                    yield alias.name.removeprefix("app.")
        elif isinstance(node, ast.ImportFrom):
            if node.level:
                yield "a relative import"
            elif node.module == "app":
                yield from ("app" if module == "wsgi" else alias.name for alias in node.names)
            elif node.module and node.module.startswith("app."):
                yield node.module.removeprefix("app.")


def import_errors(module: str, source: str) -> list[str]:
    if module not in LAYER:
        return [f"{module} is in no layer"]
    return [
        f"{module} imports {other}, which is not below it"
        for other in imported(module, ast.parse(source))
        if LAYER.get(other, -1) <= LAYER[module]
    ]


def names_from(tree: ast.AST, package: str) -> Iterator[str]:
    """The names that a module takes out of a package, be it by `from package import x` or as `package.x`."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == package:
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == package:
            yield node.attr


def request_errors(module: str, source: str) -> list[str]:
    if module in KNOWS_THE_REQUEST:
        return []
    return [f"{module} knows the request" for name in names_from(ast.parse(source), "flask") if name == "request"]


def sql_errors(module: str, source: str) -> list[str]:
    if module in WRITES_SQL:
        return []
    tree = ast.parse(source)
    calls = {
        node.func.attr
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in EXECUTING
    }
    allowed = {"text"} if module in DEFINES_TABLES else set()
    statements = set(names_from(tree, "sqlalchemy")) & STATEMENTS - allowed
    drivers = [name for name in ("psycopg", "psycopg2", "asyncpg") if list(names_from(tree, name))]
    return [f"{module} writes SQL: {what}" for what in sorted(calls | statements) + drivers]


def environment_errors(module: str, source: str) -> list[str]:
    if module == "settings":
        return []
    banned = {"environ", "environb", "getenv", "putenv"}
    return [f"{module} reads the environment" for name in names_from(ast.parse(source), "os") if name in banned]


def print_errors(module: str, source: str) -> list[str]:
    return [
        f"{module} prints"
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in ("print", "breakpoint")
    ]


def unfinished(module: str, source: str) -> list[str]:
    return [f"{module} has a {word}" for word in ("TODO", "FIXME", "XXX", "HACK") if word in source]


def length_errors(module: str, source: str) -> list[str]:
    found = []
    lines = len(source.splitlines())
    if lines > LONGEST_FILE and module not in LONG_FILES:
        found.append(f"{module} has {lines} lines")
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            length = (node.end_lineno or node.lineno) - node.lineno + 1
            if length > LONGEST_FUNCTION and f"{module}.{node.name}" not in LONG_FUNCTIONS:
                found.append(f"{module}.{node.name} has {length} lines")
    return found


RULES = [
    import_errors,
    request_errors,
    sql_errors,
    environment_errors,
    print_errors,
    unfinished,
    length_errors,
]


@pytest.mark.parametrize("module", sorted(sources()))
def test_a_module_keeps_the_rules_of_the_house(module: str) -> None:
    source = sources()[module]

    assert [error for rule in RULES for error in rule(module, source)] == []


def test_every_module_that_has_a_layer_is_there() -> None:
    assert set(LAYER) == set(sources())


def test_the_exceptions_are_still_needed() -> None:
    for module in LONG_FILES:
        assert len(sources()[module].splitlines()) > LONGEST_FILE


def planted() -> list[tuple[str, str, str]]:
    return [
        # Upwards, sideways, unknown, hidden inside a function, by other spellings.
        ("db", "from app import people", "db imports people, which is not below it"),
        ("people", "from app import limits", "people imports limits, which is not below it"),
        ("settings", "from app import embedded", "settings imports embedded, which is not below it"),
        ("inbox", "def late():\n    from app.pages import x", "inbox imports pages, which is not below it"),
        ("inbox", "import app.inbox_api", "inbox imports inbox_api, which is not below it"),
        ("people", "from app.inbox import x", "people imports inbox, which is not below it"),
        ("pages", "from app import create_app", "pages imports create_app, which is not below it"),
        ("pages", "from . import auth", "pages imports a relative import, which is not below it"),
        ("db", "from app import brand_new", "db imports brand_new, which is not below it"),
        ("brand_new", "", "brand_new is in no layer"),
        ("people", "import flask\nx = flask.request.args", "people knows the request"),
        ("inbox", "from flask import request", "inbox knows the request"),
        ("db", "from flask import request as r", "db knows the request"),
        ("pages", "from sqlalchemy import text", "pages writes SQL: text"),
        ("auth", "import sqlalchemy\nx = sqlalchemy.select(1)", "auth writes SQL: select"),
        ("cli", "def f(connection):\n    connection.execute('x')", "cli writes SQL: execute"),
        ("guard", "def f(connection):\n    connection.exec_driver_sql('x')", "guard writes SQL: exec_driver_sql"),
        ("models", "from sqlalchemy import select", "models writes SQL: select"),
        ("models", "def f(connection):\n    connection.execute(text('x'))", "models writes SQL: execute"),
        ("pages", "import psycopg\npsycopg.connect('')", "pages writes SQL: psycopg"),
        ("db", "import os\nx = os.environ['A']", "db reads the environment"),
        ("cli", "from os import environ", "cli reads the environment"),
        ("auth", "import os\nos.getenv('A')", "auth reads the environment"),
        ("cli", "print('x')", "cli prints"),
        ("inbox", "# TODO: later", "inbox has a TODO"),
        ("inbox", "# FIXME", "inbox has a FIXME"),
        ("inbox", "\n" * (LONGEST_FILE + 1), f"inbox has {LONGEST_FILE + 1} lines"),
        ("inbox", "def f():\n" + "    x = 1\n" * LONGEST_FUNCTION, f"inbox.f has {LONGEST_FUNCTION + 1} lines"),
    ]


@pytest.mark.parametrize(("module", "source", "error"), planted())
def test_the_rules_bite(module: str, source: str, error: str) -> None:
    assert [found for rule in RULES for found in rule(module, source)] == [error]


def test_what_the_layers_allow_is_no_error() -> None:
    allowed = {
        "wsgi": "from app import create_app",
        "app": "from app import cli, settings",
        "pages": "from app import auth, inbox\nimport flask\nx = flask.request.form",
        "inbox": "from sqlalchemy import Row, text\nfrom app.people import Reader\ndef f(c):\n    c.execute(text('x'))",
        "models": "from sqlalchemy import Column, text\nx = text('now()')",
        "settings": "import os\nx = os.environ",
        "errors": "import flask\nx = flask.request.accept_mimetypes\nimport sqlalchemy.exc",
        "console": "import sqlalchemy.exc",
    }
    for module, source in allowed.items():
        assert [error for rule in RULES for error in rule(module, source)] == [], module
