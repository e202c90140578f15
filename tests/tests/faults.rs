//! A panic in any callback of the module costs one request, or one reload: never a process of nginx's. Runs the build
//! of `scripts/build-module --faults`, whose callbacks panic when the file `faults` names them.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;

use paas_tests::stub::Answer;
use paas_tests::{Certificate, Nginx, Request, Root, Stub, build, nginx, wait};
use routing::{Domain, State, Weight};
use rustix::process::Signal;
use table::{BackendId, BackendRecord, Change, Options, SiteId, SiteRecord, Writer};

/// What an ordinary request to this path meets if the callback of this name panics in it.
const IN_REQUESTS: &[(&str, &str, &[u16])] = &[
    ("paas_role handler", "/table", &[500]),
    ("header filter", "/servers", &[500]),
    ("paas_hash peer.init", "/servers", &[500]),
    ("paas_hash peer.get", "/servers", &[500]),
    ("paas_hash process_header", "/servers", &[500]),
    // The second of two servers is not asked.
    ("paas_hash reinit_request", "/again", &[500]),
    // The answer is there already.
    ("paas_hash peer.free", "/servers", &[200]),
    ("paas_hash set_session", "/tls", &[500]),
    ("paas_hash save_session", "/tls", &[200]),
    ("paas_fallback handler", "/sleeping", &[500]),
    // Nobody notes the answer of the service.
    ("paas_fallback answer", "/sleeping", &[503]),
    // The service is waited for as long as its own location says.
    ("paas_fallback timeout", "/slow", &[503]),
    // A variable without a value.
    ("$paas_site", "/variables", &[200]),
    ("$paas_site_id", "/variables", &[200]),
    ("$paas_socket", "/variables", &[200]),
    ("$paas_backend", "/variables", &[200]),
    ("$paas_sent", "/variables", &[200]),
    ("$paas_idempotent", "/variables", &[200]),
    ("$paas_protocol", "/variables", &[200]),
    ("$paas_reason", "/variables", &[200]),
    ("$paas_id", "/variables", &[200]),
    // The request is over.
    ("cleanup", "/servers", &[200]),
];

/// Callbacks that run while a configuration is read.
const IN_CONFIGURATION: &[&str] = &[
    "create configuration",
    "merge configuration",
    "preconfiguration",
    "postconfiguration",
    "paas_table",
    "paas_activity",
    "paas_role",
    "paas_socket",
    "paas_hash",
    "paas_hash init",
    "paas_keepalive",
    "paas_eject",
    "paas_fallback",
];

/// Zones of shared memory can be made, but no directive makes one.
const UNUSED: &str = "shared memory";

/// An nginx that comes through every callback.
struct Front {
    nginx: Nginx,
    prefix: PathBuf,
    port: u16,
    faults: PathBuf,
    _site: Stub,
    /// Connections to it are never accepted.
    _silent: UnixListener,
}

impl Front {
    fn start(root: &Root) -> Front {
        let (port, tls, site) = (root.port(), root.port(), root.port());
        let path = root.path().display();
        let faults = root.write("faults", "");
        fs::create_dir(root.join("activity")).expect("it is not there yet");
        fill_table(&root.join("table"), site);
        let _ = Certificate::new(root, &["tls.test"]);
        let main = format!(
            "load_module {};\nenv PAAS_FAULTS={};",
            build::module_with_faults().display(),
            faults.display()
        );
        let http = format!(
            "paas_table {path}/table;
             paas_activity {path}/activity;
             paas_eject failures=3;
             paas_socket \"{path}/{{id}}.sock\";
             upstream servers {{ paas_hash $host; paas_keepalive 4; server 127.0.0.1:{site}; }}
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
            nginx: Nginx::launch(command, &prefix, port),
            prefix,
            port,
            faults,
            _site: site,
            _silent: silent,
        }
    }

    /// What `nginx -t` says of the configuration.
    fn check(&self) -> (ExitStatus, String) {
        let mut command = Nginx::command(&self.prefix, "nginx.conf");
        let output = command.arg("-t").env("PAAS_FAULTS", &self.faults).output();
        let output = output.expect("nginx can be run");
        (
            output.status,
            String::from_utf8_lossy(&output.stderr).into_owned(),
        )
    }

    fn inject(&self, callback: &str) {
        fs::write(&self.faults, callback).expect("the file of faults can be written");
    }

    fn visit(&self, path: &str) -> u16 {
        Request::get("a.test", path).send(self.port).status
    }

    fn panics(&self, callback: &str) -> usize {
        let line = format!("panic in {callback} at");
        self.nginx.errors().matches(&line).count()
    }
}

