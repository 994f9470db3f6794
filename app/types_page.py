"""The page /types: the types of event that the reader has met, each to be muted. Its form answers 303."""

from typing import Annotated, Literal

import flask
from flask.typing import ResponseReturnValue
from pydantic import Field

from app import auth, db, guard, inbox, preferences, validation
from app.errors import Problem
from app.events import Type
from app.validation import BIGINT_MAX, Model

page = flask.Blueprint("types_page", __name__)
page.register_error_handler(Problem, auth.ask_to_sign_in)


class Form(Model):
    """What a button of the page sends: for whom it was drawn, and which type to mute or to hear again."""

    reader: Annotated[int, Field(ge=0, le=BIGINT_MAX)] = 0
    type: Type
    muted: Literal["0", "1"]


@page.get("/types")
def show() -> ResponseReturnValue:
    reader = auth.reader()
    snapshot = db.read(inbox.unread_snapshot, reader, 0)
    listed = db.read(preferences.list_preferences, reader)
    return flask.render_template("types.html", reader=reader, user=snapshot.user, preferences=listed)


@page.post("/types")
def change() -> ResponseReturnValue:
    reader = auth.reader()
    form = validation.check_query(Form, guard.form().items())
    if form.reader == reader.user_id:
        db.write(preferences.mute, reader, form.type, muted=form.muted == "1")
    else:  # somebody else has signed in since the page was drawn: nothing is changed, and they see what is theirs
        db.read(inbox.position, reader)
    return flask.redirect(flask.url_for("types_page.show", _anchor=f"type-{form.type}"), 303)
