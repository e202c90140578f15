//! The directives: from their arguments to typed configuration. What cannot be right is refused here, with
//! the line it stands on, and never when a request comes.

use std::ffi::{CStr, OsStr};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::rc::Rc;

use activity::Layout;
use ngx::ffi::{
    NGX_CONF_ANY, NGX_CONF_NOARGS, NGX_CONF_TAKE1, NGX_CONF_TAKE2, NGX_HTTP_LOC_CONF,
    NGX_HTTP_MAIN_CONF, NGX_HTTP_SRV_CONF, NGX_HTTP_UPS_CONF,
};
pub(crate) use routing::Method;
use table::SiteRecord;

use crate::activity::Counters;
use crate::balancer::Hash;
use crate::fallback::Settings;
use crate::ffi::conf::{Conf, Directive, Refusal, milliseconds};
use crate::ffi::keepalive::Keepalive;
use crate::ffi::mapping;
use crate::ffi::upstream::Upstream;
use crate::health::Watch;

mod eject;
mod keepalive;
mod socket;

pub(crate) use eject::PaasEject;
pub(crate) use keepalive::PaasKeepalive;
use socket::Pattern;

/// For how many sites a worker can count at once unless it is said.
const DEFAULT_SITES: usize = 8192;

/// The configuration of the http block.
#[derive(Default)]
pub(crate) struct HttpConf {
    /// The table's directory.
    pub(crate) table: Option<PathBuf>,
    /// Where the requests of sites are counted; within it none, if nginx only tests the configuration.
    pub(crate) activity: Option<Option<Counters>>,
    /// Whether some upstream block takes its backends from the table.
    pub(crate) places_by_table: bool,
    /// When a backend of the table is ejected.
    pub(crate) eject: routing::health::Settings,
    is_eject_set: bool,
    /// What is known of the backends, if failures eject them.
    pub(crate) watch: Option<Watch>,
    /// Who needs a table, in words for a message, if somebody does.
    needs_table: Option<String>,
}

/// The configuration of a server block or of an upstream block.
#[derive(Default)]
pub(crate) struct ServerConf {
    socket: Option<Rc<Pattern>>,
    /// Upstream blocks only.
    pub(crate) hash: Option<Hash>,
    /// Upstream blocks only. Its address is known to connections.
    pub(crate) keepalive: Option<Box<Keepalive>>,
}

/// The configuration of a location.
#[derive(Default)]
pub(crate) struct LocationConf {
    pub(crate) role: Option<Role>,
    pub(crate) fallback: Option<Rc<Settings>>,
}

/// What an nginx is in the platform.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Role {
    /// It routes to backends.
    Balancer,
    /// It hands requests to sites.
    Backend,
    /// Neither.
    Off,
}

impl ServerConf {
    /// Takes over from the http block what was not said.
    pub(crate) fn inherit(&mut self, outer: &Self) {
        if self.socket.is_none() {
            self.socket.clone_from(&outer.socket);
        }
    }

    /// The path of a site's socket.
    pub(crate) fn socket_of<'s>(&'s self, site: &'s SiteRecord) -> socket::Path<'s> {
        socket::Path::new(self.socket.as_deref(), site)
    }
}

impl LocationConf {
    /// Takes over from the outer block what was not said.
    pub(crate) fn inherit(&mut self, outer: &Self) {
        if self.role.is_none() {
            self.role = outer.role;
        }
        if self.fallback.is_none() {
            self.fallback.clone_from(&outer.fallback);
        }
    }
}

/// Checks the whole configuration once all of it is read.
pub(crate) fn check<'c>(
    http: &HttpConf,
    blocks: impl Iterator<Item = (Upstream<'c>, &'c ServerConf)>,
) -> Result<(), Refusal> {
    if let (None, Some(who)) = (&http.table, &http.needs_table) {
        return Err(format!(
            "{who} needs \"paas_table DIRECTORY;\" in the http block"
        ));
    }
    for (block, part) in blocks {
        if let (None, Some(keepalive)) = (&part.hash, &part.keepalive) {
            return Err(format!(
                "upstream \"{}\": \"paas_keepalive\"{} works with \"paas_hash\" only: add it, or write \"keepalive NUMBER;\"",
                String::from_utf8_lossy(block.name()),
                keepalive.place()
            ));
        }
        if let Some(hash) = &part.hash
            && hash.over.is_none()
        {
            return Err(format!(
                "upstream \"{}\": another balancing method follows \"paas_hash\"{}: only one can be in a block",
                String::from_utf8_lossy(block.name()),
                hash.place
            ));
        }
    }
    Ok(())
}

