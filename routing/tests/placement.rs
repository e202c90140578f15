//! Placement: which backend a site gets, whatever the states, pins, weights and methods.

use std::num::NonZeroU32;

use proptest::collection::vec;
use proptest::prelude::*;
use routing::python27::{floor_mod, hash32, hash64};
use routing::rendezvous::key_hash;
use routing::{Backends, Candidate, Method, Placement, SlotTable, SlowChange, State, Weight};

const RENDEZVOUS: Placement = Placement::fixed(Method::Rendezvous);

fn backends(members: &[(u32, State)]) -> Backends {
    let keys: Vec<String> = (0..members.len())
        .map(|i| format!("10.0.0.{i}:9001"))
        .collect();
    Backends::new(
        keys.iter()
            .zip(members)
            .map(|(key, &(weight, state))| Candidate {
                key: key.as_bytes(),
                weight: Weight::new(weight).unwrap(),
                state,
            }),
    )
}

fn active(n: usize) -> Backends {
    backends(&vec![(1, State::Active); n])
}

fn sites() -> impl Iterator<Item = String> {
    (0..500).map(|i| format!("site{i}.example"))
}

#[test]
fn without_backends_there_is_no_choice() {
    for method in [Method::Rendezvous, Method::Python64, Method::Python32] {
        let placement = Placement::fixed(method);
        assert_eq!(active(0).choose(b"a", None, &placement, |_| true), None);
        assert_eq!(active(0).choose(b"a", Some(0), &placement, |_| true), None);
        assert_eq!(active(3).choose(b"a", Some(0), &placement, |_| false), None);
        let disabled = backends(&[(1, State::Disabled); 3]);
        assert_eq!(disabled.choose(b"a", Some(1), &placement, |_| true), None);
    }
}

#[test]
fn a_pin_comes_first_unless_it_cannot_be_used() {
    let backends = backends(&[
        (1, State::Active),
        (1, State::Draining),
        (1, State::Disabled),
        (1, State::Active),
    ]);
    for site in sites() {
        let choose =
            |pin, except| backends.choose(site.as_bytes(), pin, &RENDEZVOUS, |i| Some(i) != except);
        let placed = choose(None, None);
        assert!(placed.is_some() && placed != Some(2));
        assert_eq!(choose(Some(0), None), Some(0));
        assert_eq!(
            choose(Some(1), None),
            Some(1),
            "a draining backend keeps what is pinned to it"
        );
        assert_eq!(
            choose(Some(2), None),
            placed,
            "a disabled backend gets nothing"
        );
        assert_eq!(
            choose(Some(9), None),
            placed,
            "a pin to a backend that is no more"
        );
        assert_eq!(choose(Some(1), Some(1)), choose(None, Some(1)));
    }
}

#[test]
fn a_draining_backend_keeps_its_place_and_a_disabled_one_has_none() {
    let members = [
        State::Draining,
        State::Active,
        State::Disabled,
        State::Draining,
        State::Active,
    ];
    let mixed = backends(&members.map(|state| (1, state)));
    for method in [Method::Rendezvous, Method::Python64, Method::Python32] {
        let placement = Placement::fixed(method);
        for site in sites() {
            let in_service = active(members.len()).preference(site.as_bytes(), None, &placement);
            // The python methods name one; of the others the rendezvous order decides, as if it had not been there.
            let in_service = match in_service[0] {
                2 => active(members.len()).preference(site.as_bytes(), None, &RENDEZVOUS),
                _ => in_service,
            };
            let in_service: Vec<usize> = in_service.into_iter().filter(|&i| i != 2).collect();
            assert_eq!(
                mixed.preference(site.as_bytes(), None, &placement),
                in_service
            );
        }
    }
}

#[test]
fn the_python_methods_count_every_backend() {
    for (method, down) in [(Method::Python64, 1), (Method::Python32, 2)] {
        let placement = Placement::fixed(method);
        let all = active(4);
        let mut members = [(1, State::Active); 4];
        members[down].1 = State::Disabled;
        let without = backends(&members);
        for site in sites() {
            let hash = match method {
                Method::Python32 => hash32(site.as_bytes()).into(),
                _ => hash64(site.as_bytes()),
            };
            let named = floor_mod(hash, NonZeroU32::new(4).unwrap()) as usize;
            assert_eq!(
                all.choose(site.as_bytes(), None, &placement, |_| true),
                Some(named)
            );
            let others = all.choose(site.as_bytes(), None, &RENDEZVOUS, |i| i != named);
            assert_eq!(
                all.choose(site.as_bytes(), None, &placement, |i| i != named),
                others
            );
            let expected = if named == down { others } else { Some(named) };
            assert_eq!(
                without.choose(site.as_bytes(), None, &placement, |_| true),
                expected
            );
        }
    }
}

#[test]
fn a_slow_change_takes_sites_over_one_by_one_and_back() {
    let backends = active(7);
    let changing = |threshold| Placement {
        method: Method::Rendezvous,
        change: Some(SlowChange {
            from: Method::Python64,
            threshold,
        }),
    };
    let choose = |site: &str, placement: Placement| {
        backends.choose(site.as_bytes(), None, &placement, |_| true)
    };
    for site in sites() {
        let (old, new) = (
            choose(&site, Placement::fixed(Method::Python64)),
            choose(&site, RENDEZVOUS),
        );
        let own = key_hash(site.as_bytes());
        assert_eq!(choose(&site, changing(0)), old);
        assert_eq!(choose(&site, changing(own)), old);
        assert_eq!(choose(&site, changing(own + 1)), new);
        assert_eq!(choose(&site, changing(u64::MAX)), new);
    }
    assert_eq!(changing(u64::MAX).method_for(u64::MAX), Method::Rendezvous);
    let half = sites()
        .filter(|site| key_hash(site.as_bytes()) < u64::MAX / 2)
        .count();
    assert!(
        (200..300).contains(&half),
        "half the threshold takes about half of the sites: {half}"
    );
}

