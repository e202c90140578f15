//! `paasctl route` answers what nginx does, for every host and whatever the backends' states are: both read one table and
//! call one function.

use std::fmt::Write as _;
use std::io::Write as _;
use std::process::Stdio;
use std::thread;

use paas_tests::{Connection, Nginx, Paasctl, Request, Root, build, nginx};
use routing::{Domain, Method, Placement, SlowChange, State, Weight};
use table::{BackendId, BackendRecord, Change, Options, SiteId, SiteRecord, Writer};

const BACKENDS: u16 = 5;
const SITES: u64 = 2_000;
/// For each state of the table; there are ten.
const HOSTS: usize = 10_000;

/// A balancer as `paasctl render` makes it, its table, and backends that say their names.
struct Balancer {
    port: u16,
    first: u16,
    paasctl: Paasctl,
    table: Writer,
    generation: u64,
    nginx: Nginx,
    _backends: Nginx,
}

impl Balancer {
    fn start(root: &Root) -> Balancer {
        let (port, first) = (root.port(), root.ports(BACKENDS));
        let servers = (0..BACKENDS).fold(String::new(), |mut text, index| {
            let (listen, name) = (first + index, index + 1);
            let _ = writeln!(
                text,
                "server {{ listen 127.0.0.1:{listen}; return 200 b{name}; }}"
            );
            text
        });
        let backends = Nginx::start(root, "backends", &servers, first);
        let machine = root.join("m");
        root.write(
            "m/etc/paas/paas.toml",
            format!(
                "roles = [\"balancer\"]\n[nginx]\nworkers = 1\nmodule = {:?}\n[balancer]\nlisten = [\"127.0.0.1:{port}\"]\n",
                build::module()
            ),
        );
        let paasctl = Paasctl::new(&machine);
        paasctl.ok(&["render"]);
        for directory in ["run/paas", "var/log/paas"] {
            std::fs::create_dir_all(machine.join(directory)).expect("ours");
        }
        let options = Options {
            group: Some(nginx::group()),
            max_readers: 64,
            ..Options::default()
        };
        let table = Writer::open_or_create(machine.join("var/lib/paas/table"), options)
            .expect("a table can be made");
        let nginx = Nginx::rendered(&machine, port);
        Balancer {
            port,
            first,
            paasctl,
            table,
            generation: 0,
            nginx,
            _backends: backends,
        }
    }

    fn backend(&self, number: u16, weight: u32, state: State) -> Change {
        Change::PutBackend(BackendRecord {
            id: BackendId::new(number.into()).expect("not 0"),
            name: format!("b{number}"),
            key: format!("10.0.0.{number}:80").into_bytes(),
            address: format!("127.0.0.1:{}", self.first + number - 1)
                .parse()
                .expect("an address"),
            weight: Weight::new(weight).expect("a weight"),
            state,
        })
    }

    fn apply(&mut self, changes: Vec<Change>) {
        self.generation += 1;
        self.table
            .apply(self.generation, changes)
            .expect("the table is written");
    }

    /// What nginx does with each host: the backend that answered, or none.
    fn nginx_s(&self, hosts: &[Vec<u8>]) -> Vec<Option<String>> {
        let mut connection = Connection::open(self.port).expect("the balancer listens");
        hosts
            .iter()
            .map(|host| {
                let answer = connection
                    .exchange(&Request::get(host, "/"))
                    .unwrap_or_else(|error| panic!("{}: {error}", host.escape_ascii()));
                if answer.header("connection") == Some("close") {
                    connection = Connection::open(self.port).expect("the balancer listens");
                }
                match answer.status {
                    200 => Some(answer.text()),
                    400 | 404 | 502 | 503 => None,
                    other => panic!("{}: {other}", host.escape_ascii()),
                }
            })
            .collect()
    }

    /// What `paasctl route -` says of each host.
    fn route_s(&self, hosts: &[Vec<u8>]) -> Vec<Option<String>> {
        let mut command = self.paasctl.command(&["route", "-"]);
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("paasctl runs");
        let mut input = child.stdin.take().expect("piped");
        let lines = hosts.join(&b'\n');
        let writer = thread::spawn(move || input.write_all(&lines));
        let output = child.wait_with_output().expect("paasctl ends");
        writer
            .join()
            .expect("no panic")
            .expect("it reads all of it");
        assert!(output.status.success());
        String::from_utf8(output.stdout)
            .expect("JSON is UTF-8")
            .lines()
            .map(|line| {
                let answer: serde_json::Value = serde_json::from_str(line).expect("JSON");
                answer["backend"].as_str().map(str::to_owned)
            })
            .collect()
    }
}

