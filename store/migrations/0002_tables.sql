-- Files of two tables: flows and transactions. What is there is of flows.

ALTER TABLE flow_files ADD COLUMN "table" TEXT NOT NULL DEFAULT 'flows' CHECK ("table" IN ('flows', 'transactions'));
DROP INDEX flow_files_by_end;
CREATE INDEX flow_files_by_end ON flow_files ("table", "end");
