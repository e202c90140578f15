//! Rows of the tables, to and from the model. A row that is none is an error that names it, never a panic.
use crate::model::*;
use crate::registry::{RegistryError, Result};
use rusqlite::Row;
use std::fmt::Display;
use std::num::{NonZeroU32, NonZeroU64};
use table::SiteRecord;

pub(super) const SITE: &str = "s.id, s.user, s.domain, s.directory, s.entry, s.venv, s.idle, s.enabled, s.pin, s.kind, s.settings";
pub(super) const HOST: &str = "d.domain, s.id, s.domain, s.pin, s.enabled, s.kind FROM domains d JOIN sites s ON s.id = d.site";
pub(super) const BACKEND: &str = "id, name, address, key, weight, state";

/// Makes an error of a value of row `key` that is not valid.
fn bad<E: Display>(what: &'static str, key: impl Display) -> impl FnOnce(E) -> RegistryError {
    let key = key.to_string();
    move |error| RegistryError::Row {
        what,
        source: Invalid::new(what, &key, error.to_string()),
        key,
    }
}

pub(super) fn user(row: &Row<'_>) -> Result<User> {
    let name: String = row.get(0)?;
    let uid = Uid::new(row.get(1)?).map_err(bad("user", &name))?;
    Ok(User {
        name: UserName::parse(&name).map_err(bad("user", &name))?,
        uid,
    })
}

pub(super) fn backend(row: &Row<'_>) -> Result<Backend> {
    let id = backend_id(row.get(0)?)?;
    let name: String = row.get(1)?;
    Ok(Backend {
        id,
        address: row
            .get::<_, String>(2)?
            .parse()
            .map_err(bad("backend", &name))?,
        key: BackendKey::parse(&row.get::<_, String>(3)?).map_err(bad("backend", &name))?,
        weight: Weight::new(row.get(4)?).map_err(bad("backend", &name))?,
        state: row
            .get::<_, String>(5)?
            .parse()
            .map_err(bad("backend", &name))?,
        name: BackendName::parse(&name).map_err(bad("backend", &name))?,
    })
}

pub(super) fn site(row: &Row<'_>) -> Result<Site> {
    let id: i64 = row.get(0)?;
    let venv: Option<String> = row.get(5)?;
    let idle: Option<String> = row.get(6)?;
    Ok(Site {
        id: site_id(id)?,
        user: UserName::parse(&row.get::<_, String>(1)?).map_err(bad("site", id))?,
        domain: Domain::parse(&row.get::<_, String>(2)?).map_err(bad("site", id))?,
        directory: AbsolutePath::parse(&row.get::<_, String>(3)?).map_err(bad("site", id))?,
        application: Application::parse(
            row.get_ref(9)?.as_str().map_err(rusqlite::Error::from)?,
            row.get_ref(4)?.as_str().map_err(rusqlite::Error::from)?,
        )
        .map_err(bad("site", id))?,
        venv: venv
            .map(|path| AbsolutePath::parse(&path))
            .transpose()
            .map_err(bad("site", id))?,
        idle: idle
            .map(|text| Idle::parse(&text))
            .transpose()
            .map_err(bad("site", id))?,
        enabled: row.get(7)?,
        pin: row.get::<_, Option<i64>>(8)?.map(backend_id).transpose()?,
        settings: settings(row.get_ref(10)?.as_str().map_err(rusqlite::Error::from)?)
            .map_err(bad("site", id))?,
    })
}

pub(super) fn host(row: &Row<'_>) -> Result<(Domain, SiteRecord)> {
    let id = site_id(row.get(1)?)?;
    let primary = row.get_ref(2)?.as_str().map_err(rusqlite::Error::from)?;
    let pin = row.get::<_, Option<i64>>(3)?.map(backend_id).transpose()?;
    let name = domain(row.get_ref(0)?.as_str().map_err(rusqlite::Error::from)?)?;
    Ok((
        name,
        SiteRecord {
            id,
            primary: domain(primary)?,
            pin,
            enabled: row.get(4)?,
            protocol: protocol(row.get_ref(5)?.as_str().map_err(rusqlite::Error::from)?)?,
        },
    ))
}

/// Most sites have none.
fn settings(text: &str) -> serde_json::Result<SiteSettings> {
    match text {
        "{}" => Ok(SiteSettings::default()),
        text => serde_json::from_str(text),
    }
}

/// Settings as the registry keeps them: what is not set is not written.
pub(super) fn settings_text(settings: &SiteSettings) -> Result<String> {
    let written = match settings == &SiteSettings::default() {
        true => Ok("{}".to_owned()),
        false => serde_json::to_string(settings),
    };
    written.map_err(|error| RegistryError::Refused(error.to_string()))
}

fn protocol(kind: &str) -> Result<Protocol> {
    match kind {
        "wsgi" => Ok(Protocol::Uwsgi),
        "command" => Ok(Protocol::Http),
        _ => Err("it is of an unknown kind").map_err(bad("site", kind)),
    }
}

pub(super) fn variable(row: &Row<'_>) -> Result<(EnvName, EnvVariable)> {
    let name: String = row.get(0)?;
    let value = EnvValue::parse(row.get_ref(1)?.as_str().map_err(rusqlite::Error::from)?);
    Ok((
        EnvName::parse(&name).map_err(bad("variable", &name))?,
        EnvVariable {
            value: value.map_err(bad("variable", &name))?,
            secret: row.get(2)?,
        },
    ))
}

pub(super) fn domain(text: &str) -> Result<Domain> {
    Domain::parse(text).map_err(bad("domain", text))
}

pub(super) fn site_id(id: i64) -> Result<SiteId> {
    let positive = u64::try_from(id).ok().and_then(NonZeroU64::new).map(SiteId);
    positive
        .ok_or("its id is not positive")
        .map_err(bad("site", id))
}

pub(super) fn backend_id(id: i64) -> Result<BackendId> {
    let positive = u32::try_from(id)
        .ok()
        .and_then(NonZeroU32::new)
        .map(BackendId);
    positive
        .ok_or("its id is not positive")
        .map_err(bad("backend", id))
}

pub(super) fn placement(row: &Row<'_>) -> Result<Placement> {
    let method = row
        .get::<_, String>(0)?
        .parse()
        .map_err(bad("placement", "method"))?;
    let from = row
        .get::<_, Option<String>>(1)?
        .map(|name| name.parse())
        .transpose()
        .map_err(bad("placement", "previous"))?;
    let threshold = row
        .get::<_, Option<String>>(2)?
        .map(|number| number.parse::<u64>())
        .transpose()
        .map_err(bad("placement", "threshold"))?;
    Ok(Placement {
        method,
        change: from
            .zip(threshold)
            .map(|(from, threshold)| SlowChange { from, threshold }),
    })
}

pub(super) fn progress(row: &Row<'_>) -> Result<Progress> {
    let over: String = row.get(0)?;
    let direction: Option<String> = row.get(1)?;
    Ok(Progress {
        over: Span::parse(&over).map_err(bad("placement", "over"))?,
        direction: direction
            .unwrap_or_default()
            .parse()
            .map_err(bad("placement", "direction"))?,
        paused: row.get(2)?,
        stepped_at: row.get::<_, Option<u64>>(3)?.unwrap_or(0),
    })
}

/// An id as SQLite keeps it.
pub(super) fn number(id: SiteId) -> i64 {
    i64::try_from(id.0.get()).unwrap_or(i64::MAX)
}
