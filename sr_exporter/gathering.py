"""Makes one batch of what several outcomes must keep."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sr_exporter.store.contract import Batch

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sr_exporter.held import Entry, Source
    from sr_exporter.model import Key
    from sr_exporter.outcome import Outcome
    from sr_exporter.store.contract import Owed


def gather(outcomes: Sequence[Outcome], outbox: dict[str, Owed | None]) -> Batch:
    """Make the batch of what outcomes must keep: each key and source once, as it is now."""
    batch = Batch(outbox=outbox)
    entries: dict[Key, Entry] = {}
    sources: dict[str, Source] = {}
    for outcome in outcomes:
        batch.changes += outcome.changes
        if batch.keys_removed or batch.sources_removed:
            _found_again(batch, outcome)
        entries.update(outcome.entries)
        sources.update(outcome.sources)
        for key in outcome.removed:
            entries.pop(key, None)
            batch.keys_removed[key] = None
        for name in outcome.sources_removed:
            sources.pop(name, None)
            batch.sources_removed[name] = None
        batch.tombstones.update(outcome.tombstones)
    batch.keys = {key: entry.record() for key, entry in entries.items()}
    batch.sources = {name: source.record() for name, source in sources.items()}
    return batch


def _found_again(batch: Batch, outcome: Outcome) -> None:
    """Have a batch not remove what came back after it was removed."""
    for key in outcome.entries:
        batch.keys_removed.pop(key, None)
    for name in outcome.sources:
        batch.sources_removed.pop(name, None)
