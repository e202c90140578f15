//! Tables of results: on the terminal, as JSON beside, and in the document.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use serde::Serialize;
use serde::de::DeserializeOwned;

/// A table with a head.
#[derive(Debug, Clone, Default)]
pub struct Table {
    head: Vec<String>,
    rows: Vec<Vec<String>>,
}

impl Table {
    /// One without rows yet.
    #[must_use]
    pub fn new<'s>(head: impl IntoIterator<Item = &'s str>) -> Table {
        Table {
            head: head.into_iter().map(str::to_owned).collect(),
            rows: Vec::new(),
        }
    }

    /// Adds a row.
    pub fn row(&mut self, cells: impl IntoIterator<Item = String>) {
        self.rows.push(cells.into_iter().collect());
    }

    /// As Markdown, which a terminal shows well enough: columns are aligned, all but the first to the right.
    #[must_use]
    pub fn markdown(&self) -> String {
        let width = |column: usize| {
            std::iter::once(&self.head)
                .chain(&self.rows)
                .filter_map(|row| row.get(column))
                .map(|cell| cell.chars().count())
                .max()
                .unwrap_or(0)
        };
        let widths: Vec<usize> = (0..self.head.len()).map(width).collect();
        let mut text = String::new();
        let mut line = |cells: &[String]| {
            for (column, (cell, width)) in cells.iter().zip(&widths).enumerate() {
                let _ = if column == 0 {
                    write!(text, "| {cell:<width$} ")
                } else {
                    write!(text, "| {cell:>width$} ")
                };
            }
            text.push_str("|\n");
        };
        line(&self.head);
        let rule = |(column, width): (usize, &usize)| match column {
            0 => "-".repeat(*width),
            _ => format!("{}:", "-".repeat(width.saturating_sub(1))),
        };
        line(&widths.iter().enumerate().map(rule).collect::<Vec<_>>());
        for row in &self.rows {
            line(row);
        }
        text
    }
}

/// Where the results of a benchmark lie.
#[must_use]
pub fn file(benchmark: &str) -> PathBuf {
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(
        || paas_tests::build::workspace().join("target"),
        PathBuf::from,
    );
    target.join(format!("bench/{benchmark}.json"))
}

/// Reads what an earlier run left, if it did.
#[must_use]
pub fn load<T: DeserializeOwned>(benchmark: &str) -> Option<T> {
    serde_json::from_slice(&fs::read(file(benchmark)).ok()?).ok()
}

/// Keeps the results of a run.
///
/// # Errors
/// They cannot be written.
pub fn save<T: Serialize>(benchmark: &str, results: &T) -> anyhow::Result<PathBuf> {
    let file = file(benchmark);
    write(&file, &serde_json::to_string_pretty(results)?)?;
    Ok(file)
}

/// Puts `text` into the document between this benchmark's marks.
///
/// # Errors
/// The document has no such marks, or cannot be written.
pub fn document(benchmark: &str, text: &str) -> anyhow::Result<PathBuf> {
    let file = documents().join("benchmarks.md");
    let old = fs::read_to_string(&file).with_context(|| file.display().to_string())?;
    write(&file, &replaced(&old, benchmark, text)?)?;
    Ok(file)
}

/// Where the documents lie.
#[must_use]
pub fn documents() -> PathBuf {
    paas_tests::build::workspace().join("docs")
}

/// Writes a file, and the directory it lies in.
///
/// # Errors
/// It cannot be written.
pub fn write(file: &Path, text: &str) -> anyhow::Result<()> {
    let directory = file.parent().context("a file lies in a directory")?;
    fs::create_dir_all(directory).with_context(|| directory.display().to_string())?;
    fs::write(file, text).with_context(|| file.display().to_string())
}

fn replaced(old: &str, benchmark: &str, text: &str) -> anyhow::Result<String> {
    let (begin, end) = (
        format!("<!-- {benchmark}: written by scripts/bench {benchmark} --write -->\n"),
        format!("<!-- {benchmark}: end -->"),
    );
    let split = old
        .split_once(&begin)
        .and_then(|(head, rest)| Some((head, rest.split_once(&end)?.1)));
    let (head, tail) =
        split.with_context(|| format!("the document lacks the marks of {benchmark}: {begin}"))?;
    Ok(format!("{head}{begin}\n{}\n\n{end}{tail}", text.trim()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_between_the_marks_changes() {
        let old =
            "before\n<!-- x: written by scripts/bench x --write -->\nold\n<!-- x: end -->\nafter\n";
        let new = replaced(old, "x", "new\n").unwrap();
        assert_eq!(
            new,
            "before\n<!-- x: written by scripts/bench x --write -->\n\nnew\n\n<!-- x: end -->\nafter\n"
        );
        assert_eq!(replaced(&new, "x", "new").unwrap(), new);
        assert!(replaced(old, "y", "new").is_err());
    }

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let mut table = Table::new(["way", "us"]);
        table.row(["static".to_owned(), "1.0".to_owned()]);
        assert_eq!(
            table.markdown(),
            "| way    |  us |\n| ------ | --: |\n| static | 1.0 |\n"
        );
    }
}
