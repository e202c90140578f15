//! What users and sites may have, and what they have used.
use super::{Session, rows};
use crate::model::*;
use crate::registry::{CpuUsed, LimitsEdit, LimitsView, RegistryError, Result};
use rusqlite::{OptionalExtension, params};
use std::time::Duration;

/// Used CPU time of days longer ago is forgotten.
const KEPT_DAYS: u64 = 40;

impl Session<'_> {
    fn limits(&self, sql: &str, key: impl rusqlite::ToSql, name: String) -> Result<Limits> {
        let text: Option<String> = self
            .transaction
            .prepare_cached(sql)?
            .query_row([key], |row| row.get(0))
            .optional()?;
        let read = |text: String| {
            serde_json::from_str(&text).map_err(|error| RegistryError::Row {
                what: "set of limits",
                source: Invalid::new("a set of limits", &text, error.to_string()),
                key: name,
            })
        };
        text.map_or(Ok(Limits::default()), read)
    }
}

fn text(limits: &Limits) -> Result<String> {
    serde_json::to_string(limits).map_err(|error| RegistryError::Refused(error.to_string()))
}

impl LimitsView for Session<'_> {
    fn user_limits(&self, user: &UserName) -> Result<Limits> {
        let sql = "SELECT limits FROM user_limits WHERE user = ?1";
        self.limits(sql, user.as_str(), user.to_string())
    }

    fn site_limits(&self, site: SiteId) -> Result<Limits> {
        let sql = "SELECT limits FROM site_limits WHERE site = ?1";
        self.limits(sql, rows::number(site), site.to_string())
    }

    fn user_by_uid(&self, uid: Uid) -> Result<Option<User>> {
        let sql = "SELECT name, uid FROM users WHERE uid = ?1";
        let mut statement = self.transaction.prepare_cached(sql)?;
        let mut found = statement.query([uid.get()])?;
        found.next()?.map(rows::user).transpose()
    }

    fn cpu_used(&self, uid: Uid, day: u64) -> Result<Duration> {
        let sql = "SELECT coalesce(sum(microseconds), 0) FROM cpu_used WHERE uid = ?1 AND day = ?2";
        let used = self
            .transaction
            .prepare_cached(sql)?
            .query_row(params![uid.get(), day], |row| row.get(0))?;
        Ok(Duration::from_micros(used))
    }

    fn cpu_counter(&self, uid: Uid, backend: &str) -> Result<Duration> {
        let sql = "SELECT counter FROM cpu_used WHERE uid = ?1 AND backend = ?2 ORDER BY day DESC LIMIT 1";
        let counter: Option<u64> = self
            .transaction
            .prepare_cached(sql)?
            .query_row(params![uid.get(), backend], |row| row.get(0))
            .optional()?;
        Ok(Duration::from_micros(counter.unwrap_or(0)))
    }
}

impl LimitsEdit for Session<'_> {
    fn set_user_limits(&mut self, user: &UserName, limits: &Limits) -> Result<()> {
        let sql = match *limits == Limits::default() {
            true => "DELETE FROM user_limits WHERE user = ?1 AND ?2 IS NOT NULL",
            false => {
                "INSERT INTO user_limits (user, limits) VALUES (?1, ?2) ON CONFLICT (user) DO UPDATE SET limits = excluded.limits"
            }
        };
        self.transaction
            .prepare_cached(sql)?
            .execute(params![user.as_str(), text(limits)?])?;
        Ok(())
    }

    fn set_site_limits(&mut self, site: SiteId, limits: &Limits) -> Result<()> {
        let sql = match *limits == Limits::default() {
            true => "DELETE FROM site_limits WHERE site = ?1 AND ?2 IS NOT NULL",
            false => {
                "INSERT INTO site_limits (site, limits) VALUES (?1, ?2) ON CONFLICT (site) DO UPDATE SET limits = excluded.limits"
            }
        };
        self.transaction
            .prepare_cached(sql)?
            .execute(params![rows::number(site), text(limits)?])?;
        Ok(())
    }

    fn add_cpu(&mut self, used: &CpuUsed<'_>) -> Result<()> {
        let micros = |time: Duration| i64::try_from(time.as_micros()).unwrap_or(i64::MAX);
        let sql = "INSERT INTO cpu_used (uid, backend, day, microseconds, counter) VALUES (?1, ?2, ?3, ?4, ?5) \
            ON CONFLICT (uid, backend, day) DO UPDATE SET microseconds = microseconds + excluded.microseconds, counter = excluded.counter";
        let values = params![
            used.uid.get(),
            used.backend,
            used.day,
            micros(used.more),
            micros(used.counter)
        ];
        self.transaction.prepare_cached(sql)?.execute(values)?;
        let old = "DELETE FROM cpu_used WHERE uid = ?1 AND day < ?2";
        let oldest = used.day.saturating_sub(KEPT_DAYS);
        self.transaction
            .prepare_cached(old)?
            .execute(params![used.uid.get(), oldest])?;
        Ok(())
    }
}
