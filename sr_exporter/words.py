"""What a status means, in the words of the module that owns the group.

A code's meaning depends on its group: one table for all would lie (facts on dashboards,
section 2). Script groups are free to mean anything: for them only the sign speaks.
"""

from __future__ import annotations

from sr_exporter.model import fold

_DATA = {-2: "no data", -1: "loading data", 1: "data available", 2: "reloading data"}
_MEANINGS: dict[str, dict[int, str]] = {
    "dialplan": _DATA,
    "dispatcher": _DATA,
    "drouting": _DATA,
    "sql_cacher": _DATA,
    "config": _DATA,
    "core": {-100: "none", -2: "terminating", -1: "initializing", 1: "running"},
    "uac_registrant": {-1: "not registered", 1: "registered"},
}
_CAPABILITY = {-3: "not synced", -2: "sync pending", -1: "syncing", 1: "synced"}


def meaning(group: str, identifier: str, status: int) -> str:
    """Say in words what a status of this key means; "ready" or "not ready" when unknown."""
    folded = fold(group)
    if fold(identifier).endswith(";events"):
        # These only write reports; they stay 1 whatever becomes of the data beside them.
        return "ready" if status > 0 else "not ready"
    if folded == "clusterer" and fold(identifier).startswith("cap:"):
        known = _CAPABILITY.get(status)
    else:
        known = _MEANINGS.get(folded, {}).get(status)
    return known or ("ready" if status > 0 else "not ready")
