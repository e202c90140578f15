-- When sites that are still awake on a backend that is being drained are put to sleep, in milliseconds since 1970.
CREATE TABLE drain_deadlines (
    backend INTEGER PRIMARY KEY REFERENCES backends (id) ON DELETE CASCADE,
    at      INTEGER NOT NULL
) STRICT;

CREATE TRIGGER drain_deadline_added   AFTER INSERT ON drain_deadlines BEGIN INSERT INTO changes (kind, key) VALUES ('backend', NEW.backend); END;
CREATE TRIGGER drain_deadline_set     AFTER UPDATE ON drain_deadlines BEGIN INSERT INTO changes (kind, key) VALUES ('backend', NEW.backend); END;
CREATE TRIGGER drain_deadline_removed AFTER DELETE ON drain_deadlines BEGIN INSERT INTO changes (kind, key) VALUES ('backend', OLD.backend); END;