/// `paas_table DIRECTORY;`
pub(crate) struct PaasTable;

impl Directive for PaasTable {
    type Target = HttpConf;
    const NAME: &'static CStr = c"paas_table";
    const USE: u32 = NGX_HTTP_MAIN_CONF | NGX_CONF_TAKE1;

    fn read(conf: Conf<'_>, http: &mut HttpConf) -> Result<(), Refusal> {
        unset(&http.table)?;
        let directory = PathBuf::from(OsStr::from_bytes(
            conf.arguments().next().unwrap_or_default(),
        ));
        if !directory.is_absolute() {
            return Err(format!(
                "\"{}\" is not an absolute path",
                directory.display()
            ));
        }
        http.table = Some(directory);
        Ok(())
    }
}

/// `paas_activity DIRECTORY [sites=NUMBER];`
pub(crate) struct PaasActivity;

impl Directive for PaasActivity {
    type Target = HttpConf;
    const NAME: &'static CStr = c"paas_activity";
    const USE: u32 = NGX_HTTP_MAIN_CONF | NGX_CONF_TAKE1 | NGX_CONF_TAKE2;

    fn read(conf: Conf<'_>, http: &mut HttpConf) -> Result<(), Refusal> {
        unset(&http.activity)?;
        let mut arguments = conf.arguments();
        let directory = PathBuf::from(OsStr::from_bytes(arguments.next().unwrap_or_default()));
        if !directory.is_absolute() {
            return Err(format!(
                "\"{}\" is not an absolute path",
                directory.display()
            ));
        }
        let sites = match arguments.next() {
            None => Some(DEFAULT_SITES),
            Some(argument) => match argument.strip_prefix(b"sites=") {
                Some(number) => text(number)?.parse().ok(),
                None => {
                    return Err(format!(
                        "does not know the argument \"{}\"",
                        argument.escape_ascii()
                    ));
                }
            },
        };
        let layout = sites
            .and_then(Layout::new)
            .ok_or_else(|| format!("sites= is not a number from 1 to {}", Layout::MOST))?;
        http.needs_table
            .get_or_insert_with(|| format!("\"paas_activity\"{}", conf.place()));
        let counters = match mapping::is_test() {
            true => Ok(None),
            false => Counters::open(&directory, layout).map(Some),
        };
        http.activity = Some(counters.map_err(|error| {
            format!(
                "cannot open counters in \"{}\": {error}",
                directory.display()
            )
        })?);
        Ok(())
    }
}

/// `paas_socket PATTERN;`
pub(crate) struct PaasSocket;

impl Directive for PaasSocket {
    type Target = ServerConf;
    const NAME: &'static CStr = c"paas_socket";
    const USE: u32 = NGX_HTTP_MAIN_CONF | NGX_HTTP_SRV_CONF | NGX_CONF_TAKE1;

    fn read(conf: Conf<'_>, server: &mut ServerConf) -> Result<(), Refusal> {
        unset(&server.socket)?;
        let pattern = Pattern::parse(text(conf.arguments().next().unwrap_or_default())?)?;
        server.socket = Some(Rc::new(pattern));
        Ok(())
    }
}

/// `paas_role balancer | backend | off;`
pub(crate) struct PaasRole;

impl Directive for PaasRole {
    type Target = LocationConf;
    const NAME: &'static CStr = c"paas_role";
    const USE: u32 = NGX_HTTP_SRV_CONF | NGX_HTTP_LOC_CONF | NGX_CONF_TAKE1;

    fn read(conf: Conf<'_>, location: &mut LocationConf) -> Result<(), Refusal> {
        unset(&location.role)?;
        let role = match conf.arguments().next().unwrap_or_default() {
            b"balancer" => Role::Balancer,
            b"backend" => Role::Backend,
            b"off" => Role::Off,
            other => {
                return Err(format!(
                    "\"{}\" is no role: write balancer, backend or off",
                    other.escape_ascii()
                ));
            }
        };
        if role != Role::Off {
            let who = format!("\"paas_role\"{}", conf.place());
            let _ = conf.with_http(|http| http.needs_table.get_or_insert(who).len());
        }
        location.role = Some(role);
        Ok(())
    }
}

/// `paas_hash [KEY] [method=rendezvous | python64 | python32];`
pub(crate) struct PaasHash;

impl Directive for PaasHash {
    type Target = ServerConf;
    const NAME: &'static CStr = c"paas_hash";
    const USE: u32 = NGX_HTTP_UPS_CONF | NGX_CONF_NOARGS | NGX_CONF_TAKE1 | NGX_CONF_TAKE2;

