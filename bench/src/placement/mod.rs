//! Promise R3: how even the load is, and who moves, against the ways that others place with. Counted, not timed.

mod ketama;
mod maglev;

use std::fmt::Write as _;

use clap::Args;
use routing::{Backends, Candidate, Method, Placement, SlotTable, State, Weight};
use serde::{Deserialize, Serialize};

use crate::machine::Machine;
use crate::results::{self, Table};

/// What can be asked for.
#[derive(Debug, Args)]
pub struct Arguments {
    /// Put the results into docs/benchmarks.md.
    #[arg(long)]
    write: bool,
    /// Count nothing: print the results there are.
    #[arg(long)]
    report: bool,
    /// How many sites are placed.
    #[arg(long, default_value_t = 1_000_000)]
    sites: usize,
    /// Over how many backends.
    #[arg(long, value_delimiter = ',', default_value = "3,10,100,1000")]
    backends: Vec<usize>,
}

/// From a site to its backend.
type Place = Box<dyn FnMut(&[u8]) -> usize>;

/// A way to place.
struct Way {
    name: &'static str,
    /// Gets ready for these backends.
    place: fn(&[Backend]) -> Place,
    knows_weights: bool,
}

/// What is known of a backend: it keeps its address when others come and go.
#[derive(Clone)]
struct Backend {
    address: String,
    weight: u32,
}

const WAYS: [Way; 4] = [
    Way {
        name: "ours: rendezvous",
        place: |backends| ours(backends, Method::Rendezvous),
        knows_weights: true,
    },
    Way {
        name: "Python's hash modulo n",
        place: |backends| ours(backends, Method::Python64),
        knows_weights: false,
    },
    Way {
        name: "ketama 160 (nginx's `consistent`)",
        place: |backends| {
            let ring = ketama::Ring::new(backends);
            Box::new(move |site| ring.find(site))
        },
        knows_weights: true,
    },
    Way {
        name: "Maglev 65537",
        place: |backends| {
            let table = maglev::Lookup::new(backends);
            Box::new(move |site| table.find(site))
        },
        knows_weights: true,
    },
];

fn ours(backends: &[Backend], method: Method) -> Place {
    let candidates = backends.iter().map(|backend| Candidate {
        key: backend.address.as_bytes(),
        weight: Weight::new(backend.weight).unwrap_or_default(),
        state: State::Active,
    });
    let mut memo = SlotTable::new(Backends::new(candidates));
    let placement = Placement::fixed(method);
    Box::new(move |site| {
        memo.choose(site, None, &placement, |_| true)
            .unwrap_or_default()
    })
}

/// What was counted.
#[derive(Debug, Serialize, Deserialize)]
pub struct Results {
    machine: Machine,
    sites: usize,
    rows: Vec<Row>,
}

/// One way over one set of backends.
#[derive(Debug, Serialize, Deserialize)]
struct Row {
    way: String,
    backends: usize,
    are_weighted: bool,
    /// The largest load of a backend, as a multiple of its share.
    largest: f64,
    /// The share of the sites that move when a backend comes; and of those that move between backends that were there.
    added: [f64; 2],
    /// The same when one goes.
    removed: [f64; 2],
    /// What has to move at least.
    least: [f64; 2],
}

/// Runs it.
///
/// # Errors
/// Results cannot be read or written.
pub fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let results = match arguments.report {
        true => {
            results::load("placement").ok_or_else(|| anyhow::anyhow!("nothing was counted yet"))?
        }
        false => {
            let results = count(arguments);
            results::save("placement", &results)?;
            results
        }
    };
    let text = report(&results);
    println!("\n{text}");
    if arguments.write {
        println!(
            "written: {}",
            results::document("placement", &text)?.display()
        );
    }
    Ok(())
}

fn count(arguments: &Arguments) -> Results {
    let machine = Machine::look();
    let mut rows = Vec::new();
    for &number in &arguments.backends {
        for are_weighted in [false, true] {
            for way in WAYS.iter().filter(|way| way.knows_weights || !are_weighted) {
                eprintln!(
                    "placement: {number} backends, weights: {are_weighted}, {}",
                    way.name
                );
                rows.push(way.count(number, are_weighted, arguments.sites));
            }
        }
    }
    Results {
        machine,
        sites: arguments.sites,
        rows,
    }
}

