"""Work that computes for long: aside, in a thread, where it would hold up everybody else in a worker."""

from collections.abc import Callable
from typing import ParamSpec, TypeVar

import gevent
from gevent import monkey

P = ParamSpec("P")
T = TypeVar("T")


def aside(work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """What `work` gives back. Worth it for what lets go of the interpreter meanwhile, as hashing does."""
    if not monkey.is_module_patched("threading"):
        return work(*args, **kwargs)  # a command or a test: its threads wait for nobody
    result: T = gevent.get_hub().threadpool.apply(work, args, kwargs)
    return result
