"""More apps beside the one of the fixtures: another worker on its database, or the same service with other settings."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import flask

from app import create_app, db, settings
from tests import postgres
from tests.cast import Browser


@contextmanager
def another_app(**changed: Any) -> Iterator[flask.Flask]:
    """One more app on the database of the present one, with these settings changed."""
    url = settings.current().database_url
    app = create_app(**{"database_url": url, "secret_key": postgres.SECRET_KEY, "web_concurrency": 1, **changed})
    app.test_client_class = Browser
    try:
        yield app
    finally:
        with app.app_context():
            db.engine().dispose()


def proxy_that_strips(prefix: str, application: Callable[..., Any]) -> Callable[..., Any]:
    """A proxy that takes the prefix off, as seen by a browser: it asks for `/belfry/x`, the service gets `/x`."""

    def forward(environ: dict[str, Any], start_response: Any) -> Any:
        environ["PATH_INFO"] = environ["PATH_INFO"].removeprefix(prefix) or "/"
        return application(environ, start_response)

    return forward
