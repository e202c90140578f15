-- What a site runs (`entry` is read by its kind), its settings as JSON, and the environment of its processes.
ALTER TABLE sites ADD COLUMN kind TEXT NOT NULL DEFAULT 'wsgi';
ALTER TABLE sites ADD COLUMN settings TEXT NOT NULL DEFAULT '{}';

CREATE TABLE environment (
    site   INTEGER NOT NULL REFERENCES sites (id) ON DELETE CASCADE,
    name   TEXT NOT NULL,
    value  TEXT NOT NULL,
    secret INTEGER NOT NULL,
    PRIMARY KEY (site, name)
) STRICT, WITHOUT ROWID;

CREATE TRIGGER environment_added   AFTER INSERT ON environment BEGIN INSERT INTO changes (kind, key) VALUES ('site', NEW.site); END;
CREATE TRIGGER environment_set     AFTER UPDATE ON environment BEGIN INSERT INTO changes (kind, key) VALUES ('site', NEW.site); END;
CREATE TRIGGER environment_removed AFTER DELETE ON environment BEGIN INSERT INTO changes (kind, key) VALUES ('site', OLD.site); END;
