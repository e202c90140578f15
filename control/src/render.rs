//! nginx's configuration from the machine's settings and, in static mode, the registry's backends. Pure: the same
//! input gives the same bytes. Nothing in the output grows with the number of sites.
use crate::error_page;
use crate::escape::{NginxValue, Refused};
use crate::model::{Backend, Method, Placement, Span};
use crate::probe;
use crate::settings::{BackendsFrom, Eject, Role, Settings, Workers};
use askama::Template;
use std::collections::BTreeMap;
use std::path::Path;

/// Why nothing was rendered.
#[derive(Debug, thiserror::Error)]
pub enum RenderError {
    /// A value that cannot stand in a configuration.
    #[error("{what}: {source}")]
    Value {
        /// Which one.
        what: &'static str,
        /// Why.
        source: Refused,
    },
    /// A path that is no UTF-8.
    #[error("{what}: the path is not valid UTF-8; choose another root")]
    Path {
        /// Which one.
        what: &'static str,
    },
    /// nginx refuses an upstream block of nothing.
    #[error(
        "the registry has no backend, and with `backends = \"static\"` nginx needs one; add it: `paasctl add-backend NAME ADDRESS:PORT`"
    )]
    NoBackends,
    /// A template of this program is broken.
    #[error("rendering: {0}")]
    Template(#[from] askama::Error),
}

/// All that the output depends on.
#[derive(Debug, Clone, Copy)]
pub struct Input<'a> {
    /// The machine.
    pub settings: &'a Settings,
    /// The backends in their order; heeded in static mode only.
    pub backends: &'a [Backend],
    /// The placement; heeded in static mode only.
    pub placement: Placement,
    /// nginx will be started by root, and its workers become somebody else.
    pub root: bool,
    /// The Emperor's configuration, on a backend.
    pub emperor: Option<&'a str>,
    /// The operator's own snippets, `http.d/x.conf` and so on, by name. nginx includes them where they are; the copies
    /// say what was in force, so that the next diff shows what changed.
    pub snippets: &'a BTreeMap<String, String>,
}

/// Rendered files by their names, and what the operator should know about them.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Rendered {
    /// Name to content.
    pub files: BTreeMap<String, String>,
    /// What could not be expressed in them.
    pub notes: Vec<String>,
}

/// Renders everything.
pub fn render(input: Input<'_>) -> Result<Rendered, RenderError> {
    let mut rendered = Rendered::default();
    let settings = input.settings;
    rendered.add("nginx.conf", main(&input)?)?;
    rendered.add("paas-http.conf", http(settings)?)?;
    if settings.has(Role::Balancer) {
        let part = balancer(&input, &mut rendered.notes)?;
        rendered.add("paas-balancer.conf", part)?;
    }
    if settings.has(Role::Backend) {
        rendered.add("paas-backend.conf", backend(settings)?)?;
    }
    if let Some(emperor) = input.emperor {
        rendered
            .files
            .insert("emperor.ini".to_owned(), emperor.to_owned());
    }
    for (name, content) in input.snippets {
        rendered
            .files
            .insert(format!("snippets/{name}"), content.clone());
    }
    Ok(rendered)
}

impl Rendered {
    fn add(&mut self, name: &str, template: impl Template) -> Result<(), RenderError> {
        let mut text = template.render()?;
        if !text.ends_with('\n') {
            text.push('\n');
        }
        self.files.insert(name.to_owned(), text);
        Ok(())
    }
}

#[derive(Template)]
#[template(path = "nginx.conf", escape = "none")]
struct Main {
    module: NginxValue,
    user: Option<NginxValue>,
    workers: NginxValue,
    connections: usize,
    pid: NginxValue,
    error_log: NginxValue,
    temp: Temporary,
    http_snippets: NginxValue,
    server_snippets: NginxValue,
    balancer: bool,
    backend: bool,
}

struct Temporary {
    body: NginxValue,
    proxy: NginxValue,
    uwsgi: NginxValue,
    fastcgi: NginxValue,
    scgi: NginxValue,
}

#[derive(Template)]
#[template(path = "paas-http.conf", escape = "none")]
struct Http {
    table: Option<NginxValue>,
    monitor: NginxValue,
}

#[derive(Template)]
#[template(path = "paas-balancer.conf", escape = "none")]
struct BalancerPart {
    source: Source,
    keepalive: u16,
    eject: Option<EjectPart>,
    listen: Vec<NginxValue>,
    default_server: &'static str,
    https: Option<Https>,
    access_log: NginxValue,
    client_max_body_size: NginxValue,
    server_snippets: NginxValue,
    connect_timeout: NginxValue,
    read_timeout: NginxValue,
    status: Option<NginxValue>,
}

struct EjectPart {
    failures: u8,
    time: NginxValue,
    max_time: NginxValue,
    return_time: NginxValue,
}

struct Https {
    listen: Vec<NginxValue>,
    certificate: NginxValue,
    key: NginxValue,
}

