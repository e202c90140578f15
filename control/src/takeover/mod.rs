//! Taking over a deployment that another balancer placed: which of our methods gives each host the backend that it had.
//! Pure: the hosts and backends come from [`lines`], one after the other; memory grows with the hosts, not with the lines.
pub mod lines;

use routing::{Backends, Candidate, Method, Placement, State, Weight};
use std::collections::HashMap;

/// The methods that are compared, in the order they are reported in.
pub const METHODS: [Method; 3] = [Method::Python64, Method::Python32, Method::Rendezvous];

/// A backend of the deployment as it was.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Server {
    /// What stands for it in placement: as it is written in the upstream block, or its key in the registry.
    pub key: String,
    /// Its share.
    pub weight: Weight,
    /// Everything a log may call it.
    pub names: Vec<String>,
}

/// A host that a method would place elsewhere.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Difference {
    /// The line it was found in, from 1.
    pub line: u64,
    /// The host.
    pub host: String,
    /// Where it was.
    pub was: String,
    /// Where the method puts it.
    pub would_be: String,
}

/// What was counted for one method.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Count {
    /// The method.
    pub method: Method,
    /// Lines it agrees with.
    pub lines: u64,
    /// Hosts all of whose lines it agrees with.
    pub hosts: u64,
    /// The first hosts it differs in, each once.
    pub first: Vec<Difference>,
}

/// What a method says of one host, and whether the host was ever elsewhere.
#[derive(Debug, Clone, Copy)]
struct Host {
    places: [usize; METHODS.len()],
    differs: [bool; METHODS.len()],
}

/// What became of a pair.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Taken {
    /// It was compared.
    Compared,
    /// No server has that name.
    UnknownBackend,
    /// Nothing is hashed for that host.
    UnknownHost,
}

/// Compares pair by pair.
#[derive(Debug)]
pub struct Check {
    servers: Vec<Server>,
    backends: Backends,
    by_name: HashMap<String, usize>,
    /// None: no method places it.
    hosts: HashMap<Box<[u8]>, Option<Host>>,
    counts: [Count; METHODS.len()],
    lines: u64,
    shown: usize,
}

impl Check {
    /// A check against these servers in their configured order; of each method's differences `shown` are kept.
    pub fn new(servers: Vec<Server>, shown: usize) -> Self {
        let backends = servers.iter().map(|server| Candidate {
            key: server.key.as_bytes(),
            weight: server.weight,
            state: State::Active,
        });
        let backends = Backends::new(backends);
        let names = servers
            .iter()
            .enumerate()
            .flat_map(|(at, server)| server.names.iter().map(move |name| (name.clone(), at)));
        Self {
            by_name: names.collect(),
            backends,
            servers,
            hosts: HashMap::new(),
            counts: METHODS.map(|method| Count {
                method,
                lines: 0,
                hosts: 0,
                first: Vec::new(),
            }),
            lines: 0,
            shown,
        }
    }

    /// Takes one pair: in this line `host` was served by the backend of this name. `key` answers what is hashed for a
    /// host; it is asked once for each.
    pub fn take(
        &mut self,
        line: u64,
        host: &[u8],
        name: &str,
        key: impl FnOnce() -> Option<Vec<u8>>,
    ) -> Taken {
        let Some(&was) = self.by_name.get(name) else {
            return Taken::UnknownBackend;
        };
        if !self.hosts.contains_key(host) {
            let new = key().map(|key| self.place(&key));
            self.hosts.insert(host.into(), new);
        }
        let Some(Some(seen)) = self.hosts.get_mut(host) else {
            return Taken::UnknownHost;
        };
        self.lines += 1;
        let methods = self.counts.iter_mut().zip(seen.places);
        for ((count, place), differs) in methods.zip(&mut seen.differs) {
            if place == was {
                count.lines += 1;
            } else if !std::mem::replace(differs, true) {
                count.hosts -= 1;
                if count.first.len() < self.shown {
                    count.first.push(Difference {
                        line,
                        host: String::from_utf8_lossy(host).into_owned(),
                        was: self.servers[was].key.clone(),
                        would_be: self.servers[place].key.clone(),
                    });
                }
            }
        }
        Taken::Compared
    }

    fn place(&mut self, key: &[u8]) -> Host {
        let place = |method| {
            let placement = Placement::fixed(method);
            // All are active and usable: there is an answer.
            self.backends
                .choose(key, None, &placement, |_| true)
                .unwrap_or(0)
        };
        let places = METHODS.map(place);
        self.counts.iter_mut().for_each(|count| count.hosts += 1);
        Host {
            places,
            differs: [false; METHODS.len()],
        }
    }

    /// How many lines were compared.
    pub fn lines(&self) -> u64 {
        self.lines
    }

    /// How many different hosts were in them.
    pub fn hosts(&self) -> usize {
        self.hosts.values().flatten().count()
    }

    /// The counts of each method.
    pub fn counts(&self) -> &[Count] {
        &self.counts
    }
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
