//! Promise W1: what waking a site adds to starting its uWSGI by hand.
//!
//! The site is visited through the balancer and a backend of a real platform when it sleeps, and started by hand, by turns:
//! the difference is taken pair by pair. The phases come from the clocks of those who were there: the client's, the daemon's
//! log, and the site's own module, which notes when the import of the application began and ended.

mod app;
mod by_hand;
mod clock;
mod report;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::{env, fs};

use anyhow::{Context as _, ensure};
use paas_tests::platform::Options;
use paas_tests::{Platform, Request, Root, network, process, wait};
use serde::{Deserialize, Serialize};

use crate::machine::{Machine, go_before_others};
use crate::results;
use app::App;
use by_hand::ByHand;
use clock::Moment;

/// How many processes a site has, by hand as by default in the platform.
const WORKERS: u32 = 2;

/// What can be asked for.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// Which examples.
    #[arg(
        long,
        value_delimiter = ',',
        default_value = "smallest,flask,django",
        value_name = "NAME,..."
    )]
    apps: Vec<String>,
    /// How often each is woken and started by hand.
    #[arg(long, default_value_t = 15)]
    pairs: usize,
    /// Put the results into docs/benchmarks.md.
    #[arg(long)]
    write: bool,
    /// Measure nothing: print the results there are.
    #[arg(long)]
    report: bool,
}

/// How long something took, and which part of it what; in milliseconds.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Phases {
    /// From the beginning to the whole answer.
    pub all: f64,
    /// The phases.
    pub each: BTreeMap<String, f64>,
}

/// One site: pairs of waking it and starting it by hand.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Pairs {
    /// What it ran on.
    pub machine: Machine,
    /// Waking.
    pub woken: Vec<Phases>,
    /// By hand.
    pub by_hand: Vec<Phases>,
    /// Waking without a sandbox; as root only.
    #[serde(default)]
    pub bare: Vec<Phases>,
    /// Waking with a network that leads out; as root only.
    #[serde(default)]
    pub outbound: Vec<Phases>,
}

/// All sites, by the name of the example.
pub type Results = BTreeMap<String, Pairs>;

/// Runs what was asked for.
///
/// # Errors
/// Something did not answer.
pub fn run(arguments: &Arguments) -> anyhow::Result<()> {
    ensure!(arguments.pairs > 0, "nothing to measure");
    let mut all: Results = results::load("wake").unwrap_or_default();
    if !arguments.report {
        let is_root = rustix::process::geteuid().is_root();
        if is_root && network::again_in_its_own(env::args_os().skip(1))? {
            return Ok(());
        }
        if !go_before_others() {
            eprintln!("wake: as root, it could be measured undisturbed by other programs");
        }
        let options = Options {
            log: Some("info,control=debug".to_owned()),
            ..Options::default()
        };
        let [root, bare_root, outbound_root] = [(); 3].map(|()| Root::new());
        let platform = Platform::with(&root, options.clone());
        let beside = |root, backend: &str| {
            let backend = format!("[sandbox]\n{backend}\n");
            let options = Options {
                backend,
                ..options.clone()
            };
            is_root.then(|| Platform::with(root, options))
        };
        let others = Others {
            bare: beside(&bare_root, "enabled = false"),
            outbound: beside(&outbound_root, "network = \"outbound\""),
        };
        for name in &arguments.apps {
            let pairs = measure(&root, &platform, &others, name, arguments.pairs)?;
            all.insert(name.clone(), pairs);
            results::save("wake", &all)?;
        }
    }
    println!("\n{}", report::document(&all));
    if arguments.write {
        report::write(&all)?;
    }
    Ok(())
}

/// Platforms with other walls; as root only.
struct Others<'r> {
    bare: Option<Platform<'r>>,
    outbound: Option<Platform<'r>>,
}

