//! Health of a backend over random histories of several processes that share it.

use proptest::prelude::*;
use routing::health::{Action, Event, Health, Phase, Settings, is_panic};
use routing::rendezvous::key_hash;

#[derive(Debug, Clone, Copy)]
enum What {
    Chosen,
    Answered,
    Failed { ago: u64 },
    Up,
    Down { span: u64 },
}

fn history() -> impl Strategy<Value = Vec<(u64, What)>> {
    let what = prop_oneof![
        4 => Just(What::Chosen),
        2 => Just(What::Answered),
        4 => prop_oneof![Just(0), 0_u64..8_000].prop_map(|ago| What::Failed { ago }),
        1 => Just(What::Up),
        1 => (0_u64..4_000).prop_map(|span| What::Down { span }),
    ];
    prop::collection::vec((prop_oneof![0_u64..50, 0_u64..9_000], what), 0..200)
}

fn settings() -> impl Strategy<Value = Settings> {
    (1_u8..6, 1_u64..3_000, 0_u64..40_000, 1_u64..20_000).prop_map(
        |(failures, time, more, return_time)| Settings {
            failures,
            time,
            max_time: time + more,
            return_time,
        },
    )
}

proptest! {
    #[test]
    fn a_history_keeps_what_is_promised(settings in settings(), start in 1_u64..1 << 40, history in history()) {
        let (mut health, mut now) = (Health::default(), start);
        // Failures that count since the last answer, the latest time of an ejection, whether a trial is under way.
        let (mut failures, mut last_time, mut trial): (u32, Option<u64>, Option<u64>) = (0, None, None);
        for (passed, what) in history {
            now += passed;
            let event = match what {
                What::Chosen => Event::Chosen,
                What::Answered => Event::Answered,
                What::Failed { ago } => Event::Failed { sent: now - ago.min(now) },
                What::Up => Event::Up,
                What::Down { span } => Event::Down { until: now + span },
            };
            let before = health;
            let (after, action) = health.step(now, event, &settings);
            prop_assert_eq!(Health::from_word(after.to_word()), after);
            match action {
                Action::Eject(time) => {
                    prop_assert!(before.is_in_service() || trial.is_some(), "only once");
                    if before.is_in_service() {
                        prop_assert_eq!(failures + 1, u32::from(settings.failures), "so many in a row, no fewer and no more");
                    }
                    prop_assert!(time <= settings.max_time && time >= settings.time.min(settings.max_time));
                    if let Some(last) = last_time {
                        prop_assert!(time == (2 * last).min(settings.max_time) || time == settings.time.min(settings.max_time));
                    }
                    prop_assert_eq!(after.phase(), Phase::Ejected { until: now + time });
                    (last_time, trial, failures) = (Some(time), None, 0);
                }
                Action::Try => {
                    prop_assert!(!before.is_in_service() && before.may_be_tried(now));
                    prop_assert!(trial.is_none_or(|since| now - since >= 5_000), "one at a time");
                    trial = Some(now);
                }
                Action::Withdraw => {
                    prop_assert!(matches!(event, Event::Down { .. }), "by probes");
                    prop_assert!(!matches!(before.phase(), Phase::Down { .. }), "only once");
                    prop_assert!(!after.gets_requests() && !after.may_be_tried(now));
                    (trial, failures) = (None, 0);
                }
                Action::Readmit => {
                    let tried = trial.is_some() && event == Event::Answered;
                    let probed = matches!(before.phase(), Phase::Down { .. }) && event == Event::Up;
                    prop_assert!(tried || probed, "by the answer to a trial, or by probes if they took it out");
                    (trial, failures) = (None, 0);
                    prop_assert!(after.is_in_service());
                }
                Action::Avoid => prop_assert!(!before.is_in_service() && !before.may_be_tried(now)),
                Action::Nothing => match (event, before.phase()) {
                    (Event::Answered, _) => failures = 0,
                    (Event::Failed { sent }, Phase::InService { since, .. }) if sent >= since => failures += 1,
                    _ => (),
                },
            }
            prop_assert!(failures < u32::from(settings.failures));
            health = after;
        }
    }

    #[test]
    fn sites_come_back_one_by_one_and_stay(settings in settings(), since in 1_u64..1 << 40, sites in prop::collection::vec(any::<u64>(), 1..50)) {
        let health = Health::of_newcomer(since);
        for site in sites {
            let mut has_come = false;
            for twentieth in 0..=20 {
                let takes = health.takes(site, since + settings.return_time * twentieth / 20, &settings);
                prop_assert!(takes || !has_come, "it does not go again");
                has_come = takes;
            }
            prop_assert!(has_come, "all have come in the end");
            prop_assert!(!health.takes(site, since, &settings), "none has at first");
            prop_assert!(Health::default().takes(site, since, &settings), "nor is there a delay for one that was always there");
        }
    }

    #[test]
    fn every_word_is_a_state(word: u64, now: u64, sent: u64) {
        for event in [
            Event::Chosen,
            Event::Answered,
            Event::Failed { sent },
            Event::Up,
            Event::Down { until: sent },
        ] {
            let _ = Health::from_word(word).step(now, event, &Settings::default());
        }
        let _ = Health::from_word(word).takes(word, now, &Settings::default());
    }
}

