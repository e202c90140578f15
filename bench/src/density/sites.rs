//! The sites of the machine: rows for those that sleep, and directories for those that are woken.

use std::fs;

use anyhow::Context as _;
use paas_tests::{Platform, Root, apps, build};

use super::Arguments;

/// Which domains there are.
#[derive(Debug)]
pub struct Sites {
    /// To be awake.
    pub awake: Vec<String>,
    /// To be woken while the others sleep.
    pub alone: Vec<String>,
    /// To be woken while many are awake.
    pub beside: Vec<String>,
    asleep: usize,
}

impl Sites {
    /// Adds all of them, in one transaction as an operator would.
    ///
    /// # Errors
    /// The example cannot be copied.
    pub fn add(
        root: &Root,
        platform: &Platform<'_>,
        arguments: &Arguments,
    ) -> anyhow::Result<Sites> {
        let names = |kind: &str, count: usize| -> Vec<String> {
            (0..count)
                .map(|number| format!("{kind}{number}.test"))
                .collect()
        };
        let alone = names("alone", arguments.wakes.min(arguments.awake));
        let sites = Sites {
            awake: names("awake", arguments.awake - alone.len()),
            alone,
            beside: names("beside", arguments.wakes),
            asleep: arguments.asleep,
        };
        let example = build::workspace().join("examples/smallest");
        let mut lines = String::new();
        let mut line = |domain: &str, directory: &str| {
            let site = serde_json::json!({
                "domain": domain, "user": "owner", "directory": directory, "entry": "app:application",
            });
            lines.push_str(&format!("{site}\n"));
        };
        for domain in sites.awake.iter().chain(&sites.alone).chain(&sites.beside) {
            let directory = root.join(format!("sites/{domain}"));
            apps::copy(&example, &directory);
            line(domain, directory.to_str().context("a path of characters")?);
        }
        let nowhere = root.join("sites/asleep");
        fs::create_dir_all(&nowhere)?;
        for domain in names("asleep", sites.asleep) {
            line(&domain, nowhere.to_str().context("a path of characters")?);
        }
        let file = root.write("sites.json", lines);
        platform
            .paasctl()
            .ok(&["add-site", "--from", &file.to_string_lossy()]);
        Ok(sites)
    }

    /// How many there are.
    #[must_use]
    pub fn count(&self) -> usize {
        self.awake.len() + self.alone.len() + self.beside.len() + self.asleep
    }
}
