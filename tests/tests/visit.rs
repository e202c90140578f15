//! `paasctl shell` and `paasctl exec`: an operator's own program in the very sandbox of a site, with a terminal that works.

use std::io::Write;
use std::process::{Command, Stdio};

use paas_tests::{Platform, Root, build, wait};

/// Types what a person would, in a terminal of 31 by 97 which then grows, and prints what came of it. Each expectation is waited for.
const PERSON: &str = r#"
import fcntl, os, pty, select, signal, struct, sys, termios, time

def size(fd, rows, columns):
    fcntl.ioctl(fd, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

child, terminal = pty.fork()
if child == 0:
    size(0, 31, 97)
    os.environ["TERM"] = "xterm-256color"
    os.execv(sys.argv[1], sys.argv[1:])

seen = b""
def expect(what, since):
    global seen
    end = time.monotonic() + 30
    while what.encode() not in seen[since:]:
        if not select.select([terminal], [], [], max(0, end - time.monotonic()))[0]:
            sys.exit("waited for %r, got %r" % (what, seen))
        try:
            seen += os.read(terminal, 4096)
        except OSError:
            sys.exit("ended before %r: %r" % (what, seen))

def type(text, *expected, prompt=True):
    """A person waits for the prompt before typing on."""
    since = len(seen)
    os.write(terminal, text.encode())
    for one in expected:
        expect(one, since)
        since = seen.index(one.encode(), since) + len(one)
    if prompt:
        expect("$ ", since)

expect("$ ", 0)
type("echo size-$(stty size | tr ' ' x)-\n", "size-31x97-")
size(terminal, 40, 120)
os.kill(child, signal.SIGWINCH)
type("echo size-$(stty size | tr ' ' x)-$TERM-\n", "size-40x120-xterm-256color-")
# Ctrl-C ends what runs in the foreground, and nothing else.
type("sh -c \"echo sl''eeps; exec sleep 1000\"\n", "sleeps\r\n", prompt=False)
type("\x03")
type("echo code-$?-\n", "code-130-")
# Ctrl-Z stops it, and the shell knows.
type("sh -c \"echo sl''eeps; exec sleep 2000\"\n", "sleeps\r\n", prompt=False)
type("\x1a", "Stopped")
type("jobs; kill %1; kill -CONT %1; wait; echo d''one\n", "sleep 2000", "done\r\n")
# Nobody can type into the terminal of whoever called.
type("python3 -c 'import fcntl,termios; fcntl.ioctl(0, termios.TIOCSTI, b\"x\")'; echo th''en\n", "Error: [Errno", "then\r\n")
os.write(terminal, b"exit 5\n")
while True:
    try:
        if not os.read(terminal, 4096):
            break
    except OSError:
        break
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"#;

fn a_site(root: &Root, platform: &Platform<'_>) {
    root.write(
        "sites/a.test/app.py",
        "def application(e, s):\n    s('200 OK', [])\n    return [b'fine']\n",
    );
    let directory = root.join("sites/a.test");
    platform.add_site("a.test", &directory, &["--entry", "app:application"]);
    platform
        .paasctl()
        .ok(&["set-env", "a.test", "--secret", "KEY=hidden value"]);
}

fn paasctl(platform: &Platform<'_>, arguments: &[&str]) -> Command {
    let mut command = Command::new(build::program("paasctl"));
    command
        .arg("--root")
        .arg(platform.backend(1))
        .args(arguments);
    command
}

#[test]
fn a_command_runs_as_the_site_does_and_ends_with_its_own_code() {
    let root = Root::new();
    let platform = Platform::start(&root);
    a_site(&root, &platform);
    let script = "echo $KEY; id -u; pwd; hostname; cat; echo problem >&2; exit 7";
    let mut child = paasctl(
        &platform,
        &["exec", "a.test", "--", "sh", "-c", script, "sh"],
    )
    .stdin(Stdio::piped())
    .stdout(Stdio::piped())
    .stderr(Stdio::piped())
    .spawn()
    .expect("paasctl runs");
    let mut input = child.stdin.take().expect("a pipe");
    input.write_all(b"from outside\n").expect("it reads");
    drop(input);
    let output = child.wait_with_output().expect("it ends");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let home = root.join("sites/a.test");
    let mut expected = vec![
        "hidden value".to_owned(),
        platform.owner_uid().to_string(),
        home.display().to_string(),
    ];
    if rustix::process::geteuid().is_root() {
        expected.push("a.test".to_owned());
        expected.push("from outside".to_owned());
        assert_eq!(text.lines().collect::<Vec<_>>(), expected);
    }
    assert_eq!(String::from_utf8_lossy(&output.stderr), "problem\n");
    assert_eq!(output.status.code(), Some(7));

    let nothing = paasctl(&platform, &["exec", "a.test", "--", "no-such-program"])
        .output()
        .expect("paasctl runs");
    let said = String::from_utf8_lossy(&nothing.stderr).into_owned();
    assert!(
        !nothing.status.success() && said.contains("no-such-program"),
        "{said}"
    );
}

#[test]
fn it_is_held_in_like_the_site_and_ends_with_whoever_called() {
    if !rustix::process::geteuid().is_root() {
        eprintln!("not run: a sandbox takes root");
        return;
    }
    let root = Root::new();
    let platform = Platform::start(&root);
    a_site(&root, &platform);
    platform
        .paasctl()
        .ok(&["set-user", "owner", "--memory", "100m"]);
    let run = |script: &str| {
        let output = paasctl(
            &platform,
            &["exec", "a.test", "--", "python3", "-c", script],
        )
        .output()
        .expect("paasctl runs");
        (
            output.status.code(),
            String::from_utf8_lossy(&output.stdout).trim().to_owned(),
        )
    };
    // 128 + SIGKILL: the memory is the user's, not the machine's.
    assert_eq!(run("x = b'x' * (300 << 20)").0, Some(137));
    let status = run("print(open('/proc/self/status').read())").1;
    for line in ["CapEff:\t0000000000000000", "NoNewPrivs:\t1", "Seccomp:\t2"] {
        assert!(status.contains(line), "{line}: {status}");
    }
    let seen = run(&format!(
        "import os; print(os.path.exists({:?}), sum(name.isdigit() for name in os.listdir('/proc')))",
        platform.directory()
    ));
    assert_eq!(seen.1, "False 2", "the registry, other processes");

    let mut child = paasctl(&platform, &["exec", "a.test", "--", "sleep", "4321"])
        .stdout(Stdio::piped())
        .spawn()
        .expect("paasctl runs");
    let sleeps = || {
        let found = Command::new("pgrep").args(["-f", "^sleep 4321$"]).output();
        found.is_ok_and(|found| found.status.success())
    };
    wait::until_true("it to run", sleeps);
    child.kill().expect("it runs");
    let _ = child.wait();
    wait::until_true("it to end", || !sleeps());
}

#[test]
fn a_shell_has_a_terminal_that_works() {
    let root = Root::new();
    let platform = Platform::start(&root);
    a_site(&root, &platform);
    let script = root.write("person.py", PERSON);
    let output = Command::new("python3")
        .arg(script)
        .arg(build::program("paasctl"))
        .arg("--root")
        .arg(platform.backend(1))
        .args(["shell", "a.test"])
        .stdin(Stdio::null())
        .output()
        .expect("python3 runs");
    let (out, err) = (
        String::from_utf8_lossy(&output.stdout).into_owned(),
        String::from_utf8_lossy(&output.stderr).into_owned(),
    );
    assert!(output.status.success(), "{out}{err}");
    assert_eq!(out, "5\n", "the shell's own code");
}

#[test]
fn a_rule_for_sudo_lets_users_into_their_own_sites_only() {
    let root = Root::new();
    let platform = Platform::start(&root);
    a_site(&root, &platform);
    let run = |caller: Option<u32>| {
        let mut command = paasctl(&platform, &["exec", "--own", "a.test", "--", "echo", "in"]);
        command.env_remove("SUDO_UID");
        if let Some(caller) = caller {
            command.env("SUDO_UID", caller.to_string());
        }
        let output = command.output().expect("paasctl runs");
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        (text(&output.stdout), text(&output.stderr))
    };
    let owner = platform.owner_uid();
    if rustix::process::geteuid().is_root() {
        assert_eq!(run(Some(owner)), ("in\n".to_owned(), String::new()));
        assert!(run(Some(owner + 1)).1.contains("is not yours"));
        assert!(run(None).1.contains("SUDO_UID is not set"));
        // Settings that the caller could have made say nothing.
        let settings = platform.backend(1).join("etc/paas/paas.toml");
        std::os::unix::fs::chown(&settings, Some(owner), None).expect("we are root");
    }
    assert!(run(Some(owner)).1.contains("--own does not trust it"));
}
