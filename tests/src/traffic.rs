//! Visitors of a cluster who do not stop, whatever happens to it, and who remember each visit: what was asked, when, and what came
//! of it. The sites count what they ran.

use std::collections::HashMap;
use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crate::http::Connection;
use crate::{Cluster, Request, Response, wait};

/// Notes each request that it runs, and answers what it was: method, path and the body's sum. Takes as long as the query says.
const APP: &str = r#"
import os, time, zlib

RAN = os.path.join(os.path.dirname(os.path.abspath(__file__)), "notes", "ran")


def application(environ, start_response):
    method, path = environ["REQUEST_METHOD"], environ["PATH_INFO"]
    body = environ["wsgi.input"].read()
    file = os.open(RAN, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
    os.write(file, ("%s %s\n" % (path, environ["PAAS_BACKEND"])).encode())
    os.close(file)
    time.sleep(float(environ["QUERY_STRING"] or 0))
    start_response("200 OK", [("Content-Type", "text/plain"), ("X-Backend", environ["PAAS_BACKEND"])])
    return [("%s %s %d %08x" % (method, path, len(body), zlib.crc32(body))).encode()]
"#;

/// A site that counts what it runs.
#[derive(Clone, Debug)]
pub struct Counting {
    /// Its domain.
    pub domain: String,
    directory: PathBuf,
}

impl Counting {
    /// Adds it.
    ///
    /// # Panics
    /// When that is refused.
    #[must_use]
    pub fn add(cluster: &Cluster<'_>, domain: &str, more: &[&str]) -> Counting {
        let root = cluster.root();
        root.write(format!("sites/{domain}/app.py"), APP);
        let directory = root.join(format!("sites/{domain}"));
        let notes = directory.join("notes");
        fs::create_dir_all(&notes).expect("the notes' directory is made");
        fs::set_permissions(&notes, fs::Permissions::from_mode(0o777)).expect("it is ours");
        cluster.add_site(domain, &directory, more);
        Counting {
            domain: domain.to_owned(),
            directory,
        }
    }

    /// So many of them: `s0.test`, `s1.test` ...
    #[must_use]
    pub fn add_many(cluster: &Cluster<'_>, count: usize) -> Vec<Counting> {
        (0..count)
            .map(|number| Counting::add(cluster, &format!("s{number}.test"), &[]))
            .collect()
    }

    /// The backends on which it ran each request, by its path.
    #[must_use]
    pub fn ran(&self) -> HashMap<String, Vec<String>> {
        let mut ran: HashMap<String, Vec<String>> = HashMap::new();
        let text = fs::read_to_string(self.directory.join("notes/ran")).unwrap_or_default();
        for (path, backend) in text.lines().filter_map(|line| line.split_once(' ')) {
            ran.entry(path.to_owned())
                .or_default()
                .push(backend.to_owned());
        }
        ran
    }
}

/// One request of a visitor.
#[derive(Clone, Debug)]
pub struct Visit {
    /// The site's domain.
    pub site: String,
    /// No other request has it.
    pub path: String,
    /// `GET` or `POST`.
    pub method: &'static str,
    /// Whether it went over a connection that had served another request.
    pub was_kept: bool,
    /// When.
    pub sent: Instant,
    /// How long until the answer was whole.
    pub took: Duration,
    /// The backend that answered, or what went wrong.
    pub outcome: Result<String, String>,
}

/// Visits of all sites through all balancers; every third is a POST, half of them go over connections that are kept.
#[derive(Debug)]
pub struct Traffic {
    scene: Arc<Scene>,
    threads: Vec<JoinHandle<()>>,
}

impl Traffic {
    /// So many visitors who come again as soon as they have their answer.
    #[must_use]
    pub fn of_visitors(cluster: &Cluster<'_>, sites: &[Counting], visitors: usize) -> Traffic {
        let scene = Scene::new(cluster, sites);
        let threads = (0..visitors).map(|_| {
            let scene = Arc::clone(&scene);
            thread::spawn(move || {
                while scene.goes_on() {
                    scene.visit();
                }
            })
        });
        Traffic {
            threads: threads.collect(),
            scene,
        }
    }

    /// One visitor after the other in this interval, whether those before have their answers or not.
    #[must_use]
    pub fn arriving(cluster: &Cluster<'_>, sites: &[Counting], interval: Duration) -> Traffic {
        let scene = Scene::new(cluster, sites);
        let gate = {
            let scene = Arc::clone(&scene);
            move || {
                let leave =
                    |visitor: JoinHandle<()>| visitor.join().expect("a visitor does not panic");
                let mut inside: Vec<JoinHandle<()>> = Vec::new();
                while scene.goes_on() {
                    let visitor = Arc::clone(&scene);
                    inside.push(thread::spawn(move || visitor.visit()));
                    // A thread that has ended keeps its stack until then, and a process may not have very many.
                    inside
                        .extract_if(.., |visitor| visitor.is_finished())
                        .for_each(leave);
                    thread::sleep(interval);
                }
                inside.into_iter().for_each(leave);
            }
        };
        Traffic {
            threads: vec![thread::spawn(gate)],
            scene,
        }
    }

    /// Waits until so many more visits have ended, one way or the other.
    pub fn more(&self, count: usize) {
        let before = self.count();
        wait::until_true(&format!("{count} more visits"), || {
            self.count() >= before + count
        });
    }

    /// How many visits have ended.
    #[must_use]
    pub fn count(&self) -> usize {
        self.scene.visits().len()
    }

    /// What has come of the visits so far.
    #[must_use]
    pub fn so_far(&self) -> Visits {
        Visits(self.scene.visits().clone())
    }

    /// Lets the visitors finish, and tells of their visits.
    ///
    /// # Panics
    /// When a visitor did.
    #[must_use]
    pub fn end(self) -> Visits {
        self.scene.is_over.store(true, Ordering::SeqCst);
        for thread in self.threads {
            thread.join().expect("a visitor does not panic");
        }
        Visits(std::mem::take(&mut *self.scene.visits()))
    }
}

/// What all visitors share.
#[derive(Debug)]
struct Scene {
    balancers: Vec<Balancer>,
    sites: Vec<String>,
    next: AtomicUsize,
    is_over: AtomicBool,
    visits: Mutex<Vec<Visit>>,
}

#[derive(Debug)]
struct Balancer {
    address: SocketAddr,
    kept: Mutex<Vec<Connection>>,
}

impl Scene {
    fn new(cluster: &Cluster<'_>, sites: &[Counting]) -> Arc<Scene> {
        let balancer = |address| Balancer {
            address,
            kept: Mutex::default(),
        };
        Arc::new(Scene {
            balancers: cluster.addresses().into_iter().map(balancer).collect(),
            sites: sites.iter().map(|site| site.domain.clone()).collect(),
            next: AtomicUsize::new(0),
            is_over: AtomicBool::new(false),
            visits: Mutex::default(),
        })
    }

    fn goes_on(&self) -> bool {
        !self.is_over.load(Ordering::SeqCst)
    }

    fn visits(&self) -> MutexGuard<'_, Vec<Visit>> {
        self.visits.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn visit(&self) {
        let number = self.next.fetch_add(1, Ordering::SeqCst);
        let balancer = &self.balancers[number % self.balancers.len()];
        let turn = number / self.balancers.len();
        let (keeps, site) = (
            turn.is_multiple_of(2),
            &self.sites[turn / 2 % self.sites.len()],
        );
        let path = format!("/{number}");
        let (method, body) = match number % 3 {
            0 => ("POST", body(number)),
            _ => ("GET", Vec::new()),
        };
        let expected = format!("{method} {path} {} {:08x}", body.len(), crc32(&body));
        // Some are under way for a while, so that what happens happens to them.
        let target = match number % 5 {
            0 => format!("{path}?0.03"),
            _ => path.clone(),
        };
        let request = match method {
            "POST" => Request::post(site, &target, body),
            _ => Request::get(site, &target),
        };
        let sent = Instant::now();
        let (was_kept, answer) = balancer.exchange(&request, keeps);
        let visit = Visit {
            site: site.clone(),
            path,
            method,
            was_kept,
            sent,
            took: sent.elapsed(),
            outcome: answer.and_then(|answer| judge(&answer, &expected)),
        };
        self.visits().push(visit);
    }
}

impl Balancer {
    fn kept(&self) -> MutexGuard<'_, Vec<Connection>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Over a connection that is kept, if there is one and it shall be.
    fn exchange(&self, request: &Request, keeps: bool) -> (bool, Result<Response, String>) {
        let usable = || std::iter::from_fn(|| self.kept().pop()).find(Connection::is_silent);
        let kept = if keeps { usable() } else { None };
        let was_kept = kept.is_some();
        let exchange = || {
            let mut connection = match kept {
                Some(connection) => connection,
                None => Connection::to(self.address)?,
            };
            let answer = connection.exchange(request)?;
            if keeps && answer.header("connection") != Some("close") {
                self.kept().push(connection);
            }
            Ok(answer)
        };
        let answer: std::io::Result<_> = exchange();
        (was_kept, answer.map_err(|error| error.to_string()))
    }
}

fn judge(answer: &Response, expected: &str) -> Result<String, String> {
    match (answer.status, answer.header("x-backend")) {
        (200, Some(backend)) if answer.text() == expected => Ok(backend.to_owned()),
        (200, _) => Err(format!("{:?} instead of {expected}", answer.text())),
        (status, _) => Err(format!("{status} {}", answer.text())),
    }
}

/// Up to 20 kB, each time other ones.
fn body(turn: usize) -> Vec<u8> {
    let length = turn * 7919 % 20_000;
    (0..length)
        .map(|at| u8::try_from((at + turn) % 251).unwrap_or(0))
        .collect()
}

/// As Python's `zlib.crc32`.
fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0, |sum: u32, byte| {
        (0..8).fold(sum ^ u32::from(*byte), |sum, _| {
            (sum >> 1) ^ (0xedb8_8320 & (sum & 1).wrapping_neg())
        })
    })
}