enum Source {
    Live,
    Static {
        method: Method,
        servers: Vec<Server>,
    },
}

impl Source {
    fn is_live(&self) -> bool {
        matches!(self, Self::Live)
    }
}

struct Server {
    address: NginxValue,
    weight: u32,
    down: bool,
}

#[derive(Template)]
#[template(path = "paas-backend.conf", escape = "none")]
struct BackendPart {
    name: NginxValue,
    listen: NginxValue,
    activity: NginxValue,
    counted_sites: usize,
    max_parked: usize,
    socket_path: NginxValue,
    trusted: Vec<NginxValue>,
    access_log: NginxValue,
    logs: NginxValue,
    logs_from: NginxValue,
    site_access_log: NginxValue,
    site_error_log: NginxValue,
    read_timeout: NginxValue,
    fallback_timeout: NginxValue,
    initialize: NginxValue,
    health_host: &'static str,
    heartbeat: NginxValue,
    server_snippets: Option<NginxValue>,
}

fn main(input: &Input<'_>) -> Result<Main, RenderError> {
    let settings = input.settings;
    let paths = settings.paths();
    let temporary = |name: &str| path("nginx's temporary files", &paths.nginx_temp().join(name));
    Ok(Main {
        module: value("nginx.module", settings.nginx.module.as_str())?,
        user: input
            .root
            .then(|| value("nginx.user", &settings.nginx.user))
            .transpose()?,
        workers: match settings.nginx.workers {
            Workers::Auto => value("nginx.workers", "auto")?,
            Workers::Count(count) => value("nginx.workers", &count.to_string())?,
        },
        connections: connections(settings),
        pid: path("nginx's pid file", &paths.nginx_pid())?,
        error_log: path("nginx's error log", &paths.nginx_error_log())?,
        temp: Temporary {
            body: temporary("body")?,
            proxy: temporary("proxy")?,
            uwsgi: temporary("uwsgi")?,
            fastcgi: temporary("fastcgi")?,
            scgi: temporary("scgi")?,
        },
        http_snippets: snippets(&paths.http_snippets())?,
        server_snippets: snippets(&paths.server_snippets())?,
        balancer: settings.has(Role::Balancer),
        backend: settings.has(Role::Backend),
    })
}

/// A worker's connections beside those of parked requests.
const CONNECTIONS: usize = 3072;

/// A parked request takes two connections, its visitor's and the one to the daemon: however many wait, visitors of running
/// sites find some.
fn connections(settings: &Settings) -> usize {
    let parked = match settings.has(Role::Backend) {
        true => max_parked(settings),
        false => 0,
    };
    (2 * parked + CONNECTIONS).max(8192)
}

/// How many requests a worker of nginx parks. Whom the daemon turns away is parked as well, for a moment; they must not take
/// the place of those whom it would let wait.
fn max_parked(settings: &Settings) -> usize {
    settings.waking.parked + settings.waking.parked.div_ceil(4)
}

fn http(settings: &Settings) -> Result<Http, RenderError> {
    // A balancer that takes its backends from rendered lines has no daemon, and so no table.
    let table = settings.has(Role::Backend) || settings.balancer.backends == BackendsFrom::Live;
    Ok(Http {
        table: table
            .then(|| path("the table", &settings.paths().table()))
            .transpose()?,
        monitor: path("what nginx knows of backends", &settings.paths().monitor())?,
    })
}

fn balancer(input: &Input<'_>, notes: &mut Vec<String>) -> Result<BalancerPart, RenderError> {
    let settings = &input.settings.balancer;
    let paths = input.settings.paths();
    let source = match settings.backends {
        BackendsFrom::Live => Source::Live,
        BackendsFrom::Static => servers(input, notes)?,
    };
    let https = settings.certificate.as_ref().map(|certificate| {
        Ok::<_, RenderError>(Https {
            listen: settings
                .https_listen
                .iter()
                .map(|address| value("balancer.https_listen", &address.to_string()))
                .collect::<Result<_, _>>()?,
            certificate: value("balancer.certificate", certificate.certificate.as_str())?,
            key: value("balancer.certificate_key", certificate.key.as_str())?,
        })
    });
    // Only what is placed by the table is counted.
    let status = settings.status.filter(|_| source.is_live());
    Ok(BalancerPart {
        status: status
            .map(|address| value("balancer.status", &address.to_string()))
            .transpose()?,
        source,
        keepalive: settings.keepalive,
        eject: eject(&settings.eject)?,
        listen: settings
            .listen
            .iter()
            .map(|address| value("balancer.listen", &address.to_string()))
            .collect::<Result<_, _>>()?,
        default_server: if settings.default_server {
            " default_server"
        } else {
            ""
        },
        https: https.transpose()?,
        access_log: path(
            "the balancer's access log",
            &paths.logs().join("balancer-access.log"),
        )?,
        client_max_body_size: value(
            "balancer.client_max_body_size",
            settings.client_max_body_size.as_str(),
        )?,
        server_snippets: snippets(&paths.server_snippets())?,
        connect_timeout: value(
            "balancer.connect_timeout_ms",
            &settings.connect_timeout.to_string(),
        )?,
        read_timeout: value("balancer.read_timeout", &settings.read_timeout.to_string())?,
    })
}

