"""What this worker knows of inboxes: at which version they are, and which sessions may be told so.

It is learned from polls that asked the database, and forgotten by notices. Whatever it says was true at a moment of
the last minute; while notices may be missed, it says nothing.
"""

import hashlib
import threading
import time
from collections.abc import Callable

import flask

from app import changes
from app.changes import EVERYBODY, Notices
from app.recent import Recent
from app.settings import Settings

GOOD_FOR = 60.0  # seconds: how late a change is noticed at worst, when its notice was lost
DIGEST = 16  # bytes that stand for a cookie
MOST_SESSIONS = 8  # of one person, remembered at a time
STRIPES = 4_096


def init_app(app: flask.Flask, settings: Settings) -> None:
    hub: changes.Changes = app.extensions["changes"]
    known = Known(settings.fast_path_inboxes, hub.listener.start if settings.fast_path else lambda: None)
    app.extensions["known"] = known
    hub.add_hearer(known.hear, known.listen)


def current() -> "Known":
    """What the worker knows that is at work."""
    found: Known = flask.current_app.extensions["known"]
    return found


def digest(cookie: str) -> bytes:
    """What is kept instead of a session's cookie: it takes a quarter of the memory, and signs nobody in."""
    return hashlib.blake2b(cookie.encode(), digest_size=DIGEST).digest()


class Inbox:
    """The version at which an inbox was within the last minute, and the digests of the cookies that may know it."""

    __slots__ = ("good_until", "sessions", "version")

    def __init__(self, version: int, good_until: float, sessions: bytes) -> None:
        self.version = version
        self.good_until = good_until
        self.sessions = sessions


class Reading:
    """A look at the database that has begun: what it finds is worth remembering unless a notice came meanwhile."""

    __slots__ = ("began", "heard")

    def __init__(self, heard: tuple[int, int]) -> None:
        self.heard = heard
        self.began = time.monotonic()


class Known:
    """The inboxes known to this worker. Reading needs no lock; what is stored and what is forgotten takes turns."""

    def __init__(self, most: int, start_listening: Callable[[], None]) -> None:
        self._start_listening = start_listening
        self._inboxes: Recent[int, Inbox] = Recent(GOOD_FOR, most)
        self._turns = threading.Lock()
        self._listening = False
        # How many notices came for the users of each stripe, and how often everything was forgotten.
        self._heard = [0] * STRIPES
        self._began_anew = 0
        # Added to the monotonic clock it gives the database's, in seconds since 1970, and never an earlier time.
        self.ahead = 0.0

    def __len__(self) -> int:
        return len(self._inboxes)

    def find(self, user_id: int) -> Inbox | None:
        return self._inboxes.get(user_id)

    def begin(self, user_id: int) -> Reading | None:
        """To be called before the database is asked; None while nothing can be remembered."""
        if not self._listening:
            self._start_listening()
            return None
        return Reading((self._began_anew, self._heard[user_id % STRIPES]))

    def learn(
        self, reading: Reading | None, user_id: int, version: int, now: int, session_until: int, cookie: str | None
    ) -> None:
        """Remembers what the database said: the version, `now` in microseconds, and that the session was good.

        Not if a notice for the user came since the reading began: nobody knows which of the two is the newer.
        """
        if reading is None or cookie is None:
            return
        self.ahead = now / 1_000_000 - reading.began
        good_until = reading.began + min(GOOD_FOR, session_until - now / 1_000_000)
        sessions = digest(cookie)
        with self._turns:
            if not self._listening or reading.heard != (self._began_anew, self._heard[user_id % STRIPES]):
                return
            before = self._inboxes.get(user_id)
            if before is not None and before.version == version and before.good_until > reading.began:
                good_until = min(good_until, before.good_until)
                others = [before.sessions[at : at + DIGEST] for at in range(0, len(before.sessions), DIGEST)]
                sessions += b"".join([other for other in others if other != sessions][: MOST_SESSIONS - 1])
            self._inboxes.put(user_id, Inbox(version, good_until, sessions), reading.began)

    def hear(self, notices: Notices) -> None:
        """Forgets what a notice says is not true any more."""
        with self._turns:
            if EVERYBODY in notices:
                self._forget_all()
                return
            for user_id, version in notices.items():
                self._heard[user_id % STRIPES] += 1
                inbox = self._inboxes.get(user_id)
                if inbox is not None and inbox.version < version:
                    self._inboxes.drop(user_id)

    def listen(self, listening: bool) -> None:
        """Is told whether notices arrive. Whatever came before is forgotten: one of them may have been missed."""
        with self._turns:
            self._listening = listening
            self._forget_all()

    def _forget_all(self) -> None:
        self._began_anew += 1
        self._inboxes.clear()
