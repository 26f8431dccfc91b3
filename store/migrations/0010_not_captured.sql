-- Of times in which nobody captured: their length, ns. An account of such a time has nothing else.
ALTER TABLE loss ADD COLUMN not_captured INTEGER NOT NULL DEFAULT 0;
