//! The decision table of "Asleep or broken?", row by row, and the lives a site can have.

use std::time::Duration;

use super::machine::{Adopted, Limits, Machine, Shown};
use super::words::{
    Action, Answer, Deadline, Event, Failure, Generation, NotPrepared, Now, Order, Reason, Seen,
    Socket, Visit, Visitor,
};

const UNSENT: Visit = Visit::UNSENT;
const SENT_GET: Visit = Visit {
    sent: true,
    idempotent: true,
    may_wake: true,
};
const SENT_POST: Visit = Visit {
    sent: true,
    idempotent: false,
    may_wake: true,
};

fn at(milliseconds: u64) -> Now {
    let monotonic = Duration::from_millis(milliseconds);
    Now {
        monotonic,
        unix: 1_700_000_000 + monotonic.as_secs(),
    }
}

fn generation(number: u64) -> Generation {
    Generation::parse(&(1_700_000_000 + number).to_string()).unwrap()
}

fn exited(of: Generation, queued: bool) -> Event {
    Event::Exited {
        generation: of,
        queued,
        emperor: true,
        cause: Reason::StartFailed,
    }
}

fn passed(deadline: Deadline, emperor: bool) -> Event {
    Event::Passed {
        generation: generation(0),
        deadline,
        emperor,
    }
}

fn asleep() -> Machine {
    Machine::asleep(Limits::with_start(Duration::from_secs(60)))
}

fn starting() -> Machine {
    let mut machine = asleep();
    let actions = machine.step(Event::Visited(Visitor(1), UNSENT), at(0));
    assert!(actions.contains(&Action::Prepare(generation(0), Socket::New)));
    assert!(
        machine
            .step(Event::Prepared(generation(0)), at(1))
            .contains(&Action::Start(generation(0)))
    );
    assert_eq!(
        machine.step(Event::LaunchAsked(generation(0)), at(2)),
        [Action::Grant(generation(0))]
    );
    machine
}

fn running() -> Machine {
    let mut machine = starting();
    let actions = machine.step(Event::Ready(generation(0)), at(3));
    assert_eq!(
        actions,
        [
            Action::Publish(generation(0)),
            Action::Answer(Visitor(1), Answer::Ready)
        ]
    );
    machine
}

fn visit(machine: &mut Machine, visit: Visit, now: Now) -> Vec<Action> {
    machine.step(Event::Visited(Visitor(9), visit), now)
}

fn failure(reason: Reason) -> Failure {
    Failure {
        reason,
        generation: generation(0),
    }
}

#[test]
fn a_sleeping_site_is_started_once_however_many_ask() {
    let mut machine = asleep();
    let mut starts = 0;
    for number in 0..200 {
        let actions = machine.step(Event::Visited(Visitor(number), UNSENT), at(number));
        starts += actions
            .iter()
            .filter(|action| matches!(action, Action::Prepare(..)))
            .count();
    }
    machine.step(Event::Prepared(generation(0)), at(200));
    machine.step(Event::LaunchAsked(generation(0)), at(200));
    let answers = machine.step(Event::Ready(generation(0)), at(201));
    assert_eq!(starts, 1);
    assert_eq!(
        answers
            .iter()
            .filter(|action| matches!(action, Action::Answer(_, Answer::Ready)))
            .count(),
        200
    );
}

#[test]
fn the_table_says_what_a_visitor_is_told() {
    let real = [Action::Answer(Visitor(9), Answer::Real)];
    assert!(
        visit(&mut asleep(), SENT_GET, at(9))
            .contains(&Action::Prepare(generation(0), Socket::New))
    );
    assert_eq!(visit(&mut asleep(), SENT_POST, at(9)), real);
    assert_eq!(visit(&mut starting(), UNSENT, at(9)), []);
    assert_eq!(visit(&mut starting(), SENT_GET, at(9)), []);
    assert_eq!(visit(&mut starting(), SENT_POST, at(9)), real);
    assert_eq!(visit(&mut running(), SENT_GET, at(9)), real);
    assert_eq!(visit(&mut running(), SENT_POST, at(9)), real);
    assert_eq!(
        visit(&mut running(), UNSENT, at(9)),
        [Action::Look(Visitor(9))]
    );
}

