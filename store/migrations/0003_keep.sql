-- Where files came from: imports are kept by the time at which they were stored, and can be taken back as a whole. What is
-- there was captured: its own time counts.

ALTER TABLE flow_files ADD COLUMN stored_at INTEGER NOT NULL DEFAULT 0;
ALTER TABLE flow_files ADD COLUMN import INTEGER;
CREATE INDEX flow_files_by_import ON flow_files (import) WHERE import IS NOT NULL;
ALTER TABLE segments ADD COLUMN stored_at INTEGER NOT NULL DEFAULT 0;
ALTER TABLE segments ADD COLUMN import INTEGER;
CREATE INDEX segments_by_import ON segments (import) WHERE import IS NOT NULL;

-- Capture files by content. `open`: being read; `partial`: ended early; `done`: read to the end.
CREATE TABLE imports (
    id           INTEGER PRIMARY KEY AUTOINCREMENT,
    sha256       TEXT NOT NULL,
    name         TEXT NOT NULL,
    bytes        INTEGER NOT NULL,
    started_at   INTEGER NOT NULL,
    state        TEXT NOT NULL CHECK (state IN ('open', 'partial', 'done')),
    packets      INTEGER NOT NULL DEFAULT 0,
    flows        INTEGER NOT NULL DEFAULT 0,
    transactions INTEGER NOT NULL DEFAULT 0
) STRICT;
CREATE INDEX imports_by_content ON imports (sha256);

-- What was lost behind the queues: packets that could not be written, and rows of both tables.
ALTER TABLE loss ADD COLUMN unwritten INTEGER NOT NULL DEFAULT 0;
ALTER TABLE loss ADD COLUMN flow_rows INTEGER NOT NULL DEFAULT 0;
ALTER TABLE loss ADD COLUMN transaction_rows INTEGER NOT NULL DEFAULT 0;

-- Files that wait to be deleted still take space.
ALTER TABLE removals ADD COLUMN bytes INTEGER NOT NULL DEFAULT 0;
