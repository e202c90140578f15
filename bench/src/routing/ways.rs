//! The ways a balancer can work, and each of them running.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, ensure};
use paas_tests::{Nginx, Process, Request, Root, build, wait};
use rustix::process::Signal;

use crate::sites;

/// A way to balance.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// nginx answers by itself: what a request costs at least.
    Floor,
    /// The same over as many client connections as there are upstreams: what the number of sockets costs.
    FloorMany,
    /// Stock nginx, one server after the other.
    Static,
    /// The same once more, to see what the measurement itself can tell apart.
    Control,
    /// Stock nginx's `hash $host consistent`.
    Consistent,
    /// `paas_hash $host` over the same server lines.
    Servers,
    /// `paas_hash` and the table, as `paasctl render` writes it: idle connections are kept per backend.
    Table,
    /// The same without `paas_eject`: nobody watches how the backends do.
    Unwatched,
    /// As [`Way::Table`] with `paas_monitor`: health in a file, and every request counted.
    Monitored,
    /// As [`Way::Table`] with nginx's own `keepalive`.
    TableStock,
    /// A hash in Lua, `proxy_pass http://$backend`: no upstream block, so no connection is kept.
    LuaVariable,
    /// A hash in Lua, within an upstream block that keeps connections.
    LuaBalancer,
    /// HAProxy, `balance hdr(host)`, `hash-type consistent`.
    Haproxy,
    /// As [`Way::Table`] with [`FEW`] of the upstreams: what their number costs.
    TableFew,
    /// As [`Way::Haproxy`] with [`FEW`] of the upstreams.
    HaproxyFew,
}

/// All of them, in the order of the table of results.
pub const WAYS: [Way; 15] = [
    Way::Floor,
    Way::Static,
    Way::Control,
    Way::Consistent,
    Way::Servers,
    Way::Table,
    Way::Unwatched,
    Way::Monitored,
    Way::TableStock,
    Way::LuaVariable,
    Way::LuaBalancer,
    Way::Haproxy,
    Way::TableFew,
    Way::HaproxyFew,
    Way::FloorMany,
];

/// How many upstreams are few.
pub const FEW: usize = 8;

impl Way {
    /// Its name in JSON and in the names of directories.
    #[must_use]
    pub fn key(self) -> &'static str {
        match self {
            Way::Floor => "floor",
            Way::FloorMany => "floor-many",
            Way::Static => "static",
            Way::Control => "static-again",
            Way::Consistent => "consistent",
            Way::Servers => "paas-servers",
            Way::Table => "paas-table",
            Way::Unwatched => "paas-table-unwatched",
            Way::Monitored => "paas-table-monitored",
            Way::TableStock => "paas-table-stock",
            Way::LuaVariable => "lua-variable",
            Way::LuaBalancer => "lua-balancer",
            Way::Haproxy => "haproxy",
            Way::TableFew => "paas-table-few",
            Way::HaproxyFew => "haproxy-few",
        }
    }

    /// What it is, for the table of results.
    #[must_use]
    pub fn words(self) -> &'static str {
        match self {
            Way::Floor => "`return 200` (no upstream)",
            Way::FloorMany => "the same, a client connection for each server",
            Way::Static => "static `proxy_pass`",
            Way::Control => "static again (control)",
            Way::Consistent => "stock `hash $host consistent`",
            Way::Servers => "`paas_hash $host`, lines, `paas_keepalive`",
            Way::Table => "`paas_hash`, table, `paas_keepalive`",
            Way::Unwatched => "the same, `paas_eject off`",
            Way::Monitored => "watched and counted (`paas_monitor`)",
            Way::TableStock => "`paas_hash`, table, nginx's `keepalive`",
            Way::LuaVariable => "`set_by_lua_file`, `proxy_pass http://$ip`",
            Way::LuaBalancer => "`balancer_by_lua`, keep-alive",
            Way::Haproxy => "HAProxy, consistent hash of the host",
            Way::TableFew => "`paas_hash`, table, with 8 of the servers",
            Way::HaproxyFew => "HAProxy with 8 of the servers",
        }
    }

    /// Whether it has few of the upstreams of the others.
    #[must_use]
    pub fn has_few(self) -> bool {
        matches!(self, Way::TableFew | Way::HaproxyFew)
    }

    /// Whether it shows what the number of upstreams costs.
    #[must_use]
    pub fn shows_number(self) -> bool {
        self.has_few() || self == Way::FloorMany
    }
}

/// What the upstreams answer.
pub const ANSWER: &str = "hello world\n";
/// What a location needs to use a connection again.
const REUSE: &str = "proxy_http_version 1.1; proxy_set_header Connection '';";

/// What all ways of one comparison share.
#[derive(Debug)]
pub struct Setting {
    /// How many upstream addresses.
    pub peers: usize,
    /// Their port.
    pub port: u16,
    /// How many idle connections to them may be kept, if any.
    pub keepalive: Option<usize>,
    /// The table's directory.
    pub table: PathBuf,
}

