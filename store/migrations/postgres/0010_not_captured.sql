-- As in SQLite, where each column is explained.
ALTER TABLE loss ADD COLUMN not_captured BIGINT NOT NULL DEFAULT 0;
