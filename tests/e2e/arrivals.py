"""A growing list that a test can wait on. Trio."""

from collections.abc import Callable
from typing import Generic, TypeVar

import trio

T = TypeVar("T")


class Arrivals(Generic[T]):
    """Owns `items`, in order of arrival. One writer, any number of waiters."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.items: list[T] = []
        self._more = trio.Event()

    def add(self, item: T) -> None:
        self.items.append(item)
        self._more.set()
        self._more = trio.Event()

    async def wait_until(self, condition: Callable[[list[T]], bool], *, what: str, seconds: float = 60) -> None:
        """Returns once `condition` holds of the items. Raises AssertionError after `seconds`, naming `what`."""
        with trio.move_on_after(seconds):
            while not condition(self.items):
                await self._more.wait()
            return
        raise AssertionError(f"{self.name}: no {what} within {seconds} s ({len(self.items)} arrived)")
