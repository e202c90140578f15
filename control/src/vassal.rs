//! Vassal files: the whole uWSGI configuration of one generation of one site. Rendering them is pure; the daemon writes them,
//! and only while that generation runs.

use askama::Template;

use crate::escape::{IniValue, Refused};
use crate::initialize::words::Generation;
use crate::model::{
    Application, EntryPoint, Idle, Invalid, OptionName, Site, SiteId, Span, UrlPrefix,
};

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
    /// Settings that mean nothing for what the site runs.
    #[error("{0}; change it with `paasctl set-site`")]
    Unsuited(#[from] Invalid),
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
    /// The operator's own lines for all sites.
    snippets: Option<&'a str>,
    site: Numbers,
    statics: Vec<(&'a UrlPrefix, IniValue)>,
    options: Vec<(OptionName, IniValue)>,
}

/// What the site sets and uWSGI takes as a number.
struct Numbers {
    workers: Option<u16>,
    threads: Option<u16>,
    cheaper: Option<u16>,
    harakiri: Option<u64>,
    max_requests: Option<u32>,
    buffer_size: Option<u64>,
    post_buffering: Option<u64>,
}

#[derive(Template)]
#[template(path = "vassal-command.ini", escape = "none")]
struct CommandIni {
    domain: IniValue,
}

/// The platform decides when a site sleeps. If it cannot, for want of a daemon or of nginx's counters, uWSGI does, much later.
fn safety_net(idle: Span) -> u64 {
    idle.whole_seconds() * 4 + 600
}

/// The configuration of `site` on a machine with these `defaults` and the operator's own lines.
pub fn render(site: &Site, defaults: &Defaults, snippets: &str) -> Result<String, VassalError> {
    site.settings.suit(&site.application)?;
    match &site.application {
        Application::Wsgi(entry) => wsgi(site, entry, defaults, snippets),
        Application::Command(_) => {
            let domain = value("its domain", site.domain.as_str())?;
            Ok(CommandIni { domain }.render()?)
        }
    }
}

fn wsgi(
    site: &Site,
    entry: &EntryPoint,
    defaults: &Defaults,
    snippets: &str,
) -> Result<String, VassalError> {
    let callable = value("its entry point", entry.callable())?;
    let entry = match entry {
        EntryPoint::Module { module, .. } => Entry::Module(value("its entry point", module)?),
        EntryPoint::File { path, .. } => Entry::File(value("its entry point", path)?),
    };
    let settings = &site.settings;
    let statics = settings.statics.iter().map(|mapping| {
        let directory = value("its static directory", mapping.directory.as_str())?;
        Ok((&mapping.url, directory))
    });
    let options = settings.options.iter();
    let options = options.map(|(name, text)| Ok((name, value("its option", text)?)));
    let vassal = VassalIni {
        workers: defaults.workers,
        directory: value("its directory", site.directory.as_str())?,
        entry,
        callable,
        venv: site
            .venv
            .as_ref()
            .map(|venv| value("its virtualenv", venv.as_str()))
            .transpose()?,
        domain: value("its domain", site.domain.as_str())?,
        backlog: defaults.backlog,
        idle: site.idle.unwrap_or(defaults.idle).span().map(safety_net),
        snippets: (!snippets.is_empty()).then_some(snippets),
        site: Numbers {
            workers: settings.workers,
            threads: settings.threads,
            cheaper: settings.cheaper,
            harakiri: settings.harakiri.map(Span::whole_seconds),
            max_requests: settings.max_requests,
            buffer_size: settings.buffer_size.map(|size| size.get()),
            post_buffering: settings.post_buffering.map(|size| size.get()),
        },
        statics: statics.collect::<Result<_, VassalError>>()?,
        options: options.collect::<Result<_, VassalError>>()?,
    };
    Ok(vassal.render()?)
}

fn value(what: &'static str, text: &str) -> Result<IniValue, VassalError> {
    IniValue::new(text).map_err(|source| VassalError::Refused { what, source })
}

#[cfg(test)]
#[path = "vassal_tests.rs"]
mod tests;
