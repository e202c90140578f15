//! docs/module.md is whole and true: it has every directive and variable of the module and no other, the contexts are those in which
//! nginx takes them, and each example runs.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use paas_tests::stub::Answer;
use paas_tests::tabled;
use paas_tests::{Nginx, Request, Root, Stub, build, nginx};
use table::{Options, Writer};

fn reference() -> String {
    let file = build::workspace().join("docs/module.md");
    fs::read_to_string(file).expect("the reference is there")
}

/// The sections of the reference by their headings.
fn sections(text: &str) -> BTreeMap<&str, &str> {
    let sections = text.split("\n## ").skip(1);
    sections
        .map(|section| section.split_once('\n').expect("a heading is a line"))
        .collect()
}

/// What a row of a section's first table says.
fn row<'s>(section: &'s str, name: &str) -> &'s str {
    let line = section
        .lines()
        .find_map(|line| line.strip_prefix(&format!("| {name} | ")));
    line.and_then(|line| line.strip_suffix(" |"))
        .unwrap_or_else(|| panic!("no {name}"))
}

/// The fenced examples of this kind.
fn examples<'s>(section: &'s str, kind: &str) -> Vec<&'s str> {
    let fence = format!("```{kind}\n");
    let parts = section.split(&fence).skip(1);
    parts
        .map(|part| part.split_once("```").expect("a fence is closed").0)
        .collect()
}

/// The names that implementors of a trait have in the module's sources.
fn implemented(interface: &str) -> BTreeSet<String> {
    fn search(directory: &Path, interface: &str, found: &mut BTreeSet<String>) {
        for entry in fs::read_dir(directory)
            .expect("the module's sources are here")
            .flatten()
        {
            let path = entry.path();
            if path.is_dir() {
                search(&path, interface, found);
                continue;
            }
            let source = fs::read_to_string(&path).expect("a source file is text");
            for body in source.split(&format!("impl {interface} for ")).skip(1) {
                let name = body
                    .split_once("const NAME: &'static CStr = c\"")
                    .expect("it has a name");
                found.insert(name.1.split_once('"').expect("that ends").0.to_owned());
            }
        }
    }
    let mut found = BTreeSet::new();
    search(
        &build::workspace().join("ngx-module/src"),
        interface,
        &mut found,
    );
    found
}

#[test]
fn every_directive_is_in_the_reference_and_none_else() {
    let text = reference();
    let documented: BTreeSet<String> = sections(&text)
        .into_keys()
        .filter(|heading| heading.starts_with("paas_"))
        .map(str::to_owned)
        .collect();
    assert_eq!(documented, implemented("Directive"));
}

#[test]
fn every_variable_is_in_the_reference_and_none_else() {
    let text = reference();
    let variables = sections(&text)["Variables"];
    let documented: BTreeSet<String> = variables
        .lines()
        .filter_map(|line| Some(line.strip_prefix("| `$")?.split_once('`')?.0.to_owned()))
        .collect();
    assert_eq!(documented, implemented("Variable"));
    let example = examples(variables, "nginx").concat();
    for name in documented {
        assert!(
            example.contains(&format!("${name} ")),
            "no example has ${name}"
        );
    }
}

#[test]
fn every_directive_has_a_syntax_a_default_a_context_its_age_and_an_example() {
    let text = reference();
    for (name, section) in sections(&text)
        .iter()
        .filter(|(name, _)| name.starts_with("paas_"))
    {
        let syntax = row(section, "Syntax");
        assert!(syntax.starts_with(&format!("`{name}")), "{name}: {syntax}");
        let default = row(section, "Default");
        assert!(
            default.starts_with("none") || default.starts_with(&format!("`{name} ")),
            "{default}"
        );
        assert!(row(section, "Since").split('.').count() == 3, "{name}");
        let examples = examples(section, "nginx");
        assert!(
            examples.iter().any(|example| example.contains(*name)),
            "{name} has no example"
        );
    }
}