/// Steele and Vigna's SplitMix64: the same hosts every time.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.next() % bound as u64).expect("small")
    }

    fn pick<'a, T: ?Sized>(&mut self, from: &[&'a T]) -> &'a T {
        from[self.below(from.len())]
    }
}

fn site_name(id: u64) -> String {
    format!("site{id}.example.test")
}

/// A host: mostly a site's, spelled in some way a client may; else one that no site has, or no host at all.
fn host(random: &mut Random) -> Vec<u8> {
    let mut name = site_name(random.next() % (SITES + SITES / 10) + 1).into_bytes();
    match random.below(10) {
        0..=4 => {}
        5 => name.make_ascii_uppercase(),
        6 => name.extend_from_slice(
            random
                .pick(&[
                    ".", ":80", ":8080", ".:443", ":", ".:", "..", ":0", ":65536", ":http", ":8 0",
                ])
                .as_bytes(),
        ),
        7 => {
            let at = random.below(name.len());
            name[at] = random.next().to_le_bytes()[0];
        }
        8 => {
            let at = random.below(name.len());
            let more = random.pick(&[
                "..", "-", "_", "%2e", "\0", "/", "\\", "@", " ", "\t", "[", "]", "xn--", "\u{fc}",
                "\u{130}", "'", "\"", ";", "$host", "{", "*",
            ]);
            let rest = name.split_off(at);
            name.extend_from_slice(more.as_bytes());
            name.extend_from_slice(&rest);
        }
        _ => {
            let length = random.below(300);
            name = (0..length)
                .map(|_| random.next().to_le_bytes()[0])
                .collect();
        }
    }
    // What a header line cannot carry: its end, and white space around the value.
    name.retain(|byte| !matches!(byte, b'\r' | b'\n'));
    let name = name.trim_ascii().to_vec();
    if name.is_empty() { b"-".to_vec() } else { name }
}

#[test]
fn route_equals_nginx_for_a_hundred_thousand_hosts() {
    let root = Root::new();
    let mut balancer = Balancer::start(&root);
    let mut changes: Vec<Change> = (1..=SITES)
        .map(|id| {
            let name = Domain::parse(&site_name(id)).expect("a domain");
            let pin = (id % 50 == 0).then(|| {
                BackendId::new(u32::try_from(id / 50 % 5).expect("small") + 1).expect("not 0")
            });
            let record = SiteRecord {
                protocol: table::Protocol::Uwsgi,
                id: SiteId::new(id).expect("not 0"),
                primary: name.clone(),
                pin,
                enabled: true,
            };
            Change::PutHost(name, record)
        })
        .collect();
    changes.extend((1..=BACKENDS).map(|number| balancer.backend(number, 1, State::Active)));
    balancer.apply(changes);

    let change = |from, method, threshold| Placement {
        method,
        change: Some(SlowChange { from, threshold }),
    };
    use State::{Active, Disabled, Draining};
    let fixed = Placement::fixed;
    let states: [(Placement, [(u32, State); 5]); 10] = [
        (fixed(Method::Rendezvous), [(1, Active); 5]),
        (
            fixed(Method::Rendezvous),
            [
                (1, Active),
                (2, Active),
                (3, Active),
                (100, Active),
                (7, Active),
            ],
        ),
        (
            fixed(Method::Rendezvous),
            [
                (1, Active),
                (1, Draining),
                (1, Disabled),
                (1, Active),
                (1, Active),
            ],
        ),
        (
            fixed(Method::Rendezvous),
            [
                (1, Draining),
                (9, Draining),
                (1, Disabled),
                (1, Disabled),
                (1, Draining),
            ],
        ),
        (fixed(Method::Rendezvous), [(1, Disabled); 5]),
        (fixed(Method::Python64), [(1, Active); 5]),
        (
            fixed(Method::Python64),
            [
                (1, Active),
                (1, Disabled),
                (3, Draining),
                (1, Active),
                (1, Active),
            ],
        ),
        (
            fixed(Method::Python32),
            [
                (1, Active),
                (1, Active),
                (1, Active),
                (1, Draining),
                (2, Active),
            ],
        ),
        (
            change(Method::Python64, Method::Rendezvous, u64::MAX / 3),
            [(1, Active); 5],
        ),
        (
            change(Method::Python32, Method::Rendezvous, u64::MAX / 3 * 2),
            [
                (1, Active),
                (4, Active),
                (1, Disabled),
                (1, Draining),
                (1, Active),
            ],
        ),
    ];
    let mut random = Random(2026);
    for (number, (placement, backends)) in states.into_iter().enumerate() {
        let mut changes = vec![Change::SetPlacement(placement)];
        changes.extend(
            (1..=BACKENDS)
                .zip(backends)
                .map(|(number, (weight, state))| balancer.backend(number, weight, state)),
        );
        balancer.apply(changes);
        let hosts: Vec<_> = (0..HOSTS).map(|_| host(&mut random)).collect();
        let (nginx, route) = (balancer.nginx_s(&hosts), balancer.route_s(&hosts));
        assert_eq!(route.len(), hosts.len());
        for ((host, nginx), route) in hosts.iter().zip(&nginx).zip(&route) {
            assert_eq!(
                nginx,
                route,
                "state {number}: nginx (left) and paasctl route (right) for {}",
                host.escape_ascii()
            );
        }
        let reached = nginx.iter().flatten().count();
        // In one state no backend may be given a request.
        assert_eq!(
            reached == 0,
            number == 4,
            "state {number}: {reached} of {HOSTS} reached a backend"
        );
    }
    balancer.nginx.assert_healthy();
}

