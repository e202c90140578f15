//! The module and its table, without a daemon: what the table says is what nginx does, at once and without a
//! reload; a table that is missing, replaced, damaged or of another version costs a page, never a process.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;

use paas_tests::stub::Answer;
use paas_tests::{Nginx, Request, Response, Root, Stub, nginx, process, wait};
use routing::{Domain, Method, Placement, SlowChange, State, Weight};
use table::{BackendId, BackendRecord, Change, Options, Protocol, SiteId, SiteRecord, Writer};

const BACKENDS: u32 = 4;

/// A balancer and its table, with stubs for backends.
struct Balancer {
    port: u16,
    first: u16,
    table: PathBuf,
    nginx: Nginx,
    stubs: BTreeMap<u32, Stub>,
}

impl Balancer {
    fn start(root: &Root) -> Balancer {
        let port = root.port();
        let first = root.ports(u16::try_from(BACKENDS).expect("few"));
        let table = root.join("table");
        let http = format!(
            "paas_table {};
             upstream backends {{ paas_hash; keepalive 16; }}
             server {{
                 listen 127.0.0.1:{port} default_server;
                 paas_role balancer;
                 location / {{
                     proxy_pass http://backends;
                     proxy_set_header Host $http_host;
                     proxy_http_version 1.1;
                     proxy_set_header Connection '';
                     add_header X-Site $paas_site always;
                     add_header X-Backend $paas_backend always;
                 }}
             }}",
            table.display()
        );
        let nginx = Nginx::start(root, "balancer", &http, port);
        let stubs = (1..=BACKENDS)
            .map(|id| (id, Balancer::stub(first, id)))
            .collect();
        Balancer {
            port,
            first,
            table,
            nginx,
            stubs,
        }
    }

    fn stub(first: u16, id: u32) -> Stub {
        let port = first + u16::try_from(id - 1).expect("few");
        Stub::tcp(port, move |request| {
            let forged: Vec<&str> = request
                .headers
                .iter()
                .filter(|(name, _)| name.to_ascii_lowercase().starts_with("x-paas"))
                .map(|(name, _)| name.as_str())
                .collect();
            Answer::ok(format!("b{id} {}", forged.join(",")))
        })
    }

    fn writer(&self) -> Writer {
        writer(&self.table)
    }

    fn backend(&self, id: u32) -> BackendRecord {
        backend(self.first, id)
    }

    fn ask(&self, host: impl AsRef<[u8]>) -> Response {
        Request::get(host, "/").send(self.port)
    }

    fn knows(&self, host: &str) -> bool {
        self.ask(host).status == 200
    }
}

fn writer(table: &Path) -> Writer {
    Writer::open_or_create(
        table,
        Options {
            group: Some(nginx::group()),
            max_readers: 64,
            ..Options::default()
        },
    )
    .expect("a table can be made")
}

fn backend(first: u16, id: u32) -> BackendRecord {
    let port = first + u16::try_from(id - 1).expect("few");
    BackendRecord {
        id: BackendId::new(id).expect("not 0"),
        name: format!("b{id}"),
        key: format!("10.0.0.{id}:80").into_bytes(),
        address: format!("127.0.0.1:{port}").parse().expect("an address"),
        weight: Weight::ONE,
        state: State::Active,
    }
}

fn domain(name: &str) -> Domain {
    Domain::parse(name).expect("a domain")
}

fn site(id: u64, name: &str) -> Change {
    alias(id, name, name)
}

fn alias(id: u64, primary: &str, name: &str) -> Change {
    let record = SiteRecord {
        id: SiteId::new(id).expect("not 0"),
        primary: domain(primary),
        pin: None,
        enabled: true,
        protocol: Protocol::Uwsgi,
    };
    Change::PutHost(domain(name), record)
}

fn filled(balancer: &Balancer) -> Vec<Change> {
    let backends = (1..=BACKENDS).map(|id| Change::PutBackend(balancer.backend(id)));
    backends
        .chain([
            site(1, "a.test"),
            alias(1, "a.test", "alias.test"),
            site(2, "b.test"),
        ])
        .collect()
}

#[test]
fn a_change_is_in_force_without_a_reload() {
    let root = Root::new();
    let balancer = Balancer::start(&root);
    let mut writer = balancer.writer();
    writer.rebuild(1, filled(&balancer)).expect("written");
    wait::until_true("the table to be seen", || balancer.knows("a.test"));
    assert_eq!(balancer.ask("new.test").status, 404);
    writer.apply(2, [site(3, "new.test")]).expect("written");
    assert_eq!(balancer.ask("new.test").status, 200, "at the next request");
    writer
        .apply(3, [Change::DeleteHost(domain("new.test"))])
        .expect("written");
    assert_eq!(balancer.ask("new.test").status, 404, "at the next request");
    balancer.nginx.assert_healthy();
}

