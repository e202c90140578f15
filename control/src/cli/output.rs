//! How answers look: tables for people, JSON for programs.
use super::CliError;
use serde::Serialize;
use std::io::Write;

/// Rows under headings, each column as wide as its widest cell.
#[derive(Debug)]
pub struct Table {
    headings: Vec<&'static str>,
    rows: Vec<Vec<String>>,
}

impl Table {
    /// A table with these headings.
    pub fn new(headings: &[&'static str]) -> Self {
        Self {
            headings: headings.to_vec(),
            rows: Vec::new(),
        }
    }

    /// Adds a row: a cell for each heading; an empty one is shown as `-`.
    pub fn row<const N: usize>(&mut self, cells: [String; N]) {
        debug_assert_eq!(N, self.headings.len());
        self.rows.push(
            cells
                .into_iter()
                .map(|cell| {
                    if cell.is_empty() {
                        "-".to_owned()
                    } else {
                        cell
                    }
                })
                .collect(),
        );
    }

    /// Prints it.
    pub fn print(&self, out: &mut dyn Write) -> Result<(), CliError> {
        let mut widths: Vec<usize> = self.headings.iter().map(|heading| heading.len()).collect();
        for row in &self.rows {
            for (width, cell) in widths.iter_mut().zip(row) {
                *width = (*width).max(cell.chars().count());
            }
        }
        let headings: Vec<String> = self
            .headings
            .iter()
            .map(|&heading| heading.to_owned())
            .collect();
        for row in std::iter::once(&headings).chain(&self.rows) {
            let cells: Vec<String> = row
                .iter()
                .zip(&widths)
                .map(|(cell, &width)| format!("{cell:width$}"))
                .collect();
            writeln!(out, "{}", cells.join("  ").trim_end())?;
        }
        Ok(())
    }
}

/// Facts about one thing, a name and a value on each line; an empty value is shown as `-`.
pub fn facts(out: &mut dyn Write, facts: &[(&str, String)]) -> Result<(), CliError> {
    let width = facts.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
    for (name, value) in facts {
        writeln!(
            out,
            "{name:width$}  {}",
            if value.is_empty() { "-" } else { value }
        )?;
    }
    Ok(())
}

/// JSON, indented.
pub fn json(out: &mut dyn Write, value: &impl Serialize) -> Result<(), CliError> {
    serde_json::to_writer_pretty(&mut *out, value).map_err(std::io::Error::from)?;
    Ok(writeln!(out)?)
}

/// JSON on one line.
pub fn json_line(out: &mut dyn Write, value: &impl Serialize) -> Result<(), CliError> {
    serde_json::to_writer(&mut *out, value).map_err(std::io::Error::from)?;
    Ok(writeln!(out)?)
}

/// The text of something that may be missing.
pub fn or_empty(value: Option<impl ToString>) -> String {
    value.map(|value| value.to_string()).unwrap_or_default()
}
