-- What retention has deleted, so that an answer about its time can say so. Rows stay for ever: one for each kind and hour.
CREATE TABLE retired (
    -- `flows`, `transactions` or `packets`.
    kind  TEXT NOT NULL,
    -- Begin of the hour in which its files begin, ns since the epoch.
    hour  INTEGER NOT NULL,
    -- Rows or packets.
    items INTEGER NOT NULL,
    bytes INTEGER NOT NULL,
    PRIMARY KEY (kind, hour)
);
