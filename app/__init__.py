"""Belfry: the bell of somebody else's product."""

from typing import Any

import flask

from app import (
    auth,
    changes,
    cli,
    cli_keys,
    cli_people,
    cli_upkeep,
    db,
    errors,
    fastpath,
    guard,
    inbox_api,
    known,
    limits,
    logs,
    mirror,
    ops,
    pages,
    people_api,
    preferences_api,
    publish_api,
    readiness,
    serve,
    settings,
    steering,
    types_page,
    watch,
)


def create_app(**overrides: Any) -> flask.Flask:
    """The service as a WSGI application. Settings come from the environment, `overrides` before them."""
    chosen = settings.load(**overrides)
    logs.start(chosen.log_level)
    app = flask.Flask(__name__, static_folder="../static", template_folder="../templates")
    settings.init_app(app, chosen)
    db.init_app(app, chosen)
    watch.init_app(app, chosen)
    errors.init_app(app)
    guard.init_app(app, chosen)
    auth.init_app(app, chosen)
    changes.init_app(app, chosen)
    known.init_app(app, chosen)
    steering.init_app(app, chosen)
    app.register_blueprint(inbox_api.api)
    app.register_blueprint(preferences_api.api)
    app.register_blueprint(publish_api.api)
    app.register_blueprint(people_api.api)
    app.register_blueprint(pages.pages)
    app.register_blueprint(types_page.page)
    app.register_blueprint(ops.ops)
    ops.init_app(app)
    readiness.init_app(app)
    app.register_blueprint(mirror.mirror)
    limits.init_app(app, chosen, caller=auth.caller, address=auth.address)
    cli.init_app(app)
    cli_people.init_app(app)
    cli_keys.init_app(app)
    cli_upkeep.init_app(app)
    serve.init_app(app)
    fastpath.init_app(app, chosen)
    return app
