//! The machine against an adversary: events in any order, late, doubled and stale; processes and Emperors that die at any
//! moment; orders in the middle of everything. A seed that fails is printed and replays exactly.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::machine::{Limits, Machine, Shown};
use super::words::{
    Action, Answer, Deadline, Event, Generation, NotPrepared, Now, Order, Reason, Seen, Socket,
    Visit, Visitor,
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

    fn one<T: Copy>(&mut self, of: impl Iterator<Item = T>) -> Option<T> {
        let all: Vec<T> = of.collect();
        (!all.is_empty()).then(|| all[self.roll(all.len())])
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Process {
    ready: bool,
    told_to_stop: bool,
    serving: usize,
}

/// Who waits for an answer.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Open {
    Visit(Visit),
    Order,
}

struct World {
    machine: Machine,
    dice: Dice,
    now: Now,
    pending: Vec<Event>,
    open: BTreeMap<Visitor, Open>,
    looking: BTreeSet<Visitor>,
    inspecting: BTreeSet<Visitor>,
    visitors: u64,
    files: BTreeSet<Generation>,
    processes: BTreeMap<Generation, Process>,
    /// Held sockets, and how many wait in their queues.
    sockets: BTreeMap<Generation, usize>,
    public: Option<Generation>,
    passed_probe: BTreeSet<Generation>,
    draining: BTreeSet<Generation>,
    emperor: bool,
    preparing: Vec<(Generation, Socket)>,
    /// The event that is being taken lets a generation be stopped that still has something to do.
    by_force: bool,
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
            inspecting: BTreeSet::new(),
            visitors: 0,
            files: BTreeSet::new(),
            processes: BTreeMap::new(),
            sockets: BTreeMap::new(),
            public: None,
            passed_probe: BTreeSet::new(),
            draining: BTreeSet::new(),
            emperor: true,
            preparing: Vec::new(),
            by_force: false,
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
                queued: self
                    .sockets
                    .get(&generation)
                    .is_some_and(|queue| *queue > 0),
                emperor: self.emperor,
                cause: Reason::StartFailed,
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
        self.by_force = matches!(event, Event::Passed { .. } | Event::StopAnnounced(_));
        for action in self.machine.step(event, self.now) {
            self.act(action);
        }
    }

    fn act(&mut self, action: Action) {
        match action {
            Action::Answer(visitor, answer) => {
                let open = self
                    .open
                    .remove(&visitor)
                    .expect("answered twice, or never asked");
                match open {
                    Open::Visit(visit) => {
                        assert!(
                            answer != Answer::Ready || visit.may_be_replayed(),
                            "replayed what must not be"
                        );
                        assert!(
                            answer != Answer::Elsewhere
                                || visit.may_be_replayed() && !visit.may_wake,
                            "sent away for no reason"
                        );
                        assert_ne!(answer, Answer::Asleep, "no answer for a visitor");
                    }
                    Open::Order => assert_ne!(answer, Answer::Real, "no answer for an order"),
                }
            }
            Action::Look(visitor) => assert!(self.looking.insert(visitor)),
            Action::Inspect(visitor) => assert!(self.inspecting.insert(visitor)),
            Action::Prepare(generation, socket) => {
                if let Socket::Of(earlier) = socket {
                    assert!(!self.processes.contains_key(&earlier), "two on one socket");
                    let queue = self.sockets.remove(&earlier).expect("a socket to hand on");
                    self.sockets.insert(generation, queue);
                    if self.public == Some(earlier) {
                        self.public = Some(generation);
                    }
                }
                // What a start that was given up still prepares comes back stale.
                self.preparing.push((generation, socket));
            }
            Action::Start(generation) => {
                assert!(
                    self.sockets.contains_key(&generation),
                    "a vassal file without a socket"
                );
                self.files.insert(generation);
                let rising = self
                    .files
                    .iter()
                    .filter(|file| !self.draining.contains(file) && self.public != Some(**file));
                assert!(rising.count() <= 1, "two starts at once: {:?}", self.files);
            }
            Action::Grant(generation) => {
                assert!(self.files.contains(&generation));
                let earlier = self.processes.insert(generation, Process::default());
                assert!(earlier.is_none());
            }
            Action::Refuse(_) => {}
            Action::Probe(generation) => {
                assert!(self.public.is_some() && self.public != Some(generation));
                self.pending.push(Event::Probed(generation, false));
            }
            Action::Publish(generation) => {
                assert!(self.sockets.contains_key(&generation));
                assert!(
                    self.public.is_none() || self.passed_probe.contains(&generation),
                    "took over without a probe"
                );
                self.public = Some(generation);
                self.draining.remove(&generation);
            }
            Action::Withdraw(generation) => {
                assert_eq!(self.public.take(), Some(generation));
            }
            Action::Drain(generation) => {
                assert_ne!(
                    self.public,
                    Some(generation),
                    "can still be handed requests"
                );
                assert!(self.draining.insert(generation));
            }
            Action::Forget(generation) => self.forget(generation),
            Action::Kill(generation) => self.end_process(generation),
            Action::Recount(generation) => {
                assert_ne!(self.public, Some(generation), "somebody can still come");
                assert!(
                    !self.processes.contains_key(&generation),
                    "counted before a living process"
                );
                self.pending.push(Event::Exited {
                    generation,
                    queued: false,
                    emperor: false,
                    cause: Reason::Restarting,
                });
            }
            Action::Release(generation, _) => {
                assert_ne!(
                    self.public,
                    Some(generation),
                    "the name outlives the socket"
                );
                assert!(
                    !self.processes.contains_key(&generation),
                    "released under a living process"
                );
                self.sockets.remove(&generation);
            }
            Action::Remind(generation, deadline, _) => self.pending.push(Event::Passed {
                generation,
                deadline,
                emperor: true,
            }),
        }
    }

    fn forget(&mut self, generation: Generation) {
        assert!(self.files.remove(&generation), "forgot what is not there");
        if let Some(process) = self.processes.get_mut(&generation) {
            process.told_to_stop = true;
            assert_ne!(
                self.public,
                Some(generation),
                "stopped while it can be handed requests"
            );
            let busy = process.serving > 0 || self.sockets[&generation] > 0;
            // Who has never had the name serves nobody but a probe.
            let served = self.draining.contains(&generation);
            assert!(
                !busy || !served || self.by_force,
                "stopped while it is busy"
            );
        }
    }

    fn end_process(&mut self, generation: Generation) {
        if self.processes.remove(&generation).is_some() {
            self.pending.push(Event::Exited {
                generation,
                queued: false,
                emperor: true,
                cause: Reason::StartFailed,
            });
        }
    }

    fn end_some_process(&mut self) {
        if let Some(generation) = self.dice.one(self.processes.keys().copied()) {
            self.end_process(generation);
        }
    }

    fn finish_preparing(&mut self, honest: bool) {
        if let Some((generation, socket)) = self.preparing.pop() {
            self.deliver(Event::Admitted(generation));
            let event = match if honest { 0 } else { self.dice.roll(8) } {
                1 => Event::NotPrepared(generation, NotPrepared::Failed),
                2 => Event::NotPrepared(generation, NotPrepared::NoSuchSite),
                3 => Event::NotPrepared(generation, NotPrepared::Disabled),
                _ => Event::Prepared(generation),
            };
            // A start that has been given up has its socket thrown away by the driver.
            if matches!(event, Event::Prepared(_))
                && socket == Socket::New
                && self.machine.is_preparing(generation)
            {
                self.sockets.insert(generation, 0);
            }
            self.deliver(event);
        }
    }

    fn look(&mut self) {
        let Some(visitor) = self.looking.pop_first() else {
            return;
        };
        let seen = [Seen::Open, Seen::Open, Seen::Full, Seen::Stale][self.dice.roll(4)];
        if seen == Seen::Stale && self.machine.serving().is_some() {
            // Somebody has removed the name.
            self.public = None;
        }
        self.deliver(Event::Looked(visitor, seen));
    }

    fn inspect(&mut self) {
        if let Some(visitor) = self.inspecting.pop_first() {
            let changed = self.dice.roll(2) == 0;
            self.deliver(Event::Inspected(visitor, changed));
        }
    }

    fn launch(&mut self) {
        let waiting = self
            .files
            .iter()
            .copied()
            .filter(|file| !self.processes.contains_key(file));
        if self.emperor
            && let Some(file) = waiting.min()
        {
            self.deliver(Event::LaunchAsked(file));
        }
    }

    fn visitor(&mut self, open: Open) -> Visitor {
        self.visitors += 1;
        let visitor = Visitor(self.visitors);
        self.open.insert(visitor, open);
        visitor
    }

    /// A connection comes, is accepted, or is done with.
    fn traffic(&mut self) {
        if let Some(queue) = self.public.and_then(|public| self.sockets.get_mut(&public)) {
            *queue += self.dice.roll(2);
        }
        for (generation, process) in &mut self.processes {
            let queue = self
                .sockets
                .get_mut(generation)
                .expect("its socket is held");
            if process.ready && !process.told_to_stop && *queue > 0 && self.dice.roll(2) == 0 {
                *queue -= 1;
                process.serving += 1;
            } else if process.serving > 0 && self.dice.roll(2) == 0 {
                process.serving -= 1;
            }
        }
    }

    fn notice_drained(&mut self) {
        let busy = |generation: &Generation| {
            self.sockets.get(generation).is_some_and(|queue| *queue > 0)
                || self
                    .processes
                    .get(generation)
                    .is_some_and(|process| process.serving > 0)
        };
        let drained = self
            .draining
            .iter()
            .copied()
            .filter(|generation| !busy(generation));
        if let Some(generation) = self.dice.one(drained) {
            self.deliver(Event::Drained(generation));
        }
    }

    fn become_ready(&mut self) {
        let rising = self
            .processes
            .iter()
            .filter(|(_, process)| !process.ready && !process.told_to_stop)
            .map(|(generation, _)| *generation);
        if let Some(generation) = self.dice.one(rising) {
            self.processes.get_mut(&generation).unwrap().ready = true;
            self.pending.push(Event::Ready(generation));
        }
    }

    fn adversary(&mut self) {
        let elapsed = Duration::from_millis(self.dice.roll(3000) as u64);
        match self.dice.roll(31) {
            0..=4 => {
                let visit = Visit {
                    sent: self.dice.roll(4) == 0,
                    idempotent: self.dice.roll(2) == 0,
                    may_wake: self.dice.roll(4) != 0,
                };
                let visitor = self.visitor(Open::Visit(visit));
                self.deliver(Event::Visited(visitor, visit));
            }
            5 | 6 => self.finish_preparing(false),
            7 => self.look(),
            27 => self.inspect(),
            8 | 9 => self.launch(),
            10 | 11 => self.become_ready(),
            12 => self.end_some_process(),
            13 => {
                let ready = self.processes.iter().filter(|(_, process)| process.ready);
                let ready = ready.map(|(generation, _)| *generation);
                if let Some(generation) = self.dice.one(ready) {
                    self.pending.push(Event::StopAnnounced(generation));
                }
            }
            14 | 15 => self.traffic(),
            16 if self.dice.roll(3) == 0 => {
                self.emperor = false;
                while let Some((&generation, _)) = self.processes.first_key_value() {
                    self.end_process(generation);
                }
            }
            17 => {
                if !self.emperor {
                    self.emperor = true;
                    self.pending.push(Event::EmperorArrived);
                }
            }
            18 if self.dice.roll(10) == 0 => self.pending.push(Event::Retired),
            19..=21 => {
                let order = [Order::Start, Order::Reload, Order::Reload, Order::Stop];
                let order = order[self.dice.roll(4)];
                let visitor = self.visitor(Open::Order);
                self.deliver(Event::Ordered(visitor, order));
            }
            22 | 23 => self.notice_drained(),
            24 | 25 => {
                if let Some(generation) = self.machine.serving() {
                    self.deliver(Event::Idle(generation));
                }
            }
            // It may be outdated, or never have been true.
            26 => {
                let known = self.dice.one(self.sockets.keys().copied());
                if let Some(generation) = known {
                    let event = [Event::Needed(generation), Event::Idle(generation)];
                    self.pending.push(event[self.dice.roll(2)]);
                }
            }
            _ => self.pass(elapsed),
        }
        self.deliver_something();
        self.check();
    }

    /// Something already on its way arrives, or arrives a second time; order is nobody's friend.
    fn deliver_something(&mut self) {
        if self.pending.is_empty() || self.dice.roll(2) == 0 {
            return;
        }
        let index = self.dice.roll(self.pending.len());
        let event = self.pending.swap_remove(index);
        let early = matches!(
            event,
            Event::Passed {
                deadline: Deadline::Start | Deadline::Drain | Deadline::Stop,
                ..
            }
        ) && self.dice.roll(4) != 0;
        if early {
            self.pending.push(event);
            return;
        }
        if matches!(event, Event::Ready(_) | Event::StopAnnounced(_)) && self.dice.roll(6) == 0 {
            self.pending.push(event);
        }
        match event {
            Event::Probed(generation, _) => {
                let lives = self.processes.contains_key(&generation);
                let good = lives && self.dice.roll(3) != 0;
                if good {
                    self.passed_probe.insert(generation);
                }
                self.deliver(Event::Probed(generation, good));
            }
            // uWSGI says that it ends, and ends, whatever it still has to do.
            Event::StopAnnounced(generation) => {
                self.deliver(event);
                if let Some(process) = self.processes.get_mut(&generation) {
                    process.told_to_stop = true;
                }
            }
            _ => self.deliver(event),
        }
    }

    fn check(&self) {
        for file in &self.files {
            assert!(self.sockets.contains_key(file), "a vassal without a socket");
        }
        match self.machine.shown() {
            Shown::Asleep | Shown::Failing(_) => {
                assert_eq!(self.public, None, "asleep with a name");
                for generation in &self.files {
                    assert!(
                        self.draining.contains(generation),
                        "asleep with the vassal {generation}"
                    );
                }
            }
            Shown::Starting(_) => {}
            Shown::Running(_) | Shown::Reloading(_) => {
                let serving = self.machine.serving();
                assert!(serving.is_some_and(|serving| self.files.contains(&serving)));
                assert_eq!(self.public, serving, "a reload costs the name");
            }
            Shown::Stopping(_) => assert_eq!(self.public, None),
        }
    }

    /// The adversary rests; honest processes and a living Emperor bring everything to an end.
    fn settle(&mut self) {
        for _ in 0..10_000 {
            self.emperor = true;
            self.finish_preparing(true);
            self.look();
            self.inspect();
            self.launch();
            self.become_ready();
            let told = self
                .processes
                .iter()
                .find(|(_, process)| process.told_to_stop);
            if let Some((&generation, _)) = told {
                self.end_process(generation);
            }
            for (generation, process) in &mut self.processes {
                if process.ready {
                    process.serving = 0;
                    self.sockets.insert(*generation, 0);
                    self.pending.push(Event::Ready(*generation));
                }
            }
            self.notice_drained();
            let timers = |event: &Event| matches!(event, Event::Passed { .. });
            while let Some(index) = self.pending.iter().position(|event| !timers(event)) {
                let event = match self.pending.remove(index) {
                    Event::Probed(generation, _) if self.processes.contains_key(&generation) => {
                        self.passed_probe.insert(generation);
                        Event::Probed(generation, true)
                    }
                    event => event,
                };
                self.deliver(event);
            }
            self.check();
            let idle = matches!(
                self.machine.shown(),
                Shown::Asleep | Shown::Failing(_) | Shown::Running(_)
            );
            let empty = self.looking.is_empty()
                && self.inspecting.is_empty()
                && self.preparing.is_empty()
                && self.open.is_empty();
            let quiet = self.sockets.values().all(|queue| *queue == 0);
            let alone = self.sockets.len() <= 1 && self.processes.len() <= 1;
            if idle && empty && quiet && alone {
                return;
            }
        }
        panic!(
            "never settles: {:?}, {} open, sockets {:?}, processes {:?}",
            self.machine,
            self.open.len(),
            self.sockets,
            self.processes
        );
    }
}

#[test]
fn everybody_is_answered_once_and_no_request_meets_a_stopping_generation() {
    for seed in 0..3000 {
        let run = std::panic::catch_unwind(|| {
            let mut world = World::new(seed);
            for _ in 0..400 {
                world.adversary();
            }
            world.settle();
            assert!(world.open.is_empty());
        });
        assert!(run.is_ok(), "seed {seed}");
    }
}
