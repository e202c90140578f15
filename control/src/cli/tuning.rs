//! The settings of a site as `add-site` and `set-site` take them, and how they are shown.
use super::CliError;
use super::machine::note;
use super::site::typed_path;
use crate::model::{
    Bytes, Domain, Invalid, ProbeTarget, SiteSettings, Span, StaticMapping, THREADS, UrlPrefix,
    WORKERS,
};

/// A setting as it is typed: a value, or `default`.
#[derive(Debug, Clone)]
pub(super) enum Typed<T> {
    Default,
    Value(T),
}

impl<T> Typed<T> {
    fn into_option(self) -> Option<T> {
        match self {
            Self::Default => None,
            Self::Value(value) => Some(value),
        }
    }
}

impl<T: std::str::FromStr<Err: std::fmt::Display>> std::str::FromStr for Typed<T> {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "default" => Ok(Self::Default),
            text => text
                .parse()
                .map(Self::Value)
                .map_err(|error| error.to_string()),
        }
    }
}

/// What may be set; `default` takes a setting back.
#[derive(Debug, Default, clap::Args)]
#[command(next_help_heading = "Settings of its processes (`default` takes one back)")]
pub(super) struct Tuning {
    /// Processes, 1 to 64.
    #[arg(long, value_name = "NUMBER", value_parser = workers)]
    workers: Option<Typed<u16>>,
    /// Threads of each process, 1 to 128.
    #[arg(long, value_name = "NUMBER", value_parser = threads)]
    threads: Option<Typed<u16>>,
    /// So many of the workers stay when there is little to do; the others come as they are needed.
    #[arg(long, value_name = "NUMBER")]
    cheaper: Option<Typed<u16>>,
    /// A request that takes longer is ended, with its worker: 60s.
    #[arg(long, value_name = "TIME")]
    harakiri: Option<Typed<Span>>,
    /// A worker is started anew after that many requests.
    #[arg(long, value_name = "NUMBER")]
    max_requests: Option<Typed<u32>>,
    /// The largest head of a request, 4k to 65535 bytes.
    #[arg(long, value_name = "SIZE")]
    buffer_size: Option<Typed<Bytes>>,
    /// Larger bodies wait on disk instead of in memory.
    #[arg(long, value_name = "SIZE")]
    post_buffering: Option<Typed<Bytes>>,
    /// What new code must answer below 500 before `reload-site` lets it take over, and what shows that a command serves: /health.
    #[arg(long, value_name = "PATH")]
    probe: Option<Typed<ProbeTarget>>,
    /// Requests below URL are answered with the files of DIR, without the application; may be repeated.
    #[arg(long = "static", value_name = "URL=DIR", value_parser = mapping)]
    statics: Vec<StaticMapping>,
}

impl Tuning {
    /// Whether anything is to be set.
    pub(super) fn is_any(&self) -> bool {
        self.workers.is_some()
            || self.threads.is_some()
            || self.cheaper.is_some()
            || self.harakiri.is_some()
            || self.max_requests.is_some()
            || self.buffer_size.is_some()
            || self.post_buffering.is_some()
            || self.probe.is_some()
            || !self.statics.is_empty()
    }

    /// The settings with what was typed.
    pub(super) fn apply(
        self,
        settings: SiteSettings,
        no_static: &[UrlPrefix],
    ) -> Result<SiteSettings, CliError> {
        let mut values = settings.into_values();
        set(&mut values.workers, self.workers);
        set(&mut values.threads, self.threads);
        set(&mut values.cheaper, self.cheaper);
        set(&mut values.harakiri, self.harakiri);
        set(&mut values.max_requests, self.max_requests);
        set(&mut values.buffer_size, self.buffer_size);
        set(&mut values.post_buffering, self.post_buffering);
        set(&mut values.probe, self.probe);
        for url in no_static {
            let before = values.statics.len();
            values.statics.retain(|mapping| mapping.url != *url);
            if values.statics.len() == before {
                return Err(CliError::Other(format!(
                    "nothing is mapped to {url}; `paasctl show-site` shows what is"
                )));
            }
        }
        let urls: Vec<_> = self
            .statics
            .iter()
            .map(|mapping| mapping.url.clone())
            .collect();
        values
            .statics
            .retain(|mapping| !urls.contains(&mapping.url));
        values.statics.extend(self.statics);
        Ok(SiteSettings::new(values)?)
    }
}

pub(super) fn set<T>(value: &mut Option<T>, typed: Option<Typed<T>>) {
    if let Some(typed) = typed {
        *value = typed.into_option();
    }
}

fn within(text: &str, range: std::ops::RangeInclusive<u16>) -> Result<Typed<u16>, String> {
    match text.parse()? {
        Typed::Value(value) if !range.contains(&value) => {
            Err(format!("it must be {} to {}", range.start(), range.end()))
        }
        typed => Ok(typed),
    }
}

fn workers(text: &str) -> Result<Typed<u16>, String> {
    within(text, WORKERS)
}

fn threads(text: &str) -> Result<Typed<u16>, String> {
    within(text, THREADS)
}

/// A mapping whose directory may be relative to the working directory.
fn mapping(text: &str) -> Result<StaticMapping, Invalid> {
    match text.split_once('=') {
        Some((url, directory)) if !directory.is_empty() => {
            StaticMapping::parse(&format!("{url}={}", typed_path(directory)?))
        }
        _ => StaticMapping::parse(text),
    }
}

/// The settings that are set, by name.
pub(super) fn shown(settings: &SiteSettings) -> Vec<(&'static str, String)> {
    let mut shown = Vec::new();
    let mut show = |name, value: Option<String>| shown.extend(value.map(|value| (name, value)));
    show("workers", settings.workers.map(|n| n.to_string()));
    show("threads", settings.threads.map(|n| n.to_string()));
    show("cheaper", settings.cheaper.map(|n| n.to_string()));
    show("harakiri", settings.harakiri.map(|n| n.to_string()));
    show("max-requests", settings.max_requests.map(|n| n.to_string()));
    show("buffer-size", settings.buffer_size.map(|n| n.to_string()));
    show(
        "post-buffering",
        settings.post_buffering.map(|n| n.to_string()),
    );
    show("probe", settings.probe.as_ref().map(|p| p.to_string()));
    shown.extend(
        settings
            .statics
            .iter()
            .map(|mapping| ("static", mapping.to_string())),
    );
    let options = settings.options.iter();
    shown.extend(options.map(|(name, value)| ("option", format!("{name}={value}"))));
    shown
}

/// Whoever changes what processes are started with must know when they are.
pub(super) fn say_when(domain: &Domain) {
    note(&format!(
        "{domain} takes it up when it is started next; if it runs now, `paasctl reload-site {domain}` puts it in force"
    ));
}