/// None: failures eject nobody.
fn eject(settings: &Eject) -> Result<Option<EjectPart>, RenderError> {
    let span = |what, span: &Span| value(what, &span.to_string());
    let part = EjectPart {
        failures: settings.failures,
        time: span("balancer.eject.time", &settings.time)?,
        max_time: span("balancer.eject.max_time", &settings.max_time)?,
        return_time: span("balancer.eject.return", &settings.return_time)?,
    };
    Ok((part.failures > 0).then_some(part))
}

/// The `server` lines of static mode. What they cannot say is noted.
fn servers(input: &Input<'_>, notes: &mut Vec<String>) -> Result<Source, RenderError> {
    use crate::model::State;
    if input.backends.is_empty() {
        return Err(RenderError::NoBackends);
    }
    let mut servers = Vec::with_capacity(input.backends.len());
    for backend in input.backends {
        let address = backend.address.to_string();
        if backend.key.as_str() != address {
            notes.push(format!(
                "backend {}: `server` lines hash the address {address}, not its key {}: its sites differ from those of live mode",
                backend.name, backend.key
            ));
        }
        if backend.state == State::Draining {
            notes.push(format!(
                "backend {}: draining is `down` in static mode: it gets no requests at all",
                backend.name
            ));
        }
        servers.push(Server {
            address: value("a backend's address", &address)?,
            weight: backend.weight.get(),
            down: backend.state != State::Active,
        });
    }
    if input.placement.change.is_some() {
        notes.push(format!("the slow change of placement cannot be expressed in static mode: {} holds for all sites", input.placement.method));
    }
    Ok(Source::Static {
        method: input.placement.method,
        servers,
    })
}

fn backend(settings: &Settings) -> Result<BackendPart, RenderError> {
    let paths = settings.paths();
    let backend = &settings.backend;
    let control = paths.control_socket();
    let control = control.to_str().ok_or(RenderError::Path {
        what: "the control socket",
    })?;
    let logs = paths.logs();
    let logs = logs.to_str().ok_or(RenderError::Path {
        what: "the sites' logs",
    })?;
    let within = |before, text, after| {
        NginxValue::within(before, text, after).map_err(|source| RenderError::Value {
            what: "the sites' logs",
            source,
        })
    };
    let initialize = NginxValue::within(
        "http://unix:",
        control,
        ":/initialize?site=$paas_site_id&sent=$paas_sent&idempotent=$paas_idempotent",
    );
    // On a machine that is a balancer too, the operator's lines are for the server that visitors meet.
    let server_snippets =
        (!settings.has(Role::Balancer)).then(|| snippets(&paths.server_snippets()));
    Ok(BackendPart {
        name: value("name", &settings.name)?,
        listen: value("backend.listen", &backend.listen.to_string())?,
        activity: path("nginx's counters", &paths.activity())?,
        counted_sites: settings.waking.counted_sites,
        max_parked: max_parked(settings),
        socket_path: value("backend.socket_path", backend.socket_path.as_str())?,
        trusted: backend
            .trusted
            .iter()
            .map(|network| value("backend.trusted", network.as_str()))
            .collect::<Result<_, _>>()?,
        access_log: path(
            "the backend's access log",
            &paths.logs().join("backend-access.log"),
        )?,
        logs: path("the sites' logs", &paths.logs())?,
        logs_from: within("from=", logs, "")?,
        site_access_log: within("", logs, "/$paas_site/access.log")?,
        site_error_log: within("", logs, "/$paas_site/error.log")?,
        read_timeout: value("backend.read_timeout", &backend.read_timeout.to_string())?,
        // A little longer than the daemon takes to give a start up, so that its answer arrives.
        fallback_timeout: value(
            "backend.start_timeout",
            &format!("{}s", backend.start_timeout.whole_seconds() + 5),
        )?,
        initialize: initialize.map_err(|source| RenderError::Value {
            what: "the control socket",
            source,
        })?,
        health_host: probe::ask::HOST,
        heartbeat: path("what the daemon says of the machine", &paths.heartbeat())?,
        server_snippets: server_snippets.transpose()?,
    })
}

fn value(what: &'static str, text: &str) -> Result<NginxValue, RenderError> {
    NginxValue::new(text).map_err(|source| RenderError::Value { what, source })
}

fn path(what: &'static str, path: &Path) -> Result<NginxValue, RenderError> {
    value(what, path.to_str().ok_or(RenderError::Path { what })?)
}

fn snippets(directory: &Path) -> Result<NginxValue, RenderError> {
    let what = "the directory of snippets";
    let text = directory.to_str().ok_or(RenderError::Path { what })?;
    NginxValue::snippets(text).map_err(|source| RenderError::Value { what, source })
}

#[cfg(test)]
#[path = "render_tests.rs"]
mod tests;
