//! Cuts Python source into logical lines of tokens: comments gone, strings and brackets over several lines joined.

use std::iter::Peekable;
use std::str::Chars;

/// A piece of a statement.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Token {
    /// A name or a keyword.
    Name(String),
    /// A string literal's text, its escapes left as they are.
    Text(String),
    /// One character of anything else; operators of two characters are given as `Other`.
    Sign(char),
    /// A number, or an operator that ends in `=` and is no assignment.
    Other,
}

impl Token {
    /// Whether it is this name or keyword.
    pub fn is(&self, word: &str) -> bool {
        matches!(self, Self::Name(name) if name == word)
    }
}

/// A logical line.
#[derive(Debug)]
pub struct Statement {
    /// Of its first character, counted from 1.
    pub line: usize,
    /// Columns before it; a tab leads to the next multiple of eight.
    pub indent: usize,
    /// Never empty.
    pub tokens: Vec<Token>,
}

/// All statements of a text, in order.
pub fn statements(text: &str) -> Vec<Statement> {
    let mut reader = Reader {
        left: text.chars().peekable(),
        line: 1,
    };
    let mut found = Vec::new();
    while reader.left.peek().is_some() {
        let indent = reader.indentation();
        let (line, tokens) = (reader.line, reader.logical_line());
        for part in tokens.split(|token| *token == Token::Sign(';')) {
            if !part.is_empty() {
                found.push(Statement {
                    line,
                    indent,
                    tokens: part.to_vec(),
                });
            }
        }
    }
    found
}

struct Reader<'a> {
    left: Peekable<Chars<'a>>,
    line: usize,
}

impl Reader<'_> {
    fn next(&mut self) -> Option<char> {
        let character = self.left.next();
        self.line += usize::from(character == Some('\n'));
        character
    }

    fn indentation(&mut self) -> usize {
        let mut columns = 0;
        while let Some(character) = self
            .left
            .next_if(|c| matches!(c, ' ' | '\t' | '\u{c}' | '\u{feff}'))
        {
            columns = match character {
                ' ' => columns + 1,
                '\t' => columns / 8 * 8 + 8,
                _ => columns,
            };
        }
        columns
    }

    /// The tokens up to the end of the line; brackets and a backslash carry it on.
    fn logical_line(&mut self) -> Vec<Token> {
        let mut tokens = Vec::new();
        let mut depth = 0_usize;
        while let Some(character) = self.next() {
            match character {
                '\n' if depth == 0 => break,
                '\\' => {
                    self.left.next_if_eq(&'\r');
                    self.line += usize::from(self.left.next_if_eq(&'\n').is_some());
                }
                '#' => while self.left.next_if(|&c| c != '\n').is_some() {},
                '\'' | '"' => tokens.push(Token::Text(self.string(character))),
                c if c.is_whitespace() => {}
                c if c.is_ascii_digit() => {
                    while self
                        .left
                        .next_if(|&c| c.is_alphanumeric() || c == '.' || c == '_')
                        .is_some()
                    {}
                    tokens.push(Token::Other);
                }
                c if c.is_alphabetic() || c == '_' => tokens.push(self.name(c)),
                c => {
                    match c {
                        '(' | '[' | '{' => depth += 1,
                        ')' | ']' | '}' => depth = depth.saturating_sub(1),
                        _ => {}
                    }
                    let comparison =
                        "=!<>+-*/%&|^@:".contains(c) && self.left.next_if_eq(&'=').is_some();
                    tokens.push(if comparison {
                        Token::Other
                    } else {
                        Token::Sign(c)
                    });
                }
            }
        }
        tokens
    }

    /// A name, or the string that it is the prefix of.
    fn name(&mut self, first: char) -> Token {
        let mut name = String::from(first);
        while let Some(character) = self.left.next_if(|&c| c.is_alphanumeric() || c == '_') {
            name.push(character);
        }
        let prefix = name.len() <= 2 && name.chars().all(|c| "rRbBuUfF".contains(c));
        match self.left.next_if(|c| prefix && matches!(c, '\'' | '"')) {
            Some(quote) => Token::Text(self.string(quote)),
            None => Token::Name(name),
        }
    }

    /// The string whose first quote was read.
    fn string(&mut self, quote: char) -> String {
        let mut text = String::new();
        let triple = self.left.next_if_eq(&quote).is_some();
        if triple && self.left.next_if_eq(&quote).is_none() {
            return text; // '' or "": empty
        }
        let mut quotes = 0;
        while let Some(&character) = self.left.peek() {
            if character == '\n' && !triple {
                break; // not closed: the line ends it
            }
            self.next();
            quotes = if character == quote { quotes + 1 } else { 0 };
            if quotes == if triple { 3 } else { 1 } {
                if triple {
                    text.truncate(text.len().saturating_sub(2));
                }
                break;
            }
            text.push(character);
            if character == '\\' {
                text.extend(self.next());
            }
        }
        text
    }
}
