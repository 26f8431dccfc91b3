-- As in SQLite, where it is explained.
INSERT INTO retired (kind, hour, items, bytes)
SELECT min(rollups.path), retired.hour, retired.items, retired.bytes FROM retired
JOIN rollups ON rollups.start = retired.hour AND rollups.width = 60000000000
WHERE retired.kind = 'flows' GROUP BY retired.hour, retired.items, retired.bytes;
