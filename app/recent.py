"""A dictionary that forgets by itself: bounded in time and in size, without ever looking at all that it holds."""

from typing import Generic, TypeVar

K = TypeVar("K")
V = TypeVar("V")


class Recent(Generic[K, V]):
    """Holds what was put in during the last `seconds`, for twice as long at most, and `most` things at most.

    Of two dictionaries the younger takes what is put in. When it is `seconds` old, or half full, it becomes the older
    one, and the older one is dropped whole: no sweep over all keys, and no order of use to keep.
    """

    def __init__(self, seconds: float, most: int) -> None:
        self.seconds = seconds
        self.half = max(1, most // 2)
        self.clear()

    def __len__(self) -> int:
        return len(self._young) + sum(key not in self._young for key in self._old)

    def clear(self) -> None:
        self._young: dict[K, V] = {}
        self._old: dict[K, V] = {}
        self._turn = 0.0

    def get(self, key: K) -> V | None:
        """What was put in last, if it is still there; it may be older than `seconds`."""
        found = self._young.get(key)
        return self._old.get(key) if found is None else found

    def put(self, key: K, value: V, now: float) -> None:
        if now >= self._turn or (len(self._young) >= self.half and key not in self._young):
            # Nothing has come for a whole turn more: the younger is as old as the older one would be.
            self._old = self._young if now < self._turn + self.seconds else {}
            self._young = {}
            self._turn = now + self.seconds
        self._young[key] = value

    def drop(self, key: K) -> None:
        self._young.pop(key, None)
        self._old.pop(key, None)

    def keys(self) -> set[K]:
        return {*self._young, *self._old}
