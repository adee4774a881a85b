"""One scrape: everything there is, in the form that was asked for."""

from __future__ import annotations

from itertools import chain
from typing import TYPE_CHECKING, NamedTuple

from sr_exporter.metrics.exposition import render, select
from sr_exporter.metrics.families import families
from sr_exporter.metrics.negotiation import accepts_gzip, compress, negotiate

if TYPE_CHECKING:
    from collections.abc import Collection

    from sr_exporter.metrics.own import OwnMetrics
    from sr_exporter.state import State
    from sr_exporter.store.contract import Store


class Scraped(NamedTuple):
    body: bytes
    content_type: str
    gzip: bool


class Exposition:
    """Answers scrapes. The one place that knows how; rendering may change behind it."""

    def __init__(self, state: State, own: OwnMetrics, store: Store) -> None:
        self._state = state
        self._own = own
        self._store = store

    def scrape(
        self,
        *,
        accept: str | None = None,
        accept_encoding: str | None = None,
        names: Collection[str] = (),
    ) -> Scraped:
        """Render every family, or only samples of these names."""
        form = negotiate(accept)
        found = chain(families(self._state), self._own.families(self._store.figures()))
        body = render(select(found, names) if names else found, form)
        gzip = accepts_gzip(accept_encoding)
        return Scraped(compress(body) if gzip else body, form.content_type, gzip)
