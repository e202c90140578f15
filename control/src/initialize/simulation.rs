//! The machine against an adversary: events in any order, late, doubled and stale; processes and Emperors that die at any
//! moment. A seed that fails is printed and replays exactly.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::machine::{Limits, Machine, Shown};
use super::words::{
    Action, Answer, Deadline, Event, Generation, NotPrepared, Now, Seen, Visit, Visitor,
};

/// splitmix64: enough to shuffle with, and the same everywhere.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) % sides as u64) as usize
    }
}

#[derive(Clone, Copy, Debug, PartialEq)]
struct Process {
    generation: Generation,
    ready: bool,
    told_to_stop: bool,
}

struct World {
    machine: Machine,
    dice: Dice,
    now: Now,
    pending: Vec<Event>,
    open: BTreeMap<Visitor, Visit>,
    looking: BTreeSet<Visitor>,
    visitors: u64,
    file: Option<Generation>,
    process: Option<Process>,
    held: bool,
    public: bool,
    queue: usize,
    emperor: bool,
    preparing: Vec<Generation>,
    starts: Vec<Duration>,
}

impl World {
    fn new(seed: u64) -> World {
        World {
            machine: Machine::asleep(Limits::with_start(Duration::from_secs(60))),
            dice: Dice(seed),
            now: Now {
                monotonic: Duration::ZERO,
                unix: 1_700_000_000,
            },
            pending: Vec::new(),
            open: BTreeMap::new(),
            looking: BTreeSet::new(),
            visitors: 0,
            file: None,
            process: None,
            held: false,
            public: false,
            queue: 0,
            emperor: true,
            preparing: Vec::new(),
            starts: Vec::new(),
        }
    }

    fn pass(&mut self, time: Duration) {
        self.now.monotonic += time;
        self.now.unix += time.as_secs();
    }

    fn deliver(&mut self, event: Event) {
        let event = match event {
            // The driver looks at the queue and at the Emperor when it hears of the end.
            Event::Exited { generation, .. } => Event::Exited {
                generation,
                queued: self.queue > 0,
                emperor: self.emperor,
            },
            Event::Passed {
                generation,
                deadline,
                ..
            } => Event::Passed {
                generation,
                deadline,
                emperor: self.emperor,
            },
            other => other,
        };
        for action in self.machine.step(event, self.now) {
            self.act(action);
        }
    }

    fn act(&mut self, action: Action) {
        match action {
            Action::Answer(visitor, answer) => {
                let visit = self
                    .open
                    .remove(&visitor)
                    .expect("answered twice, or never asked");
                assert!(
                    answer != Answer::Ready || visit.may_be_replayed(),
                    "replayed what must not be"
                );
            }
            Action::Look(visitor) => assert!(self.looking.insert(visitor)),
            Action::Prepare(generation) => {
                assert!(
                    self.process.is_none(),
                    "started while {:?} lives",
                    self.process
                );
                assert!(
                    self.file.is_none(),
                    "started beside the vassal file of {:?}",
                    self.file
                );
                // What a start that was given up still prepares comes back stale.
                self.preparing.push(generation);
                self.starts.push(self.now.monotonic);
            }
            Action::Start(generation) => {
                assert!(self.held, "a vassal file without a socket");
                self.file = Some(generation);
            }
            Action::Grant(generation) => {
                assert!(self.process.is_none());
                assert_eq!(self.file, Some(generation));
                self.process = Some(Process {
                    generation,
                    ready: false,
                    told_to_stop: false,
                });
            }
            Action::Refuse(_) => {}
            Action::Publish => {
                assert!(self.held && !self.public);
                self.public = true;
            }
            Action::Withdraw => {
                assert!(self.held && self.public);
                self.public = false;
            }
            Action::Forget(generation) => {
                assert_eq!(
                    self.file,
                    Some(generation),
                    "forgot a file that is not there"
                );
                self.file = None;
                if let Some(process) = &mut self.process {
                    process.told_to_stop = true;
                }
            }
            Action::Kill(generation) => {
                if self
                    .process
                    .is_some_and(|process| process.generation == generation)
                {
                    self.end_process();
                }
            }
            Action::Release(_) => {
                assert!(!self.public, "the name outlives the socket");
                assert!(self.process.is_none(), "released under a living process");
                self.held = false;
                self.queue = 0;
            }
            Action::Remind(generation, deadline, _) => self.pending.push(Event::Passed {
                generation,
                deadline,
                emperor: true,
            }),
        }
    }

    fn end_process(&mut self) {
        if let Some(process) = self.process.take() {
            self.pending.push(Event::Exited {
                generation: process.generation,
                queued: false,
                emperor: true,
            });
        }
    }

    fn finish_preparing(&mut self, honest: bool) {
        if let Some(generation) = self.preparing.pop() {
            let event = match if honest { 0 } else { self.dice.roll(8) } {
                1 => Event::NotPrepared(generation, NotPrepared::Failed),
                2 => Event::NotPrepared(generation, NotPrepared::NoSuchSite),
                3 => Event::NotPrepared(generation, NotPrepared::Disabled),
                _ => Event::Prepared(generation),
            };
            // A start that has been given up has its socket thrown away by the driver.
            if matches!(event, Event::Prepared(_))
                && matches!(self.machine.shown(), Shown::Starting(g) if g == generation)
            {
                self.held = true;
            }
            self.deliver(event);
        }
    }

