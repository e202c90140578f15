//! The options that a site may set. What is on the list can harm nobody but the site: it changes how its own processes work,
//! within their uid and their limits.
use crate::escape::IniValue;
use crate::model::AbsolutePath;

/// What an option's value is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Takes {
    /// On, or not set.
    Switch,
    /// A whole number of something.
    Number {
        /// Of what.
        unit: &'static str,
        /// The least.
        least: u64,
        /// The most.
        most: u64,
    },
    /// One of these words.
    Word(&'static [&'static str]),
    /// A file's name without a slash.
    FileName,
    /// An absolute path.
    Path,
}

impl Takes {
    /// The value as uWSGI reads it, or why it is none.
    pub(super) fn check(self, value: Option<&str>) -> Result<String, String> {
        match (self, value) {
            (Self::Switch, None | Some("true")) => Ok("true".to_owned()),
            (Self::Switch, Some(_)) => Err(
                "it is a switch: set it without a value, or unset it with `paasctl unset-option`"
                    .to_owned(),
            ),
            (_, None | Some("")) => Err(format!("it needs a value: {self}")),
            (Self::Number { least, most, .. }, Some(text)) => {
                let digits = text.bytes().all(|byte| byte.is_ascii_digit());
                match text.parse::<u64>() {
                    Ok(number) if digits && (least..=most).contains(&number) => {
                        Ok(number.to_string())
                    }
                    _ => Err(format!("its value is {self}")),
                }
            }
            (Self::Word(words), Some(text)) => match words.contains(&text) {
                true => Ok(text.to_owned()),
                false => Err(format!("its value is {self}")),
            },
            (Self::FileName, Some(text)) => {
                let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
                match text.len() <= 255 && text.chars().all(plain) && !matches!(text, "." | "..") {
                    true => Ok(text.to_owned()),
                    false => Err(format!("its value is {self}")),
                }
            }
            (Self::Path, Some(text)) => {
                let path = AbsolutePath::parse(text).map_err(|error| error.why)?;
                IniValue::new(path.as_str()).map_err(|refused| refused.why.to_owned())?;
                Ok(path.to_string())
            }
        }
    }
}

impl std::fmt::Display for Takes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Switch => f.write_str("nothing: it is on"),
            Self::Number { unit, least, most } => {
                write!(f, "a number of {unit}, {least} to {most}")
            }
            Self::Word(words) => write!(f, "one of {}", words.join(", ")),
            Self::FileName => f.write_str("a file's name of letters, digits, -, _ and ."),
            Self::Path => f.write_str("an absolute path"),
        }
    }
}

/// An option on the list.
#[derive(Debug)]
pub struct Allowed {
    /// As uWSGI writes it.
    pub name: &'static str,
    /// What its value is.
    pub takes: Takes,
    /// What it does.
    pub does: &'static str,
}

const fn switch(name: &'static str, does: &'static str) -> Allowed {
    Allowed {
        name,
        takes: Takes::Switch,
        does,
    }
}

const fn number(
    name: &'static str,
    unit: &'static str,
    least: u64,
    most: u64,
    does: &'static str,
) -> Allowed {
    Allowed {
        name,
        takes: Takes::Number { unit, least, most },
        does,
    }
}

const DAY: u64 = 86_400;
const TERABYTE: u64 = 1 << 20;

