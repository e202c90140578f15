//! The directives: from their arguments to typed configuration. What cannot be right is refused here, with
//! the line it stands on, and never when a request comes.

use std::ffi::CStr;
use std::rc::Rc;

use arguments::{Pattern, Refusal, Role};
use ngx::ffi::{
    NGX_CONF_1MORE, NGX_CONF_ANY, NGX_CONF_NOARGS, NGX_CONF_TAKE1, NGX_CONF_TAKE2,
    NGX_HTTP_LOC_CONF, NGX_HTTP_MAIN_CONF, NGX_HTTP_SRV_CONF, NGX_HTTP_UPS_CONF,
};
pub(crate) use routing::Method;

use crate::activity::Counters;
use crate::balancer::Hash;
use crate::fallback::Settings;
use crate::ffi::conf::{Conf, Directive, milliseconds};
use crate::ffi::content;
use crate::ffi::keepalive::Keepalive;
use crate::ffi::mapping;
use crate::ffi::upstream::Upstream;
use crate::health::Watch;
use crate::heartbeat::Health;
use crate::monitor::Monitor;
use crate::status::Status;
use crate::worker::{Site, Table};

/// The configuration of the http block.
#[derive(Default)]
pub(crate) struct HttpConf {
    /// The table of sites and backends.
    pub(crate) table: Option<Table>,
    /// Where the requests of sites are counted; within it none, if nginx only tests the configuration.
    pub(crate) activity: Option<Option<Counters>>,
    /// Whether some upstream block takes its backends from the table.
    pub(crate) places_by_table: bool,
    /// When a backend of the table is ejected.
    pub(crate) eject: routing::health::Settings,
    is_eject_set: bool,
    /// What the workers share about backends; within it nothing, if nginx only tests the configuration.
    pub(crate) monitor: Option<Option<Monitor>>,
    /// Where a status was asked for first, for a message.
    needs_monitor: Option<String>,
    /// What is known of the backends, if failures eject them.
    pub(crate) watch: Option<Watch>,
    /// Whether `paas_fallback` is somewhere.
    pub(crate) has_fallback: bool,
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
    /// This location tells how the machine is.
    pub(crate) health: Option<Box<arguments::Health>>,
    /// This location tells how the backends are.
    pub(crate) status: Option<arguments::Form>,
}

impl ServerConf {
    /// Takes over from the http block what was not said.
    pub(crate) fn inherit(&mut self, outer: &Self) {
        if self.socket.is_none() {
            self.socket.clone_from(&outer.socket);
        }
    }

