//! Somebody sets the clocks of a cluster's machines (network namespaces), forth and back, all of them or some: nobody notices.

use std::collections::BTreeSet;
use std::time::Duration;

use paas_tests::apps::Recorder;
use paas_tests::cluster::Options;
use paas_tests::traffic::Counting;
use paas_tests::{Cluster, Root, Traffic, process, wait};

const DAY: i64 = 86_400;

/// A site that writes down what happens to it.
fn recorder(cluster: &Cluster<'_>, domain: &str, idle: &str) -> Recorder {
    let site = Recorder::new(cluster.root(), domain);
    cluster.add_site(domain, site.directory(), &["--idle", idle]);
    wait::until_true("every machine to know it", || {
        let answers = cluster.get(domain, "/");
        answers.iter().all(|answer| answer.status == 200)
    });
    site
}

/// The process that answers through each balancer: the same.
fn master(cluster: &Cluster<'_>, domain: &str) -> u32 {
    let answers = cluster.get(domain, "/");
    let masters: Vec<u32> = answers.iter().map(process::master).collect();
    assert!(
        masters.iter().all(|master| *master == masters[0]),
        "{masters:?}"
    );
    masters[0]
}

#[test]
fn clocks_are_set_and_requests_are_routed_sites_wake_stay_awake_and_sleep() {
    let root = Root::new();
    let options = Options {
        clocks: true,
        ..Options::default()
    };
    let Some(cluster) = Cluster::with(&root, &options) else {
        return;
    };
    let sites = Counting::add_many(&cluster, 8);
    let _awake = recorder(&cluster, "awake.test", "1h");
    let tired = recorder(&cluster, "tired.test", "1s");
    let awake = master(&cluster, "awake.test");
    let home = cluster.machine(&cluster.home("tired.test")).name.clone();
    let traffic = Traffic::arriving(&cluster, &sites, Duration::from_millis(8));
    traffic.more(200);

    let some = ["balancer1", home.as_str()];
    let all = ["balancer1", "balancer2", "b1", "b2", "b3", "b4"];
    let settings: [(&[&str], i64); 5] = [
        (&some, DAY),
        (&all, 3 * 365 * DAY),
        (&all, -365 * DAY),
        (&some, -1),
        (&all, 0),
    ];
    for (number, (machines, seconds)) in settings.into_iter().enumerate() {
        for machine in machines {
            cluster.machine(machine).set_clock(seconds);
        }
        traffic.more(200);
        // Nobody has slept long enough, and nobody is taken for dead.
        assert_eq!(master(&cluster, "awake.test"), awake, "{seconds} s");
        for balancer in cluster.balancers() {
            let ill = balancer.ill();
            assert!(
                ill.is_empty(),
                "{seconds} s: {} says {ill:?}",
                balancer.name
            );
        }
        // What sleeps wakes, what is told is done, and what rests sleeps.
        let domain = format!("new{number}.test");
        let new = recorder(&cluster, &domain, "1h");
        let first = master(&cluster, &domain);
        cluster
            .paasctl_at(&cluster.home(&domain))
            .ok(&["reload-site", &domain]);
        assert_ne!(master(&cluster, &domain), first);
        assert_eq!(new.starts(), 2);
        let starts = tired.starts();
        let _ = master(&cluster, "tired.test");
        wait::until_true("it to sleep and to wake again", || {
            std::thread::sleep(Duration::from_millis(1_100));
            let _ = master(&cluster, "tired.test");
            tired.starts() > starts
        });
    }
    for machine in all {
        let log = cluster.machine(machine).log("paasctl.log");
        let years: BTreeSet<&str> = log.lines().filter_map(|line| line.get(..4)).collect();
        assert!(years.len() >= 3, "{machine} lived in {years:?} only");
    }
    let visits = traffic.end();
    visits.assert_no_failures();
    visits.assert_ran_once(&sites);
    cluster.assert_healthy();
}
