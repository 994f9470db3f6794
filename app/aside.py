"""Work that computes for long: aside, in a thread, where it would hold up everybody else in a worker."""

from collections.abc import Callable
from typing import ParamSpec, TypeVar, cast

import gevent
from gevent import monkey

P = ParamSpec("P")
T = TypeVar("T")


def aside(work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """What `work` gives back or raises. Worth it for what lets go of the interpreter meanwhile, as hashing does, and
    for what takes so long that others had better share the interpreter with it.
    """
    if not monkey.is_module_patched("threading"):
        return work(*args, **kwargs)  # a command or a test: its threads wait for nobody

    def outcome() -> tuple[T | None, Exception | None]:
        try:
            return work(*args, **kwargs), None
        except Exception as error:  # gevent would log whatever is raised, as nobody's
            return None, error

    result, error = gevent.get_hub().threadpool.apply(outcome)
    if error is not None:
        raise error
    return cast(T, result)
