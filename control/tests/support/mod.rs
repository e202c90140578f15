//! One backend in a temporary root: a real daemon, a real Emperor, real uWSGI; no nginx. Every wait is for an event, with a
//! deadline.
#![allow(dead_code, reason = "each test uses its part")]

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::LazyLock;
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use control::cgroup::Groups;
use control::initialize::confine::CGROUPS;
use control::model::{
    AbsolutePath, Application, EntryPoint, Idle, NewSite, Site, SiteId, SiteSettings, UserName,
    parse_domain,
};
use control::settings::Settings;
use control::{emperor, registry};
use rustix::process::Pid;

/// Nothing here takes longer unless it is broken.
pub const DEADLINE: Duration = Duration::from_secs(30);

const SETTINGS: &str = r#"
name = "b1"
roles = ["backend"]
[backend]
start_timeout = "20s"
workers = 2
"#;

/// The application that all tests serve.
const APP: &str = r#"
import os, sys, uwsgi

# The master's number in its sandbox, and when it began: together like no other's.
with open('/proc/%d/stat' % uwsgi.masterpid()) as file:
    MASTER = '%d-%s-%s' % (uwsgi.masterpid(), file.read().rpartition(')')[2].split()[19], os.readlink('/proc/self/ns/pid'))

def application(environ, start_response):
    path = environ['PATH_INFO']
    if path == '/wait':
        open('arrived', 'w').write('x')
        open('gate').read()
    if path == '/reload':
        uwsgi.reload()
    body = environ['wsgi.input'].read()
    if path == '/about':
        descriptors = ' '.join(sorted(os.listdir('/proc/self/fd'), key=int))
        body = repr((os.getuid(), os.getgid(), os.getgroups(), sorted(os.environ), descriptors)).encode()
    start_response('200 OK', [('Content-Type', 'text/plain'), ('X-Master', MASTER)])
    return [b'pid %d ' % os.getpid(), body]
"#;

pub struct Backend {
    pub root: tempfile::TempDir,
    pub settings: Settings,
    pub daemon: Option<Process>,
    pub emperor: Option<Process>,
}

/// A child, its log lines, and its end.
pub struct Process {
    pub child: Child,
    lines: Receiver<String>,
    seen: Vec<String>,
}

impl Process {
    fn start(command: &mut Command) -> Process {
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let stderr = child.stderr.take().unwrap();
        let (sender, lines) = channel();
        std::thread::spawn(move || {
            for line in BufReader::new(stderr).lines() {
                let Ok(line) = line else { return };
                if sender.send(line).is_err() {
                    return;
                }
            }
        });
        Process {
            child,
            lines,
            seen: Vec::new(),
        }
    }

    /// Waits for the next line that contains all of `words`.
    pub fn wait_for(&mut self, words: &[&str]) -> String {
        let end = Instant::now() + DEADLINE;
        loop {
            let Ok(line) = self
                .lines
                .recv_timeout(end.saturating_duration_since(Instant::now()))
            else {
                panic!("no line with {words:?} in:\n{}", self.seen.join("\n"));
            };
            self.seen.push(line.clone());
            if words.iter().all(|word| line.contains(word)) {
                return line;
            }
        }
    }

    /// How many lines so far contain all of `words`.
    pub fn count(&mut self, words: &[&str]) -> usize {
        self.seen.extend(self.lines.try_iter());
        self.seen
            .iter()
            .filter(|line| words.iter().all(|word| line.contains(word)))
            .count()
    }

    pub fn signal(&self, signal: rustix::process::Signal) {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, signal).unwrap();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            self.seen.extend(self.lines.try_iter());
            eprintln!("--- log:\n{}", self.seen.join("\n"));
        }
    }
}

/// The launcher of this build, beside `paasctl`.
static LAUNCHER: LazyLock<PathBuf> = LazyLock::new(|| {
    let launcher = Path::new(env!("CARGO_BIN_EXE_paasctl")).with_file_name("paas-launch");
    let built = Command::new(env!("CARGO"))
        .args(["build", "--quiet", "-p", "paas-launch"])
        .status();
    // Somebody who runs the finished tests need not have a compiler.
    assert!(
        built.is_ok_and(|built| built.success()) || launcher.exists(),
        "{} cannot be built",
        launcher.display()
    );
    launcher
});

impl Backend {
    pub fn start() -> Backend {
        let mut backend = Backend::prepare();
        backend.start_daemon();
        backend.start_emperor();
        backend
    }

    /// There is no nginx here that counts requests, so the daemon puts no site to sleep: uWSGI does, after these seconds.
    pub fn start_with_net(seconds: u32) -> Backend {
        let mut backend = Backend::prepare();
        let snippets = backend.settings.paths().vassal_snippets();
        fs::create_dir_all(&snippets).unwrap();
        let net = format!("idle = {seconds}\ndie-on-idle = true\n");
        fs::write(snippets.join("net.ini"), net).unwrap();
        backend.start_daemon();
        backend.start_emperor();
        backend
    }