    fn read(conf: Conf<'_>, part: &mut ServerConf) -> Result<(), Refusal> {
        unset(&part.hash)?;
        let block = Upstream::current(conf).ok_or("is not in an upstream block")?;
        if block.has_method() {
            return Err("a balancing method or \"keepalive\" comes before it in the same upstream block: remove other \
                        methods, and write \"paas_keepalive NUMBER;\" in place of \"keepalive NUMBER;\" (or \"keepalive\" below \
                        \"paas_hash\")"
                .to_owned());
        }
        let (mut key, mut method) = (None, None);
        for argument in conf.arguments() {
            if let Some(name) = argument.strip_prefix(b"method=") {
                unset(&method).map_err(|_| "has two methods")?;
                let name = text(name)?;
                method = Some(
                    name.parse::<Method>()
                        .map_err(|error| format!("method={name}: {error}"))?,
                );
            } else if key.is_none() && method.is_none() {
                key = Some(conf.expression(argument)?);
            } else {
                return Err(format!(
                    "does not know the argument \"{}\"",
                    argument.escape_ascii()
                ));
            }
        }
        if key.is_none() {
            if method.is_some() {
                return Err("takes its method from the table if it has no key: write \"paas_hash KEY method=...;\", or \
                            change the table's placement (`paasctl set-placement`)"
                    .to_owned());
            }
            block.add_placeholder(conf).ok_or("out of memory")?;
        }
        part.hash = Some(Hash::new(key, method.unwrap_or_default(), conf.place()));
        block.claim();
        Ok(())
    }
}

/// `paas_fallback [socket=PATH] [vassal=PATH] [initialize=URI] [timeout=TIME] [max_parked=NUMBER];`
pub(crate) struct PaasFallback;

impl Directive for PaasFallback {
    type Target = LocationConf;
    const NAME: &'static CStr = c"paas_fallback";
    const USE: u32 = NGX_HTTP_LOC_CONF | NGX_CONF_ANY;

    fn read(conf: Conf<'_>, location: &mut LocationConf) -> Result<(), Refusal> {
        unset(&location.fallback)?;
        let (mut socket, mut vassal, mut initialize) = (None, None, None);
        let (mut timeout, mut max_parked) = (None, None);
        for argument in conf.arguments() {
            let shown = argument.escape_ascii();
            let (name, value) = match argument
                .iter()
                .position(|byte| *byte == b'=')
                .map(|at| argument.split_at(at))
            {
                Some((name, value)) => (name, value.strip_prefix(b"=").unwrap_or_default()),
                None => return Err(format!("does not know the argument \"{shown}\"")),
            };
            let twice = |_| format!("has two of \"{}\"", name.escape_ascii());
            match name {
                _ if value.is_empty() => return Err(format!("\"{shown}\" has no value")),
                b"socket" => {
                    unset(&socket).map_err(twice)?;
                    socket = Some(conf.expression(value)?);
                }
                b"vassal" => {
                    unset(&vassal).map_err(twice)?;
                    vassal = Some(conf.expression(value)?);
                }
                b"initialize" => {
                    unset(&initialize).map_err(twice)?;
                    initialize = Some(conf.expression(value)?);
                }
                b"timeout" => {
                    unset(&timeout).map_err(twice)?;
                    let time = milliseconds(value).filter(|time| *time > 0);
                    timeout =
                        Some(time.ok_or_else(|| {
                            format!("\"{shown}\" is not a time, like 30s or 500ms")
                        })?);
                }
                b"max_parked" => {
                    unset(&max_parked).map_err(twice)?;
                    let number = text(value)?
                        .parse::<usize>()
                        .ok()
                        .filter(|number| *number > 0);
                    max_parked =
                        Some(number.ok_or_else(|| format!("\"{shown}\" is not a number from 1"))?);
                }
                _ => return Err(format!("does not know the argument \"{shown}\"")),
            }
        }
        let settings = Settings {
            socket,
            vassal,
            initialize,
            timeout: timeout.unwrap_or(30_000),
            max_parked: max_parked.unwrap_or(1024),
        };
        location.fallback = Some(Rc::new(settings));
        Ok(())
    }
}

fn unset<T>(value: &Option<T>) -> Result<(), Refusal> {
    if value.is_some() {
        Err("is duplicate".to_owned())
    } else {
        Ok(())
    }
}

fn text(bytes: &[u8]) -> Result<&str, Refusal> {
    std::str::from_utf8(bytes).map_err(|_| format!("\"{}\" is not UTF-8", bytes.escape_ascii()))
}
