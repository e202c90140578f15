-- Ids are AUTOINCREMENT: never used a second time. `domains` holds every name, the primary one included.
CREATE TABLE users (
    name TEXT PRIMARY KEY,
    uid  INTEGER NOT NULL UNIQUE REFERENCES uids (uid)
) STRICT, WITHOUT ROWID;

-- Every uid that was ever given to anybody; rows stay when the user goes.
CREATE TABLE uids (
    uid INTEGER PRIMARY KEY
) STRICT;

CREATE TABLE backends (
    id      INTEGER PRIMARY KEY AUTOINCREMENT,
    name    TEXT NOT NULL UNIQUE,
    address TEXT NOT NULL UNIQUE,
    key     TEXT NOT NULL UNIQUE,
    weight  INTEGER NOT NULL,
    state   TEXT NOT NULL
) STRICT;

CREATE TABLE sites (
    id        INTEGER PRIMARY KEY AUTOINCREMENT,
    user      TEXT NOT NULL REFERENCES users (name) ON UPDATE CASCADE,
    domain    TEXT NOT NULL UNIQUE REFERENCES domains (domain) DEFERRABLE INITIALLY DEFERRED,
    directory TEXT NOT NULL,
    entry     TEXT NOT NULL,
    venv      TEXT,
    idle      TEXT,
    enabled   INTEGER NOT NULL,
    pin       INTEGER REFERENCES backends (id)
) STRICT;
CREATE INDEX sites_user ON sites (user);
CREATE INDEX sites_pin ON sites (pin) WHERE pin IS NOT NULL;

CREATE TABLE domains (
    domain TEXT PRIMARY KEY,
    site   INTEGER NOT NULL REFERENCES sites (id) ON DELETE CASCADE DEFERRABLE INITIALLY DEFERRED
) STRICT, WITHOUT ROWID;
CREATE INDEX domains_site ON domains (site);

CREATE TABLE placement (
    one       INTEGER PRIMARY KEY CHECK (one = 1),
    method    TEXT NOT NULL,
    previous  TEXT,
    threshold TEXT,
    CHECK ((previous IS NULL) = (threshold IS NULL))
) STRICT;

-- What changed, in the order of commits; its old end is cut off now and then.
CREATE TABLE changes (
    revision INTEGER PRIMARY KEY AUTOINCREMENT,
    kind     TEXT NOT NULL,
    key      TEXT NOT NULL
) STRICT;

CREATE TRIGGER user_added      AFTER INSERT ON users     BEGIN INSERT INTO changes (kind, key) VALUES ('user', NEW.name); END;
CREATE TRIGGER user_set        AFTER UPDATE ON users     BEGIN INSERT INTO changes (kind, key) VALUES ('user', NEW.name); END;
CREATE TRIGGER user_removed    AFTER DELETE ON users     BEGIN INSERT INTO changes (kind, key) VALUES ('user', OLD.name); END;
CREATE TRIGGER backend_added   AFTER INSERT ON backends  BEGIN INSERT INTO changes (kind, key) VALUES ('backend', NEW.id); END;
CREATE TRIGGER backend_set     AFTER UPDATE ON backends  BEGIN INSERT INTO changes (kind, key) VALUES ('backend', NEW.id); END;
CREATE TRIGGER backend_removed AFTER DELETE ON backends  BEGIN INSERT INTO changes (kind, key) VALUES ('backend', OLD.id); END;
CREATE TRIGGER site_added      AFTER INSERT ON sites     BEGIN INSERT INTO changes (kind, key) VALUES ('site', NEW.id); END;
CREATE TRIGGER site_set        AFTER UPDATE ON sites     BEGIN INSERT INTO changes (kind, key) VALUES ('site', NEW.id); END;
CREATE TRIGGER site_removed    AFTER DELETE ON sites     BEGIN INSERT INTO changes (kind, key) VALUES ('site', OLD.id); END;
CREATE TRIGGER domain_added    AFTER INSERT ON domains   BEGIN INSERT INTO changes (kind, key) VALUES ('domain', NEW.domain); END;
CREATE TRIGGER domain_set      AFTER UPDATE ON domains   BEGIN INSERT INTO changes (kind, key) VALUES ('domain', NEW.domain); END;
CREATE TRIGGER domain_removed  AFTER DELETE ON domains   BEGIN INSERT INTO changes (kind, key) VALUES ('domain', OLD.domain); END;
CREATE TRIGGER placement_added AFTER INSERT ON placement BEGIN INSERT INTO changes (kind, key) VALUES ('placement', ''); END;
CREATE TRIGGER placement_set   AFTER UPDATE ON placement BEGIN INSERT INTO changes (kind, key) VALUES ('placement', ''); END;

INSERT INTO placement (one, method) VALUES (1, 'rendezvous');