    pub fn prepare() -> Backend {
        let root = tempfile::Builder::new()
            .prefix("paas-")
            .tempdir_in("/tmp")
            .unwrap();
        fs::set_permissions(root.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let file = root.path().join("etc/paas/paas.toml");
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(
            file,
            format!("{SETTINGS}launcher = \"{}\"\n", LAUNCHER.display()),
        )
        .unwrap();
        let settings = Settings::load(root.path()).unwrap();
        Backend {
            root,
            settings,
            daemon: None,
            emperor: None,
        }
    }

    pub fn start_daemon(&mut self) {
        let notify = self.root.path().join("notify");
        let _ = fs::remove_file(&notify);
        let socket = UnixDatagram::bind(&notify).unwrap();
        socket.set_read_timeout(Some(DEADLINE)).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_paasctl"));
        command
            .arg("--root")
            .arg(self.root.path())
            .arg("serve")
            .env("NOTIFY_SOCKET", &notify)
            .env("PAAS_LOG", "debug");
        let daemon = Process::start(&mut command);
        let mut message = [0; 64];
        let length = socket.recv(&mut message).expect("the daemon is not ready");
        assert_eq!(&message[..length], b"READY=1");
        self.daemon = Some(daemon);
    }

    pub fn start_emperor(&mut self) {
        let vassals = self.settings.paths().vassals();
        for file in fs::read_dir(&vassals).unwrap() {
            fs::remove_file(file.unwrap().path()).unwrap();
        }
        let ini = self.root.path().join("emperor.ini");
        fs::write(&ini, emperor::configuration(&self.settings).unwrap()).unwrap();
        self.emperor = Some(Process::start(
            Command::new("/usr/bin/uwsgi").arg("--ini").arg(&ini),
        ));
    }

    pub fn daemon(&mut self) -> &mut Process {
        self.daemon.as_mut().unwrap()
    }

    /// Adds a site that serves `app`, or the usual application.
    pub fn add_site(&self, name: &str, app: Option<&str>, idle: Option<Idle>) -> TestSite {
        let directory = self.root.path().join(format!("srv-{name}"));
        fs::create_dir(&directory).unwrap();
        let mut registry = registry::open(&self.settings).unwrap();
        let mut edit = registry.edit().unwrap();
        let user = UserName::parse(name).unwrap();
        let uid = edit
            .add_user(&user, None, self.settings.uid_range)
            .unwrap()
            .uid
            .get();
        let site = NewSite {
            user,
            domain: parse_domain(&format!("{name}.example")).unwrap(),
            directory: AbsolutePath::parse(directory.to_str().unwrap()).unwrap(),
            application: Application::Wsgi(EntryPoint::parse("app").unwrap()),
            venv: None,
            idle,
            enabled: true,
            pin: None,
            settings: SiteSettings::default(),
        };
        let site = edit.add_site(&site).unwrap();
        edit.commit().unwrap();
        if rustix::process::geteuid().is_root() {
            chown(&directory, Some(uid), Some(uid)).unwrap();
        }
        let socket = self.settings.paths().site_socket(site.id, &site.domain);
        let site = TestSite {
            id: site.id,
            uid,
            directory,
            socket,
            control: self.settings.paths().control_socket(),
            row: site,
        };
        site.write(app.unwrap_or(APP));
        site
    }

    /// Changes a row of the registry and tells the daemon.
    pub fn set_site(&self, site: &Site) {
        let mut registry = registry::open(&self.settings).unwrap();
        let mut edit = registry.edit().unwrap();
        edit.set_site(site).unwrap();
        edit.commit().unwrap();
        let answer = http(&self.settings.paths().control_socket(), "POST", "/refresh").unwrap();
        assert_eq!(answer.status, 200, "{}", answer.text);
    }

    pub fn vassal_files(&self) -> usize {
        fs::read_dir(self.settings.paths().vassals())
            .unwrap()
            .count()
    }
}

impl Drop for Backend {
    fn drop(&mut self) {
        // The Emperor first: its vassals go with it.
        self.emperor = None;
        self.daemon = None;
        let name = control::initialize::confine::group_name(self.settings.paths());
        if let Ok(groups) = Groups::find(Path::new(CGROUPS), &name) {
            // Some processes may not have gone yet; an empty directory does no harm.
            let _ = groups.remove();
        }
    }
}

#[derive(Clone)]
pub struct TestSite {
    pub id: SiteId,
    pub uid: u32,
    pub directory: PathBuf,
    pub socket: PathBuf,
    pub control: PathBuf,
    pub row: Site,
}

pub struct Answer {
    pub status: u16,
    pub text: String,
}

impl Answer {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.text.lines().find_map(|line| {
            let (key, value) = line.split_once(':')?;
            key.eq_ignore_ascii_case(name).then(|| value.trim())
        })
    }

    pub fn body(&self) -> &str {
        self.text
            .split_once("\r\n\r\n")
            .map_or("", |(_, body)| body)
    }

