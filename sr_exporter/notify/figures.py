"""What notifiers tell of themselves, and to whom."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable


class NotifierObserver(Protocol):
    """Counts deliveries, and hears how a notifier stands."""

    def joined(
        self,
        notifier: str,
        backlog: Callable[[], int],
        error: str | None = None,
        *,
        owes: bool = True,
    ) -> None:
        """A notifier is told from now on; `backlog` says how much it is owed, or was not told yet.

        `owes`: each notification; not so to who is told what is the case, and no more than that.

        `error` is why it did not take what it was last sent, as far as is known.
        """

    def left(self, notifier: str) -> None:
        """A notifier is told nothing any more."""

    def accepted(self, notifier: str) -> None:
        """A notification was accepted."""

    def latency(self, notifier: str, seconds: float) -> None:
        """From a change being seen to its notification being accepted it took so long."""

    def retried(self, notifier: str) -> None:
        """A notification was not accepted, and will be sent again."""

    def dead(self, notifier: str) -> None:
        """A notification was given up."""

    def stands(self, notifier: str, error: str | None) -> None:
        """It takes notifications again (None), or not; told when that changes."""
