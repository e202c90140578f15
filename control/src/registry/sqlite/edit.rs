//! Writing. What a statement could only refuse with a code is looked up before, so that the message can say why.
use super::{Session, rows};
use crate::model::*;
use crate::registry::{Edit, RegistryError, Result, View};
use rusqlite::{OptionalExtension, params};
use rustix::fs::{AtFlags, CWD, Timespec, Timestamps, UTIME_NOW, utimensat};
use std::path::{Path, PathBuf};

impl Session<'_> {
    fn execute(&self, sql: &str, params: impl rusqlite::Params) -> Result<usize> {
        Ok(self.transaction.prepare_cached(sql)?.execute(params)?)
    }

    fn free_uid(&self, range: UidRange) -> Result<Uid> {
        let (first, last) = range.numbers().into_inner();
        let highest: Option<u32> = self.transaction.query_row(
            "SELECT max(uid) FROM uids WHERE uid BETWEEN ?1 AND ?2",
            [first, last],
            |row| row.get(0),
        )?;
        let next = match highest {
            None => Some(first),
            Some(highest) if highest < last => Some(highest + 1),
            // The end is reached; there may be a gap below, left by a range that began elsewhere.
            Some(_) => {
                let gap = "SELECT min(free) FROM (SELECT ?1 AS free UNION ALL SELECT uid + 1 FROM uids WHERE uid BETWEEN ?1 AND ?2 - 1) WHERE free NOT IN (SELECT uid FROM uids)";
                self.transaction
                    .query_row(gap, [first, last], |row| row.get(0))?
            }
        };
        let next = next.ok_or_else(|| RegistryError::Refused(format!("every uid of uid_range ({range}) has been given out, and none is given twice; widen uid_range in paas.toml")))?;
        Uid::new(next).map_err(|error| RegistryError::Refused(error.to_string()))
    }

    fn backend_is_unique(
        &self,
        id: Option<BackendId>,
        name: &BackendName,
        address: &str,
        key: &BackendKey,
    ) -> Result<()> {
        for other in self
            .backends()?
            .into_iter()
            .filter(|other| Some(other.id) != id)
        {
            if other.name == *name {
                return Err(exists("backend", name));
            }
            if other.address.to_string() == address {
                return Err(RegistryError::Refused(format!(
                    "the address {address} is already that of the backend {}",
                    other.name
                )));
            }
            if other.key == *key {
                return Err(RegistryError::Refused(format!(
                    "the key {key} already stands for the backend {}; give another one with --key",
                    other.name
                )));
            }
        }
        Ok(())
    }

    /// An error that says whose the domain is, if it is anybody's.
    fn domain_is_free(&self, domain: &Domain) -> Result<()> {
        let Some(owner) = self.site_of(domain)? else {
            return Ok(());
        };
        let how = if owner.domain == *domain {
            "it is the primary domain of a site"
        } else {
            "it leads to a site"
        };
        let owner = if owner.domain == *domain {
            format!(": {how} of {}", owner.user)
        } else {
            format!(": {how} of {}, {}", owner.user, owner.domain)
        };
        Err(RegistryError::Exists {
            what: "domain",
            name: domain.to_string(),
            owner,
        })
    }

    fn further_domain(&self, domain: &Domain) -> Result<Site> {
        let site = self
            .site_of(domain)?
            .ok_or_else(|| missing("domain", domain))?;
        if site.domain == *domain {
            return Err(RegistryError::Refused(format!(
                "{domain} is the primary domain of its site: it stays while the site is there (`paasctl remove-site {domain}` removes both)"
            )));
        }
        Ok(site)
    }

    fn names_of_variables(&self, site: i64) -> Result<Vec<String>> {
        let mut statement = self
            .transaction
            .prepare_cached("SELECT name FROM environment WHERE site = ?1")?;
        let names = statement.query_map([site], |row| row.get(0))?;
        Ok(names.collect::<Result<_, _>>()?)
    }

    fn site_must_exist(&self, id: SiteId) -> Result<()> {
        self.site(id)?.map(drop).ok_or_else(|| missing("site", id))
    }

    fn user_must_exist(&self, name: &UserName) -> Result<()> {
        self.user(name)?
            .map(drop)
            .ok_or_else(|| missing("user", name))
    }
}

