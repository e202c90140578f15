//! Why a visitor gets an error page, in words for four readers: nginx (a word), the log (the same), the operator (what happened
//! and what to do), and the browser (when to come again).

/// Why. The word goes to nginx as `X-Paas-Reason`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Reason {
    /// The processes ended before the application accepted requests, and nothing tells why.
    StartFailed,
    /// An exception ended the import of the application.
    ImportFailed,
    /// Python does not understand a file.
    SyntaxError,
    /// The module is there, the callable is not.
    NoCallable,
    /// The virtualenv is not there, or not one of this Python.
    NoVirtualenv,
    /// uWSGI does not know an option of the configuration.
    BadOption,
    /// uWSGI has no Python plugin.
    NoPlugin,
    /// The site's directory is not there or not readable.
    NoDirectory,
    /// The launcher could not make a site's process of itself.
    NotLaunched,
    /// The code ended its own process while it was imported.
    EndedItself,
    /// A signal ended the processes.
    Killed,
    /// There was no memory left for it.
    OutOfMemory,
    /// It may not have more processes or threads.
    TooManyProcesses,
    /// The application did not accept requests in time.
    StartTimeout,
    /// The Emperor did not start the processes.
    NoEmperor,
    /// The socket, the log directory or the vassal file could not be made.
    NotPrepared,
    /// The processes end again and again soon after they start.
    Crashing,
    /// The operator has switched the site off.
    Disabled,
    /// The site runs, and more requests wait for it than its queue holds.
    Overloaded,
    /// More requests wait for starts than the machine takes.
    Crowded,
    /// The site is being stopped; it can be asked for again at once.
    Restarting,
    /// The new code of a reload answered its probe badly, or not at all.
    ProbeFailed,
    /// The running site broke off in the request.
    SiteFailed,
    /// The process that ran the request ended in the middle of it.
    RequestCrashed,
    /// A request took longer than the site allows, and uWSGI ended its process.
    Harakiri,
    /// The site stopped while the request was with it, and it may not be sent twice.
    SiteStopped,
}

/// What is said of a reason.
struct Said {
    word: &'static str,
    retry_after: u32,
    what: &'static str,
    advice: &'static str,
}

const fn said(
    word: &'static str,
    retry_after: u32,
    what: &'static str,
    advice: &'static str,
) -> Said {
    Said {
        word,
        retry_after,
        what,
        advice,
    }
}

const LOG: &str = "the log below tells more";
const REPAIR: &str = "repair what the traceback names; the next visit after a file has changed, or `paasctl start-site`, tries again";

impl Reason {
    /// All there are.
    pub const ALL: [Reason; 26] = [
        Reason::StartFailed,
        Reason::ImportFailed,
        Reason::SyntaxError,
        Reason::NoCallable,
        Reason::NoVirtualenv,
        Reason::BadOption,
        Reason::NoPlugin,
        Reason::NoDirectory,
        Reason::NotLaunched,
        Reason::EndedItself,
        Reason::Killed,
        Reason::OutOfMemory,
        Reason::TooManyProcesses,
        Reason::StartTimeout,
        Reason::NoEmperor,
        Reason::NotPrepared,
        Reason::Crashing,
        Reason::Disabled,
        Reason::Overloaded,
        Reason::Crowded,
        Reason::Restarting,
        Reason::ProbeFailed,
        Reason::SiteFailed,
        Reason::RequestCrashed,
        Reason::Harakiri,
        Reason::SiteStopped,
    ];

