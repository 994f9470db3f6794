"""Work that computes for long: aside, in a thread, where it would hold up everybody else in a worker."""

import functools
import os
import sys
import threading
from collections.abc import Callable
from typing import ParamSpec, TypeVar, cast

import gevent
from gevent import monkey
from gevent.threadpool import ThreadPool

PATIENT = 19  # the least of the kernel's priorities: such work gets what the others leave

P = ParamSpec("P")
T = TypeVar("T")


def aside(work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """What `work` gives back or raises. Worth it for what lets go of the interpreter meanwhile, as hashing does, and
    for what takes so long that others had better share the interpreter with it.
    """
    if not monkey.is_module_patched("threading"):
        return work(*args, **kwargs)  # a command or a test: its threads wait for nobody
    return _in_a_thread(gevent.get_hub().threadpool, lambda: work(*args, **kwargs))


def last(work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """As `aside`, one at a time and after everybody else on the machine: for what lets go of the interpreter while it
    computes, and what strangers can ask for as often as they like.
    """
    if not monkey.is_module_patched("threading"):
        return work(*args, **kwargs)

    def patiently() -> T:
        if sys.platform == "linux":  # elsewhere a process has a priority, and a thread of it none
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), PATIENT)
        return work(*args, **kwargs)

    return _in_a_thread(_patient_pool(), patiently)


@functools.cache
def _patient_pool() -> ThreadPool:
    # Of its own: an ordinary user may lower a thread's priority, but never raise it again.
    return ThreadPool(1)


def _in_a_thread(pool: ThreadPool, work: Callable[[], T]) -> T:
    def outcome() -> tuple[T | None, Exception | None]:
        try:
            return work(), None
        except Exception as error:  # gevent would log whatever is raised, as nobody's
            return None, error

    result, error = pool.apply(outcome)
    if error is not None:
        raise error
    return cast(T, result)
