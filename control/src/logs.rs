//! The logs of sites, in a directory for each: `access.log` and `error.log`, which nginx writes, and `server.log`, which the site's
//! processes write. [`directory`] makes them with their owners, [`rotate`] bounds them, [`tail`] shows them.
//!
//! The directories are root's, so no site can put a link into them; and whoever opens a file here follows none all the same.
pub mod directory;
pub mod keeper;
pub mod rotate;
pub mod tail;

/// The logs of a site.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// A line for each request.
    Access,
    /// A line for each request that ended in an error: its status, the reason and the id of the page.
    Error,
    /// What the site's processes write: of their start, tracebacks, what they print.
    Server,
}

impl Kind {
    /// All of them.
    pub const ALL: [Kind; 3] = [Kind::Access, Kind::Error, Kind::Server];

    /// The name of the file.
    pub fn file_name(self) -> &'static str {
        match self {
            Kind::Access => "access.log",
            Kind::Error => "error.log",
            Kind::Server => "server.log",
        }
    }
}

/// The `number`th of the older files, counted from the newest.
pub fn older(name: &str, number: u32) -> String {
    format!("{name}.{number}")
}
