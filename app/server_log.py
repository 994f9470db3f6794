"""What gunicorn and gevent have to say, into the same log and in the same shape."""

import logging
import uuid
from typing import Any

import gevent
import structlog
from gunicorn.glogging import Logger

from app import logs, metrics

log = structlog.get_logger(__name__)


class GunicornLogger(Logger):  # type: ignore[misc]
    """gunicorn's own, wherever it writes to."""

    def setup(self, cfg: Any) -> None:
        super().setup(cfg)
        for handler in self.error_log.handlers:
            handler.setFormatter(logs.Formatter())


def init_worker() -> None:
    """To be called in each worker: what nobody caught would be printed, with all headers of the request around it."""
    gevent.get_hub().print_exception = _log_exception
    logging.captureWarnings(True)


def _log_exception(_context: Any, kind: type[BaseException], error: BaseException | None, trace: Any) -> None:
    log.error("unhandled error", exc_info=(kind, error or kind(), trace))


def note_refusal(status: int) -> str:
    """Counts and writes down an answer of the worker's own, to what is no request or where the application failed.

    Gives back the number of that line, for the answer.
    """
    request_id = uuid.uuid4().hex
    metrics.REQUESTS.of("unreadable", f"{status // 100}xx").add()
    say = log.error if status >= 500 else log.info
    say("refused by the worker", status=status, request_id=request_id)
    return request_id