#[test]
fn a_machine_that_is_emptied_wakes_nobody_and_serves_who_is_awake() {
    let unsent = Visit {
        may_wake: false,
        ..UNSENT
    };
    let sent_get = Visit {
        may_wake: false,
        ..SENT_GET
    };
    let sent_post = Visit {
        may_wake: false,
        ..SENT_POST
    };
    let elsewhere = [Action::Answer(Visitor(9), Answer::Elsewhere)];
    assert_eq!(visit(&mut asleep(), unsent, at(9)), elsewhere);
    assert_eq!(visit(&mut asleep(), sent_get, at(9)), elsewhere);
    assert_eq!(
        visit(&mut asleep(), sent_post, at(9)),
        [Action::Answer(Visitor(9), Answer::Real)],
        "it may have been done already"
    );
    assert_eq!(
        visit(&mut starting(), unsent, at(9)),
        [],
        "a start that is under way goes on"
    );
    assert_eq!(
        visit(&mut running(), unsent, at(9)),
        [Action::Look(Visitor(9))]
    );
    let mut stopping = running();
    stopping.step(Event::Ordered(Visitor(5), Order::Stop), at(8));
    assert_eq!(visit(&mut stopping, unsent, at(9)), elsewhere);
    let mut failed = starting();
    failed.step(
        Event::Exited {
            generation: generation(0),
            queued: false,
            emperor: true,
            cause: Reason::StartFailed,
        },
        at(8),
    );
    assert_eq!(
        visit(&mut failed, unsent, at(9)),
        elsewhere,
        "its failure here says nothing of the next machine"
    );
}

#[test]
fn a_running_site_that_cannot_be_reached_is_overloaded_or_stale() {
    let look = |seen| running().step(Event::Looked(Visitor(9), seen), at(9));
    assert_eq!(
        look(Seen::Open),
        [Action::Answer(Visitor(9), Answer::Ready)]
    );
    let overloaded = Answer::Unavailable(failure(Reason::Overloaded));
    assert_eq!(look(Seen::Full), [Action::Answer(Visitor(9), overloaded)]);

    let mut stale = running();
    let actions = stale.step(Event::Looked(Visitor(9), Seen::Stale), at(1500));
    assert_eq!(
        actions[0],
        Action::Drain(generation(0)),
        "it finishes what it has"
    );
    assert!(
        actions.contains(&Action::Prepare(generation(1), Socket::New)),
        "the visitor waits for a fresh socket"
    );
}

#[test]
fn a_failed_start_answers_everybody_and_starts_at_most_once_a_second() {
    let mut machine = starting();
    visit(&mut machine, UNSENT, at(5));
    let actions = machine.step(exited(generation(0), true), at(50));
    let page = Answer::Unavailable(failure(Reason::StartFailed));
    assert_eq!(
        actions,
        [
            Action::Answer(Visitor(1), page),
            Action::Answer(Visitor(9), page),
            Action::Forget(generation(0)),
            Action::Release(generation(0), Some(failure(Reason::StartFailed))),
        ]
    );
    assert_eq!(
        visit(&mut machine, UNSENT, at(1049)),
        [Action::Answer(Visitor(9), page)]
    );
    assert_eq!(
        visit(&mut machine, SENT_POST, at(1049)),
        [Action::Answer(Visitor(9), Answer::Real)]
    );
    assert!(
        visit(&mut machine, UNSENT, at(1050))
            .contains(&Action::Prepare(generation(1), Socket::New))
    );
}

/// The next visitor wakes the site, and it fails once more.
fn fail_again(machine: &mut Machine, number: u64, now: u64) {
    let of = generation(number);
    let actions = visit(machine, UNSENT, at(now));
    assert!(
        actions.contains(&Action::Prepare(of, Socket::New)),
        "{number}: {actions:?}"
    );
    machine.step(Event::Prepared(of), at(now));
    machine.step(Event::LaunchAsked(of), at(now));
    machine.step(exited(of, false), at(now));
}

/// It has failed until it is tried once a minute, for the last time at 10 s.
fn given_up() -> Machine {
    let mut machine = starting();
    machine.step(exited(generation(0), false), at(0));
    for second in 1..=4 {
        fail_again(&mut machine, second, second * 1000);
    }
    fail_again(&mut machine, 10, 10_000);
    machine
}

