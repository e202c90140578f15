//! The registry is gone: a cluster (network namespaces) goes on without it, and follows it again when it is back.

use std::time::{Duration, SystemTime};

use paas_tests::cluster::Machine;
use paas_tests::traffic::Counting;
use paas_tests::{Cluster, Root, Traffic, wait};

/// Its daemon has begun without the registry.
fn wait_for_daemon_without_registry(machine: &Machine) {
    wait::until_true("a daemon that goes on without registry", || {
        machine.log("paasctl.log").contains("the registry is gone")
            && machine.daemon_status().is_some()
    });
}

#[test]
fn without_the_registry_requests_are_routed_sites_run_and_sleeping_ones_wake() {
    let root = Root::new();
    let Some(cluster) = Cluster::start(&root) else {
        return;
    };
    let sites = Counting::add_many(&cluster, 4);
    let asleep: Vec<Counting> = (0..6)
        .map(|number| Counting::add(&cluster, &format!("asleep{number}.test"), &[]))
        .collect();
    let added = SystemTime::now();
    wait::until_true("every backend to have its copy", || {
        cluster.backends().all(|backend| {
            let copy = backend.root.join("var/lib/paas/registry-copy.db");
            let written = copy.metadata().and_then(|found| found.modified());
            written.is_ok_and(|written| written > added)
        })
    });
    let traffic = Traffic::arriving(&cluster, &sites, Duration::from_millis(8));
    traffic.more(200);

    let registry = root.join("registry");
    let machines = || cluster.balancers().chain(cluster.backends());
    for machine in machines() {
        machine.hide(&registry);
    }
    // Those that have read it and those that never could.
    let (early, late) = asleep.split_at(3);
    for site in early {
        for answer in cluster.get(&site.domain, "/wakes") {
            let _ = answer.expect(200);
        }
    }
    for machine in machines() {
        machine.kill_one(&machine.daemon());
    }
    machines().for_each(wait_for_daemon_without_registry);
    for site in late {
        for answer in cluster.get(&site.domain, "/wakes") {
            let _ = answer.expect(200);
        }
    }
    traffic.more(200);

    // The operator's machine still has it: what is done there is in force once the others have it again.
    let new = Counting::add(&cluster, "new.test", &[]);
    assert!(
        cluster
            .get(&new.domain, "/")
            .iter()
            .all(|answer| answer.status == 404),
        "nobody has heard of it"
    );
    for machine in machines() {
        machine.show(&registry);
    }
    wait::until_true("the balancers to follow the registry again", || {
        cluster
            .get(&new.domain, "/")
            .iter()
            .all(|answer| answer.status == 200)
    });
    let visits = traffic.end();
    visits.assert_no_failures();
    visits.assert_ran_once(&sites);
    cluster.assert_healthy();
}