#[test]
fn sites_come_back_evenly_over_the_time() {
    let settings = Settings::default();
    let health = Health::of_newcomer(1_000);
    let sites: Vec<u64> = (0..100_000)
        .map(|n| key_hash(format!("site{n}.example").as_bytes()))
        .collect();
    for tenth in 1..10 {
        let now = 1_000 + settings.return_time * tenth / 10;
        let come = sites
            .iter()
            .filter(|site| health.takes(**site, now, &settings))
            .count();
        let fair = 10_000 * tenth as usize;
        assert!(
            come.abs_diff(fair) < 700,
            "{come} of {fair} after {tenth}/10"
        );
    }
}

#[test]
fn ejections_grow_and_are_forgotten_after_long_service() {
    let settings = Settings {
        failures: 1,
        time: 1_000,
        max_time: 10_000,
        return_time: 5_000,
    };
    let (mut health, mut now, mut times) = (Health::default(), 1, Vec::new());
    for _ in 0..6 {
        let (ejected, action) = health.step(now, Event::Failed { sent: now }, &settings);
        let Action::Eject(time) = action else {
            panic!("{action:?}")
        };
        times.push(time);
        now += time;
        health = ejected.step(now, Event::Chosen, &settings).0;
    }
    assert_eq!(times, [1_000, 2_000, 4_000, 8_000, 10_000, 10_000]);
    let (health, action) = health.step(now, Event::Answered, &settings);
    assert_eq!(action, Action::Readmit);
    now += settings.return_time;
    let (health, _) = health.step(now, Event::Answered, &settings);
    assert_eq!(health, Health::default());
    assert_eq!(
        health.step(now, Event::Failed { sent: now }, &settings).1,
        Action::Eject(1_000)
    );
}

#[test]
fn probes_are_believed_for_as_long_as_they_say_and_no_longer() {
    let settings = Settings::default();
    let down = |health: Health, now, until| health.step(now, Event::Down { until }, &settings);
    let (health, action) = down(Health::default(), 100, 1_100);
    assert_eq!(action, Action::Withdraw);
    // What becomes of requests that were under way changes nothing, and nobody is sent there.
    for event in [Event::Answered, Event::Failed { sent: 90 }, Event::Chosen] {
        let (after, _) = health.step(200, event, &settings);
        assert_eq!(after, health, "{event:?}");
    }
    // Said again, it holds for longer, and is no news.
    let (health, action) = down(health, 1_000, 2_000);
    assert_eq!(action, Action::Nothing);
    assert_eq!(
        health.step(1_500, Event::Chosen, &settings).1,
        Action::Avoid
    );
    // Nobody says it any more: a request finds out.
    assert_eq!(health.step(2_000, Event::Chosen, &settings).1, Action::Try);
    let (back, action) = health.step(1_500, Event::Up, &settings);
    assert_eq!(action, Action::Readmit);
    assert_eq!(
        back,
        Health::of_newcomer(1_500),
        "its sites come one by one"
    );
    // An old verdict is none.
    assert_eq!(down(back, 3_000, 3_000), (back, Action::Nothing));
    // That a probe is answered does not put back what fails its requests.
    let mut ejected = Health::default();
    for _ in 0..settings.failures {
        ejected = ejected.step(10, Event::Failed { sent: 10 }, &settings).0;
    }
    assert_eq!(
        ejected.step(20, Event::Up, &settings),
        (ejected, Action::Nothing)
    );
}

#[test]
fn more_than_half_is_a_panic() {
    assert!(!is_panic(0, 0) && !is_panic(1, 2) && !is_panic(2, 4));
    assert!(is_panic(1, 1) && is_panic(2, 3) && is_panic(3, 5));
}