fn last_page() -> Answer {
    Answer::Unavailable(Failure {
        reason: Reason::StartFailed,
        generation: generation(10),
    })
}

#[test]
fn what_goes_on_failing_is_started_once_a_minute() {
    let mut machine = given_up();
    assert_eq!(
        visit(&mut machine, UNSENT, at(10_999)),
        [Action::Answer(Visitor(9), last_page())],
        "no look at its files either"
    );
    for now in [11_000, 40_000, 69_999] {
        assert_eq!(
            visit(&mut machine, UNSENT, at(now)),
            [Action::Inspect(Visitor(9))]
        );
        assert_eq!(
            machine.step(Event::Inspected(Visitor(9), false), at(now)),
            [Action::Answer(Visitor(9), last_page())]
        );
    }
    assert!(!machine.parks(UNSENT, at(69_999)));
    fail_again(&mut machine, 70, 70_000);
    assert_eq!(
        visit(&mut machine, UNSENT, at(129_999)),
        [Action::Inspect(Visitor(9))]
    );
}

#[test]
fn a_change_or_an_order_starts_at_once_what_was_given_up() {
    let mut machine = given_up();
    visit(&mut machine, UNSENT, at(20_000));
    let actions = machine.step(Event::Inspected(Visitor(9), true), at(20_000));
    assert!(actions.contains(&Action::Prepare(generation(20), Socket::New)));
    machine.step(Event::Prepared(generation(20)), at(20_000));
    machine.step(Event::LaunchAsked(generation(20)), at(20_000));
    machine.step(exited(generation(20), false), at(20_000));
    // It counts from the beginning.
    fail_again(&mut machine, 21, 21_000);

    for order in [Order::Start, Order::Reload] {
        let mut machine = given_up();
        let actions = machine.step(Event::Ordered(Visitor(9), order), at(10_001));
        assert!(
            actions.contains(&Action::Prepare(generation(11), Socket::New)),
            "{order:?}: {actions:?}"
        );
    }
}

#[test]
fn a_change_seen_too_late_starts_nothing_twice() {
    let mut machine = given_up();
    visit(&mut machine, UNSENT, at(20_000));
    machine.step(Event::Ordered(Visitor(1), Order::Start), at(20_001));
    // It joins the start that there is.
    let actions = machine.step(Event::Inspected(Visitor(9), true), at(20_002));
    assert_eq!(actions, []);
    assert_eq!(machine.waiting(), 2);
    machine.step(Event::Prepared(generation(20)), at(20_003));
    machine.step(Event::LaunchAsked(generation(20)), at(20_004));
    machine.step(exited(generation(20), false), at(20_005));
    // Looked at before that failure: at most one start in a second.
    let actions = machine.step(Event::Inspected(Visitor(9), true), at(20_006));
    assert!(
        matches!(
            actions[..],
            [Action::Answer(Visitor(9), Answer::Unavailable(_))]
        ),
        "{actions:?}"
    );
}

#[test]
fn what_the_machine_lacks_is_not_held_against_the_site() {
    let mut machine = asleep();
    for second in 0..20 {
        let actions = visit(&mut machine, UNSENT, at(second * 1000));
        assert!(actions.contains(&Action::Prepare(generation(second), Socket::New)));
        machine.step(
            Event::NotPrepared(generation(second), NotPrepared::Failed),
            at(second * 1000),
        );
    }
}

#[test]
fn a_start_that_hangs_is_killed_and_its_queue_answered_when_it_is_gone() {
    let mut machine = starting();
    let actions = machine.step(passed(Deadline::Start, false), at(60_000));
    let failed = failure(Reason::StartTimeout);
    assert_eq!(
        actions,
        [
            Action::Answer(Visitor(1), Answer::Unavailable(failed)),
            Action::Forget(generation(0)),
            Action::Kill(generation(0))
        ]
    );
    assert_eq!(
        machine.step(exited(generation(0), true), at(60_010)),
        [Action::Release(generation(0), Some(failed))]
    );
}

