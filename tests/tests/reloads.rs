//! nginx's reloads under load: no request over a new connection is lost, and the module survives all of them.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;

use paas_tests::platform::Options;
use paas_tests::{Platform, Request, Root, nginx, times, wait};

#[test]
fn reloads_of_both_nginxes_under_load_lose_nothing() {
    let root = Root::new();
    let platform = Platform::with(
        &root,
        Options {
            backends: 2,
            ..Options::default()
        },
    );
    let sites: Vec<_> = (0..4)
        .map(|number| platform.recorder(&format!("s{number}.test")))
        .collect();
    let (stop, answered) = (
        Arc::new(AtomicBool::new(false)),
        Arc::new(AtomicUsize::new(0)),
    );
    let visitors: Vec<_> = (0..4)
        .map(|visitor| {
            let (stop, answered, port) =
                (Arc::clone(&stop), Arc::clone(&answered), platform.port());
            thread::spawn(move || {
                let mut number = 0;
                while !stop.load(Ordering::SeqCst) {
                    number += 1;
                    let (host, path) = (format!("s{visitor}.test"), format!("/{number}"));
                    let request = if number % 2 == 0 {
                        Request::get(host, &path)
                    } else {
                        Request::post(host, &path, "x")
                    };
                    let answer = request.send(port);
                    assert!(
                        answer.expect(200).contains(&format!(" {path} ")),
                        "{answer:?}"
                    );
                    answered.fetch_add(1, Ordering::SeqCst);
                }
            })
        })
        .collect();
    for _ in 0..times(10, 200) {
        for machine in ["balancer", "b1", "b2"] {
            nginx::reload(platform.nginx(machine).pid);
        }
        let before = answered.load(Ordering::SeqCst);
        wait::until_true("some more requests", || {
            answered.load(Ordering::SeqCst) > before + 20
        });
    }
    stop.store(true, Ordering::SeqCst);
    for visitor in visitors {
        visitor.join().expect("every request was answered right");
    }
    let ran: usize = sites.iter().map(|site| site.requests().len()).sum();
    assert_eq!(ran, answered.load(Ordering::SeqCst), "each ran once");
    assert!(sites.iter().all(|site| site.starts() == 1));
    platform.assert_healthy();
}

#[test]
fn a_parked_request_survives_a_reload_of_both_nginxes() {
    let root = Root::new();
    let platform = Platform::start(&root);
    let site = platform.recorder("a.test");
    site.close();
    let port = platform.port();
    let parked = thread::spawn(move || Request::post("a.test", "/parked", "body").send(port));
    platform.wait_for_parked("a.test", 1);
    for machine in ["balancer", "b1"] {
        nginx::reload(platform.nginx(machine).pid);
    }
    let second = thread::spawn(move || Request::get("a.test", "/second").send(port));
    platform.wait_for_parked("a.test", 2);
    site.open();
    assert!(
        parked
            .join()
            .expect("an answer")
            .expect(200)
            .starts_with("POST /parked 4 ")
    );
    assert!(
        second
            .join()
            .expect("an answer")
            .expect(200)
            .starts_with("GET /second 0 ")
    );
    assert_eq!(site.starts(), 1);
    platform.assert_healthy();
}
