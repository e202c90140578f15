//! What happened to a site lately: its last starts and the requests that broke off in it, for `paasctl why`.
//!
//! One small file for each site, below the machine's state directory: it survives the daemon and a reboot. A task of its own
//! reads and writes them, so that a slow disk holds nobody up. A crash may lose the last entry, never the file.

use std::collections::VecDeque;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use tokio::sync::{mpsc, oneshot};

use super::diagnosis::Exit;
use super::reason::Reason;
use super::words::Generation;
use crate::files;
use crate::model::SiteId;

/// So many of each are kept.
const KEPT: usize = 10;
/// No file of ours is longer; what is, is not ours.
const LONGEST: u64 = 1 << 20;

/// How long the parts of a start took, in milliseconds; what has not happened is missing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Phases {
    /// For its turn, while others start.
    #[serde(default)]
    pub wait: Option<f64>,
    /// The site's row, its directories, its socket.
    pub prepare: Option<f64>,
    /// From the vassal file to the launcher's question: the Emperor.
    pub launch: Option<f64>,
    /// From the launcher to uWSGI about to load the application.
    pub spawn: Option<f64>,
    /// Loading the application.
    pub import: Option<f64>,
    /// From there to workers that accept.
    pub accept: Option<f64>,
    /// A reload's probe: from there to its answer.
    pub probe: Option<f64>,
}

/// How a generation ended.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct End {
    /// Milliseconds since 1970.
    pub at: u64,
    /// A word of [`super::reason::Reason`]; none if nothing was wrong.
    pub reason: Option<String>,
    /// What was wrong, where more than the word is known.
    pub detail: Option<String>,
    /// As the kernel tells it.
    pub exit: Option<Exit>,
    /// What it wrote last.
    pub log: Vec<String>,
}

impl End {
    /// The last of several crashes: what it was becomes the detail of that.
    pub fn become_habit(&mut self) {
        let crash = self.reason.as_deref().and_then(Reason::of_word);
        let crash = crash.filter(|reason| *reason != Reason::Crashing);
        if let Some(crash) = crash {
            let detail = self.detail.take().map(|detail| format!(": {detail}"));
            self.detail = Some(format!(
                "the last time, {}{}",
                crash.what(),
                detail.unwrap_or_default()
            ));
        }
        self.reason = Some(Reason::Crashing.word().to_owned());
    }
}

/// A start and what became of it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Start {
    /// The generation's number.
    pub generation: String,
    /// Milliseconds since 1970.
    pub begun: u64,
    /// It accepted requests (and, in a reload, passed its probe).
    pub served: bool,
    /// How long what took.
    pub phases: Phases,
    /// None while it lives.
    pub end: Option<End>,
    /// The site's log, and how long it was before.
    pub log: Option<(PathBuf, u64)>,
}

impl Start {
    /// One that has just begun.
    pub fn new(generation: Generation, now: u64) -> Start {
        Start {
            generation: generation.to_string(),
            begun: now,
            served: false,
            phases: Phases::default(),
            end: None,
            log: None,
        }
    }
}

/// A request that broke off in the running site.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Incident {
    /// On its error page: `<site id>-<generation>-<number>`.
    pub id: String,
    /// Milliseconds since 1970.
    pub at: u64,
    /// A word of [`super::reason::Reason`].
    pub reason: String,
    /// The site's log, and how long it was then: uWSGI writes what happened before or after.
    pub log: Option<(PathBuf, u64)>,
}

/// All that is kept of a site.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct History {
    /// The last one last.
    pub starts: VecDeque<Start>,
    /// The last one last.
    pub incidents: VecDeque<Incident>,
}

impl History {
    fn put_start(&mut self, start: Start) {
        match self
            .starts
            .iter_mut()
            .find(|known| known.generation == start.generation)
        {
            Some(known) => *known = start,
            None => push(&mut self.starts, start),
        }
    }
}

fn push<T>(kept: &mut VecDeque<T>, one: T) {
    kept.push_back(one);
    while kept.len() > KEPT {
        kept.pop_front();
    }
}

