//! The one place that talks to the program nginx: is this configuration good, is it running, how is it told.
use crate::settings::Settings;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;

/// What nginx had to say.
#[derive(Debug, thiserror::Error)]
pub enum NginxError {
    /// It could not be run.
    #[error("cannot run {}: {source}; install nginx, or set nginx.binary in paas.toml", program.display())]
    Run {
        /// The program.
        program: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It refused a configuration.
    #[error("nginx refuses the configuration:\n{said}")]
    Refused {
        /// Its own words, indented; file names are those of the rendered tree.
        said: String,
    },
    /// A directory it needs could not be made.
    #[error("cannot make the directory {}: {source}", directory.display())]
    Directory {
        /// The directory.
        directory: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// Makes the directories nginx expects to be there; it makes those below them itself.
pub fn prepare(settings: &Settings) -> Result<(), NginxError> {
    let paths = settings.paths();
    for directory in [paths.run(), paths.logs(), paths.nginx_temp()] {
        std::fs::create_dir_all(&directory)
            .map_err(|source| NginxError::Directory { directory, source })?;
    }
    Ok(())
}

/// Asks nginx whether the configuration in `tree` is good. Answers its warnings, if it has any.
pub fn test(settings: &Settings, tree: &Path) -> Result<String, NginxError> {
    let program = settings.nginx.binary.as_path();
    let pid = settings.paths().nginx_pid();
    let pid_was_there = pid.exists();
    let output = Command::new(program)
        .args(["-e", "stderr", "-q", "-t", "-c"])
        .arg(tree.join("nginx.conf"))
        .env_clear()
        .output()
        .map_err(|source| NginxError::Run {
            program: program.into(),
            source,
        })?;
    // A test leaves an empty pid file behind, and a later `nginx -s reload` stumbles over it.
    if !pid_was_there && pid.metadata().is_ok_and(|file| file.len() == 0) {
        let _ = std::fs::remove_file(&pid);
    }
    let said = String::from_utf8_lossy(&output.stderr).replace(&format!("{}/", tree.display()), "");
    let said: String = said.lines().map(|line| format!("  {line}\n")).collect();
    match output.status.success() {
        true => Ok(said),
        false if said.is_empty() => Err(NginxError::Refused {
            said: format!("  it ended with {}", output.status),
        }),
        false => Err(NginxError::Refused {
            said: said.trim_end().to_owned(),
        }),
    }
}

/// What to type for the live configuration to be used: a reload if our nginx runs, else its start.
pub fn command(settings: &Settings) -> String {
    let start = format!(
        "{} -c {}",
        quoted(settings.nginx.binary.as_path()),
        quoted(&settings.paths().current().join("nginx.conf"))
    );
    match running(settings) {
        true => format!("{start} -s reload"),
        false => start,
    }
}

/// Whether the process its pid file names is there.
pub fn running(settings: &Settings) -> bool {
    let pid = std::fs::read_to_string(settings.paths().nginx_pid()).ok();
    let pid = pid.and_then(|text| text.trim().parse::<u32>().ok());
    pid.is_some_and(|pid| Path::new(&format!("/proc/{pid}")).exists())
}

/// A path as a shell takes it.
fn quoted(path: &Path) -> String {
    let text = path.to_string_lossy();
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"/._-+:@%,".contains(&b);
    if text.bytes().all(plain) {
        text.into_owned()
    } else {
        format!("'{}'", text.replace('\'', "'\\''"))
    }
}
