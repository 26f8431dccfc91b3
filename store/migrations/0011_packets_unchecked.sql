-- Packets of the seconds before a kill whose flows have no row, so that it cannot be told whether they are of what was erased.
ALTER TABLE erasures ADD COLUMN packets_unchecked INTEGER NOT NULL DEFAULT 0;
