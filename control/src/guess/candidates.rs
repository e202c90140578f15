//! Which of a directory's Python files make a WSGI application, and which of several is the entry point.
//!
//! Two kinds of evidence: an object of a known framework counts in any file; a mere `application` or `app` counts only in a
//! file whose name is a convention for it. A file that imports another is nearer to the server: what it imports is not
//! a rival of it.

use super::Framework;
use super::files::{Directory, Kind};
use super::source::{Source, Value};
use crate::model::EntryPoint;
use std::collections::BTreeMap;

/// Files in which any `application` or `app` counts.
const CONVENTIONAL: [&str; 5] = ["wsgi", "passenger_wsgi", "application", "app", "main"];
const FACTORIES: [&str; 3] = ["create_app", "make_app", "app_factory"];
/// Frameworks whose applications a WSGI server cannot call.
const ASGI: [&str; 5] = [
    "fastapi.FastAPI",
    "starlette.applications.Starlette",
    "quart.Quart",
    "litestar.Litestar",
    "django.core.asgi.get_asgi_application",
];
/// Further files are not read.
const MAX_FILES: usize = 200;

/// A possible entry point.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Candidate {
    pub framework: Framework,
    pub module: String,
    pub callable: String,
    pub why: String,
}

impl Candidate {
    pub fn entry(&self) -> EntryPoint {
        EntryPoint::Module {
            module: self.module.clone(),
            callable: self.callable.clone(),
        }
    }
}

/// What the files gave.
#[derive(Debug)]
pub enum Found {
    /// At least one.
    Candidates(Vec<Candidate>),
    /// None; what was seen instead, to be put behind "no application was found".
    Nothing(String),
}

/// A Python name in ASCII, of a sensible length.
pub fn is_identifier(text: &str) -> bool {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    text.len() <= 100
        && text.bytes().all(plain)
        && text.bytes().next().is_some_and(|b| !b.is_ascii_digit())
}

/// Looks through the files and packages directly in the directory.
pub fn in_files(directory: &Directory, names: &[String]) -> Found {
    let files = Files::read(directory, names);
    let mut found: Vec<Candidate> = files
        .0
        .keys()
        .flat_map(|module| files.candidates(module))
        .collect();
    let rivals = found.clone();
    found.retain(|candidate| {
        let imported_by = |other: &Candidate| {
            files.reaches(&other.module, &candidate.module)
                && !files.reaches(&candidate.module, &other.module)
        };
        !rivals.iter().any(imported_by)
    });
    if found.is_empty() {
        Found::Nothing(files.hint())
    } else {
        Found::Candidates(found)
    }
}

/// The sources by module name.
struct Files(BTreeMap<String, (String, Source)>);

impl Files {
    fn read(directory: &Directory, names: &[String]) -> Self {
        let mut files = BTreeMap::new();
        for name in names {
            let (module, file) = match name.strip_suffix(".py") {
                Some(module) => (module, name.clone()),
                None if is_identifier(name) && directory.kind(name) == Kind::Directory => {
                    (name.as_str(), format!("{name}/__init__.py"))
                }
                None => continue,
            };
            let about_tests = module.starts_with("test_")
                || matches!(module, "test" | "tests" | "setup" | "conftest" | "manage");
            if !is_identifier(module) || about_tests || files.len() >= MAX_FILES {
                continue;
            }
            if let Some(text) = directory.read(&file) {
                files.insert(module.to_owned(), (file, Source::read(&text)));
            }
        }
        Self(files)
    }

    fn source(&self, module: &str) -> Option<&Source> {
        self.0.get(module).map(|(_, source)| source)
    }

