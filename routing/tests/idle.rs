//! What is kept idle: against a plain list that does the same slowly, over random histories.

use proptest::prelude::*;
use routing::idle::{Idle, Limits, Ticket};

#[derive(Debug, Clone)]
enum Step {
    Put(u8),
    Take(u8),
    Remove(u8),
    Expire(u8),
    TakeOf(u8),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        5 => (0u8..12).prop_map(Step::Put),
        3 => (0u8..12).prop_map(Step::Take),
        1 => any::<u8>().prop_map(Step::Remove),
        1 => (0u8..40).prop_map(Step::Expire),
        1 => (0u8..12).prop_map(Step::TakeOf),
    ];
    prop::collection::vec(step, 0..300)
}

/// The same, obviously right: a list from the oldest to the newest.
struct Model {
    limits: Limits,
    kept: Vec<(u8, u64, u32)>,
}

impl Model {
    fn put(&mut self, peer: u8, now: u64, value: u32) -> Result<Option<u32>, u32> {
        if self.limits.per_peer == 0 || self.limits.total == 0 {
            return Err(value);
        }
        let of_peer = self.kept.iter().filter(|kept| kept.0 == peer).count();
        let goes = if of_peer >= self.limits.per_peer {
            self.kept.iter().position(|kept| kept.0 == peer)
        } else {
            (self.kept.len() >= self.limits.total).then_some(0)
        };
        let displaced = goes.map(|at| self.kept.remove(at).2);
        self.kept.push((peer, now, value));
        Ok(displaced)
    }

    fn take(&mut self, peer: u8) -> Option<u32> {
        let at = self.kept.iter().rposition(|kept| kept.0 == peer)?;
        Some(self.kept.remove(at).2)
    }
}

proptest! {
    #[test]
    fn it_keeps_what_a_plain_list_would(total in 0usize..9, per_peer in 0usize..5, steps in steps()) {
        let limits = Limits { total, per_peer };
        let mut idle = Idle::new(limits);
        let mut model = Model { limits, kept: Vec::new() };
        let mut tickets: Vec<(Ticket, u32)> = Vec::new();
        for (at, step) in steps.into_iter().enumerate() {
            let (now, value) = (at as u64, at as u32);
            match step {
                Step::Put(peer) => {
                    let id = idle.peer(&[peer]);
                    let put = idle.put(id, now, value);
                    if let Ok((ticket, _)) = put {
                        prop_assert!(ticket.index() < total);
                        tickets.retain(|(known, _)| *known != ticket);
                        tickets.push((ticket, value));
                    }
                    prop_assert_eq!(put.map(|(_, displaced)| displaced), model.put(peer, now, value));
                }
                Step::Take(peer) => {
                    let id = idle.peer(&[peer]);
                    prop_assert_eq!(idle.take(id), model.take(peer));
                }
                Step::Remove(which) => {
                    let live: Vec<_> = tickets
                        .iter()
                        .filter(|(_, value)| model.kept.iter().any(|kept| kept.2 == *value))
                        .copied()
                        .collect();
                    if let Some((ticket, value)) = live.get(usize::from(which) % live.len().max(1)) {
                        prop_assert_eq!(idle.remove(*ticket), Some(*value));
                        prop_assert_eq!(idle.remove(*ticket), None, "only once");
                        model.kept.retain(|kept| kept.2 != *value);
                    }
                }
                Step::Expire(age) => {
                    let since = now.saturating_sub(age.into());
                    while let Some(value) = idle.take_idle_since(since) {
                        let oldest = model.kept.remove(0);
                        prop_assert_eq!(value, oldest.2);
                        prop_assert!(oldest.1 <= since);
                    }
                    prop_assert!(model.kept.first().is_none_or(|oldest| oldest.1 > since));
                }
                Step::TakeOf(peer) => {
                    let mut taken = idle.take_of(|name| name == [peer]);
                    taken.sort_unstable();
                    let gone: Vec<u32> = model.kept.iter().filter(|kept| kept.0 == peer).map(|kept| kept.2).collect();
                    model.kept.retain(|kept| kept.0 != peer);
                    prop_assert_eq!(taken, gone);
                }
            }
            prop_assert_eq!(idle.len(), model.kept.len());
            prop_assert_eq!(idle.oldest(), model.kept.first().map(|oldest| oldest.1));
        }
    }
}

#[test]
fn peers_that_come_and_go_do_not_fill_the_memory_and_lose_nothing() {
    let mut idle = Idle::new(Limits {
        total: 4,
        per_peer: 2,
    });
    let old = idle.peer(b"stays");
    let _ = idle.put(old, 0, u32::MAX);
    for number in 0..10_000_u32 {
        let peer = idle.peer(&number.to_be_bytes());
        let _ = idle.put(peer, number.into(), number);
        assert_eq!(idle.take(peer), Some(number));
    }
    assert_eq!(idle.len(), 1);
    // It has another number by now: what it stood for may be another peer.
    assert_eq!(idle.take(old), None);
    assert_eq!(idle.put(old, 10_000, 7), Err(7));
    let stays = idle.peer(b"stays");
    assert_eq!(idle.take(stays), Some(u32::MAX));
    assert!(idle.is_empty());
}
