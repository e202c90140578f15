//! Commands: programs with arguments, run without a shell.
use super::{Invalid, text_type};

/// A command line: at least one word, at most 4096 bytes. Quotes and backslashes keep words together as in a shell; what
/// else a shell would do is refused, because no shell sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CommandLine {
    text: String,
    words: Vec<String>,
}

impl CommandLine {
    /// Reads `uvicorn app:app --fd 0`.
    pub fn parse(text: &str) -> Result<Self, Invalid> {
        let refuse = |why: &str| Invalid::new("a command", text, why);
        let text = text.trim_matches(' ');
        if text.len() > 4096 {
            return Err(refuse("it is longer than 4096 bytes"));
        }
        if text.chars().any(char::is_control) {
            return Err(refuse("it has control characters in it"));
        }
        let words = words(text).map_err(refuse)?;
        if words.first().is_none_or(String::is_empty) {
            return Err(refuse("it names no program"));
        }
        Ok(Self {
            text: text.to_owned(),
            words,
        })
    }

    /// As it was written.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The program and its arguments.
    pub fn words(&self) -> &[String] {
        &self.words
    }
}
text_type!(CommandLine);

fn words(text: &str) -> Result<Vec<String>, &'static str> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut rest = text.chars();
    while let Some(next) = rest.next() {
        match next {
            ' ' => words.extend(word.take()),
            '\'' => loop {
                let word = word.get_or_insert_default();
                match rest.next() {
                    Some('\'') => break,
                    Some(inside) => word.push(inside),
                    None => return Err("a quote is not closed"),
                }
            },
            '"' => loop {
                let word = word.get_or_insert_default();
                match rest.next() {
                    Some('"') => break,
                    Some('\\') => word.extend(rest.next()),
                    Some('$' | '`') => {
                        return Err("no shell sees it: nothing replaces what stands behind $ or `");
                    }
                    Some(inside) => word.push(inside),
                    None => return Err("a quote is not closed"),
                }
            },
            '\\' => match rest.next() {
                Some(escaped) => word.get_or_insert_default().push(escaped),
                None => return Err("nothing follows the last backslash"),
            },
            '|' | '&' | ';' | '<' | '>' | '$' | '`' | '*' | '?' | '(' | ')' => {
                return Err(
                    "no shell sees it: put | & ; < > $ ` * ? ( ) into quotes, or write sh -c '...' with exec before the server",
                );
            }
            plain => word.get_or_insert_default().push(plain),
        }
    }
    words.extend(word);
    Ok(words)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(text: &str) -> Vec<String> {
        CommandLine::parse(text).unwrap().words().to_vec()
    }

    #[test]
    fn words_are_those_of_a_shell() {
        assert_eq!(
            of(" uvicorn  app:app --fd 0 "),
            ["uvicorn", "app:app", "--fd", "0"]
        );
        assert_eq!(
            of(r#"sh -c 'exec "$0" | x' a\ b "c \" d" '' e"f"g"#),
            ["sh", "-c", r#"exec "$0" | x"#, "a b", "c \" d", "", "efg"]
        );
    }

    #[test]
    fn what_only_a_shell_would_do_is_refused() {
        for bad in [
            "",
            " ",
            "''",
            "a 'b",
            "a \"b",
            "a\\",
            "a | b",
            "a > b",
            "a && b",
            "a; b",
            "a $HOME",
            "a \"$HOME\"",
            "a `b`",
            "a *",
            "a\nb",
            "a\0",
        ] {
            assert!(CommandLine::parse(bad).is_err(), "{bad:?}");
        }
        assert!(CommandLine::parse(&"a".repeat(4097)).is_err());
    }
}
