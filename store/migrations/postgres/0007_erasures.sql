-- As in SQLite, where each column is explained.
CREATE TABLE erasures (
    id          BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    at          BIGINT NOT NULL,
    who         TEXT NOT NULL,
    reason      TEXT NOT NULL,
    filter      TEXT NOT NULL,
    "only"      TEXT NOT NULL DEFAULT '',
    "from"      BIGINT NOT NULL,
    "to"        BIGINT NOT NULL,
    state       TEXT NOT NULL DEFAULT 'running',
    finished_at BIGINT,
    flows       BIGINT NOT NULL DEFAULT 0,
    transactions BIGINT NOT NULL DEFAULT 0,
    packets     BIGINT NOT NULL DEFAULT 0,
    rollup_rows BIGINT NOT NULL DEFAULT 0,
    minutes_unchecked BIGINT NOT NULL DEFAULT 0,
    files_unread BIGINT NOT NULL DEFAULT 0,
    problem     TEXT NOT NULL DEFAULT ''
);

CREATE TABLE erased_files (
    id      BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    erasure BIGINT NOT NULL REFERENCES erasures (id),
    kind    TEXT NOT NULL,
    path    TEXT COLLATE "C" NOT NULL,
    items   BIGINT NOT NULL,
    became  TEXT COLLATE "C" NOT NULL DEFAULT ''
);
CREATE INDEX erased_files_by_erasure ON erased_files (erasure);

CREATE TABLE erased_slices (
    id      BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    erasure BIGINT NOT NULL REFERENCES erasures (id),
    slices  BYTEA NOT NULL
);
CREATE INDEX erased_slices_by_erasure ON erased_slices (erasure, id);