/// Every option that a site may set, by name.
pub const ALLOWED: &[Allowed] = &[
    switch(
        "catch-exceptions",
        "shows exceptions to visitors: for development only",
    ),
    Allowed {
        name: "cheaper-algo",
        takes: Takes::Word(&["spare", "spare2", "backlog"]),
        does: "how many workers there are between `cheaper` and `workers`",
    },
    number(
        "cheaper-initial",
        "workers",
        1,
        64,
        "how many workers there are at the start",
    ),
    number(
        "cheaper-overload",
        "seconds",
        1,
        3600,
        "how often it is decided about workers",
    ),
    number(
        "cheaper-step",
        "workers",
        1,
        64,
        "how many workers are added at a time",
    ),
    number(
        "chunked-input-limit",
        "bytes",
        1024,
        1 << 30,
        "the largest chunk of a chunked body that the application reads itself",
    ),
    number(
        "chunked-input-timeout",
        "seconds",
        1,
        3600,
        "how long it waits for such a chunk",
    ),
    number(
        "evil-reload-on-as",
        "megabytes",
        16,
        TERABYTE,
        "the master ends a worker with more address space",
    ),
    number(
        "evil-reload-on-rss",
        "megabytes",
        16,
        TERABYTE,
        "the master ends a worker with more memory",
    ),
    switch(
        "harakiri-verbose",
        "writes more about a request that took too long",
    ),
    switch("honour-range", "answers requests for parts of static files"),
    switch("ignore-sigpipe", "says nothing of visitors who went away"),
    switch(
        "ignore-write-errors",
        "says nothing of answers that could not be written",
    ),
    switch(
        "disable-write-exception",
        "no exception in the application when a visitor went away",
    ),
    switch(
        "lazy-apps",
        "loads the application in each worker instead of once: more memory, nothing shared",
    ),
    number(
        "limit-as",
        "megabytes",
        16,
        TERABYTE,
        "the most address space of a process",
    ),
    number("limit-post", "bytes", 1, 1 << 40, "the largest body"),
    switch(
        "log-4xx",
        "writes a line into server.log for each answer 4xx",
    ),
    switch(
        "log-5xx",
        "writes a line into server.log for each answer 5xx",
    ),
    number(
        "log-big",
        "bytes",
        1,
        1 << 40,
        "writes a line into server.log for each larger answer",
    ),
    switch(
        "log-ioerror",
        "writes a line into server.log for each request that ended in an error of reading or writing",
    ),
    switch("log-micros", "those lines have microseconds"),
    number(
        "log-slow",
        "milliseconds",
        1,
        3_600_000,
        "writes a line into server.log for each slower request",
    ),
    switch(
        "log-x-forwarded-for",
        "those lines have the visitor's address",
    ),
    switch(
        "log-zero",
        "writes a line into server.log for each answer without a body",
    ),
    number(
        "max-worker-lifetime",
        "seconds",
        60,
        30 * DAY,
        "starts each worker anew after that time",
    ),
    number(
        "max-worker-lifetime-delta",
        "seconds",
        1,
        DAY,
        "so much later for each further worker",
    ),
    switch("memory-report", "those lines have the memory of the worker"),
    number(
        "min-worker-lifetime",
        "seconds",
        0,
        DAY,
        "a worker that is to be started anew lives so long at least",
    ),
    number(
        "offload-threads",
        "threads",
        1,
        16,
        "threads of each worker that send files; 1 where the site has static mappings",
    ),
    number(
        "post-buffering-bufsize",
        "bytes",
        4096,
        1 << 24,
        "how much of a body is read at a time",
    ),
    switch("py-call-osafterfork", "lets workers get signals in Python"),
    switch(
        "py-call-uwsgi-fork-hooks",
        "calls Python's own hooks around a fork",
    ),
    Allowed {
        name: "pythonpath",
        takes: Takes::Path,
        does: "one more directory of Python modules",
    },
    number(
        "reload-on-as",
        "megabytes",
        16,
        TERABYTE,
        "starts a worker anew that has more address space after a request",
    ),
    number(
        "reload-on-rss",
        "megabytes",
        16,
        TERABYTE,
        "starts a worker anew that has more memory after a request",
    ),
    switch(
        "reload-on-exception",
        "starts a worker anew after an exception",
    ),
    number(
        "so-send-timeout",
        "seconds",
        1,
        3600,
        "how long it waits for nginx to take more of an answer",
    ),
    switch(
        "static-gzip-all",
        "sends FILE.gz for a static file if it is there",
    ),
    Allowed {
        name: "static-index",
        takes: Takes::FileName,
        does: "the file that stands for a static directory",
    },
    number(
        "thread-stacksize",
        "kilobytes",
        64,
        65_536,
        "the stack of each thread",
    ),
    switch(
        "thunder-lock",
        "workers wait in line for requests instead of all at once",
    ),
    number(
        "websockets-max-size",
        "kilobytes",
        1,
        65_536,
        "the largest message",
    ),
    number(
        "websockets-ping-freq",
        "seconds",
        1,
        3600,
        "how often a websocket is pinged",
    ),
    number(
        "websockets-pong-tolerance",
        "seconds",
        1,
        3600,
        "how long it may stay silent after that",
    ),
    switch(
        "write-errors-exception-only",
        "leaves it to the application what to do when a visitor went away",
    ),
    number(
        "write-errors-tolerance",
        "errors",
        0,
        1_000_000,
        "so many errors of writing are borne",
    ),
    switch(
        "wsgi-accept-buffer",
        "takes anything like bytes from the application",
    ),
    Allowed {
        name: "wsgi-env-behavior",
        takes: Takes::Word(&["cheat", "holy"]),
        does: "whether the dictionary of a request is used again",
    },
];

/// The option of that name.
pub(super) fn find(name: &str) -> Option<&'static Allowed> {
    ALLOWED.iter().find(|option| option.name == name)
}