/// What came of visits.
#[derive(Clone, Debug)]
pub struct Visits(pub Vec<Visit>);

impl Visits {
    /// Those that were not answered right.
    #[must_use]
    pub fn failures(&self) -> Vec<&Visit> {
        let failed = |visit: &&Visit| visit.outcome.is_err();
        self.0.iter().filter(failed).collect()
    }

    /// Checks that all were answered right.
    ///
    /// # Panics
    /// When one was not.
    #[track_caller]
    pub fn assert_no_failures(&self) {
        let failures = self.failures();
        assert!(
            failures.is_empty(),
            "{} of {} visits failed: {:#?}",
            failures.len(),
            self.0.len(),
            &failures[..failures.len().min(5)]
        );
    }

    /// Checks that no site ran a POST twice, nor anything that was answered less than once.
    ///
    /// # Panics
    /// When one did.
    #[track_caller]
    pub fn assert_ran_once(&self, sites: &[Counting]) {
        let ran: HashMap<&str, HashMap<String, Vec<String>>> = sites
            .iter()
            .map(|site| (site.domain.as_str(), site.ran()))
            .collect();
        for visit in &self.0 {
            let on = ran[&*visit.site].get(&visit.path).map_or(&[][..], |on| on);
            if visit.method == "POST" {
                assert!(on.len() < 2, "run on {on:?}: {visit:#?}");
            }
            if let Ok(backend) = &visit.outcome {
                assert!(on.contains(backend), "run on {on:?}: {visit:#?}");
            }
        }
    }

    /// How many requests the sites ran more often than once.
    #[must_use]
    pub fn run_again(&self, sites: &[Counting]) -> usize {
        sites
            .iter()
            .flat_map(|site| site.ran().into_values())
            .filter(|on| on.len() > 1)
            .count()
    }

    /// The answers that a backend gave to what was sent at a time or later.
    #[must_use]
    pub fn by(&self, backend: &str, since: Instant) -> usize {
        self.0
            .iter()
            .filter(|visit| visit.sent >= since)
            .filter(|visit| visit.outcome.as_ref().is_ok_and(|by| by == backend))
            .count()
    }

    /// Those that were sent at a time or later.
    #[must_use]
    pub fn since(&self, when: Instant) -> Visits {
        Visits(
            self.0
                .iter()
                .filter(|visit| visit.sent >= when)
                .cloned()
                .collect(),
        )
    }

    /// The longest time one took.
    #[must_use]
    pub fn slowest(&self) -> Duration {
        self.0
            .iter()
            .map(|visit| visit.took)
            .max()
            .unwrap_or_default()
    }
}