    /// The application of a module that is nearest to the server: one, or several that have nothing to do with each other.
    fn candidates(&self, module: &str) -> Vec<Candidate> {
        let Some((file, source)) = self.0.get(module) else {
            return Vec::new();
        };
        let conventional = CONVENTIONAL.contains(&module);
        let mut names: Vec<&str> = source
            .bindings
            .iter()
            .map(|binding| binding.name.as_str())
            .collect();
        names.sort_unstable();
        names.dedup();
        let mut found: Vec<(&str, Framework)> = Vec::new();
        for &name in &names {
            if is_asgi(source, name) {
                continue;
            }
            let made_here = source
                .bindings
                .iter()
                .any(|b| b.name == name && matches!(b.value, Value::Call(_)));
            match self.framework(module, name, 8) {
                Some(framework) if made_here || conventional => found.push((name, framework)),
                None if conventional && is_application(source, name) => {
                    found.push((name, Framework::Wsgi))
                }
                _ => {}
            }
        }
        one_name(source, &mut found);
        let mut found: Vec<Candidate> = found
            .into_iter()
            .map(|(name, framework)| Candidate {
                framework,
                module: module.to_owned(),
                callable: name.to_owned(),
                why: why(file, source, name),
            })
            .collect();
        if found.is_empty() {
            found.extend(self.factory(module, file, source));
        }
        found
    }

    /// `def create_app()` in a file that imports Flask or Bottle.
    fn factory(&self, module: &str, file: &str, source: &Source) -> Option<Candidate> {
        let framework = imported_framework(source)?;
        let name = FACTORIES.into_iter().find(|name| {
            source
                .last(name)
                .is_some_and(|binding| matches!(binding.value, Value::Function { required: 0, .. }))
        })?;
        Some(Candidate {
            framework,
            module: module.to_owned(),
            callable: format!("{name}()"),
            why: why(file, source, name),
        })
    }

    /// The framework that a name's value is of, followed through aliases and the directory's own modules.
    fn framework(&self, module: &str, name: &str, steps: usize) -> Option<Framework> {
        let source = self.source(module)?;
        let steps = steps.checked_sub(1)?;
        source
            .bindings
            .iter()
            .filter(|binding| binding.name == name)
            .find_map(|binding| match &binding.value {
                Value::Call(path) => match resolve(source, path).as_str() {
                    "flask.Flask" => Some(Framework::Flask),
                    "bottle.Bottle" | "bottle.default_app" | "bottle.app" => {
                        Some(Framework::Bottle)
                    }
                    "django.core.wsgi.get_wsgi_application" => Some(Framework::Django),
                    _ => self.made_by(module, path, steps),
                },
                Value::Name(path) => match path.as_slice() {
                    [other] if other != name => self.framework(module, other, steps),
                    _ => None,
                },
                Value::Imported {
                    module: from,
                    name: original,
                } => self.framework(local(from), original, steps),
                _ => None,
            })
    }

    /// `app = create_app()`: the framework that the function's module imports.
    fn made_by(&self, module: &str, path: &[String], steps: usize) -> Option<Framework> {
        let [function] = path else { return None };
        let source = self.source(module)?;
        match &source.last(function)?.value {
            Value::Function { .. } => imported_framework(source),
            Value::Imported { module: from, name } => self.made_by(
                local(from),
                std::slice::from_ref(name),
                steps.checked_sub(1)?,
            ),
            _ => None,
        }
    }

    /// Whether one module imports another, directly or through others of the directory.
    fn reaches(&self, from: &str, to: &str) -> bool {
        let mut seen: Vec<&str> = Vec::new();
        let mut left = vec![from];
        while let Some(module) = left.pop() {
            for import in self
                .source(module)
                .map(|source| source.imports.as_slice())
                .unwrap_or_default()
            {
                let import = local(import);
                if import == to && import != from {
                    return true;
                }
                if self.0.contains_key(import) && !seen.contains(&import) {
                    seen.push(import);
                    left.push(import);
                }
            }
        }
        false
    }

    fn hint(&self) -> String {
        for (file, source) in self.0.values() {
            if let Some(binding) = source
                .bindings
                .iter()
                .find(|binding| is_asgi(source, &binding.name))
            {
                return format!(
                    ": {file} line {} makes an ASGI application, this platform runs WSGI",
                    binding.line
                );
            }
            if source.bare_routes && imported_framework(source) == Some(Framework::Bottle) {
                return format!(
                    ": {file} uses Bottle's default application; add the line `application = bottle.default_app()` to it"
                );
            }
            for name in FACTORIES {
                if let Some(Value::Function { required: 1.., .. }) =
                    source.last(name).map(|binding| &binding.value)
                {
                    return format!(
                        ": {name}() in {file} wants arguments; add a wsgi.py with `application = {name}(...)`"
                    );
                }
            }
        }
        String::new()
    }
}

