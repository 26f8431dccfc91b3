-- Files of roll-ups: flows added up by minute (for an hour) or by hour (for a day).
CREATE TABLE rollups (
    path      TEXT PRIMARY KEY,
    -- Length of what one row adds up, ns.
    width     INTEGER NOT NULL,
    -- Begin of the hour, or of the day, ns since the epoch.
    start     INTEGER NOT NULL,
    rows      INTEGER NOT NULL,
    bytes     INTEGER NOT NULL,
    stored_at INTEGER NOT NULL DEFAULT 0,
    import    INTEGER,
    -- How many files it adds up: of flows, or of minutes.
    files     INTEGER NOT NULL DEFAULT 0,
    -- Of minutes: the roll-up of hours that they are part of.
    day       TEXT,
    -- Of minutes: the file was deleted, the roll-up of hours is left.
    gone      INTEGER NOT NULL DEFAULT 0
);
CREATE INDEX rollups_by_start ON rollups (start);

-- The roll-up of minutes that the rows of a flow file are part of: all of them or, without a row here, none.
CREATE TABLE rolled (
    path   TEXT PRIMARY KEY REFERENCES flow_files (path) ON DELETE CASCADE,
    rollup TEXT NOT NULL
);
