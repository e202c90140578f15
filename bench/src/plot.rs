//! Bar charts as SVG, small enough to be committed.

use std::fmt::Write as _;

const WIDTH: f64 = 860.0;
const LABEL: f64 = 300.0;
const ROW: f64 = 17.0;

/// Horizontal bars in groups, all on one scale that starts at zero.
#[derive(Debug)]
pub struct Bars {
    title: String,
    rows: Vec<Row>,
}

#[derive(Debug)]
enum Row {
    Heading(String),
    Bar {
        label: String,
        value: f64,
        ours: bool,
    },
}

impl Bars {
    /// A chart without bars yet.
    #[must_use]
    pub fn new(title: &str) -> Bars {
        Bars {
            title: title.to_owned(),
            rows: Vec::new(),
        }
    }

    /// What follows belongs together.
    pub fn group(&mut self, heading: &str) {
        self.rows.push(Row::Heading(heading.to_owned()));
    }

    /// A bar; `ours` stands out.
    pub fn bar(&mut self, label: &str, value: f64, ours: bool) {
        self.rows.push(Row::Bar {
            label: label.to_owned(),
            value,
            ours,
        });
    }

    /// The chart. Its colours can be read on white and on black.
    #[must_use]
    pub fn svg(&self) -> String {
        let most = self
            .rows
            .iter()
            .map(|row| match row {
                Row::Bar { value, .. } => *value,
                Row::Heading(_) => 0.0,
            })
            .fold(f64::MIN_POSITIVE, f64::max);
        let scale = (WIDTH - LABEL - 60.0) / most;
        let height = ROW * (self.rows.len() as f64 + 3.0);
        let mut svg = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" font-family=\"sans-serif\" font-size=\"12\" fill=\"#777\">\n\
             <text x=\"0\" y=\"{ROW}\" font-weight=\"bold\">{}</text>\n",
            escaped(&self.title)
        );
        for (number, row) in self.rows.iter().enumerate() {
            let y = ROW * (number as f64 + 3.0);
            let _ = match row {
                Row::Heading(text) => writeln!(
                    svg,
                    "<text x=\"0\" y=\"{y}\" font-weight=\"bold\">{}</text>",
                    escaped(text)
                ),
                Row::Bar { label, value, ours } => writeln!(
                    svg,
                    "<text x=\"{x}\" y=\"{y}\" text-anchor=\"end\">{label}</text>\
                     <rect x=\"{LABEL}\" y=\"{top}\" width=\"{width:.1}\" height=\"{bar}\" fill=\"{fill}\"/>\
                     <text x=\"{after:.1}\" y=\"{y}\">{value:.1}</text>",
                    x = LABEL - 8.0,
                    label = escaped(label),
                    top = y - ROW + 6.0,
                    width = value * scale,
                    bar = ROW - 5.0,
                    fill = if *ours { "#2a9d5c" } else { "#6c8ebf" },
                    after = LABEL + value * scale + 6.0,
                ),
            };
        }
        svg.push_str("</svg>\n");
        svg
    }
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_bar_fills_the_width_and_text_is_escaped() {
        let mut bars = Bars::new("a < b");
        bars.bar("one", 1.0, false);
        bars.bar("two", 2.0, true);
        let svg = bars.svg();
        assert!(svg.contains("a &lt; b"), "{svg}");
        assert!(
            svg.contains("width=\"250.0\"") && svg.contains("width=\"500.0\""),
            "{svg}"
        );
    }
}
