//! Several daemons around one registry carry a change on as one would.
use super::*;
use crate::model::{Direction, Method, Placement, SlowChange, Span};
use crate::registry::Registry;
use crate::registry::sqlite::Sqlite;

struct World {
    daemons: [Sqlite; 2],
    _directory: tempfile::TempDir,
}

const INTERVAL: u64 = 3600;

impl World {
    /// A registry in which a change over an hour began at 0.
    fn new() -> World {
        let directory = tempfile::tempdir().unwrap();
        let open = || Sqlite::open(&directory.path().join("registry.db")).unwrap();
        let mut world = World {
            daemons: [open(), open()],
            _directory: directory,
        };
        let change = SlowChange {
            from: Method::Python64,
            threshold: 0,
        };
        let placement = Placement {
            method: Method::Rendezvous,
            change: Some(change),
        };
        let progress = Progress {
            over: Span::parse("1h").unwrap(),
            direction: Direction::Forward,
            paused: false,
            stepped_at: 0,
        };
        world.set(&placement, &progress);
        world
    }

    fn set(&mut self, placement: &Placement, progress: &Progress) {
        let mut edit = self.daemons[0].edit().unwrap();
        edit.set_placement(placement, Some(progress)).unwrap();
        edit.commit().unwrap();
    }

    fn step(
        &mut self,
        daemon: usize,
        starting: Option<usize>,
        holding: bool,
        now: u64,
    ) -> (Look, bool) {
        let machine = ["b1", "b2"][daemon];
        step(&mut self.daemons[daemon], machine, starting, holding, now).unwrap()
    }

    /// How many thousandths have gone over.
    fn thousandths(&mut self) -> u64 {
        let placement = self.daemons[0].view().unwrap().placement().unwrap();
        let threshold = placement.change.map_or(u64::MAX, |change| change.threshold);
        u64::try_from((u128::from(threshold) * 1000 + (1 << 63)) >> 64).unwrap()
    }
}

#[test]
fn a_step_is_taken_by_one_daemon_only() {
    let mut world = World::new();
    for round in 1..=10 {
        let now = round * INTERVAL;
        let first = usize::try_from(round % 2).unwrap();
        for daemon in [first, 1 - first] {
            world.step(daemon, None, false, now);
        }
        assert_eq!(world.thousandths(), round);
        assert!(
            matches!(world.step(0, None, false, now), (Look::Next(next), _) if next == now + INTERVAL)
        );
    }
}

#[test]
fn a_machine_that_bears_no_more_holds_all_of_them_up_and_lets_go() {
    let mut world = World::new();
    assert!(matches!(
        world.step(0, Some(50), false, INTERVAL),
        (Look::Next(_), true)
    ));
    world.step(1, None, false, INTERVAL);
    world.step(1, None, false, 2 * INTERVAL);
    assert_eq!(world.thousandths(), 0, "the other one waits for it");
    assert!(matches!(
        world.step(0, None, true, 3 * INTERVAL),
        (Look::Stepped, false)
    ));
    assert_eq!(world.thousandths(), 2, "two intervals at most, not three");
    // It dies while it holds the change up.
    world.step(0, Some(50), false, 4 * INTERVAL);
    world.step(1, None, false, 6 * INTERVAL);
    assert_eq!(world.thousandths(), 2);
    world.step(1, None, false, 8 * INTERVAL);
    assert_eq!(world.thousandths(), 4, "a hold ends by itself");
}

#[test]
fn a_change_that_is_paused_or_over_is_left_alone() {
    let mut world = World::new();
    let (placement, progress) = {
        let view = world.daemons[0].view().unwrap();
        (view.placement().unwrap(), view.progress().unwrap().unwrap())
    };
    let paused = Progress {
        paused: true,
        ..progress
    };
    world.set(&placement, &paused);
    assert!(matches!(
        world.step(0, None, true, 9 * INTERVAL),
        (Look::Idle, false)
    ));
    world.set(&placement, &progress);
    let mut now = 0;
    while !matches!(world.step(1, None, false, now), (Look::Idle, _)) {
        now += INTERVAL;
    }
    assert_eq!(now / INTERVAL, 1001);
    let end = world.daemons[0].view().unwrap();
    assert_eq!(
        end.placement().unwrap(),
        Placement::fixed(Method::Rendezvous)
    );
    assert_eq!(end.progress().unwrap(), None);
}
