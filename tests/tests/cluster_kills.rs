//! Processes of a cluster (network namespaces) are killed with `kill -9` under load: whoever is not told by a broken connection notices
//! nothing, nothing that may not be is run twice, and everything is there again without a person.

use std::time::{Duration, Instant};

use paas_tests::process::Seen;
use paas_tests::traffic::{Counting, Visit};
use paas_tests::{Cluster, Root, Traffic, times, wait};

/// What is killed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Victim {
    Worker,
    Nginx,
    Emperor,
    Daemon,
}

/// When a machine lost what.
#[derive(Debug)]
struct Kill {
    at: Instant,
    machine: String,
    victim: Victim,
}

impl Kill {
    fn strike(cluster: &Cluster<'_>, name: &str, victim: Victim) -> Kill {
        let machine = cluster.machine(name);
        let at = Instant::now();
        let one = match victim {
            Victim::Worker => machine.workers().into_iter().next().expect("a worker"),
            Victim::Nginx => machine.nginx(),
            Victim::Emperor => machine.emperor(),
            Victim::Daemon => machine.daemon(),
        };
        machine.kill_one(&one);
        // Another one, before the next is killed.
        let is_back: &dyn Fn() -> bool = match victim {
            Victim::Worker => &|| !machine.workers().is_empty(),
            Victim::Nginx => &|| machine.nginx().pid != one.pid && !machine.workers().is_empty(),
            Victim::Emperor => &|| machine.emperor().pid != one.pid,
            Victim::Daemon => &|| machine.daemon_status().is_some(),
        };
        wait::until_true(&format!("{name}'s next {victim:?}"), is_back);
        Kill {
            at,
            machine: name.to_owned(),
            victim,
        }
    }

    /// Whether it may have cost a visitor the answer: a balancer's nginx any that was under way, a backend's nginx or Emperor one that may
    /// have been run and may not be run again. A daemon may cost nobody anything.
    fn excuses(&self, visit: &Visit) -> bool {
        let was_under_way = visit.sent < self.at + Duration::from_secs(2)
            && visit.sent + visit.took + Duration::from_millis(50) > self.at;
        let may = match (self.machine.starts_with("balancer"), self.victim) {
            (_, Victim::Daemon) => false,
            (true, _) => true,
            (false, _) => visit.method == "POST",
        };
        may && was_under_way
    }
}

/// As many kills as were asked for, at places that look random and are the same in every run.
fn places(count: usize) -> Vec<(String, Victim)> {
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    let mut next = move |below: u64| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state % below
    };
    (0..count)
        .map(|_| match next(6) {
            number @ 0..=1 => {
                let victims = [Victim::Worker, Victim::Nginx, Victim::Daemon];
                let at = usize::try_from(next(3)).unwrap_or(0);
                (format!("balancer{}", number + 1), victims[at])
            }
            number => {
                let victims = [
                    Victim::Worker,
                    Victim::Nginx,
                    Victim::Emperor,
                    Victim::Daemon,
                ];
                let at = usize::try_from(next(4)).unwrap_or(0);
                (format!("b{}", number - 1), victims[at])
            }
        })
        .collect()
}

fn kills(kills: &[(String, Victim)]) {
    let root = Root::new();
    let Some(cluster) = Cluster::start(&root) else {
        return;
    };
    let sites = Counting::add_many(&cluster, 8);
    let traffic = Traffic::arriving(&cluster, &sites, Duration::from_millis(8));
    traffic.more(400);
    let kills: Vec<Kill> = kills
        .iter()
        .map(|(machine, victim)| {
            let kill = Kill::strike(&cluster, machine, *victim);
            traffic.more(100);
            kill
        })
        .collect();
    traffic.more(400);
    let visits = traffic.end();
    eprintln!(
        "{} kills: {} visits, {} failed, the slowest took {:?}",
        kills.len(),
        visits.0.len(),
        visits.failures().len(),
        visits.slowest()
    );
    visits.assert_ran_once(&sites);
    for visit in visits.failures() {
        assert!(
            kills.iter().any(|kill| kill.excuses(visit)),
            "{visit:#?} after {kills:#?}"
        );
    }
    for site in &sites {
        for answer in cluster.get(&site.domain, "/at-the-end") {
            let _ = answer.expect(200);
        }
    }
    // What runs is known, and what is known runs.
    for backend in cluster.backends() {
        wait::until_true(
            &format!("{}'s vassals to be its sites", backend.name),
            || {
                let directory = backend.root.join("run/paas/vassals");
                let vassals = std::fs::read_dir(directory).expect("it is there").count();
                vassals == backend.awake()
            },
        );
    }
    let workers: Vec<Seen> = cluster.machine("balancer1").workers();
    assert_eq!(workers.len(), 2, "all workers are there again");
}

#[test]
fn whatever_is_killed_on_a_backend_costs_no_visitor_an_answer_that_may_be_asked_for_again() {
    let victims = [
        Victim::Worker,
        Victim::Nginx,
        Victim::Emperor,
        Victim::Daemon,
    ];
    let all: Vec<_> = victims.map(|victim| ("b1".to_owned(), victim)).into();
    kills(&all);
}

#[test]
fn processes_killed_anywhere_leave_the_platform_whole() {
    kills(&places(times(8, 300)));
}
