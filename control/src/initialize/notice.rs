//! What a site's uWSGI tells through its notice pipe: that it accepts, that it stops. The pipe is a FIFO that the site's user
//! may write, so nothing in it is believed to be more than one of a few words, or the code that its own program has ended with.

use std::fs;
use std::io;
use std::os::unix::fs::chown;
use std::path::Path;

use rustix::fs::{CWD, FileType, Mode, OFlags, mknodat, open};
use rustix::io::read;

use super::held::remove_if_there;
use crate::watch::Readable;

/// What the vassal file's hooks write, each with this at its end.
const END: u8 = b';';
/// What bubblewrap ends its own lines with.
const LINE: u8 = b'\n';
/// uWSGI says a handful of words in its life; a site that writes more is not listened to any longer.
const MOST: usize = 4096;

/// A word of uWSGI's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Notice {
    /// uWSGI is about to load the application.
    Loading,
    /// The application is loaded.
    Loaded,
    /// The application accepts requests.
    Ready,
    /// The Emperor has told the processes to end.
    Stopping,
    /// The site's program has ended, with this code (128 and the signal's number if it was one).
    Ended(i32),
}

/// `{ "exit-code": 22 }`
fn exit_code(line: &[u8]) -> Option<i32> {
    let text = std::str::from_utf8(line).ok()?;
    let number = text
        .trim()
        .strip_prefix("{ \"exit-code\":")?
        .strip_suffix('}')?;
    number.trim().parse().ok()
}

/// Makes the pipe, for `uid` if given.
pub fn make(path: &Path, uid: Option<u32>) -> io::Result<()> {
    if let Some(directory) = path.parent() {
        fs::create_dir_all(directory)?;
    }
    remove_if_there(path)?;
    mknodat(CWD, path, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0)?;
    if uid.is_some() {
        chown(path, uid, None)?;
    }
    Ok(())
}

/// The daemon's end of the pipe.
#[derive(Debug)]
pub struct Notices {
    pipe: Readable,
    word: Vec<u8>,
    total: usize,
}

impl Notices {
    /// Opens the pipe. It is opened for writing too: so it never ends when the site closes it.
    pub fn open(path: &Path) -> io::Result<Notices> {
        let flags = OFlags::RDWR | OFlags::NONBLOCK | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let pipe = open(path, flags, Mode::empty())?;
        Ok(Notices {
            pipe: Readable::new(pipe)?,
            word: Vec::new(),
            total: 0,
        })
    }

    /// The next notice; `None` when the site has said too much. May be dropped and called again.
    pub async fn next(&mut self) -> io::Result<Option<Notice>> {
        while self.total < MOST {
            let mut byte = [0u8; 1];
            self.pipe.read(|pipe| Ok(read(pipe, &mut byte)?)).await?;
            self.total += 1;
            let [byte] = byte;
            if byte != END && byte != LINE {
                self.word.push(byte);
                continue;
            }
            match std::mem::take(&mut self.word).as_slice() {
                b"loading" => return Ok(Some(Notice::Loading)),
                b"loaded" => return Ok(Some(Notice::Loaded)),
                b"ready" => return Ok(Some(Notice::Ready)),
                b"stopping" => return Ok(Some(Notice::Stopping)),
                line => {
                    if let Some(code) = exit_code(line) {
                        return Ok(Some(Notice::Ended(code)));
                    }
                }
            }
        }
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[tokio::test]
    async fn words_arrive_whole_and_noise_is_bounded() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("notify/1@2");
        make(&path, None).unwrap();
        let mut notices = Notices::open(&path).unwrap();
        let mut site = fs::OpenOptions::new().write(true).open(&path).unwrap();
        site.write_all(b"ready;nonsense;stop").unwrap();
        assert_eq!(notices.next().await.unwrap(), Some(Notice::Ready));
        site.write_all(b"ping;").unwrap();
        assert_eq!(notices.next().await.unwrap(), Some(Notice::Stopping));
        site.write_all(b"{ \"child-pid\": 7 }\nready;{ \"exit-code\": 22 }\n")
            .unwrap();
        assert_eq!(notices.next().await.unwrap(), Some(Notice::Ready));
        assert_eq!(notices.next().await.unwrap(), Some(Notice::Ended(22)));
        site.write_all(&vec![b'x'; MOST]).unwrap();
        assert_eq!(notices.next().await.unwrap(), None);
    }
}
