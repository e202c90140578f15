//! Whether a place on the shared storage can be read, without ever waiting for it.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use rustix::fs::statfs;
use serde::Serialize;

/// Between two looks.
const PAUSE: Duration = Duration::from_secs(1);

/// A place, and the thread that looks at it.
#[derive(Debug)]
pub struct Storage {
    path: PathBuf,
    patience: Duration,
    last: Arc<Mutex<Last>>,
}

/// The look that ended last.
#[derive(Debug)]
struct Last {
    began: Instant,
    under_way: bool,
    problem: Option<String>,
}

/// How a place is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Place {
    path: PathBuf,
    problem: Option<String>,
}

impl Place {
    /// Whether it can be read.
    pub fn is_readable(&self) -> bool {
        self.problem.is_none()
    }
}

impl Storage {
    /// Begins to look at a directory or file.
    pub fn watch(path: &Path, patience: Duration) -> io::Result<Self> {
        let last = Arc::new(Mutex::new(Last {
            began: Instant::now(),
            under_way: true,
            problem: None,
        }));
        let (place, told) = (path.to_owned(), Arc::downgrade(&last));
        let watch = move || {
            // Until nobody wants to know any more.
            while let Some(last) = told.upgrade() {
                let tell = |under_way, problem| {
                    let mut last = last.lock().unwrap_or_else(PoisonError::into_inner);
                    last.under_way = under_way;
                    match under_way {
                        true => last.began = Instant::now(),
                        false => last.problem = problem,
                    }
                };
                tell(true, None);
                let problem = look(&place).err().map(|error| error.to_string());
                tell(false, problem);
                drop(last);
                thread::sleep(PAUSE);
            }
        };
        thread::Builder::new()
            .name("storage".to_owned())
            .spawn(watch)?;
        Ok(Self {
            path: path.to_owned(),
            patience,
            last,
        })
    }

    /// How it is.
    pub fn place(&self) -> Place {
        let last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        let hangs = last.under_way && last.began.elapsed() > self.patience;
        let problem = match hangs {
            true => Some(format!(
                "reading it has not ended for {} s",
                last.began.elapsed().as_secs()
            )),
            false => last.problem.clone(),
        };
        Place {
            path: self.path.clone(),
            problem,
        }
    }
}

/// Touches it in ways that a server of files must answer itself.
fn look(path: &Path) -> io::Result<()> {
    let _ = statfs(path)?;
    if path.metadata()?.is_dir() {
        if let Some(first) = fs::read_dir(path)?.next() {
            let _ = first?.metadata()?;
        }
    } else {
        let _ = File::open(path)?.read(&mut [0])?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn until(storage: &Storage, wanted: impl Fn(&Place) -> bool) -> Place {
        let deadline = Instant::now() + Duration::from_secs(20);
        loop {
            let place = storage.place();
            if wanted(&place) {
                return place;
            }
            assert!(Instant::now() < deadline, "{place:?}");
            thread::sleep(Duration::from_millis(10));
        }
    }

    #[test]
    fn what_goes_and_comes_back_is_seen() {
        let directory = tempfile::tempdir().unwrap();
        let sites = directory.path().join("sites");
        fs::create_dir(&sites).unwrap();
        let storage = Storage::watch(&sites, Duration::from_secs(60)).unwrap();
        until(&storage, |place| place.is_readable());
        fs::rename(&sites, directory.path().join("elsewhere")).unwrap();
        let gone = until(&storage, |place| !place.is_readable());
        assert!(gone.problem.unwrap().contains("No such file"));
        fs::create_dir(&sites).unwrap();
        until(&storage, Place::is_readable);
    }

    #[test]
    fn what_hangs_is_not_waited_for() {
        let directory = tempfile::tempdir().unwrap();
        let place = directory.path().join("hangs");
        // Whoever opens it waits for somebody who writes.
        rustix::fs::mkfifoat(rustix::fs::CWD, &place, rustix::fs::Mode::RWXU).unwrap();
        let storage = Storage::watch(&place, Duration::from_millis(50)).unwrap();
        let hangs = until(&storage, |place| !place.is_readable());
        assert!(hangs.problem.unwrap().contains("has not ended"));
        // The server of files is back: what hung goes on.
        fs::write(&place, "x").unwrap();
        until(&storage, Place::is_readable);
    }
}
