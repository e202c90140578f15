//! `doctor`: what this machine needs to do its part, and what is wrong with it.
use super::machine::Machine;
use super::output::{Table, json};
use super::{CliError, Format};
use crate::doctor::{State, examine};
use std::io::Write;
use std::process::ExitCode;

pub(super) fn run(
    machine: &Machine,
    format: Format,
    out: &mut dyn Write,
) -> Result<ExitCode, CliError> {
    let findings = examine(&machine.settings);
    let is_bad = findings.iter().any(|finding| finding.state == State::Bad);
    if format.json {
        json(out, &findings)?;
    } else {
        let mut table = Table::new(&["WHAT", "STATE", ""]);
        for finding in findings {
            let state = match finding.state {
                State::Good => "good",
                State::Warning => "warning",
                State::Bad => "BAD",
            };
            let mut lines = finding.text.lines();
            let first = lines.next().unwrap_or_default().to_owned();
            table.row([finding.what.to_owned(), state.to_owned(), first]);
            for line in lines {
                table.row([" ".to_owned(), " ".to_owned(), line.to_owned()]);
            }
        }
        table.print(out)?;
    }
    Ok(match is_bad {
        true => ExitCode::FAILURE,
        false => ExitCode::SUCCESS,
    })
}
