-- What users and sites may have of a machine, as JSON; who has no row has nothing of his own.
CREATE TABLE user_limits (
    user   TEXT PRIMARY KEY REFERENCES users (name) ON UPDATE CASCADE ON DELETE CASCADE,
    limits TEXT NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE site_limits (
    site   INTEGER PRIMARY KEY REFERENCES sites (id) ON DELETE CASCADE,
    limits TEXT NOT NULL
) STRICT;

CREATE TRIGGER user_limits_added   AFTER INSERT ON user_limits BEGIN INSERT INTO changes (kind, key) VALUES ('user', NEW.user); END;
CREATE TRIGGER user_limits_set     AFTER UPDATE OF limits ON user_limits BEGIN INSERT INTO changes (kind, key) VALUES ('user', NEW.user); END;
CREATE TRIGGER user_limits_removed AFTER DELETE ON user_limits BEGIN INSERT INTO changes (kind, key) VALUES ('user', OLD.user); END;
CREATE TRIGGER site_limits_added   AFTER INSERT ON site_limits BEGIN INSERT INTO changes (kind, key) VALUES ('site', NEW.site); END;
CREATE TRIGGER site_limits_set     AFTER UPDATE ON site_limits BEGIN INSERT INTO changes (kind, key) VALUES ('site', NEW.site); END;
CREATE TRIGGER site_limits_removed AFTER DELETE ON site_limits BEGIN INSERT INTO changes (kind, key) VALUES ('site', OLD.site); END;

-- CPU time that users' processes have used, by the machine and the day (of UTC, counted from 1970). `counter` is what the kernel's
-- own counter showed last. No change that anybody has to hear of.
CREATE TABLE cpu_used (
    uid          INTEGER NOT NULL,
    backend      TEXT NOT NULL,
    day          INTEGER NOT NULL,
    microseconds INTEGER NOT NULL,
    counter      INTEGER NOT NULL,
    PRIMARY KEY (uid, backend, day)
) STRICT, WITHOUT ROWID;
