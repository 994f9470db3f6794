"""What this worker knows of inboxes: at which version they are, and which sessions may be told so.

It is learned from polls that asked the database, asked anew before it is too old, a thousand inboxes by one statement,
and forgotten by notices. Whatever it says was true at a moment of the last minute; while notices may be missed, it says
nothing.
"""

import hashlib
import struct
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

import flask

from app import changes, metrics
from app.changes import EVERYBODY, Notices
from app.recent import Recent
from app.settings import Settings

GOOD_FOR = 60.0  # seconds: how late a change is noticed at worst, when its notice was lost
# Inboxes that have so few seconds left are asked about anew, in rounds that begin so many seconds apart.
ALMOST_OVER, ROUND = 30.0, 10.0
WANTED_FOR = 300.0  # seconds after its last poll: as long as a page waits that nobody looks at
AT_A_TIME = 1_000
MOST_SESSIONS = 8  # of one person, remembered at a time
STRIPES = 4_096

# What is kept of a session: its cookie's digest, which signs nobody in, and what the database is asked about it.
SESSION = struct.Struct("16s22siq")

Claims = dict[str, Any]  # user_id, session_epoch, session_id, session_until
# Finds of claims on many inboxes those that are good: by their places, with the version and `now` in microseconds.
Look = Callable[[list[Claims]], Mapping[int, tuple[int, int]]]


def init_app(app: flask.Flask, settings: Settings) -> None:
    hub: changes.Changes = app.extensions["changes"]
    known = Known(settings.fast_path_inboxes, hub.listener.start if settings.fast_path else lambda: None)
    app.extensions["known"] = known
    hub.add_hearer(known.hear, known.listen)
    metrics.BLIND.ask = known.is_blind if settings.fast_path else lambda: 0


def current() -> "Known":
    """What the worker knows that is at work."""
    found: Known = flask.current_app.extensions["known"]
    return found


def digest(cookie: str) -> bytes:
    return hashlib.blake2b(cookie.encode(), digest_size=16).digest()


class Inbox:
    """The version at which an inbox was within the last minute, and the sessions that may know it."""

    __slots__ = ("asked", "good_until", "sessions", "version")

    def __init__(self, version: int, good_until: float, asked: float, sessions: bytes) -> None:
        self.version = version
        self.good_until = good_until
        self.asked = asked  # when it was polled last
        self.sessions = sessions

    def session_of(self, cookie: str) -> str | None:
        """The id of this cookie's session, if the database has said that it is good."""
        at = self.sessions.find(digest(cookie))
        if at % SESSION.size:  # -1 too
            return None
        return str(self.sessions[at + 16 : at + 38], "ascii")

    def claims(self, user_id: int) -> list[Claims]:
        found = []
        for _, session_id, session_epoch, session_until in SESSION.iter_unpack(self.sessions):
            claims = {"user_id": user_id, "session_epoch": session_epoch, "session_until": session_until}
            found.append({**claims, "session_id": session_id.decode()})
        return found


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
        self._round: list[int] = []
        self.next_round = 0.0
        self._turns = threading.Lock()
        self._listening = self._wants_to_listen = False
        # How many notices came for the users of each stripe, and how often everything was forgotten.
        self._heard = [0] * STRIPES
        self._began_anew = 0
        # Added to the monotonic clock it gives the database's, in seconds since 1970, and never an earlier time.
        self.ahead = 0.0

    def __len__(self) -> int:
        return len(self._inboxes)

    def find(self, user_id: int) -> Inbox | None:
        return self._inboxes.get(user_id)

    def is_blind(self) -> bool:
        """Whether notices are wanted and do not arrive, so that nothing can be remembered."""
        return self._wants_to_listen and not self._listening

    def begin(self, user_id: int) -> Reading | None:
        """To be called before the database is asked; None while nothing can be remembered."""
        if not self._listening:
            self._wants_to_listen = True
            self._start_listening()
            return None
        return Reading((self._began_anew, self._heard[user_id % STRIPES]))

    def learn(self, reading: Reading | None, claims: Claims, version: int, now: int, cookie: str | None) -> None:
        """Remembers what the database said: the version, `now` in microseconds, and that the claims are good.

        Not if a notice for the user came since the reading began: nobody knows which of the two is the newer.
        """
        if reading is None or cookie is None or len(claims["session_id"]) != 22:
            return
        user_id, session_until = claims["user_id"], claims["session_until"]
        self.ahead = now / 1_000_000 - reading.began
        good_until = reading.began + min(GOOD_FOR, session_until - now / 1_000_000)
        session = SESSION.pack(digest(cookie), claims["session_id"].encode(), claims["session_epoch"], session_until)
        with self._turns:
            if not self._is_still_true(reading, user_id):
                return
            before = self._inboxes.get(user_id)
            if before is not None and before.version == version and before.good_until > reading.began:
                good_until = min(good_until, before.good_until)
                size = SESSION.size
                others = [before.sessions[at : at + size] for at in range(0, len(before.sessions), size)]
                session += b"".join([other for other in others if other != session][: MOST_SESSIONS - 1])
            self._inboxes.put(user_id, Inbox(version, good_until, reading.began, session), reading.began)

    def keep_up(self, look: Look) -> bool:
        """Asks about the next thousand inboxes that will soon be too old and are still polled; whether more wait."""
        now = time.monotonic()
        if not self._round:
            if now < self.next_round:
                return False
            self.next_round = now + ROUND
            self._round = list(self._inboxes.keys())
        due: list[tuple[int, Inbox, Reading | None]] = []
        while self._round and len(due) < AT_A_TIME:
            user_id = self._round.pop()
            inbox = self._inboxes.get(user_id)
            if inbox is not None and now < inbox.asked + WANTED_FOR and inbox.good_until < now + ALMOST_OVER:
                due.append((user_id, inbox, self.begin(user_id)))
        if due:
            self._ask_about(due, look)
        return bool(self._round)

    def _ask_about(self, due: list[tuple[int, Inbox, Reading | None]], look: Look) -> None:
        claims = [(entry, claim) for entry in due for claim in entry[1].claims(entry[0])]
        found = look([claim for _, claim in claims])
        good: dict[int, list[Claims]] = {}
        for place, ((user_id, inbox, _), claim) in enumerate(claims):
            if place in found and found[place][0] == inbox.version:
                good.setdefault(user_id, []).append(claim)
        now = max((now for _, now in found.values()), default=0) / 1_000_000
        for user_id, inbox, reading in due:
            untils = [claim["session_until"] for claim in good.get(user_id, [])]
            with self._turns:
                if reading is None or not self._is_still_true(reading, user_id) or self.find(user_id) is not inbox:
                    continue
                if len(untils) * SESSION.size < len(inbox.sessions):  # a notice was lost: the next poll asks
                    self._inboxes.drop(user_id)
                    continue
                inbox.good_until = reading.began + min(GOOD_FOR, min(untils) - now)
                self._inboxes.put(user_id, inbox, reading.began)

    def _is_still_true(self, reading: Reading, user_id: int) -> bool:
        return self._listening and reading.heard == (self._began_anew, self._heard[user_id % STRIPES])

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
