-- Identities by name. All that was told of one name is one row, which is replaced as more is told; what was told before stays
-- in it, each fact with the time at which it was learned. The format is that of store/src/catalog/dossier.rs. What the tables
-- `identities` and `intervals` hold is carried over when the catalog is opened; then they are empty.

CREATE TABLE dossiers (
    id    TEXT PRIMARY KEY NOT NULL,
    -- The latest time of which it tells; the largest number while something of it lasts.
    until INTEGER NOT NULL,
    facts BLOB NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX dossiers_by_until ON dossiers (until);

-- What many dossiers have in common: attributes (JSON), and names of sources, networks and boots.
CREATE TABLE texts (
    id   INTEGER PRIMARY KEY AUTOINCREMENT,
    text TEXT NOT NULL UNIQUE
) STRICT;