#[test]
fn words_name_methods_and_states() {
    for method in [Method::Rendezvous, Method::Python64, Method::Python32] {
        assert_eq!(method.to_string().parse(), Ok(method));
    }
    for state in [State::Active, State::Draining, State::Disabled] {
        assert_eq!(state.to_string().parse(), Ok(state));
    }
    let error = "sticky".parse::<Method>().unwrap_err().to_string();
    assert_eq!(
        error,
        "not a placement method: write one of rendezvous, python64, python32"
    );
    assert!("Active".parse::<State>().is_err());
    assert_eq!(
        Weight::new(0).unwrap_err().to_string(),
        "0 is not a weight: write 1 to 10000"
    );
    assert!(Weight::new(10_001).is_err() && Weight::new(65_537).is_err());
    assert_eq!(Weight::new(10_000).unwrap().get(), 10_000);
}

#[test]
fn equal_keys_are_told_apart_by_their_order() {
    let twin = Candidate {
        key: b"same",
        weight: Weight::ONE,
        state: State::Active,
    };
    for weights in [[1, 1], [2, 2], [5, 5]] {
        let twins = Backends::new(weights.map(|weight| Candidate {
            weight: Weight::new(weight).unwrap(),
            ..twin
        }));
        for site in sites() {
            assert_eq!(twins.preference(site.as_bytes(), None, &RENDEZVOUS), [0, 1]);
        }
    }
}

fn state() -> impl Strategy<Value = State> {
    prop_oneof![4 => Just(State::Active), 1 => Just(State::Draining), 1 => Just(State::Disabled)]
}

fn method() -> impl Strategy<Value = Method> {
    prop_oneof![
        Just(Method::Rendezvous),
        Just(Method::Python64),
        Just(Method::Python32)
    ]
}

fn placement() -> impl Strategy<Value = Placement> {
    (method(), proptest::option::of((method(), any::<u64>()))).prop_map(|(method, change)| {
        Placement {
            method,
            change: change.map(|(from, threshold)| SlowChange { from, threshold }),
        }
    })
}

fn members(max: usize) -> impl Strategy<Value = Vec<(u32, State)>> {
    prop_oneof![
        vec((Just(1_u32), state()), 0..max),
        vec((prop_oneof![1_u32..=10, 1_u32..=10_000], state()), 0..max)
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn the_preference_has_everyone_who_may_serve_once(members in members(20), site: Vec<u8>, placement in placement(), pin in proptest::option::of(0_usize..25)) {
        let order = backends(&members).preference(&site, pin, &placement);
        let mut sorted = order.clone();
        sorted.sort_unstable();
        let may: Vec<usize> = (0..members.len()).filter(|&i| members[i].1 != State::Disabled).collect();
        prop_assert_eq!(sorted, may);
        let active: Vec<_> = members.iter().map(|&(weight, state)| match state {
            State::Draining => (weight, State::Active),
            other => (weight, other),
        }).collect();
        prop_assert_eq!(order, backends(&active).preference(&site, pin, &placement), "draining changes no order");
    }

    #[test]
    fn losing_a_backend_changes_nothing_for_the_others(members in members(20), site: Vec<u8>, lost in 0_usize..20) {
        let all = backends(&members);
        let before = all.choose(&site, None, &RENDEZVOUS, |_| true);
        let after = all.choose(&site, None, &RENDEZVOUS, |i| i != lost);
        prop_assert!(before == after || before == Some(lost));
        let mut disabled = members.clone();
        if let Some(member) = disabled.get_mut(lost) {
            member.1 = State::Disabled;
        }
        prop_assert_eq!(backends(&disabled).choose(&site, None, &RENDEZVOUS, |_| true), after);
    }

    #[test]
    fn the_memo_answers_as_its_backends(members in members(60), sites in vec(any::<Vec<u8>>(), 1..8), placement in placement(), pin in proptest::option::of(0_usize..60), broken in vec(0_usize..60, 0..40)) {
        let backends = backends(&members);
        let mut memo = SlotTable::new(backends.clone());
        for site in sites.iter().chain(&sites) {
            let usable = |i| !broken.contains(&i);
            prop_assert_eq!(memo.choose(site, pin, &placement, usable), backends.choose(site, pin, &placement, usable));
            prop_assert_eq!(memo.choose(site, None, &RENDEZVOUS, |_| true), backends.choose(site, None, &RENDEZVOUS, |_| true));
        }
    }

    /// Raising one backend's weight can only move sites to it.
    #[test]
    fn more_weight_never_loses_a_site(mut members in members(20), site: Vec<u8>, which in 0_usize..20, more in 1_u32..10_000) {
        let before = backends(&members).choose(&site, None, &RENDEZVOUS, |_| true);
        if let Some(member) = members.get_mut(which) {
            member.0 = (member.0 + more).min(Weight::MAX);
        }
        let after = backends(&members).choose(&site, None, &RENDEZVOUS, |_| true);
        prop_assert!(after == before || after == Some(which));
    }

    /// The short cut for equal weights, against the same weights with one backend that never gets a site.
    #[test]
    fn the_short_cut_for_equal_weights_is_exact(n in 1_usize..30, weight in 1_u32..=Weight::MAX, site: Vec<u8>) {
        let mut members = vec![(weight, State::Active); n];
        let short = backends(&members).preference(&site, None, &RENDEZVOUS);
        members.push((weight % Weight::MAX + 1, State::Disabled));
        prop_assert_eq!(backends(&members).preference(&site, None, &RENDEZVOUS), short);
    }
}
