//! Vassal files: the whole uWSGI configuration of one generation of one site. Rendering them is pure; the daemon writes them,
//! and only while that generation runs.

use askama::Template;

use crate::escape::{IniValue, Refused};
use crate::initialize::words::Generation;
use crate::model::{EntryPoint, Idle, Site, SiteId, Span};

/// What can keep a site's configuration from being written.
#[derive(Debug, thiserror::Error)]
pub enum VassalError {
    /// A value that uWSGI would read as something else.
    #[error("{what}: {source}; change it with `paasctl set-site`")]
    Refused {
        /// Of the site.
        what: &'static str,
        /// Why.
        source: Refused,
    },
    /// The template failed.
    #[error("the vassal file's template: {0}")]
    Template(#[from] askama::Error),
}

/// `<site id>@<generation>.ini`
pub fn file_name(site: SiteId, generation: Generation) -> String {
    format!("{site}@{generation}.ini")
}

/// Whose vassal file has this name, if it is one.
pub fn parse_file_name(name: &str) -> Option<(SiteId, Generation)> {
    let (site, generation) = name.strip_suffix(".ini")?.split_once('@')?;
    let digits =
        |text: &str| text.bytes().all(|byte| byte.is_ascii_digit()) && !text.starts_with('0');
    let site = digits(site)
        .then(|| site.parse().ok())?
        .and_then(SiteId::new)?;
    Some((site, Generation::parse(generation)?))
}

/// What the machine's settings say for all its sites.
#[derive(Clone, Debug)]
pub struct Defaults {
    /// Processes of each site.
    pub workers: u16,
    /// After how long without a request a site sleeps, unless it says otherwise.
    pub idle: Idle,
    /// The longest queue: never above what the kernel allows, or uWSGI refuses to start.
    pub backlog: u32,
    /// The operator's own lines.
    pub snippets: String,
}

enum Entry {
    Module(IniValue),
    File(IniValue),
}

#[derive(Template)]
#[template(path = "vassal.ini", escape = "none")]
struct VassalIni<'a> {
    workers: u16,
    directory: IniValue,
    entry: Entry,
    callable: IniValue,
    venv: Option<IniValue>,
    domain: IniValue,
    backlog: u32,
    idle: Option<u64>,
    snippets: &'a str,
}

/// The platform decides when a site sleeps. If it cannot, for want of a daemon or of nginx's counters, uWSGI does, much later.
fn safety_net(idle: Span) -> u64 {
    idle.whole_seconds() * 4 + 600
}

/// The configuration of `site` on a machine with these `defaults`.
pub fn render(site: &Site, defaults: &Defaults) -> Result<String, VassalError> {
    let value = |what, text: &str| {
        IniValue::new(text).map_err(|source| VassalError::Refused { what, source })
    };
    let entry = match &site.entry {
        EntryPoint::Module { module, .. } => Entry::Module(value("its entry point", module)?),
        EntryPoint::File { path, .. } => Entry::File(value("its entry point", path)?),
    };
    let vassal = VassalIni {
        workers: defaults.workers,
        directory: value("its directory", site.directory.as_str())?,
        entry,
        callable: value("its entry point", site.entry.callable())?,
        venv: site
            .venv
            .as_ref()
            .map(|venv| value("its virtualenv", venv.as_str()))
            .transpose()?,
        domain: value("its domain", site.domain.as_str())?,
        backlog: defaults.backlog,
        idle: site.idle.unwrap_or(defaults.idle).span().map(safety_net),
        snippets: &defaults.snippets,
    };
    Ok(vassal.render()?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{AbsolutePath, UserName};

    fn site() -> Site {
        Site {
            id: SiteId::new(12).unwrap(),
            user: UserName::parse("anna").unwrap(),
            domain: crate::model::parse_domain("example.org").unwrap(),
            directory: AbsolutePath::parse("/srv/100% mine").unwrap(),
            entry: EntryPoint::parse("web/app.py:app").unwrap(),
            venv: None,
            idle: Some(Idle::parse("1500ms").unwrap()),
            enabled: true,
            pin: None,
        }
    }

    fn defaults() -> Defaults {
        Defaults {
            workers: 2,
            idle: Idle::parse("10m").unwrap(),
            backlog: 1024,
            snippets: "harakiri = 60\n".to_owned(),
        }
    }

    #[test]
    fn a_site_becomes_a_whole_configuration() {
        let text = render(&site(), &defaults()).unwrap();
        for line in [
            "chdir = /srv/100%% mine",
            "wsgi-file = web/app.py",
            "callable = app",
            "idle = 608",
            "listen = 1024",
            "harakiri = 60",
            "strict = true",
            "need-app = true",
        ] {
            assert!(
                text.lines().any(|found| found == line),
                "{line} is missing in:\n{text}"
            );
        }
        assert!(!text.contains("virtualenv"));
        let sleepless = Site {
            idle: Some(Idle::Never),
            ..site()
        };
        let sleepless = render(&sleepless, &defaults()).unwrap();
        assert!(!sleepless.contains("idle"), "{sleepless}");
        assert_eq!(text, render(&site(), &defaults()).unwrap());
    }

    #[test]
    fn a_hostile_value_is_refused_and_names_its_place() {
        let hostile = Site {
            directory: AbsolutePath::parse("/srv/$(HOME)").unwrap(),
            ..site()
        };
        let problem = render(&hostile, &defaults()).unwrap_err().to_string();
        assert!(
            problem.contains("its directory") && problem.contains("set-site"),
            "{problem}"
        );
    }

    #[test]
    fn only_our_own_file_names_are_read_back() {
        let (site, generation) = parse_file_name("12@1795479288.ini").unwrap();
        assert_eq!(file_name(site, generation), "12@1795479288.ini");
        for name in [
            "12.ini",
            "0@1.ini",
            "1@0.ini",
            "01@1.ini",
            "1@1",
            "a@1.ini",
            "1@1@1.ini",
            ".new-x.tmp",
            "+1@2.ini",
        ] {
            assert!(parse_file_name(name).is_none(), "{name}");
        }
    }
}
