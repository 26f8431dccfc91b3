-- Of flows that retention has deleted and a roll-up of minutes adds up, `retired` has a second row: its kind is the path of the roll-up, and it
-- stays as long as that. Until now it was not known of which files; an hour with a roll-up counts as added up.
INSERT INTO retired (kind, hour, items, bytes)
SELECT min(rollups.path), retired.hour, retired.items, retired.bytes FROM retired
JOIN rollups ON rollups.start = retired.hour AND rollups.width = 60000000000
WHERE retired.kind = 'flows' GROUP BY retired.hour, retired.items, retired.bytes;