#[test]
fn an_emperor_that_does_not_start_the_launcher_fails_the_start() {
    let mut machine = asleep();
    visit(&mut machine, UNSENT, at(0));
    machine.step(Event::Prepared(generation(0)), at(1));
    assert_eq!(
        machine.step(Event::EmperorArrived, at(2)),
        [Action::Start(generation(0))]
    );
    let patient = machine.step(passed(Deadline::Launch, true), at(4000));
    assert_eq!(
        patient[0],
        Action::Start(generation(0)),
        "it lives, and is only slow"
    );
    let actions = machine.step(passed(Deadline::Launch, false), at(5001));
    assert!(actions.contains(&Action::Release(
        generation(0),
        Some(failure(Reason::NoEmperor))
    )));
    assert_eq!(
        machine.step(Event::LaunchAsked(generation(0)), at(5002)),
        [Action::Refuse(generation(0))]
    );
}

#[test]
fn an_idle_stop_sleeps_or_serves_what_came_late() {
    let mut quiet = running();
    let actions = quiet.step(Event::StopAnnounced(generation(0)), at(600_000));
    assert_eq!(
        actions[..2],
        [
            Action::Withdraw(generation(0)),
            Action::Drain(generation(0))
        ]
    );
    assert!(
        actions.contains(&Action::Forget(generation(0))),
        "it ends already"
    );
    assert_eq!(
        quiet.step(exited(generation(0), false), at(601_000)),
        [Action::Release(generation(0), None)]
    );
    assert_eq!(quiet.shown(), Shown::Asleep);

    let mut late = running();
    late.step(Event::StopAnnounced(generation(0)), at(600_000));
    let actions = late.step(exited(generation(0), true), at(601_000));
    assert!(
        actions.contains(&Action::Prepare(generation(601), Socket::Of(generation(0)))),
        "the same socket, the next generation"
    );
    assert!(
        !actions
            .iter()
            .any(|action| matches!(action, Action::Release(..)))
    );
}

#[test]
fn a_crash_restarts_on_the_held_socket_until_it_is_a_habit() {
    let mut machine = running();
    let mut current = generation(0);
    for crash in 1..=3u64 {
        let actions = machine.step(exited(current, false), at(crash * 2000));
        assert!(
            !actions
                .iter()
                .any(|action| matches!(action, Action::Withdraw(_))),
            "the queue and the name survive"
        );
        let crashed = std::mem::replace(&mut current, generation(crash * 2));
        assert!(actions.contains(&Action::Prepare(current, Socket::Of(crashed))));
        machine.step(Event::Prepared(current), at(crash * 2000 + 1));
        machine.step(Event::LaunchAsked(current), at(crash * 2000 + 2));
        assert_eq!(
            machine.step(Event::Ready(current), at(crash * 2000 + 3)),
            []
        );
    }
    let actions = machine.step(exited(current, true), at(8000));
    let crashing = Failure {
        reason: Reason::Crashing,
        generation: current,
    };
    assert_eq!(
        actions,
        [
            Action::Forget(current),
            Action::Withdraw(current),
            Action::Release(current, Some(crashing))
        ]
    );
}

#[test]
fn a_site_that_ends_itself_again_and_again_is_not_restarted_for_ever() {
    let mut machine = running();
    let mut current = generation(0);
    for end in 1..=4u64 {
        let now = end * 999;
        machine.step(Event::StopAnnounced(current), at(now));
        let actions = machine.step(exited(current, true), at(now));
        if end == 4 {
            let crashing = Failure {
                reason: Reason::Crashing,
                generation: current,
            };
            assert_eq!(actions, [Action::Release(current, Some(crashing))]);
            break;
        }
        let ended = std::mem::replace(&mut current, generation(end));
        assert!(actions.contains(&Action::Prepare(current, Socket::Of(ended))));
        machine.step(Event::Prepared(current), at(now));
        machine.step(Event::LaunchAsked(current), at(now));
        machine.step(Event::Ready(current), at(now));
    }
    assert!(matches!(machine.shown(), Shown::Failing(_)));
}

