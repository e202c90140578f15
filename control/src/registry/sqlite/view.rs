//! Reading.
use super::{Session, rows};
use crate::model::*;
use crate::registry::{Changed, RegistryError, Result, SiteFilter, View};
use rusqlite::{OptionalExtension, Params, Row};
use std::collections::BTreeSet;
use table::SiteRecord;

impl Session<'_> {
    fn all<T>(
        &self,
        sql: &str,
        params: impl Params,
        read: impl Fn(&Row<'_>) -> Result<T>,
    ) -> Result<Vec<T>> {
        let mut found = Vec::new();
        self.each(sql, params, |row| {
            found.push(read(row)?);
            Ok(())
        })?;
        Ok(found)
    }

    fn one<T>(
        &self,
        sql: &str,
        params: impl Params,
        read: impl Fn(&Row<'_>) -> Result<T>,
    ) -> Result<Option<T>> {
        let mut statement = self.transaction.prepare_cached(sql)?;
        let mut found = statement.query(params)?;
        found.next()?.map(read).transpose()
    }

    fn each(
        &self,
        sql: &str,
        params: impl Params,
        mut see: impl FnMut(&Row<'_>) -> Result<()>,
    ) -> Result<()> {
        let mut statement = self.transaction.prepare_cached(sql)?;
        let mut found = statement.query(params)?;
        while let Some(row) = found.next()? {
            see(row)?;
        }
        Ok(())
    }
}

impl View for Session<'_> {
    fn revision(&self) -> Result<u64> {
        let revision = self
            .transaction
            .query_row(
                "SELECT seq FROM sqlite_sequence WHERE name = 'changes'",
                [],
                |row| row.get(0),
            )
            .optional()?;
        Ok(revision.unwrap_or(0))
    }

    fn changes_since(&self, revision: u64) -> Result<Option<Vec<Changed>>> {
        let now = self.revision()?;
        if revision >= now {
            return Ok((revision == now).then(Vec::new));
        }
        let oldest: u64 = self.transaction.query_row(
            "SELECT coalesce(min(revision), 0) FROM changes",
            [],
            |row| row.get(0),
        )?;
        if oldest == 0 || oldest > revision + 1 {
            return Ok(None);
        }
        let changes = self.all(
            "SELECT DISTINCT kind, key FROM changes WHERE revision > ?1",
            [revision],
            changed,
        )?;
        Ok(Some(
            changes
                .into_iter()
                .collect::<BTreeSet<_>>()
                .into_iter()
                .collect(),
        ))
    }

    fn progress(&self) -> Result<Option<Progress>> {
        let sql = "SELECT over, direction, paused, stepped_at FROM placement WHERE threshold IS NOT NULL AND over IS NOT NULL";
        self.one(sql, [], rows::progress)
    }

    fn holds(&self, now: u64) -> Result<Vec<Hold>> {
        let sql = "SELECT machine, starting, until FROM holds WHERE until > ?1 ORDER BY machine";
        self.all(sql, [now], |row| {
            Ok(Hold {
                machine: row.get(0)?,
                starting: row.get(1)?,
                until: row.get(2)?,
            })
        })
    }

    fn placement(&self) -> Result<Placement> {
        let found = self.one(
            "SELECT method, previous, threshold FROM placement",
            [],
            rows::placement,
        )?;
        Ok(found.unwrap_or(Placement {
            method: Method::Rendezvous,
            change: None,
        }))
    }

    fn users(&self) -> Result<Vec<User>> {
        self.all("SELECT name, uid FROM users ORDER BY name", [], rows::user)
    }

    fn user(&self, name: &UserName) -> Result<Option<User>> {
        self.one(
            "SELECT name, uid FROM users WHERE name = ?1",
            [name.as_str()],
            rows::user,
        )
    }

    fn backends(&self) -> Result<Vec<Backend>> {
        self.all(
            &format!("SELECT {} FROM backends ORDER BY id", rows::BACKEND),
            [],
            rows::backend,
        )
    }

    fn backend(&self, name: &BackendName) -> Result<Option<Backend>> {
        self.one(
            &format!("SELECT {} FROM backends WHERE name = ?1", rows::BACKEND),
            [name.as_str()],
            rows::backend,
        )
    }

    fn drain_deadline(&self, backend: BackendId) -> Result<Option<u64>> {
        let sql = "SELECT at FROM drain_deadlines WHERE backend = ?1";
        let found = self
            .transaction
            .prepare_cached(sql)?
            .query_row([backend.0.get()], |row| row.get(0))
            .optional()?;
        Ok(found)
    }

    fn backend_by_id(&self, id: BackendId) -> Result<Option<Backend>> {
        self.one(
            &format!("SELECT {} FROM backends WHERE id = ?1", rows::BACKEND),
            [id.0.get()],
            rows::backend,
        )
    }

    fn site(&self, id: SiteId) -> Result<Option<Site>> {
        self.one(
            &format!("SELECT {} FROM sites s WHERE s.id = ?1", rows::SITE),
            [rows::number(id)],
            rows::site,
        )
    }

    fn site_of(&self, domain: &Domain) -> Result<Option<Site>> {
        let sql = format!(
            "SELECT {} FROM domains d JOIN sites s ON s.id = d.site WHERE d.domain = ?1",
            rows::SITE
        );
        self.one(&sql, [domain.as_str()], rows::site)
    }

    fn each_site(
        &self,
        filter: &SiteFilter,
        see: &mut dyn FnMut(Site) -> Result<()>,
    ) -> Result<()> {
        let (whose, user) = match &filter.user {
            Some(user) => ("WHERE s.user = ?1", vec![user.as_str()]),
            None => ("", Vec::new()),
        };
        let sql = format!(
            "SELECT {} FROM sites s {whose} ORDER BY s.domain",
            rows::SITE
        );
        self.each(&sql, rusqlite::params_from_iter(user), |row| {
            see(rows::site(row)?)
        })
    }

    fn domains(&self, site: SiteId) -> Result<Vec<Domain>> {
        let sql = "SELECT domain FROM domains WHERE site = ?1 ORDER BY domain";
        self.all(sql, [rows::number(site)], |row| {
            rows::domain(row.get_ref(0)?.as_str().map_err(rusqlite::Error::from)?)
        })
    }

    fn environment(&self, site: SiteId) -> Result<Environment> {
        let sql = "SELECT name, value, secret FROM environment WHERE site = ?1 ORDER BY name";
        let variables = self.all(sql, [rows::number(site)], rows::variable)?;
        Environment::new(variables.into_iter().collect()).map_err(|source| RegistryError::Row {
            what: "environment",
            key: site.to_string(),
            source,
        })
    }

    fn hosts_after(&self, after: Option<&Domain>, limit: u32) -> Result<Vec<(Domain, SiteRecord)>> {
        let sql = format!(
            "SELECT {} WHERE d.domain > ?1 ORDER BY d.domain LIMIT ?2",
            rows::HOST
        );
        self.all(&sql, (after.map_or("", Domain::as_str), limit), rows::host)
    }

    fn host(&self, domain: &Domain) -> Result<Option<SiteRecord>> {
        let sql = format!("SELECT {} WHERE d.domain = ?1", rows::HOST);
        Ok(self
            .one(&sql, [domain.as_str()], rows::host)?
            .map(|(_, record)| record))
    }
}

fn changed(row: &Row<'_>) -> Result<Changed> {
    let (kind, key): (String, String) = (row.get(0)?, row.get(1)?);
    let bad = |why: &str| RegistryError::Row {
        what: "change",
        key: format!("{kind} {key}"),
        source: Invalid::new("a change", &key, why),
    };
    let id = || key.parse::<i64>().map_err(|_| bad("its key is no number"));
    Ok(match kind.as_str() {
        "user" => Changed::User(UserName::parse(&key).map_err(|e| bad(&e.why))?),
        "backend" => Changed::Backend(rows::backend_id(id()?)?),
        "site" => Changed::Site(rows::site_id(id()?)?),
        "domain" => Changed::Domain(Box::new(rows::domain(&key)?)),
        "placement" => Changed::Placement,
        _ => return Err(bad("this program does not know that kind")),
    })
}