#[test]
fn a_domain_is_placed_like_its_site() {
    let root = Root::new();
    let balancer = Balancer::start(&root);
    let sites = (0..100).flat_map(|number| {
        let primary = format!("site-{number}.test");
        [
            alias(number + 10, &primary, &primary),
            alias(number + 10, &primary, &format!("www.site-{number}.example")),
        ]
    });
    let changes: Vec<Change> = filled(&balancer).into_iter().chain(sites).collect();
    balancer.writer().rebuild(1, changes).expect("written");
    wait::until_true("the table to be seen", || balancer.knows("a.test"));
    let mut used = std::collections::BTreeSet::new();
    for number in 0..100 {
        let primary = balancer.ask(format!("site-{number}.test"));
        let other = balancer.ask(format!("WWW.Site-{number}.Example.:8080"));
        assert_eq!(primary.expect(200), other.expect(200));
        assert_eq!(
            other.header("x-site"),
            Some(format!("site-{number}.test").as_str())
        );
        assert_eq!(
            other.header("x-backend").map(|name| format!("{name} ")),
            Some(other.text())
        );
        let _ = used.insert(other.text());
    }
    assert_eq!(used.len(), BACKENDS as usize);
    balancer.nginx.assert_healthy();
}

#[test]
fn states_pins_weights_and_placement_are_obeyed_at_the_next_request() {
    let root = Root::new();
    let balancer = Balancer::start(&root);
    let mut writer = balancer.writer();
    let names: Vec<String> = (0..60)
        .map(|number| format!("site-{number}.test"))
        .collect();
    let sites = names.iter().zip(10..).map(|(name, id)| site(id, name));
    writer
        .rebuild(1, filled(&balancer).into_iter().chain(sites))
        .expect("written");
    wait::until_true("the table to be seen", || balancer.knows("a.test"));

    let mut generation = 1;
    let mut backends: Vec<BackendRecord> = (1..=BACKENDS).map(|id| balancer.backend(id)).collect();
    let mut placement = Placement::default();
    let slow = SlowChange {
        from: Method::Python64,
        threshold: u64::MAX / 3,
    };
    type Step = Box<dyn Fn(&mut Vec<BackendRecord>, &mut Placement)>;
    let steps: Vec<(&str, Step)> = vec![
        ("as it was", Box::new(|_, _| ())),
        (
            "b2 drains",
            Box::new(|backends, _| backends[1].state = State::Draining),
        ),
        (
            "b1 is disabled",
            Box::new(|backends, _| backends[0].state = State::Disabled),
        ),
        (
            "weights differ",
            Box::new(|backends, _| backends[3].weight = Weight::new(7).expect("a weight")),
        ),
        (
            "python64",
            Box::new(|_, placement| *placement = Placement::fixed(Method::Python64)),
        ),
        (
            "python32",
            Box::new(|_, placement| *placement = Placement::fixed(Method::Python32)),
        ),
        (
            "slowly to rendezvous",
            Box::new(move |_, placement| placement.change = Some(slow)),
        ),
        (
            "b1 is back",
            Box::new(|backends, _| backends[0].state = State::Active),
        ),
        (
            "only one that drains",
            Box::new(|backends, _| {
                backends
                    .iter_mut()
                    .for_each(|backend| backend.state = State::Disabled);
                backends[2].state = State::Draining;
            }),
        ),
    ];
    for (what, step) in steps {
        step(&mut backends, &mut placement);
        generation += 1;
        let changes = backends
            .iter()
            .cloned()
            .map(Change::PutBackend)
            .chain([Change::SetPlacement(placement)]);
        writer.apply(generation, changes).expect("written");
        let pure = routing::Backends::new(backends.iter().map(BackendRecord::candidate));
        for name in &names {
            let expected = pure
                .choose(name.as_bytes(), None, &placement, |_| true)
                .expect("one can be used");
            let answer = balancer.ask(name);
            assert_eq!(
                answer.expect(200).trim(),
                backends[expected].name,
                "{name}: {what}"
            );
        }
    }
    // A pin comes before all that, unless the backend is disabled.
    let pinned = |generation: u64, to: u32, writer: &mut Writer| {
        let record = SiteRecord {
            id: SiteId::new(1).expect("not 0"),
            primary: domain("a.test"),
            pin: BackendId::new(to),
            enabled: true,
            protocol: Protocol::Uwsgi,
        };
        writer
            .apply(generation, [Change::PutHost(domain("a.test"), record)])
            .expect("written");
    };
    pinned(100, 3, &mut writer);
    assert_eq!(balancer.ask("a.test").expect(200).trim(), "b3");
    pinned(101, 1, &mut writer);
    assert_eq!(
        balancer.ask("a.test").expect(200).trim(),
        "b3",
        "b1 is disabled"
    );
    backends[0].state = State::Draining;
    writer
        .apply(102, [Change::PutBackend(backends[0].clone())])
        .expect("written");
    assert_eq!(
        balancer.ask("a.test").expect(200).trim(),
        "b1",
        "a pin leads to a draining backend"
    );
    balancer.nginx.assert_healthy();
}