    /// The process of the site's master, if it still runs: it tells how it sees itself in its sandbox.
    pub fn master(&self) -> Option<Pid> {
        let mut told = self.header("X-Master")?.splitn(3, '-');
        let (inside, start, namespace) = (told.next()?, told.next()?, Path::new(told.next()?));
        let is_it = |pid: &i32| {
            let file = |name| format!("/proc/{pid}/{name}");
            let stat = fs::read_to_string(file("stat")).unwrap_or_default();
            let begun = stat
                .rsplit_once(')')
                .and_then(|(_, rest)| rest.split_whitespace().nth(19));
            let status = fs::read_to_string(file("status")).unwrap_or_default();
            let numbers = status.lines().find_map(|line| line.strip_prefix("NSpid:"));
            let own = numbers.and_then(|numbers| numbers.split_whitespace().last());
            begun == Some(start)
                && own == Some(inside)
                && fs::read_link(file("ns/pid")).is_ok_and(|own| own == namespace)
        };
        let all = fs::read_dir("/proc").unwrap().flatten();
        let pids = all.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
        Pid::from_raw(pids.into_iter().find(is_it)?)
    }

    fn parse(text: Vec<u8>) -> Option<Answer> {
        let text = String::from_utf8_lossy(&text).into_owned();
        let status = text.split(' ').nth(1)?.parse().ok()?;
        Some(Answer { status, text })
    }
}

impl TestSite {
    pub fn write(&self, app: &str) {
        fs::write(self.directory.join("app.py"), app).unwrap();
    }

    /// What nginx would ask after it could not send a request.
    pub fn initialize(&self) -> Answer {
        self.visit(0, 0)
    }

    pub fn visit(&self, sent: u8, idempotent: u8) -> Answer {
        let path = format!(
            "/initialize?site={}&sent={sent}&idempotent={idempotent}",
            self.id
        );
        http(&self.control, "GET", &path).unwrap()
    }

    pub fn connect(&self) -> std::io::Result<UnixStream> {
        let stream = UnixStream::connect(&self.socket)?;
        stream.set_read_timeout(Some(DEADLINE))?;
        Ok(stream)
    }

    /// A whole request on the site's socket.
    pub fn request(&self, path: &str, body: &[u8]) -> Option<Answer> {
        let mut stream = self.connect().ok()?;
        send(&mut stream, path, body).ok()?;
        receive(stream)
    }

    /// A request as the platform serves it: the site is woken if nobody listens.
    pub fn serve(&self, path: &str) -> Answer {
        loop {
            if let Some(answer) = self.request(path, b"") {
                return answer;
            }
            let answer = self.initialize();
            if answer.status != 204 {
                return answer;
            }
        }
    }

    pub fn status(&self) -> String {
        let text = http(&self.control, "GET", "/status").unwrap().text;
        let status: serde_json::Value =
            serde_json::from_str(text.split_once("\r\n\r\n").unwrap().1).unwrap();
        let sites = status["sites"].as_array().unwrap();
        let found = sites.iter().find(|site| site["id"] == self.id.get());
        found.map_or("asleep".to_owned(), |site| {
            site["state"].as_str().unwrap().to_owned()
        })
    }
}

/// Sends a request in uWSGI's own protocol, as nginx does.
pub fn send(stream: &mut UnixStream, path: &str, body: &[u8]) -> std::io::Result<()> {
    let length = body.len().to_string();
    let method = if body.is_empty() { "GET" } else { "POST" };
    let variables = [
        ("REQUEST_METHOD", method),
        ("PATH_INFO", path),
        ("REQUEST_URI", path),
        ("QUERY_STRING", ""),
        ("CONTENT_LENGTH", if body.is_empty() { "" } else { &length }),
        ("SERVER_NAME", "test"),
        ("SERVER_PORT", "80"),
        ("SERVER_PROTOCOL", "HTTP/1.1"),
    ];
    let mut head = Vec::new();
    for text in variables.iter().flat_map(|(name, value)| [name, value]) {
        head.extend(u16::try_from(text.len()).unwrap().to_le_bytes());
        head.extend(text.as_bytes());
    }
    let [low, high] = u16::try_from(head.len()).unwrap().to_le_bytes();
    stream.write_all(&[0, low, high, 0])?;
    stream.write_all(&head)?;
    stream.write_all(body)
}

pub fn receive(mut stream: UnixStream) -> Option<Answer> {
    let mut text = Vec::new();
    stream.read_to_end(&mut text).ok()?;
    Answer::parse(text)
}

pub fn http(socket: &Path, method: &str, path: &str) -> Option<Answer> {
    let mut stream = UnixStream::connect(socket).ok()?;
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    write!(stream, "{method} {path} HTTP/1.1\r\nHost: control\r\nConnection: close\r\nContent-Length: 0\r\n\r\n").ok()?;
    receive(stream)
}

/// A FIFO in a site's directory that its application opens and waits at; writing to it lets it go on.
pub fn gate(site: &TestSite) -> PathBuf {
    let path = site.directory.join("gate");
    rustix::fs::mknodat(
        rustix::fs::CWD,
        &path,
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::from(0o666),
        0,
    )
    .unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o666)).unwrap();
    path
}
