//! Sessions at the command line, as an operator has them: `tests/sessions/*.txt` hold what was typed (`$ paasctl ...`)
//! and all that came back, on standard output first, then on standard error (`! `), then an exit code other than 0.
//! `PAAS_BLESS=1 cargo test` writes the answers anew: look at the diff.
use std::fmt::Write as _;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Runs one line of a session below `root` and answers everything it printed; the root's name is `ROOT`.
fn answer(root: &Path, line: &str, input: &str) -> String {
    let words = words(line);
    let mut command = Command::new(env!("CARGO_BIN_EXE_paasctl"));
    command
        .args(&words[1..])
        .env("PAAS_ROOT", root)
        .current_dir(root);
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child
        .stdin
        .take()
        .unwrap()
        .write_all(input.as_bytes())
        .unwrap();
    let output = child.wait_with_output().unwrap();
    let mut text = String::from_utf8(output.stdout).unwrap();
    for line in String::from_utf8(output.stderr).unwrap().lines() {
        writeln!(text, "! {line}").unwrap();
    }
    match output.status.code() {
        Some(0) => {}
        Some(code) => writeln!(text, "exit {code}").unwrap(),
        None => panic!("`{line}` ended by a signal: {text}"),
    }
    text.replace(root.to_str().unwrap(), "ROOT")
}

/// The words of a line; quotes keep blanks together.
fn words(line: &str) -> Vec<String> {
    let mut words = vec![String::new()];
    let mut quoted = false;
    for c in line.chars() {
        match c {
            '\'' => quoted = !quoted,
            ' ' if !quoted => words.push(String::new()),
            c => words.last_mut().unwrap().push(c),
        }
    }
    words
}

/// A machine with `paas.toml` as the session's first lines (`# `) say.
fn session(path: &Path) {
    let text = std::fs::read_to_string(path).unwrap();
    // A path of constant length: it is shown in tables.
    let directory = tempfile::Builder::new()
        .prefix("paas-")
        .rand_bytes(6)
        .tempdir_in("/tmp")
        .unwrap();
    let root = directory.path();
    std::fs::create_dir_all(root.join("etc/paas")).unwrap();
    std::fs::create_dir_all(root.join("site")).unwrap();
    std::fs::write(
        root.join("site/app.py"),
        "def application(environ, start_response):\n    return []\n",
    )
    .unwrap();
    let settings: String = text
        .lines()
        .map_while(|line| line.strip_prefix("# "))
        .map(|line| format!("{line}\n"))
        .collect();
    std::fs::write(root.join("etc/paas/paas.toml"), &settings).unwrap();

    let mut replayed: String = settings.lines().map(|line| format!("# {line}\n")).collect();
    let mut lines = text.lines().skip(settings.lines().count()).peekable();
    while let Some(line) = lines.next() {
        if line.is_empty() || line.starts_with("## ") {
            writeln!(replayed, "{line}").unwrap();
        }
        let Some(typed) = line.strip_prefix("$ ") else {
            continue;
        };
        writeln!(replayed, "{line}").unwrap();
        let mut input = String::new();
        while let Some(given) = lines.next_if(|line| line.starts_with("< ")) {
            writeln!(replayed, "{given}").unwrap();
            writeln!(input, "{}", &given[2..]).unwrap();
        }
        replayed.push_str(&answer(root, typed, &input));
    }
    if std::env::var_os("PAAS_BLESS").is_some() {
        std::fs::write(path, &replayed).unwrap();
    }
    let difference = similar::TextDiff::from_lines(&text, &replayed)
        .unified_diff()
        .header("expected", "found")
        .to_string();
    assert!(
        std::env::var_os("PAAS_BLESS").is_some() || difference.is_empty(),
        "{}:\n{difference}",
        path.display()
    );
}

fn play(name: &str) {
    session(
        &PathBuf::from(env!("CARGO_MANIFEST_DIR"))
            .join("tests/sessions")
            .join(name),
    );
}

#[test]
fn users() {
    play("users.txt");
}

#[test]
fn backends() {
    play("backends.txt");
}

#[test]
fn sites_and_domains() {
    play("sites.txt");
}

#[test]
fn many_sites_at_once() {
    play("many.txt");
}

#[test]
fn a_static_balancer() {
    play("static.txt");
}

#[test]
fn placement() {
    play("placement.txt");
}

#[test]
fn taking_over() {
    play("takeover.txt");
}

#[test]
fn mistakes() {
    play("mistakes.txt");
}

#[test]
fn settings_environment_and_options() {
    play("settings.txt");
}
