//! Promise R3, counted over a million sites: who moves, and how even the load is.

use routing::{Backends, Candidate, Method, Placement, State, Weight};

const SITES: usize = 1_000_000;
const NUMBERS: [usize; 10] = [1, 2, 3, 4, 7, 8, 16, 30, 64, 99];
const RENDEZVOUS: Placement = Placement::fixed(Method::Rendezvous);

/// Backends with these weights; 0 is one that is disabled.
fn backends(weights: &[u32]) -> Backends {
    let keys: Vec<String> = (0..weights.len())
        .map(|i| format!("10.1.0.{i}:9001"))
        .collect();
    Backends::new(keys.iter().zip(weights).map(|(key, &weight)| Candidate {
        key: key.as_bytes(),
        weight: Weight::new(weight.max(1)).unwrap(),
        state: if weight == 0 {
            State::Disabled
        } else {
            State::Active
        },
    }))
}

/// The backend of every site.
fn places(backends: &Backends) -> Vec<usize> {
    let place = |i| {
        backends.choose(
            format!("site{i}.example.com").as_bytes(),
            None,
            &RENDEZVOUS,
            |_| true,
        )
    };
    (0..SITES).map(|i| place(i).unwrap()).collect()
}

fn loads(places: &[usize], backends: usize) -> Vec<usize> {
    let mut loads = vec![0; backends];
    places.iter().for_each(|&place| loads[place] += 1);
    loads
}

/// The largest load as a multiple of the average.
fn unevenness(loads: &[usize]) -> f64 {
    let average = loads.iter().sum::<usize>() as f64 / loads.len() as f64;
    *loads.iter().max().unwrap() as f64 / average
}

#[test]
fn adding_one_moves_its_share_and_to_it_alone() {
    for n in NUMBERS {
        let (before, after) = (
            places(&backends(&vec![1; n])),
            places(&backends(&vec![1; n + 1])),
        );
        let mut moved = 0;
        for (before, after) in before.iter().zip(&after) {
            if before != after {
                assert_eq!(*after, n, "a site moved between backends that stayed");
                moved += 1;
            }
        }
        let (moved, share) = (moved as f64 / SITES as f64, 1.0 / (n + 1) as f64);
        assert!(moved <= share + 0.005, "{n}: {moved} of the sites moved");
        for loads in [loads(&before, n), loads(&after, n + 1)] {
            let unevenness = unevenness(&loads);
            println!(
                "{:3} backends: largest load {unevenness:.3} of the average; {moved:.4} move",
                loads.len()
            );
            assert!(unevenness <= 1.05, "{} backends: {unevenness}", loads.len());
        }
    }
}

#[test]
fn removing_one_moves_its_own_and_spreads_them() {
    for n in [2, 5, 10, 50] {
        let mut weights = vec![1; n];
        let before = places(&backends(&weights));
        let gone = n / 2;
        weights[gone] = 0;
        let after = places(&backends(&weights));
        let mut heirs = vec![0; n];
        for (before, after) in before.iter().zip(&after) {
            if *before == gone {
                heirs[*after] += 1;
            } else {
                assert_eq!(before, after, "a site of another backend moved");
            }
        }
        assert_eq!(heirs.remove(gone), 0);
        // Few sites for each heir where there are many: chance alone makes these uneven.
        assert!(
            unevenness(&heirs) <= if n == 50 { 1.2 } else { 1.05 },
            "{heirs:?}"
        );
    }
}

#[test]
fn weights_are_shares() {
    for weights in [
        vec![1, 2],
        vec![1, 1, 1, 3],
        vec![100, 200, 300, 400, 9000],
        vec![1, 10_000],
    ] {
        let loads = loads(&places(&backends(&weights)), weights.len());
        let total: u32 = weights.iter().sum();
        for (weight, load) in weights.iter().zip(loads) {
            let (share, expected) = (
                load as f64 / SITES as f64,
                f64::from(*weight) / f64::from(total),
            );
            assert!(
                (share - expected).abs() <= 0.002,
                "weight {weight} of {total}: {share}"
            );
        }
    }
}

#[test]
fn equal_weights_place_as_no_weights() {
    assert_eq!(places(&backends(&[1; 9])), places(&backends(&[700; 9])));
}

#[test]
fn raising_a_weight_moves_sites_to_it_alone() {
    let (before, after) = (places(&backends(&[3, 5, 7])), places(&backends(&[3, 6, 7])));
    let moved = before
        .iter()
        .zip(&after)
        .filter(|(before, after)| before != after);
    let moved = moved.inspect(|(_, after)| assert_eq!(**after, 1)).count();
    let expected = 6.0 / 16.0 - 5.0 / 15.0;
    assert!((moved as f64 / SITES as f64 - expected).abs() < 0.002);
}