#[test]
fn when_the_emperor_dies_only_wanted_sites_come_back_by_themselves() {
    let gone = |queued| Event::Exited {
        generation: generation(0),
        queued,
        emperor: false,
        cause: Reason::StartFailed,
    };
    let actions = running().step(gone(false), at(9000));
    assert_eq!(
        actions,
        [
            Action::Forget(generation(0)),
            Action::Withdraw(generation(0)),
            Action::Recount(generation(0))
        ]
    );
    // Nobody has connected before the name was taken away; or somebody has.
    let recounted = |queued| {
        let mut machine = running();
        machine.step(gone(false), at(9000));
        machine.step(gone(queued), at(9000))
    };
    assert_eq!(recounted(false), [Action::Release(generation(0), None)]);
    assert_eq!(
        recounted(true),
        [Action::Prepare(generation(9), Socket::Of(generation(0)))]
    );
    assert!(
        running()
            .step(gone(true), at(9000))
            .contains(&Action::Prepare(generation(9), Socket::Of(generation(0))))
    );
    assert!(
        starting()
            .step(gone(false), at(9000))
            .contains(&Action::Prepare(generation(9), Socket::Of(generation(0)))),
        "somebody waits"
    );
}

#[test]
fn disabled_and_unknown_sites_are_looked_up_each_time() {
    for (why, answer) in [
        (NotPrepared::NoSuchSite, Answer::NoSuchSite),
        (
            NotPrepared::Disabled,
            Answer::Unavailable(failure(Reason::Disabled)),
        ),
    ] {
        let mut machine = asleep();
        visit(&mut machine, UNSENT, at(0));
        let actions = machine.step(Event::NotPrepared(generation(0), why), at(1));
        assert_eq!(actions[0], Action::Answer(Visitor(9), answer));
        assert!(
            visit(&mut machine, UNSENT, at(2))
                .contains(&Action::Prepare(generation(1), Socket::New))
        );
    }
}

#[test]
fn a_site_switched_off_is_stopped() {
    let mut machine = running();
    let actions = machine.step(Event::Retired, at(9000));
    assert_eq!(
        actions[..2],
        [
            Action::Withdraw(generation(0)),
            Action::Drain(generation(0))
        ]
    );
    assert_eq!(
        machine.step(Event::Drained(generation(0)), at(9100))[0],
        Action::Forget(generation(0))
    );
    let actions = machine.step(exited(generation(0), true), at(9500));
    assert_eq!(
        actions,
        [Action::Release(
            generation(0),
            Some(failure(Reason::Disabled))
        )]
    );
}

const ORDER: Visitor = Visitor(77);

/// A running site with the second generation as far as its probe.
fn probing() -> Machine {
    let mut machine = running();
    let actions = machine.step(Event::Ordered(ORDER, Order::Reload), at(9000));
    assert!(actions.contains(&Action::Prepare(generation(9), Socket::New)));
    machine.step(Event::Prepared(generation(9)), at(9001));
    machine.step(Event::LaunchAsked(generation(9)), at(9002));
    assert_eq!(
        machine.step(Event::Ready(generation(9)), at(9003)),
        [Action::Probe(generation(9))]
    );
    assert_eq!(machine.serving(), Some(generation(0)));
    machine
}

#[test]
fn a_reload_takes_over_when_its_probe_is_good_and_lets_the_old_finish() {
    let mut machine = probing();
    let actions = machine.step(Event::Probed(generation(9), true), at(9010));
    assert_eq!(
        actions[..3],
        [
            Action::Publish(generation(9)),
            Action::Answer(ORDER, Answer::Ready),
            Action::Drain(generation(0)),
        ]
    );
    assert_eq!(machine.shown(), Shown::Running(generation(9)));
    assert_eq!(
        machine.step(Event::Drained(generation(0)), at(9500))[0],
        Action::Forget(generation(0))
    );
    assert_eq!(
        machine.step(exited(generation(0), false), at(9600)),
        [Action::Release(generation(0), None)]
    );
    assert_eq!(machine.shown(), Shown::Running(generation(9)));
}

