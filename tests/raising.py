"""An application that fails without an answer of its own, and quotes what it was sent."""

from collections.abc import Iterable
from typing import Any


def app(environ: dict[str, Any], _start_response: Any) -> Iterable[bytes]:
    raise RuntimeError(f"cannot take {environ.get('HTTP_COOKIE')}")
