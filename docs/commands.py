"""Writes docs/commands.md from the commands themselves: `make docs`. `--check` fails where the page is stale."""

import sys
from collections.abc import Iterator
from pathlib import Path

import click

from app import cli, cli_keys, cli_people, cli_upkeep, serve

PAGE = Path(__file__).parent / "commands.md"

BEGINNING = """# Commands

For operators and cron: `flask` finds the service by itself where it stands, and takes its settings from the environment.
Every command but `serve` takes `--json` and then prints JSON; it exits with 0, or with 1 and one clear line on standard error.

This page is made from the commands by `make docs`.
The tables' own, `flask db upgrade` and `flask db downgrade`, are Flask-Migrate's: [operations.md](operations.md#upgrade).
"""


def commands() -> Iterator[tuple[str, click.Command]]:
    """Every command of ours by its name."""
    for group in (cli_people.user, cli_keys.key):
        yield from ((f"{group.name} {name}", found) for name, found in group.commands.items())
    for module in (cli, cli_upkeep, serve):
        yield from ((str(found.name), found) for found in vars(module).values() if isinstance(found, click.Command))


def page() -> str:
    return BEGINNING + "".join(_command(name, found) for name, found in sorted(commands(), key=lambda each: each[0]))


def _command(name: str, command: click.Command) -> str:
    context = click.Context(command)
    usage = " ".join(piece for piece in command.collect_usage_pieces(context) if piece != "[OPTIONS]")
    said = " ".join((command.help or "").split())
    rows = [
        _option(option) for option in command.params if isinstance(option, click.Option) and option.name != "as_json"
    ]
    table = "\n| option | what it does |\n| --- | --- |\n" + "".join(rows) if rows else ""
    return f"\n## flask {name}\n\n`flask {name}{' ' + usage if usage else ''}`\n\n{said}\n{table}"


def _option(option: click.Option) -> str:
    value = "" if option.is_flag else f" {option.make_metavar(click.Context(click.Command('x')))}"
    default = f" `{option.default}` unless told." if option.show_default else ""
    named = f"{', '.join([*option.opts, *option.secondary_opts])}{value}".replace("|", "\\|")  # or a cell would end
    return f"| `{named}` | {option.help or ''}{default} |\n"


if __name__ == "__main__":
    if "--check" in sys.argv:
        sys.exit(0 if PAGE.read_text() == page() else "docs/commands.md is stale: make docs")
    PAGE.write_text(page())
