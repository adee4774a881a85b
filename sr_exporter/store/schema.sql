-- Version 3. Times are Unix seconds. Names are as first spelled; the *_fold columns are what
-- they are matched by. `rowid`s are never shown outside.
-- Every version keeps `store_id` in `meta`: by it a store is known for one of ours.

CREATE TABLE meta (
  name  TEXT PRIMARY KEY,
  value TEXT NOT NULL
) WITHOUT ROWID;

CREATE TABLE sources (
  name                  TEXT PRIMARY KEY,
  kind                  TEXT NOT NULL,
  version               TEXT NOT NULL,
  transport             TEXT NOT NULL,
  last_seen             REAL,
  start_time            REAL,
  down_since            REAL,
  last_error            TEXT,
  changes_missed_total  INTEGER NOT NULL,
  report_overruns_total INTEGER NOT NULL,
  poll_failures_total   TEXT NOT NULL  -- JSON: reason -> count
) WITHOUT ROWID;

CREATE TABLE keys (
  source           TEXT NOT NULL,
  group_fold       TEXT NOT NULL,
  identifier_fold  TEXT NOT NULL,
  group_name       TEXT NOT NULL,
  identifier       TEXT NOT NULL,
  status           INTEGER NOT NULL,
  ready            INTEGER NOT NULL,
  details          TEXT,
  changed_at       REAL NOT NULL,
  ready_changed_at REAL NOT NULL,
  stated_at        REAL NOT NULL,
  changes_total    INTEGER NOT NULL,
  reports_total    INTEGER NOT NULL,
  reports          TEXT NOT NULL,      -- JSON: [[timestamp, log], ...], oldest first
  early            INTEGER NOT NULL,
  ttl_seconds      REAL,
  on_expiry        TEXT NOT NULL,
  expired          INTEGER NOT NULL,
  -- Since version 3. JSON: how many reports fitted which rule; what texts call not ready.
  matches          TEXT NOT NULL DEFAULT '{}',
  subjects         TEXT NOT NULL DEFAULT '{}',
  PRIMARY KEY (source, group_fold, identifier_fold)
) WITHOUT ROWID;

-- When keys that are held no more were removed. Since version 2.
CREATE TABLE tombstones (
  source          TEXT NOT NULL,
  group_fold      TEXT NOT NULL,
  identifier_fold TEXT NOT NULL,
  at              REAL NOT NULL,
  PRIMARY KEY (source, group_fold, identifier_fold)
) WITHOUT ROWID;

CREATE INDEX tombstones_at ON tombstones (at);

-- The journal. A change of a source alone has no group.
CREATE TABLE changes (
  seq        INTEGER PRIMARY KEY,
  at         REAL NOT NULL,
  kind       TEXT NOT NULL,
  source     TEXT NOT NULL,
  group_name TEXT,
  identifier TEXT,
  status     INTEGER,
  old_status INTEGER,
  details    TEXT,
  ready      INTEGER,
  was_ready  INTEGER
);

-- For trimming, since version 2.
CREATE INDEX changes_at ON changes (at);

-- What is owed to notifiers that are told of edges.
CREATE TABLE outbox (
  id         TEXT PRIMARY KEY,
  seq        INTEGER NOT NULL,
  notifier   TEXT NOT NULL,
  subject    TEXT NOT NULL,
  standing   TEXT NOT NULL,            -- held, owed, dead
  created_at REAL NOT NULL,
  due_at     REAL NOT NULL,
  attempts   INTEGER NOT NULL,
  body       BLOB NOT NULL,
  reason     TEXT
) WITHOUT ROWID;

-- For trimming, since version 2.
CREATE INDEX outbox_dead ON outbox (created_at) WHERE standing = 'dead';

-- The levels that were given out to notifiers that are told of levels.
CREATE TABLE alerts (
  fingerprint   TEXT PRIMARY KEY,
  labels        TEXT NOT NULL,         -- JSON
  annotations   TEXT NOT NULL,         -- JSON
  starts_at     REAL NOT NULL,
  resolved_at   REAL,
  generator_url TEXT NOT NULL
) WITHOUT ROWID;