    fn said(self) -> Said {
        match self {
            Reason::StartFailed => said(
                "start-failed",
                10,
                "its processes ended before the application accepted requests",
                LOG,
            ),
            Reason::ImportFailed => said(
                "import-failed",
                10,
                "an exception ended the import of the application",
                REPAIR,
            ),
            Reason::SyntaxError => said(
                "syntax-error",
                10,
                "Python does not understand one of its files",
                REPAIR,
            ),
            Reason::NoCallable => said(
                "no-callable",
                10,
                "the module of its entry point has no such callable",
                "name the callable that there is: `paasctl set-site SITE --entry MODULE:CALLABLE`",
            ),
            Reason::NoVirtualenv => said(
                "no-virtualenv",
                10,
                "its virtualenv is not there, or not made with this machine's Python",
                "make it anew with `/usr/bin/python3 -m venv`, or name another: `paasctl set-site SITE --venv DIR`",
            ),
            Reason::BadOption => said(
                "bad-option",
                10,
                "uWSGI does not know an option of its configuration",
                "look for the option in the site's settings and in /etc/paas/vassal.d",
            ),
            Reason::NoPlugin => said(
                "no-plugin",
                10,
                "uWSGI on this machine lacks a plugin",
                "install uwsgi-plugin-python3",
            ),
            Reason::NoDirectory => said(
                "no-directory",
                10,
                "its directory is not there, or its user cannot read it",
                "see that the storage is mounted and that the site's user may enter each directory on the way",
            ),
            Reason::NotLaunched => said(
                "not-launched",
                10,
                "the launcher could not become the site's process",
                "its complaint below names what it lacks",
            ),
            Reason::EndedItself => said(
                "ended-itself",
                10,
                "its code ended the process while it was imported",
                "look for `exit` in what is imported; the code it ended with stands below",
            ),
            Reason::Killed => said(
                "killed",
                10,
                "a signal ended its processes",
                "signal 11 is a crash in compiled code; signal 9 is often the kernel, out of memory: see dmesg",
            ),
            Reason::OutOfMemory => said(
                "out-of-memory",
                10,
                "there was no memory left for it",
                "find what takes it, start fewer workers, or allow more",
            ),
            Reason::TooManyProcesses => said(
                "too-many-processes",
                10,
                "it may not have more processes or threads",
                "find what starts them, start fewer workers, or allow more",
            ),
            Reason::StartTimeout => said(
                "start-timeout",
                10,
                "the application did not accept requests in time",
                "find what its import waits for; `start_timeout` in paas.toml says how long it may",
            ),
            Reason::NoEmperor => said(
                "no-emperor",
                5,
                "the Emperor did not start its processes",
                "see that the Emperor of this machine runs, and its log",
            ),
            Reason::NotPrepared => said(
                "not-prepared",
                10,
                "what it needs to start could not be made",
                "the daemon's log names the file; a disk may be full, or storage may not answer",
            ),
            Reason::Crashing => said(
                "crashing",
                10,
                "its processes end again and again soon after they start",
                "the log below has the last end; `paasctl start-site` tries again at once",
            ),
            Reason::Disabled => said(
                "disabled",
                3600,
                "the operator has switched it off",
                "`paasctl enable-site` switches it on",
            ),
            Reason::Overloaded => said(
                "overloaded",
                1,
                "more requests wait for it than its queue holds",
                "give it more workers, or find what makes its requests slow",
            ),
            Reason::Crowded => said(
                "too-many-parked",
                3,
                "more requests wait for starts than the machine takes",
                "add a backend, or raise the bounds of `waking` in paas.toml",
            ),
            Reason::Restarting => said(
                "restarting",
                1,
                "it was being stopped",
                "nothing: the next visit wakes it",
            ),
            Reason::ProbeFailed => said(
                "probe-failed",
                10,
                "the new code did not answer the probe of its reload well; the old goes on serving",
                "repair what the log shows, or name another path that shows whether the site works: `paasctl set-site SITE --probe PATH`",
            ),
            Reason::SiteFailed => said(
                "site-failed",
                10,
                "the running application broke off in the middle of the request",
                LOG,
            ),
            Reason::RequestCrashed => said(
                "request-crashed",
                10,
                "the process that ran the request ended in the middle of it",
                "the log below tells how; compiled modules that crash are the usual cause, `os._exit` another",
            ),
            Reason::Harakiri => said(
                "harakiri",
                10,
                "the request took longer than the site's `harakiri` allows, and its process was ended",
                "find what makes the request slow, or allow more time",
            ),
            Reason::SiteStopped => said(
                "site-stopped",
                1,
                "the site stopped while the request was with it, and it may not be sent twice",
                "nothing, unless it happens often",
            ),
        }
    }

    /// The word on the wire and in logs.
    pub fn word(self) -> &'static str {
        self.said().word
    }

    /// The reason that a word means.
    pub fn of_word(word: &str) -> Option<Reason> {
        Reason::ALL.into_iter().find(|reason| reason.word() == word)
    }

    /// What `Retry-After` says, in seconds.
    pub fn retry_after(self) -> u32 {
        self.said().retry_after
    }

    /// What happened, as the end of a sentence about the site.
    pub fn what(self) -> &'static str {
        self.said().what
    }

    /// What to do about it.
    pub fn advice(self) -> &'static str {
        self.said().advice
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn every_reason_has_a_word_of_its_own_that_nginx_lets_pass() {
        let words: HashSet<_> = Reason::ALL.iter().map(|reason| reason.word()).collect();
        assert_eq!(words.len(), Reason::ALL.len());
        for reason in Reason::ALL {
            assert_eq!(Reason::of_word(reason.word()), Some(reason));
            assert!(
                reason
                    .word()
                    .bytes()
                    .all(|byte| byte.is_ascii_lowercase() || byte == b'-')
            );
            assert!(reason.retry_after() > 0);
        }
    }
}
