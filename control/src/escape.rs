//! Values on their way into the configuration of nginx and of uWSGI. A [`NginxValue`] or [`IniValue`] is text that the
//! reader takes as exactly one value equal to what was given; what cannot be written so is [`Refused`]. Templates
//! receive only these types, numbers and words of this program, so that no value can become a directive.
use std::fmt;

/// A value that cannot be written into a configuration file.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the value {text:?} cannot be written into {target}'s configuration: {why}")]
pub struct Refused {
    /// The program whose configuration it is.
    pub target: &'static str,
    /// The value, shortened.
    pub text: String,
    /// The reason.
    pub why: &'static str,
}

/// Longest value in bytes. nginx's own buffer for one, with its quotes and escapes, has 4096.
const LONGEST: usize = 2000;

/// A value as nginx reads it, in double quotes unless it is a plain word.
///
/// nginx evaluates variables in many values, with no way to write a `$` that is not one; so `$` is refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NginxValue(String);

impl NginxValue {
    /// Writes `text` as one value without variables.
    pub fn new(text: &str) -> Result<Self, Refused> {
        Self::within("", text, "")
    }

    /// As [`NginxValue::new`], with words of this program around it, in which variables may stand.
    pub fn within(before: &'static str, text: &str, after: &'static str) -> Result<Self, Refused> {
        let word = format!("{before}{}{after}", escaped(text)?);
        let plain = |b: u8| b.is_ascii_alphanumeric() || b"_-./:,*".contains(&b);
        let bare = !word.is_empty() && word.bytes().all(plain);
        Ok(Self(if bare { word } else { format!("\"{word}\"") }))
    }

    /// All files `*.conf` of a directory, for `include`. nginx would take `*`, `?` and `[` in its name for a pattern.
    pub fn snippets(directory: &str) -> Result<Self, Refused> {
        if directory.contains(['*', '?', '[']) {
            return Err(refused(
                "nginx",
                directory,
                "nginx would read a pattern at the *, ? or [",
            ));
        }
        Self::within("", directory, "/*.conf")
    }
}

impl fmt::Display for NginxValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A value as uWSGI reads it from an ini file: the rest of a line.
///
/// uWSGI cuts blanks at both ends off, replaces `%x` and then `$(NAME)`, `@(FILE)` and `%(OPTION)`. A percent sign can be
/// doubled; for the others there is no escape, so they are refused, and so are blanks at the ends and values of nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IniValue(String);

impl IniValue {
    /// Writes `text` as one value.
    pub fn new(text: &str) -> Result<Self, Refused> {
        let refuse = |why| refused("uWSGI", text, why);
        check(text).map_err(refuse)?;
        if text.is_empty() {
            return Err(refuse("it is empty"));
        }
        if text.starts_with(' ') || text.ends_with(' ') {
            return Err(refuse("uWSGI cuts off the blanks at its ends"));
        }
        if ["$(", "@(", "%("]
            .iter()
            .any(|opening| text.contains(opening))
        {
            return Err(refuse(
                "uWSGI would replace what stands in $( ), @( ) or %( )",
            ));
        }
        Ok(Self(text.replace('%', "%%")))
    }
}

impl fmt::Display for IniValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

fn refused(target: &'static str, text: &str, why: &'static str) -> Refused {
    Refused {
        target,
        text: text.chars().take(120).collect(),
        why,
    }
}

/// The inside of a quoted word of nginx.
fn escaped(text: &str) -> Result<String, Refused> {
    let refuse = |why| refused("nginx", text, why);
    check(text).map_err(refuse)?;
    if text.contains('$') {
        return Err(refuse("nginx would read a variable at the $"));
    }
    let mut inner = String::with_capacity(text.len());
    for character in text.chars() {
        if matches!(character, '"' | '\\') {
            inner.push('\\');
        }
        inner.push(character);
    }
    Ok(inner)
}

/// What neither program may be given.
fn check(text: &str) -> Result<(), &'static str> {
    if text.len() > LONGEST {
        return Err("it is longer than 2000 bytes");
    }
    // Neither needs them, and a newline is what ends a value in an ini file.
    if text.chars().any(char::is_control) {
        return Err("it has control characters in it");
    }
    Ok(())
}

#[cfg(test)]
#[path = "escape_readers.rs"]
pub(crate) mod readers;
#[cfg(test)]
#[path = "escape_tests.rs"]
pub(crate) mod tests;