    fn look(&mut self) {
        if let Some(visitor) = self.looking.pop_first() {
            let seen = [Seen::Open, Seen::Open, Seen::Full, Seen::Stale][self.dice.roll(4)];
            self.deliver(Event::Looked(visitor, seen));
        }
    }

    fn launch(&mut self) {
        if let (true, Some(file), None) = (self.emperor, self.file, self.process) {
            self.deliver(Event::LaunchAsked(file));
        }
    }

    fn adversary(&mut self) {
        let elapsed = Duration::from_millis(self.dice.roll(3000) as u64);
        match self.dice.roll(20) {
            0..=4 => {
                self.visitors += 1;
                let visitor = Visitor(self.visitors);
                let visit = Visit {
                    sent: self.dice.roll(4) == 0,
                    idempotent: self.dice.roll(2) == 0,
                };
                self.open.insert(visitor, visit);
                self.deliver(Event::Visited(visitor, visit));
            }
            5 | 6 => self.finish_preparing(false),
            7 => self.look(),
            8 | 9 => self.launch(),
            10 | 11 => {
                if let Some(process) = &mut self.process {
                    process.ready = true;
                    let generation = process.generation;
                    self.pending.push(Event::Ready(generation));
                }
            }
            12 => self.end_process(),
            13 => {
                if let Some(process) = self.process.filter(|process| process.ready) {
                    self.pending.push(Event::StopAnnounced(process.generation));
                }
            }
            14 => self.queue += usize::from(self.public),
            15 => {
                self.emperor = false;
                self.end_process();
            }
            16 => {
                if !self.emperor {
                    self.emperor = true;
                    self.pending.push(Event::EmperorArrived);
                }
            }
            17 if self.dice.roll(10) == 0 => self.pending.push(Event::Retired),
            _ => self.pass(elapsed),
        }
        // Something already on its way arrives, or arrives a second time; order is nobody's friend.
        if !self.pending.is_empty() && self.dice.roll(2) == 0 {
            let index = self.dice.roll(self.pending.len());
            let event = self.pending.swap_remove(index);
            let early = matches!(
                event,
                Event::Passed {
                    deadline: Deadline::Start | Deadline::Stop,
                    ..
                }
            ) && self.dice.roll(4) != 0;
            if early {
                self.pending.push(event);
            } else {
                if matches!(event, Event::Ready(_) | Event::StopAnnounced(_))
                    && self.dice.roll(6) == 0
                {
                    self.pending.push(event);
                }
                self.deliver(event);
            }
        }
        self.check();
    }

    fn check(&self) {
        match self.machine.shown() {
            Shown::Asleep | Shown::Failing(_) => {
                assert!(
                    self.file.is_none() && self.process.is_none(),
                    "asleep with a vassal"
                );
                assert!(!self.public && !self.held, "asleep with a socket");
            }
            Shown::Starting(generation) => assert!(self.file.is_none_or(|file| file == generation)),
            Shown::Running(generation) => {
                assert_eq!(self.file, Some(generation));
                assert!(self.held && self.public);
            }
            Shown::Stopping(_) => assert!(!self.public && self.file.is_none()),
        }
    }

    /// The adversary rests; honest processes and a living Emperor bring everything to an end.
    fn settle(&mut self) {
        for _ in 0..10_000 {
            self.emperor = true;
            self.finish_preparing(true);
            self.look();
            self.launch();
            if let Some(process) = &mut self.process {
                if process.told_to_stop {
                    self.end_process();
                } else if !process.ready {
                    process.ready = true;
                    let generation = process.generation;
                    self.pending.push(Event::Ready(generation));
                } else {
                    self.queue = 0;
                    let generation = process.generation;
                    self.pending.push(Event::Ready(generation));
                }
            }
            let timers = |event: &Event| matches!(event, Event::Passed { .. });
            if let Some(index) = self.pending.iter().position(|event| !timers(event)) {
                let event = self.pending.remove(index);
                self.deliver(event);
            }
            self.check();
            let idle = matches!(
                self.machine.shown(),
                Shown::Asleep | Shown::Failing(_) | Shown::Running(_)
            );
            let empty =
                self.looking.is_empty() && self.preparing.is_empty() && self.open.is_empty();
            if idle && empty && self.queue == 0 {
                return;
            }
        }
        panic!(
            "never settles: {:?}, {} open",
            self.machine,
            self.open.len()
        );
    }
}

#[test]
fn every_visitor_is_answered_once_and_starts_never_overlap() {
    for seed in 0..3000 {
        let run = std::panic::catch_unwind(|| {
            let mut world = World::new(seed);
            for _ in 0..400 {
                world.adversary();
            }
            world.settle();
            assert!(world.open.is_empty());
            assert_eq!(world.queue, 0, "a queue was left unanswered");
        });
        assert!(run.is_ok(), "seed {seed}");
    }
}