    /// The path of a site's socket.
    pub(crate) fn socket_of<'s>(&'s self, site: &'s Site) -> arguments::Path<'s> {
        arguments::Path::new(self.socket.as_deref(), site.id.get(), site.primary_str())
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
    if let (None, Some(place)) = (&http.monitor, &http.needs_monitor) {
        return Err(format!(
            "\"paas_status\"{place} needs \"paas_monitor DIRECTORY;\" in the http block"
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
        let directory = arguments::directory(conf.arguments().next().unwrap_or_default())?;
        http.table = Some(Table::new(directory));
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
        let said = arguments::Activity::parse(conf.arguments())?;
        http.needs_table
            .get_or_insert_with(|| format!("\"paas_activity\"{}", conf.place()));
        let counters = match mapping::is_test() {
            true => Ok(None),
            false => Counters::open(&said.directory, said.layout).map(Some),
        };
        http.activity = Some(counters.map_err(|error| {
            format!(
                "cannot open counters in \"{}\": {error}",
                said.directory.display()
            )
        })?);
        Ok(())
    }
}

/// `paas_monitor DIRECTORY;`
pub(crate) struct PaasMonitor;

impl Directive for PaasMonitor {
    type Target = HttpConf;
    const NAME: &'static CStr = c"paas_monitor";
    const USE: u32 = NGX_HTTP_MAIN_CONF | NGX_CONF_TAKE1;

    fn read(conf: Conf<'_>, http: &mut HttpConf) -> Result<(), Refusal> {
        unset(&http.monitor)?;
        let directory = arguments::directory(conf.arguments().next().unwrap_or_default())?;
        let monitor = match mapping::is_test() {
            true => Ok(None),
            false => Monitor::open(&directory).map(Some),
        };
        http.monitor = Some(monitor.map_err(|error| {
            format!(
                "cannot open the file in \"{}\": {error}",
                directory.display()
            )
        })?);
        Ok(())
    }
}

/// `paas_status [json | prometheus];`
pub(crate) struct PaasStatus;

impl Directive for PaasStatus {
    type Target = LocationConf;
    const NAME: &'static CStr = c"paas_status";
    const USE: u32 = NGX_HTTP_LOC_CONF | NGX_CONF_NOARGS | NGX_CONF_TAKE1;

    fn read(conf: Conf<'_>, location: &mut LocationConf) -> Result<(), Refusal> {
        unset(&location.status)?;
        location.status = Some(arguments::Form::parse(conf.arguments())?);
        let place = conf.place();
        let _ = conf.with_http(|http| http.needs_monitor.get_or_insert(place).len());
        content::install::<Status>(conf).ok_or_else(|| "is in no location".to_owned())
    }
}

/// `paas_health FILE [stale=TIME];`
pub(crate) struct PaasHealth;

impl Directive for PaasHealth {
    type Target = LocationConf;
    const NAME: &'static CStr = c"paas_health";
    const USE: u32 = NGX_HTTP_LOC_CONF | NGX_CONF_TAKE1 | NGX_CONF_TAKE2;

    fn read(conf: Conf<'_>, location: &mut LocationConf) -> Result<(), Refusal> {
        unset(&location.health)?;
        let said = arguments::Health::parse(conf.arguments(), milliseconds)?;
        location.health = Some(Box::new(said));
        content::install::<Health>(conf).ok_or_else(|| "is in no location".to_owned())
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
        let pattern = Pattern::parse(arguments::text(
            conf.arguments().next().unwrap_or_default(),
        )?)?;
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
        let role = Role::parse(conf.arguments().next().unwrap_or_default())?;
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
        let said = arguments::Hash::parse(conf.arguments())?;
        let key = said.key.map(|key| conf.expression(key)).transpose()?;
        if key.is_none() {
            block.add_placeholder(conf).ok_or("out of memory")?;
        }
        part.hash = Some(Hash::new(key, said.method, conf.place()));
        block.claim();
        Ok(())
    }
}

/// `paas_keepalive NUMBER [per_peer=NUMBER] [timeout=TIME] [requests=NUMBER] [time=TIME] [reuse=any | repeatable];`
pub(crate) struct PaasKeepalive;

impl Directive for PaasKeepalive {
    type Target = ServerConf;
    const NAME: &'static CStr = c"paas_keepalive";
    const USE: u32 = NGX_HTTP_UPS_CONF | NGX_CONF_1MORE;

    fn read(conf: Conf<'_>, part: &mut ServerConf) -> Result<(), Refusal> {
        unset(&part.keepalive)?;
        let settings = arguments::Keepalive::parse(conf.arguments(), milliseconds)?;
        part.keepalive = Some(Box::new(Keepalive::new(settings, conf.place())));
        Ok(())
    }
}

/// `paas_eject [failures=NUMBER] [time=TIME] [max_time=TIME] [return=TIME];` or `paas_eject off;`
pub(crate) struct PaasEject;

impl Directive for PaasEject {
    type Target = HttpConf;
    const NAME: &'static CStr = c"paas_eject";
    const USE: u32 = NGX_HTTP_MAIN_CONF | NGX_CONF_1MORE;

    fn read(conf: Conf<'_>, http: &mut HttpConf) -> Result<(), Refusal> {
        if std::mem::replace(&mut http.is_eject_set, true) {
            return Err("is duplicate".to_owned());
        }
        http.eject = arguments::eject(conf.arguments(), milliseconds)?;
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
        let said = arguments::Fallback::parse(conf.arguments(), milliseconds)?;
        let expression = |text: Option<&[u8]>| text.map(|text| conf.expression(text)).transpose();
        let settings = Settings {
            socket: expression(said.socket)?,
            vassal: expression(said.vassal)?,
            initialize: expression(said.initialize)?,
            timeout: said.timeout,
            max_parked: said.max_parked,
        };
        location.fallback = Some(Rc::new(settings));
        let _ = conf.with_http(|http| http.has_fallback = true);
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