#[test]
fn new_code_that_fails_is_taken_off_and_the_old_stays() {
    let failed = |reason| {
        let failure = Failure {
            reason,
            generation: generation(9),
        };
        Action::Answer(ORDER, Answer::Unavailable(failure))
    };
    let mut bad = probing();
    let actions = bad.step(Event::Probed(generation(9), false), at(9010));
    assert_eq!(
        actions,
        [
            failed(Reason::ProbeFailed),
            Action::Forget(generation(9)),
            Action::Kill(generation(9))
        ]
    );
    assert_eq!(bad.shown(), Shown::Running(generation(0)));
    let gone = bad.step(exited(generation(9), false), at(9020));
    assert!(matches!(gone[..], [Action::Release(released, _)] if released == generation(9)));
    assert_eq!(
        visit(&mut bad, UNSENT, at(9030)),
        [Action::Look(Visitor(9))]
    );

    let mut dead = probing();
    let actions = dead.step(exited(generation(9), false), at(9010));
    assert_eq!(
        actions[..2],
        [failed(Reason::StartFailed), Action::Forget(generation(9))]
    );
    assert_eq!(dead.shown(), Shown::Running(generation(0)));
}

#[test]
fn a_reload_ordered_while_another_may_have_read_old_code_gets_its_own() {
    let mut machine = probing();
    let late = Visitor(78);
    assert_eq!(
        machine.step(Event::Ordered(late, Order::Reload), at(9005)),
        []
    );
    let actions = machine.step(Event::Probed(generation(9), true), at(9010));
    assert!(!actions.contains(&Action::Answer(late, Answer::Ready)));
    assert!(actions.contains(&Action::Prepare(generation(10), Socket::New)));
}

#[test]
fn when_the_old_crashes_in_a_reload_its_successor_is_what_was_ordered() {
    let mut machine = probing();
    let actions = machine.step(exited(generation(0), true), at(9500));
    assert!(actions.contains(&Action::Kill(generation(9))));
    assert!(actions.contains(&Action::Prepare(generation(10), Socket::Of(generation(0)))));
    machine.step(Event::Prepared(generation(10)), at(9501));
    machine.step(Event::LaunchAsked(generation(10)), at(9502));
    assert_eq!(
        machine.step(Event::Ready(generation(10)), at(9503)),
        [Action::Answer(ORDER, Answer::Ready)]
    );
}

#[test]
fn a_stop_lets_what_is_under_way_finish_and_a_sleeping_site_is_not_woken_by_a_reload() {
    let mut machine = running();
    let actions = machine.step(Event::Ordered(ORDER, Order::Stop), at(9000));
    assert!(!actions.contains(&Action::Forget(generation(0))));
    machine.step(Event::Drained(generation(0)), at(9001));
    let actions = machine.step(exited(generation(0), false), at(9100));
    assert_eq!(actions[0], Action::Answer(ORDER, Answer::Asleep));
    for order in [Order::Stop, Order::Reload] {
        assert_eq!(
            machine.step(Event::Ordered(ORDER, order), at(9200)),
            [Action::Answer(ORDER, Answer::Asleep)]
        );
    }
    let actions = machine.step(Event::Ordered(ORDER, Order::Start), at(9300));
    assert!(matches!(actions[0], Action::Prepare(_, Socket::New)));
}

#[test]
fn what_an_earlier_daemon_left_in_the_middle_becomes_one_good_generation() {
    let limits = Limits::with_start(Duration::from_secs(60));
    let public = Adopted::Public {
        generation: generation(0),
        ready: true,
    };
    let unprobed = Adopted::Private {
        generation: generation(9),
        ready: true,
    };
    let (machine, actions) = Machine::adopted(limits, &[unprobed, public], at(0));
    assert_eq!(machine.shown(), Shown::Running(generation(0)));
    assert_eq!(
        actions,
        [Action::Forget(generation(9)), Action::Kill(generation(9))]
    );

    let replaced = Adopted::Ending {
        generation: generation(0),
        told: false,
    };
    let new = Adopted::Public {
        generation: generation(9),
        ready: true,
    };
    let (machine, actions) = Machine::adopted(limits, &[replaced, new], at(0));
    assert_eq!(machine.shown(), Shown::Running(generation(9)));
    assert_eq!(actions[0], Action::Drain(generation(0)));

    let stopping = Adopted::Ending {
        generation: generation(0),
        told: true,
    };
    let (mut machine, _) = Machine::adopted(limits, &[stopping], at(0));
    let actions = machine.step(exited(generation(0), true), at(10));
    assert!(
        actions
            .iter()
            .any(|action| matches!(action, Action::Prepare(_, Socket::Of(_)))),
        "what waits in its queue is served"
    );
}

