"""What a poll is answered with: that nothing has changed, or the unread snapshot. Both ways in for polls come here."""

import re
from typing import NamedTuple

from app import db, inbox, known, settings
from app.known import Inbox
from app.people import Reader

# EPOCH.USER.VERSION.UNTIL.LIMIT, as docs/api.md has it; the epoch holds no dots and no quotes.
ETAG = re.compile(r'"([^".]+)\.(\d{1,19})\.(\d{1,19})\.(\d{1,19})\.(\d{1,3})"')

# Where the WSGI environment holds what went wrong on the short way, for the ordinary way to say without trying again.
TROUBLE = "belfry.trouble"


class Answer(NamedTuple):
    """The tag of the present state, and the snapshot as JSON; None where the caller has it already."""

    tag: str
    body: bytes | None


class Tag(NamedTuple):
    """A tag of the caller's that could be true."""

    text: str
    version: int
    until: int


def answer(reader: Reader, limit: int, given: str | None, cookie: str | None) -> Answer:
    """What the reader's poll is answered with; `given` is its `If-None-Match`. 401 for a session that is not good.

    What the database says of the inbox is remembered for the polls that come with this session's `cookie`.
    """
    worker = known.current()
    reading = worker.begin(reader.user_id)
    tags = _tags(given or "", reader, limit)
    if tags and not _is_older(tags, worker.find(reader.user_id)):
        at = db.read(inbox.position, reader)
        worker.learn(reading, reader.claims, at.version, at.now, cookie)
        for tag in tags:
            if tag.version == at.version and (tag.until == 0 or at.now < tag.until):
                return Answer(tag.text, None)
    snapshot = db.read(inbox.unread_snapshot, reader, limit)
    worker.learn(reading, reader.claims, snapshot.version, snapshot.now, cookie)
    tag_now = snapshot.tag(settings.current().epoch, limit)
    # `*` asks for any present state, and a signed-in reader always has one (RFC 9110 13.1.2).
    return Answer(tag_now, None if (given or "").strip() == "*" else inbox.dump(snapshot.as_json()))


def _tags(given: str, reader: Reader, limit: int) -> list[Tag]:
    """The caller's tags that could be true; compared weakly (RFC 9110 13.1.2), for proxies weaken them.

    However many are given, they cost one look-up: only the present version can match.
    """
    mine = (settings.current().epoch, str(reader.user_id), str(limit))
    return [
        Tag(match.group(), int(match[3]), int(match[4]))
        for match in ETAG.finditer(given)
        if (match[1], match[2], match[5]) == mine
    ]


def _is_older(tags: list[Tag], inbox_as_known: Inbox | None) -> bool:
    """Whether the inbox is known to have gone beyond all these tags: then asking for its version is asking in vain."""
    return inbox_as_known is not None and all(tag.version < inbox_as_known.version for tag in tags)
