//! Reads a Python file far enough to tell which names it gives values at its top level, without running it.
//!
//! No Python parser: a tokenizer and the few shapes of statements in which applications are made.
//! What it does not understand it passes over. It takes time linear in the text and does not recurse, so
//! that a hostile file costs no more than its size, which the caller bounds.

use super::tokens::{Statement, Token, statements};

/// What a name is given at the top level of a file (also within `if`, `try` and `with`, not within functions).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Value {
    /// The result of calling a dotted name: `flask.Flask(...)`.
    Call(Vec<String>),
    /// Another name: `application = app`.
    Name(Vec<String>),
    /// `from module import name`; the module may start with dots.
    Imported {
        /// As written.
        module: String,
        /// The name there.
        name: String,
    },
    /// `import module`, or `import module as other`.
    Module(String),
    /// `def name(...)`.
    Function {
        /// Arguments that can be given by position.
        positional: usize,
        /// Of these, the ones without a default value.
        required: usize,
    },
    /// Anything else.
    Other,
}

/// A name, where it got its value, and which.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Binding {
    /// The name.
    pub name: String,
    /// Counted from 1.
    pub line: usize,
    /// What it was given.
    pub value: Value,
}

/// The part of a file that matters here.
#[derive(Debug, Default)]
pub struct Source {
    /// In the order of the file.
    pub bindings: Vec<Binding>,
    /// Every module named in an import, anywhere in the file.
    pub imports: Vec<String>,
    /// Modules imported by `from module import *` at the top level.
    pub stars: Vec<String>,
    /// Whether a top-level function is decorated by a bare route (`@route`, `@get` or `@bottle.route`): Bottle's default app.
    pub bare_routes: bool,
    /// The strings in calls that set `DJANGO_SETTINGS_MODULE`.
    pub settings_modules: Vec<String>,
}

impl Source {
    /// Reads the text of a file.
    pub fn read(text: &str) -> Self {
        let mut source = Self::default();
        // The indentation of the function or class whose body is passed over.
        let mut body: Option<usize> = None;
        for statement in statements(text) {
            source.note_imports(&statement.tokens);
            source.note_settings(&statement.tokens);
            if body.is_some_and(|indent| statement.indent > indent) {
                continue;
            }
            body = match statement.tokens.as_slice() {
                [Token::Name(word), ..] if word == "def" || word == "class" => {
                    Some(statement.indent)
                }
                [Token::Name(a), Token::Name(b), ..] if a == "async" && b == "def" => {
                    Some(statement.indent)
                }
                // What runs only when the file is started as a program is not what a server imports.
                [Token::Name(a), Token::Name(b), ..] if a == "if" && b == "__name__" => {
                    Some(statement.indent)
                }
                _ => None,
            };
            source.note_statement(&statement);
        }
        source
    }

    /// What `name` was given last.
    pub fn last(&self, name: &str) -> Option<&Binding> {
        self.bindings
            .iter()
            .rev()
            .find(|binding| binding.name == name)
    }

    fn note_statement(&mut self, statement: &Statement) {
        let tokens = statement.tokens.as_slice();
        match tokens {
            [Token::Name(word), Token::Name(name), rest @ ..] if word == "def" => {
                let (positional, required) = parameters(rest);
                self.bind(
                    name,
                    statement.line,
                    Value::Function {
                        positional,
                        required,
                    },
                );
            }
            [Token::Name(word), rest @ ..] if word == "import" => {
                for part in rest.split(|token| *token == Token::Sign(',')) {
                    let path = dotted(part).0;
                    let Some(first) = path.first() else { continue };
                    match part.get(path.len() * 2 - 1..) {
                        Some([Token::Name(word), Token::Name(other), ..]) if word == "as" => {
                            self.bind(other, statement.line, Value::Module(path.join(".")));
                        }
                        _ => self.bind(first, statement.line, Value::Module(first.clone())),
                    }
                }
            }
            [Token::Name(word), rest @ ..] if word == "from" => {
                self.note_from(rest, statement.line)
            }
            [Token::Sign('@'), rest @ ..] => {
                let (path, after) = dotted(rest);
                let bare = match path.as_slice() {
                    [route] => is_route(route),
                    [module, route] => module == "bottle" && is_route(route),
                    _ => false,
                };
                self.bare_routes |= bare && after.first() == Some(&Token::Sign('('));
            }
            _ => self.note_assignment(tokens, statement.line),
        }
    }

