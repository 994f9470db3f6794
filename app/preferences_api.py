"""The reader's API under /preferences: which types of event they want to hear of."""

import flask
import orjson

from app import auth, db, guard, preferences, validation
from app.errors import not_found
from app.events import Type
from app.openapi import described
from app.validation import Model

api = flask.Blueprint(guard.PREFERENCES, __name__, url_prefix="/preferences")


class Preference(Model):
    """A type, and whether the reader hears of it."""

    type: Type
    muted: bool


class PreferencesAnswer(Model):
    """The types that this reader has met, by name."""

    preferences: list[Preference]


class PreferenceBody(Model):
    """Whether not to hear of a type any more."""

    muted: bool


@api.get("")
@described(answers={200: PreferencesAnswer})
def list_preferences() -> flask.Response:
    """The types that the reader has met, each muted or not."""
    return _answer({"preferences": db.read(preferences.list_preferences, auth.reader())})


@api.put("/<type>")
@described(body=PreferenceBody, answers={200: Preference}, refusals=(404,))
def mute(type: str) -> flask.Response:
    """Mute a type, or let it be heard again."""
    reader = auth.reader()
    body = validation.check(PreferenceBody, validation.parse_object(guard.json_body()))
    if "\0" in type:
        raise not_found()
    db.write(preferences.mute, reader, type, muted=body.muted)
    return _answer({"type": type, "muted": body.muted})


def _answer(content: object) -> flask.Response:
    return flask.Response(orjson.dumps(content), mimetype="application/json")