/// A way that runs.
#[derive(Debug)]
pub struct Running {
    /// Which.
    pub way: Way,
    /// Where it listens.
    pub port: u16,
    /// The one process that serves requests.
    pub worker: u32,
    _process: Server,
}

#[derive(Debug)]
enum Server {
    Nginx { _nginx: Nginx },
    Haproxy { _process: Process },
}

/// The upstreams: nginx itself, at as many addresses.
///
/// # Errors
/// It cannot be configured.
pub fn upstreams(root: &Root, setting: &Setting) -> anyhow::Result<Nginx> {
    let mut http = String::from("server {\n");
    for number in 0..setting.peers {
        let address = sites::upstream(number, setting.port);
        let _ = writeln!(http, "listen {address};");
    }
    // So that Nginx::run sees that it listens.
    let _ = writeln!(
        http,
        "listen 127.0.0.1:{}; location / {{ return 200 '{ANSWER}'; }}\n}}",
        setting.port
    );
    nginx(root, "upstreams", &http, setting.port)
}

/// Starts a way.
///
/// # Errors
/// It cannot be configured, or does not answer as it should.
pub fn start(root: &Root, way: Way, setting: &Setting) -> anyhow::Result<Running> {
    let port = root.port();
    let (process, worker) = if matches!(way, Way::Haproxy | Way::HaproxyFew) {
        let process = haproxy(root, way, setting, port)?;
        let pid = process.id();
        (Server::Haproxy { _process: process }, pid)
    } else {
        let directory = root.join(way.key());
        fs::create_dir_all(&directory)?;
        let http = configuration(way, setting, &directory, port)?;
        let nginx = nginx(root, way.key(), &http, port)?;
        let worker = wait::until("nginx's worker", || nginx.workers().first().copied());
        (Server::Nginx { _nginx: nginx }, worker)
    };
    let running = Running {
        way,
        port,
        worker,
        _process: process,
    };
    running.check()?;
    Ok(running)
}

impl Running {
    /// Sees that it does what it is to be measured at.
    fn check(&self) -> anyhow::Result<()> {
        for number in [0, 1, sites::BUSY - 1] {
            let answer = Request::get(sites::busy(number), "/").try_send(self.port)?;
            ensure!(
                answer.status == 200 && answer.body == ANSWER.as_bytes(),
                "{:?} answers {answer:?}",
                self.way
            );
        }
        if matches!(
            self.way,
            Way::Table | Way::TableFew | Way::Unwatched | Way::Monitored | Way::TableStock
        ) {
            let status = Request::get("nobody.example.com", "/")
                .try_send(self.port)?
                .status;
            ensure!(status == 404, "the table is not asked: {status}");
        }
        Ok(())
    }
}

fn nginx(root: &Root, name: &str, http: &str, port: u16) -> anyhow::Result<Nginx> {
    let prefix = root.join(name);
    fs::create_dir_all(&prefix)?;
    let modules = ["ndk_http_module", "ngx_http_lua_module"]
        .map(|module| format!("load_module /usr/lib/nginx/modules/{module}.so;\n"));
    let modules = match name {
        name if name.starts_with("lua-") => modules.concat(),
        name if name.starts_with("paas-") => {
            format!("load_module {};\n", build::module().display())
        }
        _ => String::new(),
    };
    let text = format!(
        "{modules}daemon off;
user www-data;
worker_processes 1;
worker_rlimit_nofile {files};
pid {prefix}/nginx.pid;
error_log {prefix}/error.log warn;
events {{ worker_connections {files}; }}
http {{
    access_log off;
    keepalive_requests 1000000000;
    keepalive_timeout 600s;
    client_body_temp_path {prefix}/tmp-body;
    proxy_temp_path {prefix}/tmp-proxy;
    fastcgi_temp_path {prefix}/tmp-fastcgi;
    uwsgi_temp_path {prefix}/tmp-uwsgi;
    scgi_temp_path {prefix}/tmp-scgi;
{http}
}}
",
        prefix = prefix.display(),
        files = files(),
    );
    fs::write(prefix.join("nginx.conf"), text)?;
    Ok(Nginx::run(&prefix, "nginx.conf", port))
}

/// How many files a process may have open: all connections that all ways keep to many upstreams end in one. Only root may
/// have more than the limit that it was given.
fn files() -> u64 {
    const WANTED: u64 = 100_000;
    let most = rustix::process::getrlimit(rustix::process::Resource::Nofile).maximum;
    match rustix::process::geteuid().is_root() {
        true => WANTED,
        false => most.map_or(WANTED, |most| most.min(WANTED)),
    }
}

