//! What a machine needs to do its part, looked at one by one: what is there, what is not, and what to do about it.

use std::fs;
use std::path::Path;
use std::time::Duration;

use hyper::Method;
use serde::{Deserialize, Serialize};

use crate::client;
use crate::model::Network;
use crate::registry::{self, SiteFilter};
use crate::sandbox::missing;
use crate::settings::{BackendsFrom, Role, Settings};
use crate::{emperor, nginx, outbound};

/// A daemon answers such questions at once.
const WITHIN: Duration = Duration::from_secs(10);
/// Fewer requests than this wait in a site's queue if the kernel does not let more.
const QUEUE: u32 = 1024;

/// How a thing is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// As it should be.
    Good,
    /// It works, but not as well, or not as safely.
    Warning,
    /// Something does not work.
    Bad,
}

/// One thing, and how it is.
#[derive(Debug, Clone, Serialize)]
pub struct Finding {
    /// What was looked at.
    pub what: &'static str,
    /// How it is.
    pub state: State,
    /// In words; if it is not good, with what to do.
    pub text: String,
}

fn good(what: &'static str, text: impl Into<String>) -> Finding {
    Finding {
        what,
        state: State::Good,
        text: text.into(),
    }
}

fn warning(what: &'static str, text: impl Into<String>) -> Finding {
    Finding {
        what,
        state: State::Warning,
        text: text.into(),
    }
}

fn bad(what: &'static str, text: impl ToString) -> Finding {
    Finding {
        what,
        state: State::Bad,
        text: text.to_string(),
    }
}

/// Looks at everything that a machine with these settings needs.
pub fn examine(settings: &Settings) -> Vec<Finding> {
    let mut findings = Vec::new();
    let revision = registry(settings, &mut findings);
    let needs_daemon =
        settings.has(Role::Backend) || settings.balancer.backends != BackendsFrom::Static;
    if needs_daemon {
        findings.push(daemon(settings, revision));
    }
    findings.push(configuration(settings));
    if settings.has(Role::Backend) {
        findings.extend(waking(settings));
        findings.extend(walls(settings));
    }
    findings
}

/// Answers its revision.
fn registry(settings: &Settings, findings: &mut Vec<Finding>) -> Option<u64> {
    let path = settings.paths().registry();
    let read = || {
        let mut registry = registry::open(settings)?;
        let view = registry.view()?;
        let mut sites = 0_u64;
        view.each_site(&SiteFilter { user: None }, &mut |_| {
            sites += 1;
            Ok(())
        })?;
        Ok::<_, registry::RegistryError>((view.revision()?, view.backends()?.len(), sites))
    };
    match read() {
        Ok((revision, backends, sites)) => {
            findings.push(good(
                "registry",
                format!("{}: {backends} backends, {sites} sites", path.display()),
            ));
            Some(revision)
        }
        Err(problem) => {
            findings.push(bad("registry", problem));
            None
        }
    }
}

fn daemon(settings: &Settings, revision: Option<u64>) -> Finding {
    #[derive(Deserialize)]
    struct Status {
        revision: u64,
    }
    let socket = settings.paths().control_socket();
    match client::ask(&socket, Method::GET, "/status", WITHIN) {
        Ok(answer) => match serde_json::from_str::<Status>(&answer.body) {
            Ok(status) if revision.is_some_and(|revision| status.revision < revision) => warning(
                "daemon",
                format!(
                    "it runs, but its table is behind the registry ({} of {}); its log tells why",
                    status.revision,
                    revision.unwrap_or_default()
                ),
            ),
            Ok(_) => good(
                "daemon",
                "it runs, and its table holds what the registry holds",
            ),
            Err(problem) => bad(
                "daemon",
                format!(
                    "it answers something else ({problem}): paasctl and the daemon must be of one build"
                ),
            ),
        },
        Err(problem) => bad(
            "daemon",
            format!("{problem}; is `paasctl serve` running, and what does its log say?"),
        ),
    }
}

fn configuration(settings: &Settings) -> Finding {
    let current = settings.paths().current();
    if !current.join("nginx.conf").exists() {
        return bad("nginx", "there is no configuration yet: `paasctl render`");
    }
    if let Err(problem) = nginx::test(settings, &current) {
        return bad("nginx", problem);
    }
    match nginx::running(settings) {
        true => good("nginx", "it runs, and takes its configuration"),
        false => warning(
            "nginx",
            format!(
                "it takes its configuration, but does not run: `{}`",
                nginx::command(settings)
            ),
        ),
    }
}

fn waking(settings: &Settings) -> Vec<Finding> {
    let mut findings = Vec::new();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let socket = settings.paths().emperor_stats();
    findings.push(match runtime {
        Ok(runtime) => match runtime.block_on(emperor::poke(&socket)) {
            Ok(stats) => good(
                "emperor",
                format!("it runs, with {} sites awake", stats.vassals.len()),
            ),
            Err(problem) => bad("emperor", problem),
        },
        Err(problem) => bad("emperor", problem),
    });
    for (what, program) in [
        ("uwsgi", settings.backend.uwsgi.as_path()),
        ("paas-launch", settings.backend.launcher.as_path()),
    ] {
        findings.push(match program.exists() {
            true => good(what, program.display().to_string()),
            false => bad(what, format!("{} is not there", program.display())),
        });
    }
    let queue = number("/proc/sys/net/core/somaxconn").unwrap_or(QUEUE);
    findings.push(match queue >= QUEUE {
        true => good("queues", format!("{queue} connections may wait for a site")),
        false => warning(
            "queues",
            format!(
                "only {queue} connections may wait for a site: set net.core.somaxconn to {QUEUE}"
            ),
        ),
    });
    findings
}

fn walls(settings: &Settings) -> Vec<Finding> {
    let mut findings: Vec<Finding> = missing::missing(settings)
        .into_iter()
        .map(|wall| match wall.stops_sites {
            true => bad("sandbox", wall),
            false => warning("sandbox", wall.text),
        })
        .collect();
    if findings.is_empty() {
        findings.push(good("sandbox", "sites run in sandboxes, within limits"));
    }
    let wanted = settings.sandbox.limits.network == Some(Network::Outbound);
    let open = outbound::is_forwarding().and_then(|()| outbound::has_filter());
    findings.push(match open {
        Ok(()) => good("outbound", "sites that may connect to others can"),
        Err(problem) if wanted => bad("outbound", problem),
        Err(problem) => warning(
            "outbound",
            format!("no site can have `--network outbound`: {problem}"),
        ),
    });
    findings
}

fn number(path: impl AsRef<Path>) -> Option<u32> {
    fs::read_to_string(path).ok()?.trim().parse().ok()
}