#[test]
fn nginx_takes_every_directive_where_the_reference_says_and_nowhere_else() {
    let text = reference();
    let root = Root::new();
    for (name, section) in sections(&text)
        .iter()
        .filter(|(name, _)| name.starts_with("paas_"))
    {
        let documented: BTreeSet<&str> = row(section, "Context").split(", ").collect();
        let contexts = [
            ("http", format!("{name} x;")),
            ("server", format!("server {{ {name} x; }}")),
            (
                "location",
                format!("server {{ location / {{ {name} x; }} }}"),
            ),
            ("upstream", format!("upstream u {{ {name} x; }}")),
            (
                "if in location",
                format!("server {{ location / {{ if ($uri) {{ {name} x; }} }} }}"),
            ),
        ];
        let taken: BTreeSet<&str> = contexts
            .iter()
            .filter(|(_, http)| {
                let (accepted, words) = Nginx::test(&root, http);
                accepted || !words.contains("directive is not allowed here")
            })
            .map(|(context, _)| *context)
            .collect();
        assert_eq!(taken, documented, "{name}");
    }
}

#[test]
fn every_example_runs() {
    let text = reference();
    let mut count = 0;
    for (heading, section) in sections(&text) {
        for example in examples(section, "nginx") {
            run(heading, "", example);
            count += 1;
        }
        for example in examples(section, "nginx main") {
            let main = example
                .lines()
                .map(|line| match line.starts_with("load_module ") {
                    true => format!("load_module {};\n", build::module().display()),
                    false => format!("{line}\n"),
                })
                .collect::<String>();
            run(heading, &main, "server { listen 80; return 200; }");
            count += 1;
        }
    }
    assert!(count > 8, "only {count} examples were found");
}

/// Starts nginx with an example and sends it a request for a site of the table.
fn run(heading: &str, main: &str, example: &str) {
    let root = Root::new();
    let (port, first) = (root.port(), root.ports(1));
    let site = Stub::tcp(first, |_| Answer::ok("a site"));
    let table = root.join("var/lib/paas/table");
    fs::create_dir_all(&table).expect("it can be made");
    for directory in [
        "run/paas/activity",
        "run/paas/site-0.test",
        "run/paas/sites/1",
        "var/log/nginx",
    ] {
        fs::create_dir_all(root.join(directory)).expect("it can be made");
    }
    let sockets = ["run/paas/site-0.test/socket", "run/paas/sites/1/app.sock"];
    let _sites = sockets.map(|socket| Stub::unix(&root.join(socket), |_| Answer::ok("a site")));
    let options = Options {
        group: Some(nginx::group()),
        ..Options::default()
    };
    let mut writer = Writer::open_or_create(&table, options).expect("a table can be made");
    writer
        .rebuild(1, tabled::content(first, 1))
        .expect("it can be filled");
    let place = |text: &str| {
        let mut text = text.replace("listen 80;", &format!("listen 127.0.0.1:{port};"));
        for server in ["10.0.0.1:80", "10.0.0.2:80", "10.0.0.9:80", "[fd00::3]:80"] {
            text = text.replace(server, &format!("127.0.0.1:{first}"));
        }
        let root = root.path().display().to_string();
        text.replace("/var/", &format!("{root}/var/"))
            .replace("/run/", &format!("{root}/run/"))
    };
    let http = place(example);
    // Where an example leaves the sockets where they are by default, this test cannot.
    let http = match http.contains("$paas_socket;") && !http.contains("paas_socket \"") {
        true => format!(
            "paas_socket \"{}/run/paas/sites/{{id}}/app.sock\";\n{http}",
            root.path().display()
        ),
        false => http,
    };
    let server = Nginx::start_with(&root, "example", main, &http, port);
    let answer = Request::get("site-0.test", "/").send(port);
    // Who starts sites says that this one listens, and nothing does: a real failure.
    let expected = if example.contains("uwsgi_pass") {
        502
    } else {
        200
    };
    assert_eq!(
        answer.status,
        expected,
        "{heading}:\n{example}\n{answer:?}\n{}",
        server.errors()
    );
    if example.contains("paas_fallback") {
        assert!(
            !site.received().is_empty(),
            "nobody was asked to start the site"
        );
    }
    server.assert_healthy();
}
