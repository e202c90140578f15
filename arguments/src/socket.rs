//! `paas_socket PATTERN;`: where the socket of a site is.

use std::fmt;

use crate::Refusal;

/// What [`Pattern`] is if nothing is said.
const DEFAULT: &[Piece] = &[
    Piece::Text(Text::Static("/run/paas/sites/")),
    Piece::Id,
    Piece::Text(Text::Static("/app.sock")),
];

/// A path with placeholders.
#[derive(Debug)]
pub struct Pattern(Vec<Piece>);

#[derive(Debug)]
enum Piece {
    Text(Text),
    Id,
    Domain,
}

#[derive(Debug)]
enum Text {
    Static(&'static str),
    Owned(Box<str>),
}

impl Pattern {
    /// Reads a pattern: an absolute path with `{id}` or `{domain}` in it.
    ///
    /// # Errors
    /// It is not.
    pub fn parse(text: &str) -> Result<Self, Refusal> {
        if !text.starts_with('/') {
            return Err(format!("{text:?} is not an absolute path"));
        }
        let (mut pieces, mut rest) = (Vec::new(), text);
        while let Some((before, behind)) = rest.split_once('{') {
            let (name, after) = behind
                .split_once('}')
                .ok_or_else(|| format!("{text:?} has a {{ without }}"))?;
            pieces.push(Piece::Text(Text::Owned(before.into())));
            pieces.push(match name {
                "id" => Piece::Id,
                "domain" => Piece::Domain,
                _ => {
                    return Err(format!(
                        "{text:?} has the unknown placeholder {name:?}: write {{id}} or {{domain}}"
                    ));
                }
            });
            rest = after;
        }
        if pieces.is_empty() {
            return Err(format!(
                "{text:?} would give all sites one socket: put {{id}} or {{domain}} into it"
            ));
        }
        pieces.push(Piece::Text(Text::Owned(rest.into())));
        Ok(Self(pieces))
    }
}

/// The path of one site's socket; it is written without an allocation.
#[derive(Debug)]
pub struct Path<'s> {
    pieces: &'s [Piece],
    id: u64,
    domain: &'s str,
}

impl<'s> Path<'s> {
    /// The path by a pattern, or by default, of the site with this number and this primary domain.
    #[must_use]
    pub fn new(pattern: Option<&'s Pattern>, id: u64, domain: &'s str) -> Self {
        Self {
            pieces: pattern.map_or(DEFAULT, |pattern| &pattern.0),
            id,
            domain,
        }
    }
}

impl fmt::Display for Path<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.pieces.iter().try_for_each(|piece| match piece {
            Piece::Text(Text::Static(text)) => f.write_str(text),
            Piece::Text(Text::Owned(text)) => f.write_str(text),
            Piece::Id => write!(f, "{}", self.id),
            Piece::Domain => f.write_str(self.domain),
        })
    }
}