#[test]
fn generations_grow_even_when_the_clock_does_not() {
    let first = Generation::after(None, 1_700_000_000);
    assert!(Generation::after(Some(first), 1_700_000_000) > first);
    assert!(Generation::after(Some(first), 0) > first);
    assert_eq!(Generation::parse("01"), None);
    assert_eq!(Generation::parse("+1"), None);
    assert_eq!(Generation::parse(""), None);
}

fn dozing() -> Machine {
    let mut machine = running();
    assert_eq!(
        machine.step(Event::Idle(generation(0)), at(600_000))[..2],
        [
            Action::Withdraw(generation(0)),
            Action::Drain(generation(0))
        ]
    );
    machine
}

#[test]
fn a_site_that_nobody_needs_loses_its_name_first_and_its_processes_when_nothing_is_left() {
    let mut machine = dozing();
    assert_eq!(machine.shown(), Shown::Stopping(generation(0)));
    let actions = machine.step(Event::Drained(generation(0)), at(600_010));
    assert_eq!(actions[0], Action::Forget(generation(0)));
    assert_eq!(
        machine.step(exited(generation(0), false), at(600_100)),
        [Action::Release(generation(0), None)]
    );
    assert_eq!(machine.shown(), Shown::Asleep);
}

#[test]
fn whoever_comes_before_the_processes_are_told_keeps_the_site_awake() {
    let kept = [
        Action::Publish(generation(0)),
        Action::Answer(Visitor(9), Answer::Ready),
    ];
    for coming in [UNSENT, SENT_GET] {
        let mut machine = dozing();
        assert_eq!(visit(&mut machine, coming, at(600_005)), kept);
        assert_eq!(machine.shown(), Shown::Running(generation(0)));
        assert_eq!(
            machine.step(Event::Drained(generation(0)), at(600_010)),
            [],
            "what was decided before means nothing"
        );
    }
    assert_eq!(
        visit(&mut dozing(), SENT_POST, at(600_005)),
        [Action::Answer(Visitor(9), Answer::Real)]
    );
    let mut ordered = dozing();
    let actions = ordered.step(Event::Ordered(Visitor(9), Order::Start), at(600_005));
    assert_eq!(actions, kept);
    // Somebody is still on the way to it.
    assert_eq!(
        dozing().step(Event::Needed(generation(0)), at(600_005)),
        kept[..1]
    );
    let mut told = dozing();
    told.step(Event::Drained(generation(0)), at(600_010));
    assert_eq!(
        visit(&mut told, UNSENT, at(600_020)),
        [],
        "too late: it waits"
    );
    assert!(
        told.step(exited(generation(0), false), at(600_100))
            .contains(&Action::Prepare(generation(600), Socket::Of(generation(0))))
    );
}

#[test]
fn what_is_to_stop_is_not_kept_awake() {
    for event in [
        Event::Ordered(ORDER, Order::Stop),
        Event::Ordered(ORDER, Order::Reload),
        Event::Retired,
    ] {
        let mut machine = dozing();
        machine.step(event, at(600_005));
        assert_eq!(
            visit(&mut machine, UNSENT, at(600_006)),
            [],
            "after {event:?} it waits for what comes next"
        );
    }
}

#[test]
fn a_start_s_time_counts_from_its_turn() {
    let mut machine = asleep();
    let actions = visit(&mut machine, UNSENT, at(0));
    assert_eq!(
        actions,
        [Action::Prepare(generation(0), Socket::New)],
        "no deadline yet"
    );
    let actions = machine.step(Event::Admitted(generation(0)), at(50_000));
    assert!(matches!(
        actions[..],
        [Action::Remind(_, Deadline::Start, _)]
    ));
    assert_eq!(machine.step(Event::Admitted(generation(7)), at(50_001)), []);
}

#[test]
fn only_who_would_wait_is_counted_as_parked() {
    let now = at(600_000);
    assert!(asleep().parks(UNSENT, now) && starting().parks(UNSENT, now));
    assert!(!running().parks(UNSENT, now) && !dozing().parks(UNSENT, now));
    assert!(!starting().parks(SENT_POST, now));
    let mut failed = starting();
    failed.step(exited(generation(0), false), at(50));
    assert!(
        !failed.parks(UNSENT, at(60)),
        "it gets the error page at once"
    );
    assert!(failed.parks(UNSENT, at(60_000)));
}