fn configuration(
    way: Way,
    setting: &Setting,
    directory: &Path,
    port: u16,
) -> anyhow::Result<String> {
    let servers: String = (0..setting.peers)
        .map(|number| format!("server {};\n", sites::upstream(number, setting.port)))
        .collect();
    let (keepalive, reuse) = match setting.keepalive {
        Some(most)
            if matches!(
                way,
                Way::Servers | Way::Table | Way::TableFew | Way::Unwatched | Way::Monitored
            ) =>
        {
            (
                format!("paas_keepalive {most} requests=1000000 timeout=600s;"),
                REUSE,
            )
        }
        Some(most) => (
            format!("keepalive {most}; keepalive_requests 1000000000; keepalive_timeout 600s;"),
            REUSE,
        ),
        None => (String::new(), ""),
    };
    let block = |balancing: &str| format!("upstream backends {{\n{balancing}\n{keepalive}\n}}\n");
    let (http, role, target) = match way {
        Way::Floor | Way::FloorMany => (String::new(), "", None),
        Way::Static | Way::Control => (block(&servers), "", Some("backends")),
        Way::Consistent => (
            block(&format!("hash $host consistent;\n{servers}")),
            "",
            Some("backends"),
        ),
        Way::Servers => (
            block(&format!("paas_hash $host;\n{servers}")),
            "",
            Some("backends"),
        ),
        Way::Table | Way::TableFew | Way::Unwatched | Way::Monitored | Way::TableStock => (
            format!(
                "paas_table {};\n{}{}",
                setting.table.display(),
                match way {
                    Way::Monitored =>
                        format!("paas_monitor {};\n", directory.join("backends").display()),
                    Way::Unwatched => "paas_eject off;\n".to_owned(),
                    _ => String::new(),
                },
                block("paas_hash;")
            ),
            "paas_role balancer;",
            Some("backends"),
        ),
        Way::LuaVariable => {
            fs::write(
                directory.join("choose.lua"),
                lua(setting, "return list[index]"),
            )?;
            (
                String::new(),
                "set_by_lua_file $ip choose.lua;",
                Some("$ip"),
            )
        }
        Way::LuaBalancer => {
            let text = lua(
                setting,
                "return require('ngx.balancer').set_current_peer(list[index])",
            );
            fs::write(directory.join("choose.lua"), text)?;
            let balancing = "server 0.0.0.1;\nbalancer_by_lua_file choose.lua;";
            (block(balancing), "", Some("backends"))
        }
        Way::Haproxy | Way::HaproxyFew => anyhow::bail!("HAProxy is configured otherwise"),
    };
    let answer = match target {
        Some(target) => {
            format!("proxy_pass http://{target}; {reuse} proxy_set_header Host $http_host;")
        }
        None => format!("return 200 '{ANSWER}';"),
    };
    // Lua files are sought from nginx's prefix.
    let http = http.replace(
        "choose.lua",
        &directory.join("choose.lua").to_string_lossy(),
    );
    let role = role.replace(
        "choose.lua",
        &directory.join("choose.lua").to_string_lossy(),
    );
    Ok(format!(
        "{http}server {{\nlisten 127.0.0.1:{port};\nlocation / {{ {role} {answer} }}\n}}"
    ))
}

/// CPython 2.7's hash of the host in 32 bits, modulo the upstreams, as deployments of that time had it. The list lives
/// in a module, made once.
fn lua(setting: &Setting, end: &str) -> String {
    let list: String = (0..setting.peers)
        .map(|number| format!("'{}',", sites::upstream(number, setting.port)))
        .collect();
    format!(
        "local bit = require 'bit'
local list = package.loaded.backends
if not list then
    list = {{ {list} }}
    package.loaded.backends = list
end
local host = ngx.var.host
local hash = bit.lshift(host:byte(1), 7)
for at = 1, #host do
    hash = bit.bxor(bit.tobit(hash * 1000003), host:byte(at))
end
hash = bit.bxor(hash, #host)
local index = hash % #list + 1
{end}
"
    )
}

fn haproxy(root: &Root, way: Way, setting: &Setting, port: u16) -> anyhow::Result<Process> {
    let servers: String = (0..setting.peers)
        .map(|number| {
            let address = sites::upstream(number, setting.port);
            format!("    server s{number} {address}\n")
        })
        .collect();
    let reuse = match setting.keepalive {
        Some(_) => "http-reuse always",
        None => "option http-server-close\n    http-reuse never",
    };
    let file = root.write(
        format!("{}/haproxy.cfg", way.key()),
        format!(
            "global
    nbthread 1
    maxconn 4000
defaults
    mode http
    timeout connect 5s
    timeout client 600s
    timeout server 600s
    timeout http-keep-alive 600s
frontend in
    bind 127.0.0.1:{port}
    default_backend backends
backend backends
    balance hdr(host)
    hash-type consistent
    {reuse}
    default-server pool-purge-delay 600s
{servers}"
        ),
    );
    let mut process = Process::start(
        "haproxy",
        Command::new("/usr/sbin/haproxy")
            .arg("-db")
            .arg("-f")
            .arg(&file),
        &root.join(way.key()).join("output.log"),
        Signal::USR1,
    );
    let listens = wait::within(wait::DEADLINE, || {
        let ended = process.ended().is_some();
        (ended || std::net::TcpStream::connect(("127.0.0.1", port)).is_ok()).then_some(!ended)
    });
    ensure!(listens == Some(true), "HAProxy: {}", process.output());
    Some(process).context("it runs")
}