    fn note_from(&mut self, tokens: &[Token], line: usize) {
        let Some(at) = tokens.iter().position(|token| token.is("import")) else {
            return;
        };
        let (before, after) = tokens.split_at(at);
        let module = text(before);
        for part in
            after.split(|token| matches!(token, Token::Sign(',' | '(' | ')')) || token.is("import"))
        {
            match part {
                [Token::Sign('*')] => self.stars.push(module.clone()),
                [Token::Name(name)] => self.bind(
                    name,
                    line,
                    Value::Imported {
                        module: module.clone(),
                        name: name.clone(),
                    },
                ),
                [Token::Name(name), Token::Name(word), Token::Name(other)] if word == "as" => {
                    self.bind(
                        other,
                        line,
                        Value::Imported {
                            module: module.clone(),
                            name: name.clone(),
                        },
                    );
                }
                _ => {}
            }
        }
    }

    /// `a = value`, `a = b = value`, `a: Type = value`.
    fn note_assignment(&mut self, tokens: &[Token], line: usize) {
        let mut names = Vec::new();
        let mut rest = tokens;
        loop {
            rest = match rest {
                [Token::Name(name), Token::Sign('='), after @ ..] => {
                    names.push(name);
                    after
                }
                [Token::Name(name), Token::Sign(':'), annotation @ ..] if names.is_empty() => {
                    let Some(at) = annotation
                        .iter()
                        .position(|token| *token == Token::Sign('='))
                    else {
                        return;
                    };
                    names.push(name);
                    annotation.get(at + 1..).unwrap_or_default()
                }
                _ => break,
            };
        }
        for name in names {
            self.bind(name, line, value(rest));
        }
    }

    fn note_imports(&mut self, tokens: &[Token]) {
        match tokens {
            [Token::Name(word), rest @ ..] if word == "import" => {
                for part in rest.split(|token| *token == Token::Sign(',')) {
                    let path = dotted(part).0;
                    if !path.is_empty() {
                        self.imports.push(path.join("."));
                    }
                }
            }
            [Token::Name(word), rest @ ..] if word == "from" => {
                let end = rest
                    .iter()
                    .position(|token| token.is("import"))
                    .unwrap_or(rest.len());
                let module = text(rest.get(..end).unwrap_or_default());
                let names = rest.get(end + 1..).unwrap_or_default();
                for token in names {
                    if let Token::Name(name) = token {
                        // `from package import module` imports the module, too.
                        let between = if module.ends_with('.') { "" } else { "." };
                        self.imports.push(format!("{module}{between}{name}"));
                    }
                }
                self.imports.push(module);
            }
            _ => {}
        }
    }

    fn note_settings(&mut self, tokens: &[Token]) {
        for window in tokens.windows(4) {
            let found = match window {
                [Token::Text(name), Token::Sign(','), Token::Text(value), _] => Some((name, value)),
                [
                    Token::Text(name),
                    Token::Sign(']'),
                    Token::Sign('='),
                    Token::Text(value),
                ] => Some((name, value)),
                _ => None,
            };
            if let Some((_, value)) = found.filter(|(name, _)| *name == "DJANGO_SETTINGS_MODULE") {
                self.settings_modules.push(value.clone());
            }
        }
    }

    fn bind(&mut self, name: &str, line: usize, value: Value) {
        self.bindings.push(Binding {
            name: name.to_owned(),
            line,
            value,
        });
    }
}

fn is_route(name: &str) -> bool {
    matches!(name, "route" | "get" | "post" | "put" | "delete")
}

/// The dotted name that the tokens start with, and what follows it.
fn dotted(tokens: &[Token]) -> (Vec<String>, &[Token]) {
    let mut path = Vec::new();
    let mut rest = tokens;
    while let [Token::Name(name), after @ ..] = rest {
        path.push(name.clone());
        rest = after;
        match rest {
            [Token::Sign('.'), after @ ..] => rest = after,
            _ => break,
        }
    }
    (path, rest)
}

fn value(tokens: &[Token]) -> Value {
    let (path, rest) = dotted(tokens);
    match rest.first() {
        _ if path.is_empty() => Value::Other,
        None => Value::Name(path),
        Some(Token::Sign('(')) => Value::Call(path),
        Some(_) => Value::Other,
    }
}

/// Tokens of a module's name as one text: `..package.module`.
fn text(tokens: &[Token]) -> String {
    tokens
        .iter()
        .map(|token| match token {
            Token::Name(name) => name.as_str(),
            Token::Sign('.') => ".",
            _ => "",
        })
        .collect()
}

