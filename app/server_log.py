"""What gunicorn and gevent have to say, into the same log and in the same shape."""

import logging
from typing import Any

import gevent
import structlog
from gunicorn.glogging import Logger

from app import logs

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
