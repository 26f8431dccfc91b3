-- The catalog of one data directory, in a schema of its own. The same tables as in SQLite (`store/migrations`), where each column
-- is explained; numbers of migrations are the same in both, and this first one is as SQLite's after the fifth.
-- Names are compared byte by byte, as in SQLite.

CREATE TABLE meta (
    name  TEXT COLLATE "C" PRIMARY KEY,
    value TEXT NOT NULL
);

CREATE TABLE flow_files (
    path      TEXT COLLATE "C" PRIMARY KEY,
    rows      BIGINT NOT NULL,
    bytes     BIGINT NOT NULL,
    start     BIGINT NOT NULL,
    "end"     BIGINT NOT NULL,
    "table"   TEXT NOT NULL CHECK ("table" IN ('flows', 'transactions')),
    stored_at BIGINT NOT NULL DEFAULT 0,
    import    BIGINT
);
CREATE INDEX flow_files_by_end ON flow_files ("table", "end");
CREATE INDEX flow_files_by_import ON flow_files (import) WHERE import IS NOT NULL;

CREATE TABLE segments (
    path      TEXT COLLATE "C" PRIMARY KEY,
    node      TEXT NOT NULL,
    packets   BIGINT NOT NULL,
    bytes     BIGINT NOT NULL,
    start     BIGINT NOT NULL,
    "end"     BIGINT NOT NULL,
    sealed    BIGINT NOT NULL,
    stored_at BIGINT NOT NULL DEFAULT 0,
    import    BIGINT
);
CREATE INDEX segments_by_end ON segments ("end");
CREATE INDEX segments_by_import ON segments (import) WHERE import IS NOT NULL;

CREATE TABLE imports (
    id           BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    sha256       TEXT NOT NULL,
    name         TEXT NOT NULL,
    bytes        BIGINT NOT NULL,
    started_at   BIGINT NOT NULL,
    state        TEXT NOT NULL CHECK (state IN ('open', 'partial', 'done')),
    packets      BIGINT NOT NULL DEFAULT 0,
    flows        BIGINT NOT NULL DEFAULT 0,
    transactions BIGINT NOT NULL DEFAULT 0
);
CREATE INDEX imports_by_content ON imports (sha256);

CREATE TABLE loss (
    id               BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    node             TEXT COLLATE "C" NOT NULL,
    "from"           BIGINT NOT NULL,
    "to"             BIGINT NOT NULL,
    packets          BIGINT NOT NULL,
    kernel_drops     BIGINT NOT NULL,
    queue_drops      BIGINT NOT NULL,
    refused          BIGINT NOT NULL,
    unwritten        BIGINT NOT NULL DEFAULT 0,
    flow_rows        BIGINT NOT NULL DEFAULT 0,
    transaction_rows BIGINT NOT NULL DEFAULT 0,
    interruptions    BIGINT NOT NULL DEFAULT 0
);
CREATE INDEX loss_by_to ON loss ("to");

CREATE TABLE removals (
    path      TEXT COLLATE "C" PRIMARY KEY,
    queued_at BIGINT NOT NULL,
    bytes     BIGINT NOT NULL DEFAULT 0
);

CREATE TABLE dossiers (
    id    TEXT COLLATE "C" PRIMARY KEY,
    until BIGINT NOT NULL,
    facts BYTEA NOT NULL
);
CREATE INDEX dossiers_by_until ON dossiers (until);

-- Texts may be longer than an index entry may be; writers take turns, so that none is there twice.
CREATE TABLE texts (
    id   BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    text TEXT COLLATE "C" NOT NULL
);
CREATE INDEX texts_by_text ON texts (md5(text));

-- The last change of each process that writes: it tells after a lost connection whether a change was made.
CREATE TABLE writers (
    id     TEXT PRIMARY KEY,
    change BIGINT NOT NULL,
    at     TIMESTAMPTZ NOT NULL DEFAULT now()
);