fn fill_table(table: &Path, port: u16) {
    let mut writer =
        Writer::open_or_create(table, Options::default()).expect("a table can be made");
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

#[test]
fn a_panic_in_a_request_costs_that_request_alone() {
    let root = Root::new();
    let front = Front::start(&root);
    assert_eq!(front.visit("/table"), 200);
    let (master, workers) = (front.nginx.master(), front.nginx.workers());
    for (callback, path, expected) in IN_REQUESTS {
        let without = front.visit(path);
        front.inject(callback);
        let met = front.visit(path);
        assert!(expected.contains(&met), "{callback} in {path}: {met}");
        wait::until_true(&format!("the panic of {callback} in the log"), || {
            front.panics(callback) > 0
        });
        front.inject("");
        assert_eq!(front.visit(path), without, "after {callback} in {path}");
    }
    assert_eq!(
        (master, workers),
        (front.nginx.master(), front.nginx.workers())
    );
    assert_no_signal(&front.nginx.errors());
}

#[test]
fn a_panic_while_a_configuration_is_read_refuses_it_and_nginx_goes_on() {
    let root = Root::new();
    let front = Front::start(&root);
    assert_eq!(front.visit("/table"), 200);
    let (master, workers) = (front.nginx.master(), front.nginx.workers());
    for callback in IN_CONFIGURATION {
        front.inject(callback);
        let (status, words) = front.check();
        assert_eq!(
            status.code(),
            Some(1),
            "{callback}: nginx -t ended by {status}: {words}"
        );
        assert!(
            words.contains(&format!("panic in {callback} at")),
            "{callback}: {words}"
        );
        let before = front.panics(callback);
        front.nginx.signal(Signal::HUP);
        wait::until_true("the reload to be refused", || {
            front.panics(callback) > before
        });
        assert_eq!(
            front.visit("/table"),
            200,
            "the old configuration lives on after {callback}"
        );
    }
    front.inject("");
    assert_eq!(
        (master, workers),
        (front.nginx.master(), front.nginx.workers())
    );
    nginx::reload(master);
    assert_eq!(front.visit("/table"), 200);
    assert_no_signal(&front.nginx.errors());
}

#[test]
fn a_panic_in_a_worker_that_starts_does_not_keep_it_from_serving() {
    let root = Root::new();
    let front = Front::start(&root);
    assert_eq!(front.visit("/table"), 200);
    front.inject("start of a worker");
    nginx::reload(front.nginx.master());
    wait::until_true("the panic in the log", || {
        front.panics("start of a worker") > 0
    });
    assert_eq!(front.visit("/table"), 200);
    assert_no_signal(&front.nginx.errors());
}

#[track_caller]
fn assert_no_signal(errors: &str) {
    let bad: Vec<&str> = errors
        .lines()
        .filter(|line| line.contains("exited on signal") || line.contains("[alert]"))
        .collect();
    assert!(bad.is_empty(), "the error log has:\n{}", bad.join("\n"));
}

/// The names that the sources give to guarded callbacks.
fn callbacks(directory: &Path, found: &mut BTreeSet<String>) {
    for entry in fs::read_dir(directory)
        .expect("the module's sources are here")
        .flatten()
    {
        let path = entry.path();
        if path.is_dir() {
            callbacks(&path, found);
            continue;
        }
        let source = fs::read_to_string(&path).expect("a source file is text");
        let named = |start: &str, end: &str, prefix: &str| -> Vec<String> {
            let parts = source.split(start).skip(1);
            parts
                .filter_map(|part| Some(format!("{prefix}{}", part.split_once(end)?.0)))
                .collect()
        };
        found.extend(named("::Configuration(\"", "\"", ""));
        found.extend(named("::Request(\"", "\"", ""));
        found.extend(named("const NAME: &'static str = \"", "\"", ""));
        let prefix = if path.ends_with("variables.rs") {
            "$"
        } else {
            ""
        };
        found.extend(named("const NAME: &'static CStr = c\"", "\"", prefix));
        for (entry, name) in [
            ("guard!(Entry::Cleanup", "cleanup"),
            ("guard!(Entry::Process", "start of a worker"),
        ] {
            if source.contains(entry) {
                found.insert(name.to_owned());
            }
        }
    }
}

#[test]
fn every_callback_of_the_module_is_among_those_that_panic_here() {
    let mut there = BTreeSet::new();
    callbacks(&build::workspace().join("ngx-module/src"), &mut there);
    let rest = ["start of a worker", UNUSED];
    let requests = IN_REQUESTS.iter().map(|(callback, _, _)| *callback);
    let here: BTreeSet<String> = requests
        .chain(IN_CONFIGURATION.iter().copied())
        .chain(rest)
        .map(str::to_owned)
        .collect();
    assert_eq!(
        there, here,
        "a callback without a fault, or a fault without a callback"
    );
}