impl Way {
    fn count(&self, number: usize, are_weighted: bool, sites: usize) -> Row {
        // Weights 1 to 4, by turns.
        let weight = |number: usize| {
            if are_weighted {
                number as u32 % 4 + 1
            } else {
                1
            }
        };
        let mut backends: Vec<Backend> = (0..=number)
            .map(|number| Backend {
                address: format!("10.{}.{}.1:9001", number / 200, number % 200),
                weight: weight(number),
            })
            .collect();
        let after_coming = self.places(&backends, sites);
        let newest = number;
        let coming = backends.pop().map_or(0, |backend| backend.weight);
        let before = self.places(&backends, sites);
        let gone = number / 2;
        let going = backends.remove(gone).weight;
        // The places of those that stay are numbered as before.
        let after_going: Vec<usize> = self
            .places(&backends, sites)
            .into_iter()
            .map(|place| place + usize::from(place >= gone))
            .collect();
        let total: u32 = backends.iter().map(|backend| backend.weight).sum::<u32>() + going;
        let share = |count: usize| count as f64 / sites as f64;
        let moved = |after: &[usize], is_right: &dyn Fn(usize, usize) -> bool| {
            let pairs = || {
                before
                    .iter()
                    .zip(after)
                    .filter(|(before, after)| before != after)
            };
            let wrong = pairs().filter(|(before, after)| !is_right(**before, **after));
            [share(pairs().count()), share(wrong.count())]
        };
        let mut loads = vec![0_usize; number];
        before.iter().for_each(|&place| loads[place] += 1);
        let largest = loads
            .iter()
            .enumerate()
            .map(|(backend, &load)| share(load) * f64::from(total) / f64::from(weight(backend)))
            .fold(0.0, f64::max);
        Row {
            way: self.name.to_owned(),
            backends: number,
            are_weighted,
            largest,
            added: moved(&after_coming, &|_, after| after == newest),
            removed: moved(&after_going, &|before, _| before == gone),
            least: [
                f64::from(coming) / f64::from(total + coming),
                f64::from(going) / f64::from(total),
            ],
        }
    }

    fn places(&self, backends: &[Backend], sites: usize) -> Vec<usize> {
        let mut place = (self.place)(backends);
        (0..sites)
            .map(|site| place(format!("site{site}.example.com").as_bytes()))
            .collect()
    }
}

fn report(results: &Results) -> String {
    let mut text = String::new();
    for are_weighted in [false, true] {
        let mut table = Table::new([
            "way",
            "backends",
            "largest / its share",
            "move, one comes",
            "needlessly",
            "move, one goes",
            "needlessly",
        ]);
        let percent = |share: f64| format!("{:.2} %", share * 100.0);
        let mut last = 0;
        for row in results
            .rows
            .iter()
            .filter(|row| row.are_weighted == are_weighted)
        {
            if row.backends != last {
                last = row.backends;
                let least = row.least.map(percent);
                table.row([
                    "*least possible*".to_owned(),
                    last.to_string(),
                    "1.000".to_owned(),
                    least[0].clone(),
                    percent(0.0),
                    least[1].clone(),
                    percent(0.0),
                ]);
            }
            table.row([
                row.way.clone(),
                row.backends.to_string(),
                format!("{:.3}", row.largest),
                percent(row.added[0]),
                percent(row.added[1]),
                percent(row.removed[0]),
                percent(row.removed[1]),
            ]);
        }
        let title = match are_weighted {
            true => "Backends of weights 1, 2, 3, 4 by turns",
            false => "Backends of equal weight",
        };
        let _ = writeln!(
            text,
            "**{title}**, {} sites\n\n{}",
            results.sites,
            table.markdown()
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_counted_of_the_ways_is_what_they_are_known_for() {
        for are_weighted in [false, true] {
            let rows = WAYS.map(|way| way.count(10, are_weighted, 20_000));
            let [ours, python, ketama, maglev] = &rows;
            assert_eq!((ours.added[1], ours.removed[1]), (0.0, 0.0));
            assert_eq!((ketama.added[1], ketama.removed[1]), (0.0, 0.0));
            assert!(ours.largest < 1.1, "{}", ours.largest);
            assert!(maglev.largest < 1.1, "{}", maglev.largest);
            assert!(ketama.largest > 1.05, "{}", ketama.largest);
            assert!(
                (0.0..0.05).contains(&maglev.added[1]),
                "{}",
                maglev.added[1]
            );
            if !are_weighted {
                assert!(python.added[0] > 0.85, "{}", python.added[0]);
            }
        }
    }
}
