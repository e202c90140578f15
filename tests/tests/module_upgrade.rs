//! Another build of the module takes the place of the one that runs, under load: by a reload if its file has another name,
//! otherwise by nginx's own upgrade of a running executable.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::{self, JoinHandle};

use paas_tests::stub::Answer;
use paas_tests::{Connection, Nginx, Request, Root, Stub, build, nginx, process, wait};
use rustix::process::Signal;

/// A balancer over `server` lines whose module is a file of the test's own. It runs as a daemon: in the foreground nginx does not
/// upgrade its executable.
struct Balancer {
    prefix: PathBuf,
    port: u16,
    _site: Stub,
}

impl Balancer {
    fn start(root: &Root, module: &Path) -> Balancer {
        let (port, site, dead) = (root.port(), root.port(), root.port());
        let http = format!(
            "upstream sites {{ zone sites 256k; paas_hash $host; paas_keepalive 16; server 127.0.0.1:{site};
                 server 127.0.0.1:{dead} max_fails=1 fail_timeout=1h; }}
             server {{ listen 127.0.0.1:{port}; location / {{ proxy_pass http://sites; proxy_http_version 1.1;
                 proxy_set_header Connection ''; }} }}"
        );
        let faults = root.write("faults", "cleanup");
        let main = format!("{}\nenv PAAS_FAULTS={};", load(module), faults.display());
        let prefix = Nginx::configure(root, "balancer", &main, &http);
        let balancer = Balancer {
            prefix,
            port,
            _site: Stub::tcp(site, |request| Answer::ok(request.body.clone())),
        };
        balancer.rewrite("daemon off;", "daemon on;");
        let mut command = Nginx::command(&balancer.prefix, "nginx.conf");
        let status = command.env("PAAS_FAULTS", faults).status();
        assert!(status.expect("nginx can be run").success());
        wait::until_true("an answer", || balancer.answers());
        (0..100)
            .find(|number| {
                let answer = Request::get(format!("{number}.test"), "/").send(port);
                assert_eq!(answer.status, 200);
                balancer.count(DEAD) > 0
            })
            .expect("one of them belongs to the dead server");
        balancer
    }

    /// How often nginx has said so.
    fn count(&self, words: &str) -> usize {
        self.errors().matches(words).count()
    }

    /// Whether the requests of this moment run through the build with faults: they log one that costs them nothing.
    fn has_faults(&self) -> bool {
        let before = self.count(FAULT);
        let mut connection = Connection::open(self.port).expect("nginx listens");
        // nginx cleans up after the first request before it reads the second one of the connection.
        for _ in 0..2 {
            let answer = connection.exchange(&Request::get("a.test", "/"));
            assert_eq!(answer.expect("an answer").status, 200);
        }
        self.count(FAULT) > before
    }

    fn master(&self) -> u32 {
        wait::until("nginx's process id", || {
            let pid = fs::read_to_string(self.prefix.join("nginx.pid")).ok()?;
            pid.trim().parse().ok()
        })
    }

    fn workers(&self) -> Vec<u32> {
        nginx::workers_of(self.master())
    }

    fn errors(&self) -> String {
        fs::read_to_string(self.prefix.join("error.log")).expect("nginx writes it")
    }

    /// Changes what the configuration says.
    fn rewrite(&self, from: &str, to: &str) {
        let file = self.prefix.join("nginx.conf");
        let text = fs::read_to_string(&file).expect("it is there");
        assert!(text.contains(from), "{from} is not in {text}");
        fs::write(&file, text.replace(from, to)).expect("it can be written");
    }

    fn answers(&self) -> bool {
        Request::get("a.test", "/")
            .try_send(self.port)
            .is_ok_and(|answer| answer.status == 200)
    }
}

impl Drop for Balancer {
    fn drop(&mut self) {
        let master = self.master();
        process::send(master, Signal::TERM);
        wait::until_true("nginx to end", || process::Seen::look(master).is_none());
    }
}

const DEAD: &str = "upstream server temporarily disabled";
const FAULT: &str = "panic in cleanup";

fn load(module: &Path) -> String {
    format!("load_module {};", module.display())
}

/// A copy of the module under a name of its own, as an operator installs it: written beside, then renamed.
fn install(root: &Root, name: &str, build: &Path) -> PathBuf {
    let (new, file) = (root.join(format!("{name}.new")), root.join(name));
    fs::copy(build, &new).expect("the module can be copied");
    fs::rename(new, &file).expect("it takes its place");
    file
}

/// Clients with a new connection for each request, half of them with bodies; every one must be answered right.
struct Visitors {
    stop: Arc<AtomicBool>,
    answered: Arc<AtomicUsize>,
    threads: Vec<JoinHandle<()>>,
}

