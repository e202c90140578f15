//! Many first visitors of a sleeping site at once: one start, and every one of them gets a right answer.

use paas_tests::apps::Recorder;
use paas_tests::{Platform, Request, Response, Root, crowd};

/// Sends `count` requests at once.
fn at_once(port: u16, count: usize, request: impl Fn(usize) -> Request) -> Vec<Response> {
    let visitors = crowd::at_once(port, (0..count).map(request));
    visitors
        .into_iter()
        .map(|visitor| visitor.answer().answer)
        .collect()
}

/// Every request answered right, each run once, and only one start.
fn check(site: &Recorder, answers: &[Response], expected: impl Fn(usize) -> String) {
    for (number, answer) in answers.iter().enumerate() {
        let text = answer.expect(200);
        let start = expected(number);
        assert!(
            text.starts_with(&start),
            "request {number} got {text:?} instead of {start:?}"
        );
    }
    let mut ran = site.requests();
    ran.sort();
    ran.dedup();
    assert_eq!(
        (ran.len(), site.requests().len()),
        (answers.len(), answers.len()),
        "each ran exactly once"
    );
    assert_eq!(site.starts(), 1, "one start however many wait");
}

#[test]
fn two_hundred_gets_and_posts() {
    let root = Root::new();
    let platform = Platform::start(&root);
    let site = platform.recorder("many.test");
    let request = |number: usize| {
        let path = format!("/{number}");
        if number.is_multiple_of(2) {
            Request::get("many.test", &path)
        } else {
            Request::post("many.test", &path, format!("body {number}"))
        }
    };
    let answers = at_once(platform.port(), 200, request);
    check(&site, &answers, |number| {
        if number % 2 == 0 {
            format!("GET /{number} 0 ")
        } else {
            format!("POST /{number} {} ", format!("body {number}").len())
        }
    });
    platform.assert_healthy();
}

#[test]
fn five_hundred_gets() {
    let root = Root::new();
    let platform = Platform::start(&root);
    let site = platform.recorder("many.test");
    let answers = at_once(platform.port(), 500, |number| {
        Request::get("many.test", &format!("/{number}"))
    });
    check(&site, &answers, |number| format!("GET /{number} 0 "));
    platform.assert_healthy();
}

#[test]
fn five_hundred_posts_of_a_megabyte() {
    let root = Root::new();
    let platform = Platform::start(&root);
    let site = platform.recorder("many.test");
    let answers = at_once(platform.port(), 500, |number| {
        // A body of its own for each, so that the sums in the answers tell them apart.
        let mut body = vec![b'.'; 1_000_000];
        body.splice(..4, u32::try_from(number).expect("small").to_be_bytes());
        Request::post("many.test", &format!("/{number}"), body)
    });
    check(&site, &answers, |number| format!("POST /{number} 1000000 "));
    let sums: std::collections::BTreeSet<String> = answers
        .iter()
        .map(|answer| {
            answer
                .text()
                .split(' ')
                .next_back()
                .unwrap_or_default()
                .to_owned()
        })
        .collect();
    assert_eq!(sums.len(), 500, "every body arrived as it was sent");
    platform.assert_healthy();
}
