-- Times are nanoseconds since the Unix epoch, UTC; sizes are bytes; paths are relative to the data directory.

CREATE TABLE meta (
    name  TEXT PRIMARY KEY NOT NULL,
    value TEXT NOT NULL
) STRICT;

CREATE TABLE flow_files (
    path  TEXT PRIMARY KEY NOT NULL,
    rows  INTEGER NOT NULL,
    bytes INTEGER NOT NULL,
    start INTEGER NOT NULL,
    "end" INTEGER NOT NULL
) STRICT;
CREATE INDEX flow_files_by_end ON flow_files ("end");

CREATE TABLE segments (
    path    TEXT PRIMARY KEY NOT NULL,
    node    TEXT NOT NULL,
    packets INTEGER NOT NULL,
    bytes   INTEGER NOT NULL,
    start   INTEGER NOT NULL,
    "end"   INTEGER NOT NULL,
    sealed  INTEGER NOT NULL
) STRICT;
CREATE INDEX segments_by_end ON segments ("end");

-- Versions of identities; an interval points at the version that was true in it.
CREATE TABLE identities (
    id         INTEGER PRIMARY KEY,
    attributes TEXT NOT NULL UNIQUE
) STRICT;

-- Append-only: a correction is a new row with the same key, identity and valid_from, and the newest counts.
CREATE TABLE intervals (
    id         INTEGER PRIMARY KEY,
    key        TEXT NOT NULL,
    subject    TEXT NOT NULL,
    identity   INTEGER NOT NULL REFERENCES identities (id),
    valid_from INTEGER NOT NULL,
    valid_to   INTEGER,
    learned_at INTEGER NOT NULL,
    source     TEXT NOT NULL
) STRICT;
CREATE INDEX intervals_by_subject ON intervals (key, subject, valid_from, id);
CREATE INDEX intervals_by_identity ON intervals (identity);

CREATE TABLE loss (
    id           INTEGER PRIMARY KEY,
    node         TEXT NOT NULL,
    "from"       INTEGER NOT NULL,
    "to"         INTEGER NOT NULL,
    packets      INTEGER NOT NULL,
    kernel_drops INTEGER NOT NULL,
    queue_drops  INTEGER NOT NULL,
    refused      INTEGER NOT NULL
) STRICT;
CREATE INDEX loss_by_to ON loss ("to");

-- Files that no longer count and wait to be deleted, so that a search that is still reading them can end.
CREATE TABLE removals (
    path      TEXT PRIMARY KEY NOT NULL,
    queued_at INTEGER NOT NULL
) STRICT;