#[test]
fn explain_lists_every_backend_in_the_order_in_which_nginx_asks_them() {
    use State::{Active, Disabled, Draining};
    let root = Root::new();
    let mut balancer = Balancer::start(&root);
    let name = |name: &str| Domain::parse(name).expect("a domain");
    let site = |id, domain: &str, pin: Option<u32>| {
        let record = SiteRecord {
            protocol: table::Protocol::Uwsgi,
            id: SiteId::new(id).expect("not 0"),
            primary: name(domain),
            pin: pin.and_then(BackendId::new),
            enabled: true,
        };
        Change::PutHost(name(domain), record)
    };
    let states = |balancer: &Balancer, states: [State; 5]| -> Vec<Change> {
        (1..=BACKENDS)
            .zip(states)
            .map(|(number, state)| balancer.backend(number, 1, state))
            .collect()
    };
    let mut changes = states(&balancer, [Active, Disabled, Draining, Active, Active]);
    changes.extend([site(1, "free.test", None), site(2, "pinned.test", Some(3))]);
    balancer.apply(changes);

    let ranked = |balancer: &Balancer, host: &str| -> Vec<(String, Option<u64>, String)> {
        let text = balancer.paasctl.ok(&["route", host, "--explain", "--json"]);
        let answer: serde_json::Value = serde_json::from_str(&text).expect("JSON");
        let candidates = answer["candidates"].as_array().expect("candidates");
        candidates
            .iter()
            .map(|one| {
                let word = |key: &str| one[key].as_str().expect("a word").to_owned();
                (word("backend"), one["rank"].as_u64(), word("why"))
            })
            .collect()
    };
    let free = ranked(&balancer, "free.test");
    let ranks: Vec<_> = free.iter().map(|(_, rank, _)| *rank).collect();
    assert_eq!(ranks, [Some(1), Some(2), Some(3), Some(4), None]);
    assert_eq!(free[4].0, "b2", "disabled never: {free:?}");
    let drained = free.iter().find(|(name, ..)| name == "b3");
    assert!(
        drained.is_some_and(|(.., why)| why.starts_with("draining")),
        "{free:?}"
    );
    let pinned = ranked(&balancer, "pinned.test");
    assert_eq!(pinned[0].0, "b3");
    assert!(
        pinned[0].2.contains("pinned") && pinned[0].2.contains("draining"),
        "{pinned:?}"
    );

    // Each in turn is what nginx asks when those before it are out of service.
    for (backend, rank, _) in free.iter().filter(|(_, rank, _)| rank.is_some()) {
        let answered = balancer.nginx_s(&[b"free.test".to_vec()]);
        assert_eq!(answered, [Some(backend.clone())], "rank {rank:?}");
        let number = backend[1..].parse().expect("a number");
        let change = balancer.backend(number, 1, Disabled);
        balancer.apply(vec![change]);
    }
    assert_eq!(balancer.nginx_s(&[b"free.test".to_vec()]), [None]);
    balancer.nginx.assert_healthy();
}
