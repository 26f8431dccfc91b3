-- As in SQLite, where each column is explained.
CREATE TABLE retired (
    kind  TEXT NOT NULL,
    hour  BIGINT NOT NULL,
    items BIGINT NOT NULL,
    bytes BIGINT NOT NULL,
    PRIMARY KEY (kind, hour)
);
