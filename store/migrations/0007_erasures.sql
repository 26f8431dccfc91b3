-- What was erased on purpose: who asked, when, for what, and what came of it. Rows stay for ever.
CREATE TABLE erasures (
    id          INTEGER PRIMARY KEY AUTOINCREMENT,
    -- When it was asked for, ns since the epoch.
    at          INTEGER NOT NULL,
    who         TEXT NOT NULL,
    reason      TEXT NOT NULL,
    filter      TEXT NOT NULL,
    -- The one table that it is about; empty: all of them.
    "only"      TEXT NOT NULL DEFAULT '',
    "from"      INTEGER NOT NULL,
    "to"        INTEGER NOT NULL,
    -- `running`; `deleting`: no answer has the rows any more, files that had them wait to be deleted; `done`.
    state       TEXT NOT NULL DEFAULT 'running',
    -- When no answer had them any more.
    finished_at INTEGER,
    flows       INTEGER NOT NULL DEFAULT 0,
    transactions INTEGER NOT NULL DEFAULT 0,
    packets     INTEGER NOT NULL DEFAULT 0,
    rollup_rows INTEGER NOT NULL DEFAULT 0,
    -- Minutes of roll-ups whose rows are gone, of which it cannot be told whether they add up something of this.
    minutes_unchecked INTEGER NOT NULL DEFAULT 0,
    -- Files that could not be read.
    files_unread INTEGER NOT NULL DEFAULT 0,
    -- Why it did not come to its end yet.
    problem     TEXT NOT NULL DEFAULT ''
);

-- File by file; `memory`: rows that were in no file yet.
CREATE TABLE erased_files (
    id      INTEGER PRIMARY KEY AUTOINCREMENT,
    erasure INTEGER NOT NULL REFERENCES erasures (id),
    -- `flows`, `transactions`, `packets` or `rollups`.
    kind    TEXT NOT NULL,
    path    TEXT NOT NULL,
    -- Rows or packets that were removed.
    items   INTEGER NOT NULL,
    -- The file that holds the rest; empty: nothing was left.
    became  TEXT NOT NULL DEFAULT ''
);
CREATE INDEX erased_files_by_erasure ON erased_files (erasure);

-- Slices whose rows are gone and whose packets are to go: flow id, start and end, eight bytes each.
CREATE TABLE erased_slices (
    id      INTEGER PRIMARY KEY AUTOINCREMENT,
    erasure INTEGER NOT NULL REFERENCES erasures (id),
    slices  BLOB NOT NULL
);
CREATE INDEX erased_slices_by_erasure ON erased_slices (erasure, id);
