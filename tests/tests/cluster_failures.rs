//! A backend fails under load, in each way a machine can, in a cluster of real machines (network namespaces): visitors get their
//! answers from the others, nothing that may not be is run twice, and when it is well again it is used again.

use std::collections::HashSet;
use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use paas_tests::cluster::Options;
use paas_tests::traffic::{Counting, Visits};
use paas_tests::{Cluster, Root, Traffic, wait};

/// Promised is one second; the machine that runs this may be busy with other things. What was measured is printed.
const NOTICED: Duration = Duration::from_secs(3);
/// How long a backend stays away.
const AWAY: Duration = Duration::from_secs(5);

fn cluster(root: &Root) -> Option<Cluster<'_>> {
    let options = Options {
        // Sites come home soon, and nobody waits for long.
        balancer: "eject = { return = \"1s\" }\nread_timeout = \"6s\"\n".to_owned(),
        ..Options::default()
    };
    Cluster::with(root, &options)
}

/// Lets the visitors go on for so long.
fn go_on(traffic: &Traffic, since: Instant, time: Duration) {
    while since.elapsed() < time {
        traffic.more(1);
    }
}

/// Waits until a backend answers visitors again.
fn wait_for(traffic: &Traffic, backend: &str) {
    let now = Instant::now();
    wait::until_true(&format!("{backend} to serve again"), || {
        traffic.so_far().by(backend, now) > 0
    });
}

/// When the visits were sent for which a balancer has turned to a backend.
fn turned_to(cluster: &Cluster<'_>, visits: &Visits, backend: &str) -> Vec<Instant> {
    let address = cluster.machine(backend).address.to_string();
    let tried: HashSet<String> = cluster
        .access_log()
        .into_iter()
        .filter(|line| line.contains(&address))
        .filter_map(|line| Some(line.split(['"', ' ']).nth(8)?.split('?').next()?.to_owned()))
        .collect();
    assert!(!tried.is_empty(), "the log tells who was asked");
    visits
        .0
        .iter()
        .filter(|visit| tried.contains(&visit.path))
        .map(|visit| visit.sent)
        .collect()
}

fn fails(what: &str, fail: impl Fn(&Cluster<'_>, &str), mend: impl Fn(&Cluster<'_>, &str)) {
    let root = Root::new();
    let Some(cluster) = cluster(&root) else {
        return;
    };
    let sites = Counting::add_many(&cluster, 8);
    let backend = cluster.home("s0.test");
    let traffic = Traffic::arriving(&cluster, &sites, Duration::from_millis(8));
    traffic.more(400);
    let failed = Instant::now();
    fail(&cluster, &backend);
    go_on(&traffic, failed, AWAY);
    let mended = Instant::now();
    mend(&cluster, &backend);
    wait_for(&traffic, &backend);
    let visits = traffic.end();

    let turned: Vec<Duration> = turned_to(&cluster, &visits, &backend)
        .into_iter()
        .filter(|sent| (failed..mended).contains(sent))
        .map(|sent| sent - failed)
        .collect();
    let waited = visits
        .0
        .iter()
        .filter(|visit| visit.took > Duration::from_secs(1))
        .count();
    eprintln!(
        "{what}: {} visits, {} failed, {waited} waited for more than 1 s, at most {:?}; {} after it failed turned to it, the last {:?} after that",
        visits.0.len(),
        visits.failures().len(),
        visits.slowest(),
        turned.len(),
        turned.iter().max().copied().unwrap_or_default(),
    );
    visits.assert_ran_once(&sites);
    for visit in visits.failures() {
        // It may have been run, and nobody knows.
        assert_eq!(visit.method, "POST", "{visit:#?}");
        assert!(visit.sent < failed + NOTICED, "{visit:#?}");
    }
    assert!(
        turned.iter().all(|after| *after < NOTICED),
        "{backend} was still turned to: {turned:?}"
    );
    cluster.assert_healthy();
}

#[test]
fn an_unplugged_backend_is_left_out_and_comes_back_by_itself() {
    fails(
        "unplugged",
        |cluster, name| cluster.unplug(name),
        |cluster, name| cluster.plug(name),
    );
}

#[test]
fn a_backend_without_power_is_left_out_and_comes_back_by_itself() {
    fails(
        "off",
        |cluster, name| cluster.power_off(name),
        |cluster, name| cluster.power_on(name),
    );
}

#[test]
fn a_frozen_backend_is_left_out_and_comes_back_by_itself() {
    fails(
        "frozen",
        |cluster, name| drop(cluster.machine(name).freeze()),
        |cluster, name| cluster.machine(name).thaw(),
    );
}

#[test]
fn a_backend_that_comes_back_with_another_address_has_its_sites_again() {
    let root = Root::new();
    let Some(mut cluster) = cluster(&root) else {
        return;
    };
    let sites = Counting::add_many(&cluster, 8);
    let homes = |cluster: &Cluster<'_>| -> Vec<String> {
        sites
            .iter()
            .map(|site| cluster.home(&site.domain))
            .collect()
    };
    let before = homes(&cluster);
    let backend = before[0].clone();
    let traffic = Traffic::arriving(&cluster, &sites, Duration::from_millis(8));
    traffic.more(200);
    cluster.power_off(&backend);
    traffic.more(200);
    cluster.readdress(&backend, Ipv4Addr::new(10, 0, 0, 77));
    cluster.power_on(&backend);
    cluster
        .paasctl()
        .ok(&["set-backend", &backend, "--address", "10.0.0.77:80"]);
    wait_for(&traffic, &backend);
    assert_eq!(homes(&cluster), before, "no site has moved");
    traffic.more(200);
    let visits = traffic.end();
    visits.assert_ran_once(&sites);
    assert!(visits.failures().iter().all(|visit| visit.method == "POST"));
    cluster.assert_healthy();
}