/// What the historian is told.
#[derive(Debug)]
pub enum Note {
    /// A start began, went on or ended.
    Start(SiteId, Box<Start>),
    /// A request broke off.
    Incident(SiteId, Incident),
    /// Somebody wants to know; what lives is told along.
    Asked(SiteId, Vec<Start>, oneshot::Sender<History>),
    /// The site is gone for good.
    Gone(SiteId),
}

/// Notes come in here; they wait for nobody.
pub type Notes = mpsc::UnboundedSender<Note>;

/// Starts the task that keeps the files in this directory.
pub fn keep(directory: PathBuf) -> Notes {
    let (notes, mut told) = mpsc::unbounded_channel();
    tokio::task::spawn_blocking(move || {
        while let Some(note) = told.blocking_recv() {
            if let Err(problem) = take(&directory, note) {
                tracing::warn!(directory = %directory.display(), %problem, "cannot keep a site's history");
            }
        }
    });
    notes
}

fn take(directory: &Path, note: Note) -> io::Result<()> {
    match note {
        Note::Start(site, start) => change(directory, site, |history| history.put_start(*start)),
        Note::Incident(site, incident) => change(directory, site, |history| {
            push(&mut history.incidents, incident)
        }),
        Note::Asked(site, living, answer) => {
            let mut history = read(directory, site);
            for start in living {
                history.put_start(start);
            }
            // Whoever asked may have gone.
            let _ = answer.send(history);
            Ok(())
        }
        Note::Gone(site) => super::held::remove_if_there(&file(directory, site)),
    }
}

fn change(directory: &Path, site: SiteId, change: impl FnOnce(&mut History)) -> io::Result<()> {
    let mut history = read(directory, site);
    change(&mut history);
    fs::create_dir_all(directory)?;
    let text = serde_json::to_vec(&history)?;
    files::write_briefly(&file(directory, site), &text, 0o640)
}

/// What is not readable is forgotten: it is only a memory.
fn read(directory: &Path, site: SiteId) -> History {
    let file = file(directory, site);
    match fs::metadata(&file) {
        Ok(found) if found.len() <= LONGEST => fs::read(&file)
            .ok()
            .and_then(|text| serde_json::from_slice(&text).ok())
            .unwrap_or_default(),
        _ => History::default(),
    }
}

/// What is known of a generation from before this daemon.
pub fn start_of(directory: &Path, site: SiteId, generation: Generation) -> Option<Start> {
    let generation = generation.to_string();
    let mut starts = read(directory, site).starts.into_iter();
    starts.find(|start| start.generation == generation)
}

fn file(directory: &Path, site: SiteId) -> PathBuf {
    directory.join(format!("{site}.json"))
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn asked(notes: &Notes, site: SiteId) -> History {
        let (answer, told) = oneshot::channel();
        notes.send(Note::Asked(site, Vec::new(), answer)).unwrap();
        told.await.unwrap()
    }

    #[tokio::test]
    async fn the_last_of_each_are_kept_and_survive() {
        let directory = tempfile::tempdir().unwrap();
        let site = SiteId::new(7).unwrap();
        let notes = keep(directory.path().join("history"));
        assert_eq!(asked(&notes, site).await, History::default());
        for number in 1..=25u64 {
            let generation = Generation::parse(&number.to_string()).unwrap();
            let mut start = Start::new(generation, number);
            notes
                .send(Note::Start(site, Box::new(start.clone())))
                .unwrap();
            start.served = true;
            notes.send(Note::Start(site, Box::new(start))).unwrap();
        }
        // Two at once would not see what the other has written.
        asked(&notes, site).await;
        drop(notes);
        let notes = keep(directory.path().join("history"));
        let history = asked(&notes, site).await;
        assert_eq!(history.starts.len(), KEPT);
        assert!(history.starts.iter().all(|start| start.served));
        assert_eq!(history.starts.back().unwrap().begun, 25);
        fs::write(directory.path().join("history/7.json"), "{ half").unwrap();
        assert_eq!(asked(&notes, site).await, History::default());
        notes.send(Note::Gone(site)).unwrap();
        asked(&notes, site).await;
        assert!(!directory.path().join("history/7.json").exists());
    }
}
