"""gunicorn.conf.py with the worker class gthread, for comparing: `python -m bench --worker-class gthread`."""

import runpy

from gevent import monkey

monkey.patch_all = lambda: None  # threads are to stay threads, and the file's first act is to replace them
globals().update(runpy.run_path("gunicorn.conf.py"))
worker_class = "gthread"
threads = globals()["chosen"].threads
