//! An nginx whose requests come through every callback of the module, for tests that break each of them.

use std::fs;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};

use routing::{Domain, State, Weight};
use table::{BackendId, BackendRecord, Change, Options, SiteId, SiteRecord, Writer};

use crate::stub::Answer;
use crate::{Certificate, Nginx, Request, Root, Stub};

/// An nginx whose requests come through every callback of the module.
pub struct Front {
    /// It.
    pub nginx: Nginx,
    /// Its directory.
    pub prefix: PathBuf,
    /// Where it listens.
    pub port: u16,
    /// The counters of `paas_activity`.
    pub activity: PathBuf,
    faults: PathBuf,
    _site: Stub,
    /// Connections to it are never accepted.
    _silent: UnixListener,
}

impl Front {
    /// Starts it with this module; `wrap` may put another program around nginx.
    ///
    /// # Panics
    /// When something does not start.
    #[must_use]
    pub fn start(root: &Root, module: &Path, wrap: impl FnOnce(Command) -> Command) -> Front {
        let (port, tls, site) = (root.port(), root.port(), root.port());
        let path = root.path().display();
        let faults = root.write("faults", "");
        let activity = root.join("activity");
        fs::create_dir(&activity).expect("it is not there yet");
        fill_table(&root.join("table"), site);
        let _ = Certificate::new(root, &["tls.test"]);
        let main = format!(
            "load_module {};\nenv PAAS_FAULTS={};",
            module.display(),
            faults.display()
        );
        let http = format!(
            "paas_table {path}/table;
             paas_activity {path}/activity;
             paas_monitor {path}/backends;
             paas_eject failures=3;
             paas_socket \"{path}/{{id}}.sock\";
             # Whoever is counted twice, or is counted on, leaves no room.
             upstream servers {{ zone servers 256k; paas_hash $host; paas_keepalive 4; server 127.0.0.1:{site} max_conns=1; }}
             upstream again {{ paas_hash $host; server 127.0.0.1:{site}; server localhost:{site}; }}
             upstream tls {{ paas_hash $host; server 127.0.0.1:{tls}; }}
             upstream backends {{ paas_hash; }}
             server {{
                 listen 127.0.0.1:{tls} ssl;
                 ssl_certificate {path}/certificate.pem;
                 ssl_certificate_key {path}/key.pem;
                 # Sessions are handed out and not kept: every connection gets a new one.
                 ssl_protocols TLSv1.2;
                 ssl_session_tickets off;
                 return 200 tls;
             }}
             server {{
                 listen 127.0.0.1:{port};
                 recursive_error_pages on;
                 location /servers {{ proxy_pass http://servers; }}
                 location /again {{ proxy_pass http://again; proxy_next_upstream http_404; }}
                 location /tls {{ proxy_pass https://tls; }}
                 location /table {{ paas_role balancer; proxy_pass http://backends; }}
                 location /sleeping {{ paas_fallback initialize=/woken; proxy_pass http://127.0.0.1:{site}; }}
                 location /slow {{ paas_fallback initialize=/never timeout=50ms; proxy_pass http://127.0.0.1:{site}; }}
                 location = /woken {{ internal; return 204; }}
                 location = /never {{ internal; proxy_pass http://unix:{path}/never.sock; proxy_read_timeout 500ms; }}
                 location /health {{ paas_health {path}/beat; }}
                 location /status {{ paas_status; }}
                 location /variables {{
                     return 200 '$paas_site $paas_site_id $paas_socket $paas_backend $paas_sent $paas_idempotent $paas_protocol $paas_reason $paas_id';
                 }}
             }}"
        );
        let site = Stub::tcp(site, |request| match request.target.as_str() {
            "/again" => Answer::status(404, "another may have it"),
            _ => Answer::ok("site"),
        });
        let silent = UnixListener::bind(root.join("never.sock")).expect("a socket can be bound");
        open_to_all(&root.join("never.sock"));
        let prefix = Nginx::configure(root, "front", &main, &http);
        let mut command = Nginx::command(&prefix, "nginx.conf");
        command.env("PAAS_FAULTS", &faults);
        Front {
            nginx: Nginx::launch(wrap(command), &prefix, port),
            prefix,
            port,
            activity,
            faults,
            _site: site,
            _silent: silent,
        }
    }

    /// What `nginx -t` says of the configuration.
    ///
    /// # Panics
    /// When nginx cannot be run.
    #[must_use]
    pub fn check(&self) -> (ExitStatus, String) {
        let mut command = Nginx::command(&self.prefix, "nginx.conf");
        let output = command.arg("-t").env("PAAS_FAULTS", &self.faults).output();
        let output = output.expect("nginx can be run");
        (
            output.status,
            String::from_utf8_lossy(&output.stderr).into_owned(),
        )
    }

    /// The build with faults panics in this callback from now on; `kill NAME` kills the process once the callback has done
    /// its work, and nothing ends it.
    ///
    /// # Panics
    /// When that cannot be written.
    pub fn inject(&self, fault: &str) {
        fs::write(&self.faults, fault).expect("the file of faults can be written");
    }

    /// The status of an ordinary request.
    #[must_use]
    pub fn visit(&self, path: &str) -> u16 {
        Request::get("a.test", path).send(self.port).status
    }

    /// How often this callback has panicked.
    #[must_use]
    pub fn panics(&self, callback: &str) -> usize {
        let line = format!("panic in {callback} at");
        self.nginx.errors().matches(&line).count()
    }
}

fn fill_table(table: &Path, port: u16) {
    // Under valgrind, a process has less address space.
    let options = Options {
        map_size: 1 << 30,
        ..Options::default()
    };
    let mut writer = Writer::open_or_create(table, options).expect("a table can be made");
    let primary = Domain::parse("a.test").expect("a domain");
    let site = SiteRecord {
        protocol: table::Protocol::Uwsgi,
        id: SiteId::new(1).expect("not 0"),
        primary: primary.clone(),
        pin: None,
        enabled: true,
    };
    let backend = BackendRecord {
        id: BackendId::new(1).expect("not 0"),
        name: "b1".to_owned(),
        key: b"b1".to_vec(),
        address: ([127, 0, 0, 1], port).into(),
        weight: Weight::ONE,
        state: State::Active,
    };
    let changes = [Change::PutBackend(backend), Change::PutHost(primary, site)];
    writer.apply(1, changes).expect("the table can be written");
    open_to_all(table);
}

/// nginx's workers read the table, and enter themselves among its readers.
fn open_to_all(path: &Path) {
    use std::os::unix::fs::PermissionsExt;
    let mode = if path.is_dir() { 0o755 } else { 0o666 };
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("it is ours");
    for entry in fs::read_dir(path).into_iter().flatten().flatten() {
        if !entry.file_type().is_ok_and(|kind| kind.is_symlink()) {
            open_to_all(&entry.path());
        }
    }
}
