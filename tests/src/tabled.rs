//! A balancer whose backends are those of a table that the test writes, with a stub behind each.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use routing::{Domain, Placement, State, Weight};
use table::{BackendId, BackendRecord, Change, Options, SiteId, SiteRecord, Writer};

use crate::stub::{Answer, Received};
use crate::{Nginx, Request, Response, Root, Stub, nginx};

/// How many sites the table has: `site-0.test` and so on.
pub const SITES: usize = 60;

/// The balancer, its table and its backends.
pub struct Tabled {
    /// Where the balancer listens.
    pub port: u16,
    /// The backends, as they were at the start.
    pub records: Vec<BackendRecord>,
    /// The balancer.
    pub nginx: Nginx,
    stubs: BTreeMap<usize, Stub>,
    behaviour: Arc<Behaviour>,
    writer: Writer,
    generation: u64,
}

type Behaviour = dyn Fn(usize, &Received) -> Answer + Send + Sync;

/// What differs from one test to another.
#[derive(Clone, Copy, Default)]
pub struct Lines<'a> {
    /// For the configuration's top level.
    pub main: &'a str,
    /// For the `http` block.
    pub http: &'a str,
    /// For the location.
    pub location: &'a str,
    /// So many backends more have stubs but are not in the table yet.
    pub spare: u16,
}

impl Tabled {
    /// Starts everything; `behaviour` gets the backend's index.
    #[must_use]
    pub fn start(
        root: &Root,
        count: u16,
        behaviour: impl Fn(usize, &Received) -> Answer + Send + Sync + 'static,
    ) -> Tabled {
        Tabled::start_with(root, count, Lines::default(), behaviour)
    }

    /// As [`Tabled::start`], with lines of the test's own.
    ///
    /// # Panics
    /// When something does not start.
    #[must_use]
    pub fn start_with(
        root: &Root,
        count: u16,
        lines: Lines<'_>,
        behaviour: impl Fn(usize, &Received) -> Answer + Send + Sync + 'static,
    ) -> Tabled {
        let (port, first) = (root.port(), root.ports(count + lines.spare));
        let records: Vec<BackendRecord> = (0..count + lines.spare)
            .map(|number| record(first, number))
            .collect();
        let table = root.join("table");
        let mut writer = Writer::open_or_create(
            &table,
            Options {
                group: Some(nginx::group()),
                max_readers: 64,
                ..Options::default()
            },
        )
        .expect("a table can be made");
        writer.rebuild(1, content(first, count)).expect("written");
        let http = format!(
            "paas_table {};
             {}
             upstream backends {{ paas_hash; paas_keepalive 64; }}
             server {{ listen 127.0.0.1:{port} default_server reuseport; paas_role balancer; location / {{
                 proxy_pass http://backends; proxy_http_version 1.1; proxy_set_header Connection '';
                 add_header X-Backend $paas_backend always; add_header X-Way $upstream_addr always;
                 add_header X-Pid $pid always; {} }} }}",
            table.display(),
            lines.http,
            lines.location,
        );
        let nginx = Nginx::start_with(root, "balancer", lines.main, &http, port);
        let mut tabled = Tabled {
            port,
            records,
            nginx,
            stubs: BTreeMap::new(),
            behaviour: Arc::new(behaviour),
            writer,
            generation: 1,
        };
        for backend in 0..tabled.records.len() {
            tabled.revive(backend);
        }
        tabled
    }

    /// The backend listens no more, and its connections are gone.
    pub fn kill(&mut self, backend: usize) {
        self.stubs.remove(&backend);
    }

    /// The backend listens again.
    pub fn revive(&mut self, backend: usize) {
        let behaviour = Arc::clone(&self.behaviour);
        let stub = Stub::tcp(self.records[backend].address.port(), move |request| {
            behaviour(backend, request)
        });
        self.stubs.insert(backend, stub);
    }

    /// Changes the table.
    ///
    /// # Panics
    /// When that fails.
    pub fn apply(&mut self, changes: impl IntoIterator<Item = Change>) {
        self.generation += 1;
        self.writer
            .apply(self.generation, changes)
            .expect("written");
    }

    /// Gives the table so many sites in all.
    pub fn add_sites(&mut self, count: usize) {
        self.apply((SITES..count).map(site));
    }

    /// A visit of a site.
    #[must_use]
    pub fn ask(&self, site: usize) -> Response {
        Request::get(format!("site-{site}.test"), "/").send(self.port)
    }

    /// The backend of a site if all of these are well.
    ///
    /// # Panics
    /// When there is none.
    #[must_use]
    pub fn home_among(&self, site: usize, backends: Range<usize>) -> usize {
        let candidates = self.records[backends].iter().map(BackendRecord::candidate);
        let key = format!("site-{site}.test");
        routing::Backends::new(candidates)
            .choose(key.as_bytes(), None, &Placement::default(), |_| true)
            .expect("one is active")
    }

    /// The backend of a site if all are well.
    #[must_use]
    pub fn home(&self, site: usize) -> usize {
        self.home_among(site, 0..self.records.len())
    }

    /// Sites whose backend this is, if all are well.
    #[must_use]
    pub fn sites_of(&self, backend: usize) -> Vec<usize> {
        (0..SITES)
            .filter(|site| self.home(*site) == backend)
            .collect()
    }

    /// The backends an answer came through, in the order in which they were tried.
    ///
    /// # Panics
    /// When the answer is not one of this balancer.
    #[must_use]
    pub fn way(&self, answer: &Response) -> Vec<usize> {
        let way = answer.header("X-Way").expect("it says so");
        let backend = |address: &str| {
            self.records
                .iter()
                .position(|record| record.address.to_string() == address)
                .expect("a backend of ours")
        };
        way.split(", ").map(backend).collect()
    }

    /// What a backend has received since it was started last.
    #[must_use]
    pub fn received(&self, backend: usize) -> Vec<Received> {
        self.stubs
            .get(&backend)
            .map_or_else(Vec::new, Stub::received)
    }

    /// How many connections a backend has open.
    #[must_use]
    pub fn open(&self, backend: usize) -> usize {
        self.stubs.get(&backend).map_or(0, Stub::open)
    }

    /// Closes all connections of a backend, which goes on listening.
    pub fn hang_up(&self, backend: usize) {
        if let Some(stub) = self.stubs.get(&backend) {
            stub.hang_up();
        }
    }
}

/// A table with so many backends, at ports from `first` on, and all sites.
pub fn content(first: u16, count: u16) -> impl Iterator<Item = Change> {
    let backends = (0..count).map(move |number| Change::PutBackend(record(first, number)));
    backends.chain((0..SITES).map(site))
}

fn record(first: u16, number: u16) -> BackendRecord {
    BackendRecord {
        id: BackendId::new(u32::from(number) + 1).expect("not 0"),
        name: format!("b{number}"),
        key: format!("b{number}").into_bytes(),
        address: ([127, 0, 0, 1], first + number).into(),
        weight: Weight::ONE,
        state: State::Active,
    }
}

fn site(number: usize) -> Change {
    let name = Domain::parse(&format!("site-{number}.test")).expect("a domain");
    let record = SiteRecord {
        protocol: table::Protocol::Uwsgi,
        id: SiteId::new(number as u64 + 1).expect("not 0"),
        primary: name.clone(),
        pin: None,
        enabled: true,
    };
    Change::PutHost(name, record)
}
