-- Times that a run was killed or crashed: what it did in the seconds before is missing.
ALTER TABLE loss ADD COLUMN interruptions INTEGER NOT NULL DEFAULT 0;
