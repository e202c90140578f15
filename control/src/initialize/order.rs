//! What a launcher is told: lines of `key=value`, an empty one at the end. They hold the site's environment and with it its
//! secrets, so they go over the launcher's socket, which is root's alone, and into no file, no argument and no log.

use std::fmt::{self, Write as _};
use std::path::Path;

use crate::model::{AbsolutePath, Application, Environment, Site};
use crate::sandbox::{Confinement, encoded};

/// The lines. `Debug` does not show them.
#[derive(Clone)]
pub struct Order(String);

/// What of them is the machine's, not the site's.
#[derive(Debug)]
pub struct Context<'a> {
    /// As which user and group.
    pub ids: (u32, u32),
    /// Where output goes.
    pub log: &'a Path,
    /// The notice pipe.
    pub notice: &'a Path,
    /// The uWSGI program.
    pub uwsgi: &'a str,
    /// What holds the site in.
    pub confinement: &'a Confinement,
}

impl Order {
    /// The order for a start of `site`.
    pub fn new(site: &Site, environment: &Environment, context: &Context<'_>) -> Order {
        let Context {
            ids: (uid, gid),
            log,
            notice,
            uwsgi,
            confinement,
        } = context;
        let mut lines = format!(
            "uid={uid}\ngid={gid}\nhome={home}\nlog={log}\nnotice={notice}\n",
            home = site.directory,
            log = log.display(),
            notice = notice.display(),
        );
        match &site.application {
            Application::Wsgi(_) => say(&mut lines, "uwsgi", uwsgi),
            Application::Command(command) => {
                say_command(&mut lines, site.venv.as_ref(), command.words());
            }
        }
        say_environment(&mut lines, environment);
        lines.push_str(&confinement.lines());
        lines.push('\n');
        Order(lines)
    }

    /// The order for an operator's own program among the site's files: `words`, in a terminal of this kind, if it is one.
    pub fn visit(
        (directory, venv): (&AbsolutePath, Option<&AbsolutePath>),
        environment: &Environment,
        (uid, gid): (u32, u32),
        confinement: &Confinement,
        words: &[String],
        terminal: Option<&str>,
    ) -> Order {
        let mut lines = format!("uid={uid}\ngid={gid}\nhome={directory}\n");
        say_command(&mut lines, venv, words);
        if let Some(terminal) = terminal {
            say(&mut lines, "environment", &format!("TERM={terminal}"));
        }
        say_environment(&mut lines, environment);
        lines.push_str(&confinement.lines());
        lines.push('\n');
        Order(lines)
    }

    /// The lines.
    pub fn as_bytes(&self) -> &[u8] {
        self.0.as_bytes()
    }
}

fn say(lines: &mut String, key: &str, value: &str) {
    // Writing to a string cannot fail.
    let _ = writeln!(lines, "{key}={}", encoded(value));
}

fn say_command(lines: &mut String, venv: Option<&AbsolutePath>, words: &[String]) {
    for word in words {
        say(lines, "argument", word);
    }
    if let Some(venv) = venv {
        say(lines, "venv", venv.as_str());
    }
}

fn say_environment(lines: &mut String, environment: &Environment) {
    for (name, variable) in environment.variables() {
        let text = format!("{name}={}", variable.value.expose());
        say(lines, "environment", &text);
    }
}

impl fmt::Debug for Order {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Order(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{
        AbsolutePath, CommandLine, EnvName, EnvValue, EnvVariable, Limits, SiteId, SiteSettings,
        UserName, parse_domain,
    };
    use proptest::prelude::*;

    fn order(command: &str, value: &str) -> Order {
        let site = Site {
            id: SiteId::new(1).unwrap(),
            user: UserName::parse("anna").unwrap(),
            domain: parse_domain("a.test").unwrap(),
            directory: AbsolutePath::parse("/srv/a").unwrap(),
            application: Application::Command(CommandLine::parse(command).unwrap()),
            venv: Some(AbsolutePath::parse("/srv/v").unwrap()),
            idle: None,
            enabled: true,
            pin: None,
            settings: SiteSettings::default(),
        };
        let variable = EnvVariable {
            value: EnvValue::parse(value).unwrap(),
            secret: true,
        };
        let variables = [(EnvName::parse("KEY").unwrap(), variable)];
        let environment = Environment::new(variables.into_iter().collect()).unwrap();
        let context = Context {
            ids: (5, 6),
            log: Path::new("/l"),
            notice: Path::new("/n"),
            uwsgi: "/usr/bin/uwsgi",
            confinement: &Confinement::none(&Limits::default()),
        };
        Order::new(&site, &environment, &context)
    }

    #[test]
    fn an_order_is_lines_and_is_not_shown() {
        let order = order("node 'my app.js'", "a\nuid=0\n100%");
        let text = std::str::from_utf8(order.as_bytes()).unwrap();
        assert_eq!(
            text,
            "uid=5\ngid=6\nhome=/srv/a\nlog=/l\nnotice=/n\nargument=node\nargument=my app.js\nvenv=/srv/v\n\
             environment=KEY=a%0Auid=0%0A100%25\ndescriptors=4096\n\n"
        );
        assert!(!format!("{order:?}").contains("KEY"));
    }

    proptest! {
        /// No value of a variable can become a line of its own.
        #[test]
        fn a_value_stays_on_its_line(value in "[^\\x00]{0,60}") {
            let order = order("x", &value);
            let text = std::str::from_utf8(order.as_bytes()).unwrap();
            prop_assert_eq!(text.lines().count(), 10);
            prop_assert!(text.ends_with("\n\n") && !text[..text.len() - 2].contains("\n\n"));
        }
    }
}
