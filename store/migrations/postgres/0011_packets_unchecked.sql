-- As in SQLite, where each column is explained.
ALTER TABLE erasures ADD COLUMN packets_unchecked BIGINT NOT NULL DEFAULT 0;