#[test]
fn without_any_backend_the_answer_is_an_error_page() {
    let root = Root::new();
    let balancer = Balancer::start(&root);
    let mut writer = balancer.writer();
    writer.rebuild(1, [site(1, "a.test")]).expect("written");
    wait::until_true("the table to be seen", || {
        balancer.ask("a.test").status != 503 || balancer.ask("x.test").status == 404
    });
    assert!(matches!(balancer.ask("a.test").status, 502 | 503));
    writer
        .apply(2, [Change::PutBackend(balancer.backend(1))])
        .expect("written");
    assert_eq!(balancer.ask("a.test").status, 200);
    balancer.nginx.assert_healthy();
}

#[test]
fn a_dead_backend_s_sites_go_to_the_next_one() {
    let root = Root::new();
    let mut balancer = Balancer::start(&root);
    let names: Vec<String> = (0..40)
        .map(|number| format!("site-{number}.test"))
        .collect();
    let sites = names.iter().zip(10..).map(|(name, id)| site(id, name));
    balancer
        .writer()
        .rebuild(1, filled(&balancer).into_iter().chain(sites))
        .expect("written");
    wait::until_true("the table to be seen", || balancer.knows("a.test"));
    drop(balancer.stubs.remove(&2));
    let backends: Vec<BackendRecord> = (1..=BACKENDS).map(|id| balancer.backend(id)).collect();
    let pure = routing::Backends::new(backends.iter().map(BackendRecord::candidate));
    for name in &names {
        let next = pure
            .choose(name.as_bytes(), None, &Placement::default(), |index| {
                index != 1
            })
            .expect("three are left");
        let answer = Request::post(name, "/", "body").send(balancer.port);
        assert_eq!(answer.expect(200).trim(), backends[next].name, "{name}");
        assert_eq!(
            answer.header("x-backend"),
            Some(backends[next].name.as_str()),
            "the one chosen last"
        );
    }
    balancer.nginx.assert_healthy();
}

#[test]
fn a_missing_table_is_503_until_it_is_there() {
    let root = Root::new();
    let balancer = Balancer::start(&root);
    for _ in 0..50 {
        let answer = balancer.ask("a.test");
        assert_eq!(answer.status, 503);
        assert!(answer.header("retry-after").is_some(), "{answer:?}");
    }
    // It is an operator's emergency, but not a flood.
    let lines = balancer
        .nginx
        .errors()
        .lines()
        .filter(|line| line.contains("table"))
        .count();
    assert!((1..=60).contains(&lines), "{lines} lines about the table");
    balancer
        .writer()
        .rebuild(1, filled(&balancer))
        .expect("written");
    wait::until_true("the table to be seen", || balancer.knows("a.test"));
    balancer.nginx.assert_healthy();
}

#[test]
fn a_replaced_table_is_used_at_once() {
    let root = Root::new();
    let balancer = Balancer::start(&root);
    let mut writer = balancer.writer();
    writer.rebuild(1, filled(&balancer)).expect("written");
    wait::until_true("the table to be seen", || balancer.knows("a.test"));
    for generation in 2..30 {
        let name = format!("only-in-{generation}.test");
        let changes = filled(&balancer)
            .into_iter()
            .chain([site(100 + generation, &name)]);
        writer.rebuild(generation, changes).expect("written");
        assert_eq!(balancer.ask(&name).status, 200, "at the next request");
        assert_eq!(
            balancer
                .ask(format!("only-in-{}.test", generation - 1))
                .status,
            404
        );
    }
    balancer.nginx.assert_healthy();
}

