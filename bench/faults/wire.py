"""A client that notices everything: one kept connection, each answer with all that it says, or the reason for none."""

import asyncio
import contextlib
import ssl
from collections.abc import Coroutine
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType
from typing import Any, NamedTuple, TypeVar

HOST = "localhost"
PATIENCE = 15.0  # seconds until nobody waits for an answer any more

T = TypeVar("T")


def run(work: Coroutine[Any, Any, T]) -> T:
    """As asyncio's, in a thread of its own: whoever drives a browser has a loop in this one already."""
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(asyncio.run, work).result()


class Address(NamedTuple):
    """Where on this machine a service listens; with TLS, whom to trust."""

    port: int
    tls: ssl.SSLContext | None = None


class Answer(NamedTuple):
    status: int
    headers: dict[str, str]  # by their names in small letters
    body: bytes


class Unanswered(Exception):
    """No answer, or none that can be understood; its text says which."""


class Wire:
    """A connection that stays open, as a browser's or a host's does."""

    def __init__(self, address: Address) -> None:
        self.address = address
        self._reader: asyncio.StreamReader | None = None
        self._writer: asyncio.StreamWriter | None = None

    async def __aenter__(self) -> "Wire":
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._close()
        await asyncio.sleep(0)  # which is when the socket is really closed

    async def ask(self, method: str, path: str, headers: dict[str, str], body: bytes = b"") -> Answer:
        """The answer. A kept connection that was closed before anything came back is opened anew once, as browsers do
        for what may be repeated.
        """
        lines = [f"{method} {path} HTTP/1.1", f"Host: {HOST}"]
        lines += [f"{name}: {value}" for name, value in headers.items()]
        lines += [f"Content-Length: {len(body)}"] if body or method != "GET" else []
        request = "\r\n".join([*lines, "", ""]).encode() + body
        try:
            async with asyncio.timeout(PATIENCE):
                if self._writer is not None:
                    with contextlib.suppress(asyncio.IncompleteReadError, OSError):
                        return await self._exchange(request)
                self._close()
                return await self._exchange(request)
        except TimeoutError:
            raise self._failed("no answer in time") from None
        except asyncio.IncompleteReadError as error:
            raise self._failed("cut off" if error.partial else "closed without an answer") from None
        except (OSError, ValueError, IndexError) as error:
            raise self._failed(type(error).__name__) from None

    async def _exchange(self, request: bytes) -> Answer:
        if self._reader is None or self._writer is None:
            tls = self.address.tls
            self._reader, self._writer = await asyncio.open_connection(
                "127.0.0.1", self.address.port, ssl=tls, server_hostname=HOST if tls else None
            )
        self._writer.write(request)
        await self._writer.drain()
        head = (await self._reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        status = int(head[0].split()[1])
        pairs = [line.partition(":") for line in head[1:] if line]
        headers = {name.lower(): value.strip() for name, _, value in pairs}
        body = b"" if status in (204, 304) else await self._body(self._reader, headers)
        if headers.get("connection", "").lower() == "close":
            self._close()
        return Answer(status, headers, body)

    async def _body(self, reader: asyncio.StreamReader, headers: dict[str, str]) -> bytes:
        if headers.get("transfer-encoding") != "chunked":
            return await reader.readexactly(int(headers["content-length"]))
        body = b""
        while size := int(await reader.readuntil(b"\r\n"), 16):
            body += (await reader.readexactly(size + 2))[:-2]
        await reader.readexactly(2)
        return body

    def _failed(self, reason: str) -> Unanswered:
        self._close()
        return Unanswered(reason)

    def _close(self) -> None:
        if self._writer is not None:
            self._writer.transport.abort()  # nobody waits for a goodbye, least of all from who is hung
        self._reader = self._writer = None