/// How many arguments the list `(a, b=1, *, c): ...` takes by position, and how many of them it needs.
fn parameters(tokens: &[Token]) -> (usize, usize) {
    let (mut positional, mut required, mut depth) = (0, 0, 0_usize);
    let (mut started, mut counted, mut keyword_only) = (false, false, false);
    for token in tokens {
        match token {
            Token::Sign('(' | '[' | '{') => depth += 1,
            Token::Sign(')' | ']' | '}') if depth <= 1 => break,
            Token::Sign(')' | ']' | '}') => depth -= 1,
            Token::Sign(',') if depth == 1 => (started, counted) = (false, false),
            Token::Sign('*') if depth == 1 && !started => (started, keyword_only) = (true, true),
            Token::Sign('=') if depth == 1 && counted => {
                required -= 1;
                counted = false;
            }
            Token::Name(_) if depth == 1 && !started => {
                started = true;
                if !keyword_only {
                    counted = true;
                    positional += 1;
                    required += 1;
                }
            }
            _ => {}
        }
    }
    (positional, required)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn value_of(text: &str, name: &str) -> Value {
        Source::read(text)
            .last(name)
            .expect("the name has a value")
            .value
            .clone()
    }

    fn path(names: &[&str]) -> Vec<String> {
        names.iter().map(|&name| name.to_owned()).collect()
    }

    #[test]
    fn calls_names_and_imports_are_told_apart() {
        assert_eq!(
            value_of("app = Flask(__name__)", "app"),
            Value::Call(path(&["Flask"]))
        );
        assert_eq!(
            value_of("a = b = flask.Flask(\n  __name__,\n)\n", "b"),
            Value::Call(path(&["flask", "Flask"]))
        );
        assert_eq!(
            value_of("app: Flask = Flask('x')  # made here", "app"),
            Value::Call(path(&["Flask"]))
        );
        assert_eq!(
            value_of("application = app", "application"),
            Value::Name(path(&["app"]))
        );
        assert_eq!(
            value_of("import bottle as b, os.path\n", "b"),
            Value::Module("bottle".into())
        );
        assert_eq!(
            value_of(
                "from .site import (make,\n   app as application,)",
                "application"
            ),
            Value::Imported {
                module: ".site".into(),
                name: "app".into()
            }
        );
        assert_eq!(value_of("x = 1; y = [Flask()]", "y"), Value::Other);
        assert_eq!(Source::read("from bottle import *").stars, ["bottle"]);
    }

    #[test]
    fn what_is_in_functions_strings_and_the_main_block_does_not_count() {
        let text = "'''\napp = Flask()\n'''\ndef f():\n    app = Flask()\nclass C:\n    app = 1\n\nif __name__ == '__main__':\n    app = 2\n";
        assert!(Source::read(text).last("app").is_none());
        let text = "try:\n    import fast\nexcept ImportError:\n    app = Flask()\n";
        assert!(Source::read(text).last("app").is_some());
    }

    #[test]
    fn functions_say_what_arguments_they_take() {
        let shape = |text| match value_of(text, "f") {
            Value::Function {
                positional,
                required,
            } => (positional, required),
            other => panic!("{other:?}"),
        };
        assert_eq!(shape("def f(): pass"), (0, 0));
        assert_eq!(
            shape("def f(environ, start_response):\n    return []"),
            (2, 2)
        );
        assert_eq!(shape("def f(config=None, *, debug): pass"), (1, 0));
        assert_eq!(shape("def f(a=1, b=2, c=lambda x=3: x): pass"), (3, 0));
        assert_eq!(
            shape("def f(a: dict[str, int], b: int = (1, 2), *rest, **more): pass"),
            (2, 1)
        );
    }

    #[test]
    fn settings_and_bare_routes_are_found() {
        let text =
            "def main():\n    os.environ.setdefault('DJANGO_SETTINGS_MODULE', 'shop.settings')\n";
        assert_eq!(Source::read(text).settings_modules, ["shop.settings"]);
        let text = "os.environ[\"DJANGO_SETTINGS_MODULE\"] = \"shop.settings\"";
        assert_eq!(Source::read(text).settings_modules, ["shop.settings"]);
        assert!(Source::read("@route('/')\ndef page(): pass").bare_routes);
        assert!(!Source::read("@app.route('/')\ndef page(): pass").bare_routes);
    }

    proptest! {
        #[test]
        fn any_text_is_read(text in "(?s).{0,400}") {
            Source::read(&text);
        }

        #[test]
        fn any_mixture_of_pieces_is_read(pieces in prop::collection::vec(prop::sample::select(vec![
            "def ", "class ", "from ", "import ", "as ", "app", "=", "(", ")", "[", "]", ".", ",", ":", "*", "\n", "    ", "\"\"\"",
            "'", "\\", "#", ";", "@", "async ", "if __name__", "DJANGO_SETTINGS_MODULE", "Flask", "\t", "\r\n", "é",
        ]), 0..60)) {
            Source::read(&pieces.concat());
        }
    }
}