impl Visitors {
    fn start(port: u16) -> Visitors {
        let (stop, answered) = (
            Arc::new(AtomicBool::new(false)),
            Arc::new(AtomicUsize::new(0)),
        );
        let visitor = |number: usize| {
            let (stop, answered) = (Arc::clone(&stop), Arc::clone(&answered));
            thread::spawn(move || {
                while !stop.load(Ordering::SeqCst) {
                    let host = format!("site-{number}.test");
                    match number % 2 {
                        0 => assert_eq!(Request::get(host, "/").send(port).expect(200), ""),
                        _ => assert_eq!(
                            Request::post(host, "/", "body").send(port).expect(200),
                            "body"
                        ),
                    }
                    answered.fetch_add(1, Ordering::SeqCst);
                }
            })
        };
        Visitors {
            threads: (0..4).map(visitor).collect(),
            stop,
            answered,
        }
    }

    fn more(&self) {
        let before = self.answered.load(Ordering::SeqCst);
        wait::until_true("more answers", || {
            self.answered.load(Ordering::SeqCst) > before + 40
                || self.threads.iter().any(JoinHandle::is_finished)
        });
    }

    fn end(self) -> usize {
        self.stop.store(true, Ordering::SeqCst);
        for thread in self.threads {
            thread.join().expect("every request was answered right");
        }
        self.answered.load(Ordering::SeqCst)
    }
}

#[test]
fn a_module_under_another_name_is_in_force_after_a_reload_and_nothing_is_lost() {
    let root = Root::new();
    let names = [
        install(&root, "v1.so", &build::module()),
        install(&root, "v2.so", &build::module_with_faults()),
    ];
    let balancer = Balancer::start(&root, &names[0]);
    assert!(!balancer.has_faults());
    for upgrade in 0..8 {
        let visitors = Visitors::start(balancer.port);
        visitors.more();
        let (old, new) = (&names[upgrade % 2], &names[(upgrade + 1) % 2]);
        balancer.rewrite(&load(old), &load(new));
        let before = balancer.workers();
        nginx::reload(balancer.master());
        visitors.more();
        wait::until_true("the old workers to end", || {
            before
                .iter()
                .all(|worker| process::Seen::look(*worker).is_none())
        });
        assert!(visitors.end() > 80);
        assert_eq!(balancer.has_faults(), upgrade % 2 == 0, "upgrade {upgrade}");
    }
    assert_eq!(
        balancer.count(DEAD),
        1,
        "what is known of the servers is handed on"
    );
    nginx::assert_no_crash(&balancer.errors());
}

#[test]
fn a_module_replaced_under_its_name_is_in_force_after_an_upgrade_of_the_executable_only() {
    let root = Root::new();
    let module = install(&root, "v1.so", &build::module());
    let balancer = Balancer::start(&root, &module);
    let visitors = Visitors::start(balancer.port);
    visitors.more();
    install(&root, "v1.so", &build::module_with_faults());
    // What the loader has it does not load again: the master goes on with the code it began with.
    nginx::reload(balancer.master());
    visitors.more();
    assert_eq!(balancer.count(FAULT), 0);
    // The new master is another process and loads what is there now.
    let old = balancer.master();
    process::send(old, Signal::USR2);
    wait::until_true("another master", || {
        balancer.master() != old && !balancer.workers().is_empty()
    });
    process::send(old, Signal::WINCH);
    wait::until_true("the old workers to end", || {
        nginx::workers_of(old).is_empty()
    });
    visitors.more();
    process::send(old, Signal::QUIT);
    wait::until_true("the old master to end", || {
        process::Seen::look(old).is_none()
    });
    visitors.more();
    assert!(visitors.end() > 100);
    assert!(balancer.has_faults());
    nginx::assert_no_crash(&balancer.errors());
}

#[test]
fn a_new_module_whose_configuration_is_refused_leaves_the_old_in_force_in_new_workers_too() {
    let root = Root::new();
    let (old, new) = (
        install(&root, "v1.so", &build::module()),
        install(&root, "v2.so", &build::module_with_faults()),
    );
    let balancer = Balancer::start(&root, &old);
    balancer.rewrite(&load(&old), &load(&new));
    // An address that this machine does not have: nginx finds that out last, when the new module has done all it does.
    balancer.rewrite("server { listen", "server { listen 192.0.2.1:80; listen");
    process::send(balancer.master(), Signal::HUP);
    wait::until_true("the reload to be refused", || balancer.count("[emerg]") > 0);
    let workers = balancer.workers();
    process::send(workers[0], Signal::KILL);
    wait::until_true("another worker", || {
        let now = balancer.workers();
        !now.is_empty() && now != workers
    });
    for _ in 0..20 {
        assert!(!balancer.has_faults());
    }
    assert_eq!(
        balancer.count("exited on signal"),
        1,
        "the one that was killed"
    );
}