#[test]
fn replacing_and_changing_under_load_loses_no_request() {
    let root = Root::new();
    let balancer = Balancer::start(&root);
    let mut writer = balancer.writer();
    writer.rebuild(1, filled(&balancer)).expect("written");
    wait::until_true("the table to be seen", || balancer.knows("a.test"));
    let (stop, asked) = (
        Arc::new(AtomicBool::new(false)),
        Arc::new(AtomicUsize::new(0)),
    );
    let visitors: Vec<_> = (0..4)
        .map(|_| {
            let (stop, asked, port) = (Arc::clone(&stop), Arc::clone(&asked), balancer.port);
            thread::spawn(move || {
                let mut connection = paas_tests::Connection::open(port).expect("nginx listens");
                while !stop.load(Ordering::SeqCst) {
                    let answer = connection
                        .exchange(&Request::get("alias.test", "/"))
                        .expect("an answer");
                    assert_eq!(answer.status, 200);
                    assert_eq!(answer.header("x-site"), Some("a.test"));
                    asked.fetch_add(1, Ordering::SeqCst);
                }
            })
        })
        .collect();
    for generation in 2..120 {
        if generation % 3 == 0 {
            writer
                .rebuild(generation, filled(&balancer))
                .expect("written");
        } else {
            writer
                .apply(
                    generation,
                    [site(1000 + generation, &format!("s{generation}.test"))],
                )
                .expect("written");
        }
    }
    let before = asked.load(Ordering::SeqCst);
    wait::until_true("some more requests", || {
        asked.load(Ordering::SeqCst) > before + 100
    });
    stop.store(true, Ordering::SeqCst);
    for visitor in visitors {
        visitor.join().expect("every request was answered right");
    }
    balancer.nginx.assert_healthy();
}

/// Puts another environment into force, made by `make` in a new directory, as another program would.
fn replace(table: &Path, number: u64, make: impl Fn(&Path)) {
    let directory = table.join(number.to_string());
    fs::create_dir(&directory).expect("ours");
    make(&directory);
    let link = table.join("next");
    std::os::unix::fs::symlink(number.to_string(), &link).expect("ours");
    fs::rename(&link, table.join("current")).expect("ours");
}

/// The file of the environment in force before `directory`.
fn old_file(directory: &Path) -> Vec<u8> {
    let table = directory.parent().expect("the table");
    fs::read(table.join("current/data.mdb")).expect("the old one is there")
}

/// The header's revision of the registry: no other place in the file has these bytes.
const REVISION: u64 = 0x1122_3344_5566_7788;

/// Where the header's record begins in the file, in every copy of it.
fn headers(file: &[u8]) -> Vec<usize> {
    // A format of two bytes and a mark come before the revision.
    let revision = REVISION.to_le_bytes();
    let found = file
        .windows(8)
        .enumerate()
        .filter(|(_, bytes)| *bytes == revision);
    found.map(|(at, _)| at - 3).collect()
}

#[test]
fn a_damaged_table_or_one_of_another_version_is_a_page_and_not_a_crash() {
    type Make = fn(&Path);
    let wrong: [(&str, Make); 5] = [
        ("an empty file", |directory| {
            fs::write(directory.join("data.mdb"), "").expect("ours");
        }),
        ("no database", |directory| {
            fs::write(directory.join("data.mdb"), vec![0x5a; 64 * 1024]).expect("ours");
        }),
        ("a directory without files", |_| ()),
        ("another version", |directory| {
            let mut file = old_file(directory);
            let headers = headers(&file);
            assert!(!headers.is_empty());
            for at in headers {
                file[at..at + 2].copy_from_slice(&(table::FORMAT + 1).to_le_bytes());
            }
            fs::write(directory.join("data.mdb"), file).expect("ours");
        }),
        ("a header with a mark that is none", |directory| {
            let mut file = old_file(directory);
            for at in headers(&file) {
                file[at + 2] = 0xee;
            }
            fs::write(directory.join("data.mdb"), file).expect("ours");
        }),
    ];
    for (what, make) in wrong {
        let root = Root::new();
        let balancer = Balancer::start(&root);
        let mut writer = balancer.writer();
        writer
            .rebuild(REVISION, filled(&balancer))
            .expect("written");
        drop(writer);
        replace(&balancer.table, 4_000_000_000, make);
        let _ = process::run("chmod", &["-R", "a+rwX", &balancer.table.to_string_lossy()]);
        for _ in 0..20 {
            assert_eq!(balancer.ask("a.test").status, 503, "{what}");
        }
        let workers = balancer.nginx.workers();
        let errors = balancer.nginx.errors();
        assert!(
            errors.contains(&*balancer.table.to_string_lossy()),
            "{what}: the log names the table: {errors}"
        );
        // The daemon builds it anew.
        balancer
            .writer()
            .rebuild(REVISION + 1, filled(&balancer))
            .expect("written");
        wait::until_true(&format!("the table to be seen after {what}"), || {
            balancer.knows("a.test")
        });
        assert_eq!(balancer.nginx.workers(), workers, "{what}: no worker died");
        balancer.nginx.assert_healthy();
    }
}