fn measure(
    root: &Root,
    platform: &Platform<'_>,
    others: &Others<'_>,
    name: &str,
    pairs: usize,
) -> anyhow::Result<Pairs> {
    let machine = Machine::look();
    let app = App::install(root, platform, name)?;
    let site = Site::add(platform, &app);
    let others = [&others.bare, &others.outbound].map(|other| {
        let site = other.as_ref().map(|platform| Site::add(platform, &app));
        (site, Vec::new())
    });
    let by_hand = ByHand::new(root, &app, WORKERS)?;
    // The first of each does not count: it compiles, and reads files from the disk.
    site.wake(&app)?;
    by_hand.run(&app)?;
    site.wait_asleep();
    for (other, _) in &others {
        let Some(other) = other else { continue };
        other.wake(&app)?;
        other.wait_asleep();
    }
    let (mut woken, mut started) = (Vec::new(), Vec::new());
    let mut others = others;
    for pair in 0..pairs {
        eprint!("\r{name}: pair {} of {pairs} ", pair + 1);
        site.wait_asleep();
        // Each comes first as often as the other.
        if pair % 2 == 0 {
            started.push(by_hand.run(&app)?);
            woken.push(site.wake(&app)?);
        } else {
            woken.push(site.wake(&app)?);
            site.wait_asleep();
            started.push(by_hand.run(&app)?);
        }
        site.wait_asleep();
        for (other, times) in &mut others {
            let Some(other) = other else { continue };
            times.push(other.wake(&app)?);
            other.wait_asleep();
        }
    }
    eprintln!();
    let [(_, bare), (_, outbound)] = others;
    Ok(Pairs {
        machine,
        woken,
        by_hand: started,
        bare,
        outbound,
    })
}

/// A site of the platform.
struct Site<'p> {
    platform: &'p Platform<'p>,
    domain: String,
    directory: PathBuf,
    id: u64,
    log: PathBuf,
}

impl<'p> Site<'p> {
    fn add(platform: &'p Platform<'p>, app: &App) -> Site<'p> {
        let domain = format!("{}.localhost", app.name);
        let arguments = ["--entry", "noted:application", "--idle", "1s"];
        platform.add_site(&domain, &app.directory, &arguments);
        Site {
            platform,
            directory: app.directory.clone(),
            id: platform.site_id(&domain),
            log: platform.backend(1).join("var/log/paas/paasctl.log"),
            domain,
        }
    }

    /// Asleep is: no vassal file, no process.
    fn wait_asleep(&self) {
        wait::until_true("the site sleeps", || {
            self.platform.vassals(&self.domain).is_empty()
                && process::under(&self.directory).is_empty()
        });
    }

    fn wake(&self, app: &App) -> anyhow::Result<Phases> {
        app.forget()?;
        let before = fs::metadata(&self.log)?.len();
        let began = Moment::now();
        let answer = Request::get(&self.domain, "/").try_send(self.platform.port())?;
        let answered = Moment::now();
        ensure!(answer.status == 200, "{answer:?}");
        let (import, imported) = app.imported()?;
        let log = fs::read(&self.log)?;
        let log = String::from_utf8_lossy(log.get(usize::try_from(before)?..).unwrap_or_default());
        let step = |event: &str| {
            self.step(&log, event).with_context(|| {
                format!("no {event} of site {} in the daemon's log:\n{log}", self.id)
            })
        };
        let [visited, prepared, asked, ready] = [
            step("Visited")?,
            step("Prepared")?,
            step("LaunchAsked")?,
            step("Ready")?,
        ];
        Ok(Phases {
            all: answered.since(began),
            each: [
                ("park", visited.since(began)),
                ("look-up", prepared.since(visited)),
                ("launch", asked.since(prepared)),
                ("spawn", import.since(asked)),
                ("import", imported.since(import)),
                ("ready", ready.since(imported)),
                ("first answer", answered.since(ready)),
            ]
            .map(|(name, time)| (name.to_owned(), time))
            .into(),
        })
    }

    /// When the daemon took the first step of this kind with this site.
    fn step(&self, log: &str, event: &str) -> Option<Moment> {
        let (site, event) = (format!(" site={} ", self.id), format!("event={event}("));
        log.lines()
            .find(|line| line.contains(&site) && line.contains(&event))
            .and_then(|line| Moment::parse(line.split_whitespace().next()?))
    }
}
