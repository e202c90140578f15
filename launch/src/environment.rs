//! The environment of a site's processes: a few variables of the platform's, and what the operator has set for the site.

use crate::order::{Order, Program};

const PATH: &str = "/usr/local/bin:/usr/bin:/bin";

/// Names and values, each name once: what is set for the site comes before what is usual, and the Emperor's pipe before both.
pub fn of(order: &Order, pipe: i32) -> Vec<(String, String)> {
    let mut environment = Vec::new();
    let mut set = |name: &str, value: String| {
        environment.retain(|(known, _): &(String, String)| known != name);
        environment.push((name.to_owned(), value));
    };
    set("PATH", PATH.to_owned());
    set("LANG", "C.UTF-8".to_owned());
    set("HOME", order.home.clone());
    if let Program::Command {
        venv: Some(venv), ..
    } = &order.program
    {
        set("VIRTUAL_ENV", venv.clone());
        set("PATH", format!("{venv}/bin:{PATH}"));
    }
    for variable in &order.environment {
        if let Some((name, value)) = variable.split_once('=') {
            set(name, value.to_owned());
        }
    }
    if let Program::Uwsgi(_) = order.program {
        set("UWSGI_EMPEROR_FD", pipe.to_string());
    }
    environment
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::confinement::Confinement;

    fn order(program: Program) -> Order {
        Order {
            uid: 1,
            gid: 1,
            home: "/srv".to_owned(),
            voice: None,
            program,
            environment: ["LANG=de_DE.UTF-8", "A=b=c", "UWSGI_EMPEROR_FD=9"]
                .map(String::from)
                .to_vec(),
            confinement: Confinement::default(),
        }
    }

    fn get(environment: &[(String, String)], name: &str) -> String {
        let found: Vec<_> = environment
            .iter()
            .filter(|(known, _)| known == name)
            .collect();
        assert_eq!(found.len(), 1, "{name}");
        found[0].1.clone()
    }

    #[test]
    fn the_site_s_own_variables_come_first_but_for_the_pipe() {
        let environment = of(&order(Program::Uwsgi("/u".to_owned())), 3);
        assert_eq!(get(&environment, "LANG"), "de_DE.UTF-8");
        assert_eq!(get(&environment, "A"), "b=c");
        assert_eq!(get(&environment, "UWSGI_EMPEROR_FD"), "3");
        assert_eq!(get(&environment, "HOME"), "/srv");
    }

    #[test]
    fn a_command_finds_its_virtualenv() {
        let command = Program::Command {
            arguments: vec!["x".to_owned()],
            venv: Some("/v".to_owned()),
        };
        let environment = of(&order(command), 3);
        assert!(get(&environment, "PATH").starts_with("/v/bin:"));
        assert_eq!(get(&environment, "VIRTUAL_ENV"), "/v");
    }
}
