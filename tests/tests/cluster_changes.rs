//! Backends come and go in a cluster of real machines (network namespaces) while visitors visit: nobody notices.

use paas_tests::traffic::Counting;
use paas_tests::{Cluster, Root, Traffic, times};

#[test]
fn backends_are_added_drained_and_removed_under_load_and_no_request_fails() {
    let root = Root::new();
    let Some(cluster) = Cluster::start(&root) else {
        return;
    };
    let sites = Counting::add_many(&cluster, 8);
    // As many as the promise says, with `scripts/test --long`.
    let total = times(2_500, 50_000);
    let traffic = Traffic::of_visitors(&cluster, &sites, 8);
    traffic.more(total / 10);
    while traffic.count() < total {
        for (backend, address) in cluster
            .backends()
            .map(|backend| (backend.name.as_str(), backend.address.to_string()))
        {
            cluster.paasctl().ok(&["drain-backend", backend]);
            traffic.more(total / 50);
            cluster.paasctl().ok(&["enable-backend", backend]);
            traffic.more(total / 50);
            cluster.paasctl().ok(&["disable-backend", backend]);
            traffic.more(total / 50);
            cluster.paasctl().ok(&["remove-backend", backend]);
            traffic.more(total / 50);
            cluster.paasctl().ok(&["add-backend", backend, &address]);
            traffic.more(total / 50);
        }
    }
    let visits = traffic.end();
    eprintln!(
        "{} visits, the slowest took {:?}; {} requests were run more often than once",
        visits.0.len(),
        visits.slowest(),
        visits.run_again(&sites)
    );
    visits.assert_no_failures();
    visits.assert_ran_once(&sites);
    assert_eq!(visits.run_again(&sites), 0);
    cluster.assert_healthy();
}