/// The module of the site's directory that an import names: its first part.
fn local(module: &str) -> &str {
    module
        .trim_start_matches('.')
        .split('.')
        .next()
        .unwrap_or_default()
}

/// A dotted name with its first part replaced by what was imported under it.
fn resolve(source: &Source, path: &[String]) -> String {
    let Some((first, rest)) = path.split_first() else {
        return String::new();
    };
    let head = match source.last(first).map(|binding| &binding.value) {
        Some(Value::Imported { module, name }) => format!("{module}.{name}"),
        Some(Value::Module(module)) => module.clone(),
        Some(_) => first.clone(),
        None => source
            .stars
            .iter()
            .find(|module| matches!(module.as_str(), "flask" | "bottle"))
            .map_or_else(|| first.clone(), |module| format!("{module}.{first}")),
    };
    std::iter::once(head)
        .chain(rest.iter().cloned())
        .collect::<Vec<_>>()
        .join(".")
}

fn imported_framework(source: &Source) -> Option<Framework> {
    source
        .imports
        .iter()
        .find_map(|module| match module.as_str() {
            "flask" => Some(Framework::Flask),
            "bottle" => Some(Framework::Bottle),
            _ => None,
        })
}

fn is_asgi(source: &Source, name: &str) -> bool {
    source
        .bindings
        .iter()
        .filter(|binding| binding.name == name)
        .any(|binding| match &binding.value {
            Value::Call(path) => ASGI.contains(&resolve(source, path).as_str()),
            _ => false,
        })
}

/// Whether a name that no framework is known of is one of a server's usual names and may be a WSGI callable.
fn is_application(source: &Source, name: &str) -> bool {
    matches!(name, "application" | "app")
        && source
            .last(name)
            .is_some_and(|binding| match binding.value {
                Value::Function {
                    positional,
                    required,
                } => positional >= 2 && required <= 2,
                Value::Module(_) => false,
                _ => true,
            })
}

/// Leaves out a file's other names for one application: `application`, the servers' own name, is what the file is for,
/// whether it is an alias, wrapped in a middleware, or made apart; of two further names for one application `app` is kept.
fn one_name(source: &Source, found: &mut Vec<(&str, Framework)>) {
    let framework = found
        .iter()
        .map(|&(_, framework)| framework)
        .find(|&framework| framework != Framework::Wsgi);
    if let Some(&(name, own)) = found.iter().find(|(name, _)| *name == "application") {
        *found = vec![(
            name,
            if own == Framework::Wsgi {
                framework.unwrap_or(own)
            } else {
                own
            },
        )];
    } else if found.iter().any(|&(name, _)| name == "app") {
        let other = alias_of(source, "app").map(str::to_owned);
        found.retain(|&(name, _)| {
            name == "app"
                || (Some(name) != other.as_deref() && alias_of(source, name) != Some("app"))
        });
    }
}

fn alias_of<'a>(source: &'a Source, name: &str) -> Option<&'a str> {
    match &source.last(name)?.value {
        Value::Name(path) => path.first().filter(|_| path.len() == 1).map(String::as_str),
        _ => None,
    }
}

/// `app.py line 12: app = Flask(...)`
fn why(file: &str, source: &Source, name: &str) -> String {
    let Some(binding) = source.last(name) else {
        return file.to_owned();
    };
    let statement = match &binding.value {
        Value::Call(path) => format!("{name} = {}(...)", path.join(".")),
        Value::Name(path) => format!("{name} = {}", path.join(".")),
        Value::Imported {
            module,
            name: original,
        } if original == name => format!("from {module} import {name}"),
        Value::Imported {
            module,
            name: original,
        } => format!("from {module} import {original} as {name}"),
        Value::Function { .. } => format!("def {name}(...)"),
        Value::Module(_) | Value::Other => format!("{name} = ..."),
    };
    format!("{file} line {}: {statement}", binding.line)
}
