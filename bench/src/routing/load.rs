//! The load: wrk with one thread, every request to another of the busy sites.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, ensure};

use crate::sites;

/// How many connections the load generator keeps open.
pub const CLIENTS: usize = 64;

/// wrk and its script.
#[derive(Debug)]
pub struct Load {
    script: PathBuf,
}

impl Load {
    /// Writes the script.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn new(directory: &Path) -> anyhow::Result<Load> {
        let script = directory.join("load.lua");
        let text = format!(
            r#"local requests, last = {{}}, 0
function init()
    for number = 0, {busy} - 1 do
        requests[number] = wrk.format("GET", "/", {{ Host = {name} }})
    end
end
-- Neighbours in the order of visits are none in the table: {busy} and 1,777 have no common factor.
function request()
    last = (last + 1777) % {busy}
    return requests[last]
end
function done(summary, latency)
    local e = summary.errors
    io.write(("RESULT %d %d\n"):format(summary.requests, e.connect + e.read + e.write + e.status + e.timeout))
end
"#,
            busy = sites::BUSY,
            name = sites::busy_in_lua()
        );
        fs::write(&script, text)?;
        Ok(Load { script })
    }

    /// Sends requests for some seconds; answers how many were answered.
    ///
    /// # Errors
    /// Not every one was answered with 200.
    pub fn run(&self, port: u16, seconds: u32) -> anyhow::Result<u64> {
        let output = Command::new("wrk")
            .args(["--threads", "1", "--connections", &CLIENTS.to_string()])
            .args(["--duration", &format!("{seconds}s"), "--script"])
            .arg(&self.script)
            .arg(format!("http://127.0.0.1:{port}/"))
            .output()
            .context("wrk cannot be run")?;
        let text = String::from_utf8_lossy(&output.stdout);
        let result = text
            .lines()
            .find_map(|line| line.strip_prefix("RESULT "))
            .and_then(|line| line.split_once(' '))
            .with_context(|| {
                format!(
                    "wrk says: {text}{}",
                    String::from_utf8_lossy(&output.stderr)
                )
            })?;
        let (requests, errors): (u64, u64) = (result.0.parse()?, result.1.parse()?);
        ensure!(errors == 0 && requests > 0, "{errors} errors: {text}");
        Ok(requests)
    }
}