#[test]
fn a_table_that_vanishes_under_nginx_does_no_harm() {
    let root = Root::new();
    let balancer = Balancer::start(&root);
    let writer_of_all = |generation: u64| {
        let mut writer = balancer.writer();
        writer
            .rebuild(generation, filled(&balancer))
            .expect("written");
    };
    writer_of_all(1);
    wait::until_true("the table to be seen", || balancer.knows("a.test"));
    let workers = balancer.nginx.workers();
    fs::remove_dir_all(&balancer.table).expect("ours");
    for _ in 0..50 {
        assert!(matches!(balancer.ask("a.test").status, 200 | 503));
    }
    writer_of_all(2);
    wait::until_true("the table to be seen again", || balancer.knows("a.test"));
    assert_eq!(balancer.nginx.workers(), workers, "no worker died");
    balancer.nginx.assert_healthy();
}

#[test]
fn a_worker_killed_and_a_reload_find_the_table_again() {
    let root = Root::new();
    let balancer = Balancer::start(&root);
    let mut writer = balancer.writer();
    writer.rebuild(1, filled(&balancer)).expect("written");
    wait::until_true("the table to be seen", || balancer.knows("a.test"));
    balancer.nginx.reload_as_is();
    assert!(balancer.knows("a.test"), "after a reload");
    writer.apply(2, [site(9, "later.test")]).expect("written");
    assert!(balancer.knows("later.test"));
    let worker = balancer.nginx.workers()[0];
    process::send(worker, rustix::process::Signal::KILL);
    wait::until_true("another worker", || {
        balancer
            .nginx
            .workers()
            .first()
            .is_some_and(|new| *new != worker)
    });
    wait::until_true("an answer of the new worker", || {
        Request::get("later.test", "/")
            .try_send(balancer.port)
            .is_ok_and(|answer| answer.status == 200)
    });
}

#[test]
fn headers_of_the_platform_are_removed_from_requests() {
    let root = Root::new();
    let balancer = Balancer::start(&root);
    balancer
        .writer()
        .rebuild(1, filled(&balancer))
        .expect("written");
    wait::until_true("the table to be seen", || balancer.knows("a.test"));
    let answer = Request::get("a.test", "/")
        .header("X-Paas-Site", "b.test")
        .header("x-paas-id", "1")
        .header("X-PAAS-Reason", "because")
        .header("X-Paas", "bare")
        .header("X-Paas-", "empty")
        .header("X-Paasage", "not ours")
        .send(balancer.port);
    let seen = answer.expect(200);
    let seen = seen.split_once(' ').expect("a name and headers").1;
    assert!(
        seen.split(',')
            .all(|name| matches!(name, "" | "X-Paas" | "X-Paasage")),
        "arrived: {seen}"
    );
    assert!(seen.contains("X-Paasage"), "others are not touched: {seen}");
    balancer.nginx.assert_healthy();
}

#[test]
fn a_host_that_no_site_has_reaches_no_backend() {
    let root = Root::new();
    let balancer = Balancer::start(&root);
    balancer
        .writer()
        .rebuild(1, filled(&balancer))
        .expect("written");
    wait::until_true("the table to be seen", || balancer.knows("a.test"));
    let count = || {
        balancer
            .stubs
            .values()
            .map(|stub| stub.received().len())
            .sum::<usize>()
    };
    let before = count();
    for host in [
        "unknown.test",
        "xa.test",
        "a.test.evil",
        "127.0.0.1",
        "[::1]",
        "localhost",
        "-a.test",
        "a_test",
        "a.test..",
        "*.test",
        "%61.test",
    ] {
        let answer = balancer.ask(host);
        assert!(matches!(answer.status, 400 | 404), "{host}: {answer:?}");
    }
    assert_eq!(count(), before);
    balancer.nginx.assert_healthy();
}
