"""gunicorn.conf.py with short deadlines for connections, so that a test need not wait for the real ones."""

import runpy

globals().update(runpy.run_path("gunicorn.conf.py"))
from app import worker  # noqa: E402 - after what must come first

worker.HEAD_SECONDS = 0.4
worker.BODY_SECONDS = 0.4
keepalive = 1
