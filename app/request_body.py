"""The body of an HTTP request: by its length or in chunks, and never waited for longer than the deadline."""

import io
import re
from collections.abc import Callable
from typing import Any, Protocol

CHUNK_SIZE = re.compile(rb"([0-9a-fA-F]{1,15})[ \t]*(?:;[\t\x20-\x7e\x80-\xff]*)?\r\n")
LONGEST_LINE = 4096
MOST_TRAILERS = 50


class Reader(Protocol):
    """What comes from the connection."""

    def read1(self, size: int, /) -> bytes: ...

    def readline(self, size: int, /) -> bytes: ...


class Broken(OSError):
    """The body ends too early, or is no body: nothing after it on this connection can be understood."""


class Body(io.RawIOBase):
    """`wsgi.input`: ends where the body ends. `begin` is called before the first byte is read."""

    def __init__(self, reader: Reader, length: int, is_chunked: bool, begin: Callable[[], None]) -> None:
        self._reader = reader
        self._left = length  # of the body, or of the present chunk
        self._is_chunked = is_chunked
        self._begin: Callable[[], None] | None = begin
        self._is_first_chunk = True
        self.has_ended = not is_chunked and length == 0
        self.is_broken = False

    def readable(self) -> bool:
        return True

    def is_soon_over(self, most: int) -> bool:
        """Whether what is left of it is on its way and little."""
        return self.has_ended or (not (self._is_chunked or self.is_broken) and self._left <= most)

    @property
    def was_begun(self) -> bool:
        return self._begin is None

    def readinto(self, buffer: Any, /) -> int:
        if self.has_ended:
            return 0
        if self.is_broken:
            raise Broken("the body cannot be read")
        if self._begin is not None:
            begin, self._begin = self._begin, None
            begin()
        try:
            return self._fill(memoryview(buffer))
        except OSError:
            self.is_broken = True
            raise

    def _fill(self, view: memoryview) -> int:
        if self._is_chunked and self._left == 0:
            self._next_chunk()
            if self.has_ended:
                return 0
        received = self._reader.read1(min(len(view), self._left))
        if not received:
            raise Broken("the body ends too early")
        view[: len(received)] = received
        self._left -= len(received)
        self.has_ended = self._left == 0 and not self._is_chunked
        return len(received)

    def _next_chunk(self) -> None:
        if not self._is_first_chunk and self._reader.readline(2) != b"\r\n":
            raise Broken("a chunk is longer than it says")
        self._is_first_chunk = False
        size = CHUNK_SIZE.fullmatch(self._reader.readline(LONGEST_LINE))
        if size is None:
            raise Broken("this is no chunk's size")
        self._left = int(size[1], 16)
        if self._left == 0:
            self._skip_trailers()
            self.has_ended = True

    def _skip_trailers(self) -> None:
        for _ in range(MOST_TRAILERS):
            line = self._reader.readline(LONGEST_LINE)
            if line == b"\r\n":
                return
            if not line.endswith(b"\r\n"):
                break
        raise Broken("the body has no end")
