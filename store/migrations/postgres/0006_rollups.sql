-- As in SQLite, where each column is explained.
CREATE TABLE rollups (
    path      TEXT COLLATE "C" PRIMARY KEY,
    width     BIGINT NOT NULL,
    start     BIGINT NOT NULL,
    rows      BIGINT NOT NULL,
    bytes     BIGINT NOT NULL,
    stored_at BIGINT NOT NULL DEFAULT 0,
    import    BIGINT,
    files     BIGINT NOT NULL DEFAULT 0,
    day       TEXT COLLATE "C",
    gone      BIGINT NOT NULL DEFAULT 0
);
CREATE INDEX rollups_by_start ON rollups (start);

CREATE TABLE rolled (
    path   TEXT COLLATE "C" PRIMARY KEY REFERENCES flow_files (path) ON DELETE CASCADE,
    rollup TEXT COLLATE "C" NOT NULL
);
