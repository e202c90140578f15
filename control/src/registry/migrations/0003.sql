-- How a slow change of placement goes on; without one, all are NULL.
ALTER TABLE placement ADD COLUMN over TEXT;
ALTER TABLE placement ADD COLUMN direction TEXT;
ALTER TABLE placement ADD COLUMN paused INTEGER NOT NULL DEFAULT 0;
ALTER TABLE placement ADD COLUMN stepped_at INTEGER;

-- Machines that cannot bear that more sites move now.
CREATE TABLE holds (
    machine  TEXT PRIMARY KEY,
    starting INTEGER NOT NULL,
    until    INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
