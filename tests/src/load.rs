//! Visitors that do not stop: a site that counts what it ran, and clients that count what was answered.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::{self, JoinHandle};

use crate::http::Connection;
use crate::{Platform, Request, Root, wait};

/// A site whose code has a version, and that writes down each request it runs.
#[derive(Debug)]
pub struct Versioned {
    name: String,
    directory: PathBuf,
}

const APP: &str = r#"
import os, time

VERSION = "@"
RAN = os.path.join(os.path.dirname(os.path.abspath(__file__)), "notes", "ran")
@@

def application(environ, start_response):
    environ["wsgi.input"].read()
    if environ["PATH_INFO"] != "/":
        file = os.open(RAN, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
        os.write(file, (environ["REQUEST_METHOD"] + environ["PATH_INFO"] + "\n").encode())
        os.close(file)
    if environ["QUERY_STRING"]:
        time.sleep(float(environ["QUERY_STRING"]))
    start_response("200 OK", [("Content-Type", "text/plain"), ("X-Version", VERSION)])
    return [environ["PATH_INFO"].encode()]
"#;

impl Versioned {
    /// Adds it, with this version.
    ///
    /// # Panics
    /// When that is refused.
    #[must_use]
    pub fn add(platform: &Platform<'_>, root: &Root, name: &str, version: &str) -> Versioned {
        let directory = root.join(format!("sites/{name}"));
        let site = Versioned {
            name: name.to_owned(),
            directory,
        };
        site.write(version, "");
        let notes = site.directory.join("notes");
        fs::create_dir_all(&notes).expect("the notes' directory is made");
        let all = std::os::unix::fs::PermissionsExt::from_mode(0o777);
        fs::set_permissions(&notes, all).expect("it is ours");
        platform.add_site(name, &site.directory, &["--entry", "app:application"]);
        site
    }

    /// Gives its code another version and more lines; whoever reads it sees the old or the new.
    ///
    /// # Panics
    /// When it cannot be written.
    pub fn write(&self, version: &str, more: &str) {
        fs::create_dir_all(&self.directory).expect("the site's directory is made");
        let (new, app) = (
            self.directory.join("new.txt"),
            self.directory.join("app.py"),
        );
        let text = APP.replacen("@@", more, 1).replacen('@', version, 1);
        fs::write(&new, text).expect("the application is written");
        fs::rename(new, app).expect("it takes its place");
    }

    /// How often it ran each request: `GET/path`.
    #[must_use]
    pub fn ran(&self) -> BTreeMap<String, usize> {
        let mut ran = BTreeMap::new();
        for line in fs::read_to_string(self.directory.join("notes/ran"))
            .unwrap_or_default()
            .lines()
        {
            *ran.entry(line.to_owned()).or_default() += 1;
        }
        ran
    }

    /// The version that answers now.
    ///
    /// # Panics
    /// When none does.
    #[must_use]
    pub fn version(&self, platform: &Platform<'_>) -> String {
        let answer = platform.get(&self.name, "/");
        let version = answer.header("x-version");
        version.unwrap_or_else(|| panic!("{answer:?}")).to_owned()
    }
}

/// Clients that visit a site, half of them over one connection each, until they are stopped.
#[derive(Debug)]
pub struct Load {
    stop: Arc<AtomicBool>,
    answered: Arc<AtomicUsize>,
    clients: Vec<JoinHandle<Vec<String>>>,
}

impl Load {
    /// Starts so many.
    #[must_use]
    pub fn start(port: u16, name: &str, clients: usize) -> Load {
        let (stop, answered) = (
            Arc::new(AtomicBool::new(false)),
            Arc::new(AtomicUsize::new(0)),
        );
        let clients = (0..clients)
            .map(|client| {
                let (stop, answered) = (stop.clone(), answered.clone());
                let name = name.to_owned();
                thread::spawn(move || visit(port, &name, client, &stop, &answered))
            })
            .collect();
        Load {
            stop,
            answered,
            clients,
        }
    }

    /// Waits until so many more requests have been answered.
    pub fn more(&self, count: usize) {
        let before = self.answered.load(Ordering::SeqCst);
        wait::until_true(&format!("{count} more answers"), || {
            self.answered.load(Ordering::SeqCst) >= before + count
                || self.clients.iter().any(JoinHandle::is_finished)
        });
    }

    /// Stops them, checks that each request was answered right and ran once, and tells how many there were.
    ///
    /// # Panics
    /// When one was not.
    #[must_use]
    pub fn end(self, site: &Versioned) -> usize {
        self.stop.store(true, Ordering::SeqCst);
        let sent: Vec<String> = self
            .clients
            .into_iter()
            .flat_map(|client| client.join().expect("every request was answered right"))
            .collect();
        let ran = site.ran();
        for request in &sent {
            assert_eq!(ran.get(request), Some(&1), "{request}");
        }
        assert_eq!(ran.len(), sent.len(), "nothing else ran");
        sent.len()
    }
}

fn visit(
    port: u16,
    name: &str,
    client: usize,
    stop: &AtomicBool,
    answered: &AtomicUsize,
) -> Vec<String> {
    let mut sent = Vec::new();
    let keeps = client.is_multiple_of(2);
    let mut connection = Connection::open(port).expect("a connection");
    for number in 0_usize.. {
        if stop.load(Ordering::SeqCst) {
            break;
        }
        let path = format!("/{client}-{number}");
        let (method, request) = if (number + client).is_multiple_of(3) {
            ("POST", Request::post(name, &path, "body"))
        } else {
            ("GET", Request::get(name, &path))
        };
        let answer = if keeps {
            let answer = connection.exchange(&request);
            let answer = answer.unwrap_or_else(|error| panic!("{method} {path}: {error}"));
            if answer.header("connection") == Some("close") {
                connection = Connection::open(port).expect("another connection");
            }
            answer
        } else {
            request.send(port)
        };
        assert_eq!(answer.expect(200), path);
        sent.push(format!("{method}{path}"));
        answered.fetch_add(1, Ordering::SeqCst);
    }
    sent
}
