"""Writes deploy/belfry.env.example from the settings themselves: `make docs`. `--check` fails where it is stale."""

import sys
import textwrap
from pathlib import Path
from typing import Any

from app.settings import Settings

EXAMPLE = Path(__file__).parent.parent / "deploy/belfry.env.example"
BEGINNING = """# /etc/belfry/belfry.env: every setting of Belfry, with its default. Take the # away to set one.
# DATABASE_URL and SECRET_KEY are better off in files of their own: deploy/belfry.service hands them over.
# This file is made from app/settings.py by `make docs`.
"""
# What is no default, but what most who copy the file change first.
CHOSEN = {"PUBLIC_URL": "https://bell.example.com", "TRUSTED_PROXIES": "1"}


def page() -> str:
    return BEGINNING + "".join(_setting(name, field) for name, field in Settings.model_fields.items())


def _setting(field_name: str, field: Any) -> str:
    name = field_name.upper()
    sentence = "\n".join(f"# {line}" for line in textwrap.wrap(field.description, 110, break_on_hyphens=False))
    value = f"{name}={CHOSEN[name]}" if name in CHOSEN else f"#{name}={_default(field.default)}"
    return f"\n{sentence}\n{value}\n"


def _default(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, list):
        return ",".join(value)
    text = str(int(value) if isinstance(value, bool) else value)
    return f'"{text}"' if " " in text else text


if __name__ == "__main__":
    if "--check" in sys.argv:
        sys.exit(0 if EXAMPLE.read_text() == page() else "deploy/belfry.env.example is stale: make docs")
    EXAMPLE.write_text(page())
