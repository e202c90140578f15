//! Why processes ended, from how they ended and what they wrote. Pure.
//!
//! The site writes the log too, so this is a help for its owner and decides nothing: neither when to start again nor what is
//! safe.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::reason::Reason;

/// How a process ended, as far as the kernel tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Exit {
    /// By itself, with this code.
    Code(u8),
    /// By this signal.
    Signal(u8),
}

impl Exit {
    /// From the status that `wait` would give.
    pub fn of_status(status: i32) -> Exit {
        let [low, high, ..] = status.to_le_bytes();
        match low & 0x7f {
            0 => Exit::Code(high),
            signal => Exit::Signal(signal),
        }
    }

    /// From the code that a sandbox ends with for its program: 128 and the signal if one ended it, as shells have it.
    pub fn of_code(code: i32) -> Exit {
        match u8::try_from(code).unwrap_or(u8::MAX) {
            code @ 129..=192 => Exit::Signal(code - 128),
            code => Exit::Code(code),
        }
    }
}

impl fmt::Display for Exit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Exit::Code(code) => write!(f, "exit {code}"),
            Exit::Signal(signal) => write!(f, "signal {signal}"),
        }
    }
}

/// What uWSGI ends with when it has no application.
const NO_APPLICATION: u8 = 22;
/// What the launcher ends with when it cannot become uWSGI.
const EXILE: u8 = 26;
const KILL: u8 = 9;

/// What a line of the log says, in the order of trust: the first that is found is the reason.
const IN_THE_LOG: [(&str, Reason); 23] = [
    ("MemoryError", Reason::OutOfMemory),
    ("Cannot allocate memory", Reason::OutOfMemory),
    ("can't start new thread", Reason::TooManyProcesses),
    (
        "fork(): Resource temporarily unavailable",
        Reason::TooManyProcesses,
    ),
    (
        "BlockingIOError: [Errno 11] Resource temporarily unavailable",
        Reason::TooManyProcesses,
    ),
    // paas-launch and bubblewrap: what holds the site in takes processes, too.
    (
        "cannot make a process: Resource temporarily unavailable",
        Reason::TooManyProcesses,
    ),
    (
        "Creating new namespace failed: Resource temporarily unavailable",
        Reason::TooManyProcesses,
    ),
    (
        "Can't fork for pid 1: Resource temporarily unavailable",
        Reason::TooManyProcesses,
    ),
    ("bwrap: ", Reason::NotLaunched),
    ("Python Home is not a directory", Reason::NoVirtualenv),
    ("No module named 'encodings'", Reason::NoVirtualenv),
    ("unable to get the locale encoding", Reason::NoVirtualenv),
    ("unrecognized option", Reason::BadOption),
    ("[strict-mode] unknown config directive", Reason::BadOption),
    ("UNABLE to load uWSGI plugin", Reason::NoPlugin),
    ("chdir(): ", Reason::NoDirectory),
    // uWSGI catches this signal, writes that, and ends with a code.
    ("got Segmentation Fault", Reason::Killed),
    ("SyntaxError: ", Reason::SyntaxError),
    ("IndentationError: ", Reason::SyntaxError),
    ("TabError: ", Reason::SyntaxError),
    ("Traceback (most recent call last)", Reason::ImportFailed),
    ("failed to open python file", Reason::ImportFailed),
    // Without an exception, it is not the import.
    ("callable not found or import error", Reason::NoCallable),
];

/// Why a generation ended before its application accepted requests, or after.
pub fn of_end(exit: Option<Exit>, log: &str) -> Reason {
    let written = || {
        IN_THE_LOG
            .iter()
            .find(|(words, _)| log.contains(words))
            .map(|(_, reason)| *reason)
    };
    match exit {
        Some(Exit::Code(EXILE)) => written()
            .filter(|reason| *reason == Reason::TooManyProcesses)
            .unwrap_or(Reason::NotLaunched),
        Some(Exit::Signal(KILL)) => written()
            .filter(|reason| *reason == Reason::OutOfMemory)
            .unwrap_or(Reason::Killed),
        Some(Exit::Signal(_)) => Reason::Killed,
        // uWSGI's own codes; with others it was the code that ended the process.
        Some(Exit::Code(code)) if !matches!(code, 1 | NO_APPLICATION) => written()
            .filter(|reason| matches!(reason, Reason::OutOfMemory | Reason::TooManyProcesses))
            .unwrap_or(Reason::EndedItself),
        _ => written().unwrap_or(Reason::StartFailed),
    }
}

/// Why a request broke off, from what was written around that moment.
pub fn of_request(log: &str) -> Reason {
    let last = |words: &str| log.rfind(words);
    let harakiri = last("HARAKIRI ON WORKER").or(last("HARAKIRI: "));
    let crash = last("DAMN ! worker");
    match (harakiri, crash) {
        (Some(_), _) => Reason::Harakiri,
        (None, Some(_)) => Reason::RequestCrashed,
        (None, None) if log.contains("MemoryError") => Reason::OutOfMemory,
        (None, None) => Reason::SiteFailed,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_end_is_told_from_its_code_and_its_log() {
        let traceback = "Traceback (most recent call last):\n  File \"app.py\"\n";
        for (exit, log, reason) in [
            (
                Some(Exit::Code(22)),
                format!("{traceback}ModuleNotFoundError: No module named 'x'\nno app loaded"),
                Reason::ImportFailed,
            ),
            (
                Some(Exit::Code(22)),
                format!("{traceback}SyntaxError: invalid syntax"),
                Reason::SyntaxError,
            ),
            (
                Some(Exit::Code(22)),
                "unable to load app 0 (mountpoint='') (callable not found or import error)"
                    .to_owned(),
                Reason::NoCallable,
            ),
            (
                Some(Exit::Code(1)),
                "!!! Python Home is not a directory: /nowhere !!!".to_owned(),
                Reason::NoVirtualenv,
            ),
            (
                Some(Exit::Code(1)),
                "chdir(): No such file or directory".to_owned(),
                Reason::NoDirectory,
            ),
            (None, format!("{traceback}MemoryError"), Reason::OutOfMemory),
            (Some(Exit::Code(3)), String::new(), Reason::EndedItself),
            (
                Some(Exit::Code(26)),
                traceback.to_owned(),
                Reason::NotLaunched,
            ),
            (Some(Exit::Signal(11)), traceback.to_owned(), Reason::Killed),
            (None, String::new(), Reason::StartFailed),
        ] {
            assert_eq!(of_end(exit, &log), reason, "{exit:?} {log}");
        }
        assert_eq!(Exit::of_status(0x0300), Exit::Code(3));
        assert_eq!(Exit::of_status(0x8b), Exit::Signal(11));
    }

    #[test]
    fn a_broken_request_is_told_from_the_log() {
        let crash = "DAMN ! worker 1 (pid: 7) died, killed by signal 11 :( trying respawn ...";
        assert_eq!(of_request(crash), Reason::RequestCrashed);
        let late = format!(
            "*** HARAKIRI ON WORKER 1 (pid: 7, try: 1) ***\n{}",
            crash.replace("11", "9")
        );
        assert_eq!(of_request(&late), Reason::Harakiri);
        assert_eq!(of_request(""), Reason::SiteFailed);
    }
}