fn exists(what: &'static str, name: impl std::fmt::Display) -> RegistryError {
    RegistryError::Exists {
        what,
        name: name.to_string(),
        owner: String::new(),
    }
}

fn missing(what: &'static str, name: impl std::fmt::Display) -> RegistryError {
    RegistryError::Missing {
        what,
        name: name.to_string(),
    }
}

impl Edit for Session<'_> {
    fn add_user(&mut self, name: &UserName, uid: Option<Uid>, range: UidRange) -> Result<User> {
        if self.user(name)?.is_some() {
            return Err(exists("user", name));
        }
        let uid = match uid {
            None => self.free_uid(range)?,
            Some(uid) if !range.contains(uid) => {
                return Err(RegistryError::Refused(format!(
                    "the uid {uid} is not in uid_range ({range})"
                )));
            }
            Some(uid) => uid,
        };
        let given: Option<i64> = self
            .transaction
            .query_row("SELECT 1 FROM uids WHERE uid = ?1", [uid.get()], |row| {
                row.get(0)
            })
            .optional()?;
        if given.is_some() {
            return Err(RegistryError::Refused(format!(
                "the uid {uid} has been given out before, and none is given twice; leave --uid away to get a free one"
            )));
        }
        self.execute("INSERT INTO uids (uid) VALUES (?1)", [uid.get()])?;
        self.execute(
            "INSERT INTO users (name, uid) VALUES (?1, ?2)",
            params![name.as_str(), uid.get()],
        )?;
        Ok(User {
            name: name.clone(),
            uid,
        })
    }

    fn rename_user(&mut self, name: &UserName, new: &UserName) -> Result<()> {
        self.user_must_exist(name)?;
        if self.user(new)?.is_some() {
            return Err(exists("user", new));
        }
        self.execute(
            "UPDATE users SET name = ?2 WHERE name = ?1",
            [name.as_str(), new.as_str()],
        )?;
        Ok(())
    }

    fn remove_user(&mut self, name: &UserName) -> Result<()> {
        self.user_must_exist(name)?;
        let mut statement = self
            .transaction
            .prepare_cached("SELECT domain FROM sites WHERE user = ?1 ORDER BY domain LIMIT 6")?;
        let mut owned = statement
            .query_map([name.as_str()], |row| row.get::<_, String>(0))?
            .collect::<Result<Vec<_>, _>>()?;
        drop(statement);
        if owned.len() > 5 {
            owned[5] = "...".to_owned();
        }
        if !owned.is_empty() {
            let owned = owned.join(", ");
            return Err(RegistryError::Refused(format!(
                "the user {name} still owns sites: {owned}; remove them first, or say --with-sites"
            )));
        }
        self.execute("DELETE FROM users WHERE name = ?1", [name.as_str()])?;
        Ok(())
    }

    fn add_backend(&mut self, new: &NewBackend) -> Result<Backend> {
        let address = new.address.to_string();
        self.backend_is_unique(None, &new.name, &address, &new.key)?;
        let sql =
            "INSERT INTO backends (name, address, key, weight, state) VALUES (?1, ?2, ?3, ?4, ?5)";
        self.execute(
            sql,
            params![
                new.name.as_str(),
                address,
                new.key.as_str(),
                new.weight.get(),
                new.state.to_string()
            ],
        )?;
        let id = rows::backend_id(self.transaction.last_insert_rowid())?;
        Ok(new.clone().with_id(id))
    }

    fn set_backend(&mut self, backend: &Backend) -> Result<()> {
        let address = backend.address.to_string();
        self.backend_is_unique(Some(backend.id), &backend.name, &address, &backend.key)?;
        let sql = "UPDATE backends SET name = ?2, address = ?3, key = ?4, weight = ?5, state = ?6 WHERE id = ?1";
        let values = params![
            backend.id.0.get(),
            backend.name.as_str(),
            address,
            backend.key.as_str(),
            backend.weight.get(),
            backend.state.to_string()
        ];
        match self.execute(sql, values)? {
            0 => Err(missing("backend", &backend.name)),
            _ => Ok(()),
        }
    }

    fn set_drain_deadline(&mut self, backend: BackendId, at: Option<u64>) -> Result<()> {
        let id = backend.0.get();
        match at {
            Some(at) => self.execute(
                "INSERT INTO drain_deadlines (backend, at) VALUES (?1, ?2) ON CONFLICT DO UPDATE SET at = ?2",
                params![id, at],
            )?,
            None => self.execute("DELETE FROM drain_deadlines WHERE backend = ?1", [id])?,
        };
        Ok(())
    }

    fn remove_backend(&mut self, name: &BackendName) -> Result<()> {
        let backend = self
            .backend(name)?
            .ok_or_else(|| missing("backend", name))?;
        let count = "SELECT count(*), min(domain) FROM sites WHERE pin = ?1";
        let (pinned, example): (u64, Option<String>) =
            self.transaction
                .query_row(count, [backend.id.0.get()], |row| {
                    Ok((row.get(0)?, row.get(1)?))
                })?;
        if let Some(example) = example {
            return Err(RegistryError::Refused(format!(
                "sites pinned to the backend {name}: {pinned} ({example} is one); `paasctl set-site {example} --no-pin` releases it"
            )));
        }
        self.execute("DELETE FROM backends WHERE id = ?1", [backend.id.0.get()])?;
        Ok(())
    }

    fn add_site(&mut self, new: &NewSite) -> Result<Site> {
        self.user_must_exist(&new.user)?;
        self.domain_is_free(&new.domain)?;
        let sql = "INSERT INTO sites (user, domain, directory, entry, venv, idle, enabled, pin, kind, settings) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)";
        let NewSite {
            user,
            domain,
            directory,
            application,
            venv,
            idle,
            enabled,
            pin,
            settings,
        } = new.clone();
        self.execute(
            sql,
            params![
                user.as_str(),
                domain.as_str(),
                directory.as_str(),
                application.to_string(),
                venv.as_ref().map(AbsolutePath::as_str),
                idle.map(|span| span.to_string()),
                enabled,
                pin.map(|id| id.0.get()),
                application.kind(),
                rows::settings_text(&settings)?
            ],
        )?;
        let id = rows::site_id(self.transaction.last_insert_rowid())?;
        self.execute(
            "INSERT INTO domains (domain, site) VALUES (?1, ?2)",
            params![domain.as_str(), rows::number(id)],
        )?;
        Ok(Site {
            id,
            user,
            domain,
            directory,
            application,
            venv,
            idle,
            enabled,
            pin,
            settings,
        })
    }

    fn set_site(&mut self, site: &Site) -> Result<()> {
        self.user_must_exist(&site.user)?;
        let sql = "UPDATE sites SET user = ?2, directory = ?3, entry = ?4, venv = ?5, idle = ?6, enabled = ?7, pin = ?8, kind = ?10, settings = ?11 WHERE id = ?1 AND domain = ?9";
        let values = params![
            rows::number(site.id),
            site.user.as_str(),
            site.directory.as_str(),
            site.application.to_string(),
            site.venv.as_ref().map(AbsolutePath::as_str),
            site.idle.map(|span| span.to_string()),
            site.enabled,
            site.pin.map(|id| id.0.get()),
            site.domain.as_str(),
            site.application.kind(),
            rows::settings_text(&site.settings)?
        ];
        match self.execute(sql, values)? {
            0 => Err(missing("site", &site.domain)),
            _ => Ok(()),
        }
    }

    fn set_environment(&mut self, site: SiteId, environment: &Environment) -> Result<()> {
        self.site_must_exist(site)?;
        let site = rows::number(site);
        let wanted = environment.variables();
        for name in self.names_of_variables(site)? {
            if !wanted.keys().any(|wanted| wanted.as_str() == name) {
                self.execute(
                    "DELETE FROM environment WHERE site = ?1 AND name = ?2",
                    params![site, name],
                )?;
            }
        }
        for (name, variable) in wanted {
            let sql = "INSERT INTO environment (site, name, value, secret) VALUES (?1, ?2, ?3, ?4) \
                ON CONFLICT (site, name) DO UPDATE SET value = excluded.value, secret = excluded.secret \
                WHERE value != excluded.value OR secret != excluded.secret";
            let value = variable.value.expose();
            self.execute(sql, params![site, name.as_str(), value, variable.secret])?;
        }
        Ok(())
    }

    fn remove_site(&mut self, id: SiteId) -> Result<()> {
        match self.execute("DELETE FROM sites WHERE id = ?1", [rows::number(id)])? {
            0 => Err(missing("site", id)),
            _ => Ok(()),
        }
    }

    fn add_domain(&mut self, domain: &Domain, site: SiteId) -> Result<()> {
        self.site_must_exist(site)?;
        self.domain_is_free(domain)?;
        self.execute(
            "INSERT INTO domains (domain, site) VALUES (?1, ?2)",
            params![domain.as_str(), rows::number(site)],
        )?;
        Ok(())
    }

    fn set_domain(&mut self, domain: &Domain, site: SiteId) -> Result<()> {
        self.site_must_exist(site)?;
        self.further_domain(domain)?;
        self.execute(
            "UPDATE domains SET site = ?2 WHERE domain = ?1",
            params![domain.as_str(), rows::number(site)],
        )?;
        Ok(())
    }

    fn remove_domain(&mut self, domain: &Domain) -> Result<()> {
        self.further_domain(domain)?;
        self.execute("DELETE FROM domains WHERE domain = ?1", [domain.as_str()])?;
        Ok(())
    }

    fn set_placement(&mut self, placement: &Placement, progress: Option<&Progress>) -> Result<()> {
        let (from, threshold) = placement
            .change
            .map(|change| (change.from.to_string(), change.threshold.to_string()))
            .unzip();
        let sql = "UPDATE placement SET method = ?1, previous = ?2, threshold = ?3, over = ?4, direction = ?5, paused = ?6, stepped_at = ?7";
        self.execute(
            sql,
            params![
                placement.method.to_string(),
                from,
                threshold,
                progress.map(|progress| progress.over.to_string()),
                progress.map(|progress| progress.direction.to_string()),
                progress.is_some_and(|progress| progress.paused),
                progress.map(|progress| progress.stepped_at)
            ],
        )?;
        Ok(())
    }

    fn hold(&mut self, hold: &Hold) -> Result<()> {
        let sql = "INSERT INTO holds (machine, starting, until) VALUES (?1, ?2, ?3) ON CONFLICT DO UPDATE SET starting = ?2, until = ?3";
        self.execute(sql, params![hold.machine, hold.starting, hold.until])?;
        Ok(())
    }

    fn release(&mut self, machine: &str) -> Result<()> {
        self.execute("DELETE FROM holds WHERE machine = ?1", [machine])?;
        Ok(())
    }

    fn commit(self: Box<Self>) -> Result<u64> {
        let revision = self.revision()?;
        self.execute(
            "DELETE FROM changes WHERE revision <= ?1",
            [i64::try_from(revision.saturating_sub(self.kept)).unwrap_or(0)],
        )?;
        let path = self.transaction.path().map(PathBuf::from);
        self.transaction.commit()?;
        path.iter().for_each(|path| announce(path));
        Ok(revision)
    }
}

/// Tells daemons that watch the file: the bytes of a commit reach the log before others can see it, so that whoever looks
/// when they are written looks too early. No error: the commit is durable, and a daemon that asks sees it.
fn announce(path: &Path) {
    let now = Timespec {
        tv_sec: 0,
        tv_nsec: UTIME_NOW,
    };
    let times = Timestamps {
        last_access: now,
        last_modification: now,
    };
    // By its name: closing another descriptor of the file would end SQLite's own locks on it.
    let _ = utimensat(CWD, path, &times, AtFlags::empty());
}
