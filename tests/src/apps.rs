//! Sites for tests: a WSGI application that writes down what happens to it, and its directory.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use crate::{Root, build, wait};

/// The application: notes every start and every request in `notes/`, and obeys files there.
///
/// While `notes/closed` exists at import, the start waits. `/hold` answers when `notes/go` exists;
/// `/slow-...` takes a while; `/exit` ends the worker inside the request; any other path answers
/// `METHOD path length sum` of the body. Who the master is, is in `X-Master` (see [`crate::process::master`]), the uid in `X-Uid`.
const RECORDER: &str = r#"
import hashlib, os, time
import uwsgi

NOTES = os.path.join(os.path.dirname(os.path.abspath(__file__)), "notes")


def note(name, text):
    file = os.open(os.path.join(NOTES, name), os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
    os.write(file, (text + "\n").encode())
    os.close(file)


def exists(name):
    return os.path.exists(os.path.join(NOTES, name))


def master():
    """The master's number where it lives, when it began, and which namespace it lives in: together like no other's."""
    pid = uwsgi.masterpid() or os.getpid()
    with open("/proc/%d/stat" % pid) as file:
        return "%d-%s-%s" % (pid, file.read().rpartition(")")[2].split()[19], os.readlink("/proc/self/ns/pid"))


MASTER = master()
note("starts", MASTER)
while exists("closed"):
    time.sleep(0.005)
if exists("broken"):
    raise RuntimeError("broken on purpose")


def application(environ, start_response):
    method, path = environ["REQUEST_METHOD"], environ["PATH_INFO"]
    body = environ["wsgi.input"].read()
    seen = "%s %s %d %s" % (method, path, len(body), hashlib.md5(body).hexdigest())
    note("requests", seen)
    if path == "/hold":
        while not exists("go"):
            time.sleep(0.005)
    if path.startswith("/slow-"):
        time.sleep(0.2)
    if path == "/exit":
        os._exit(3)
    answer = (seen + "\n").encode()
    start_response("200 OK", [
        ("Content-Type", "text/plain"),
        ("Content-Length", str(len(answer))),
        ("X-Master", MASTER),
        ("X-Uid", str(os.getuid())),
    ])
    return [answer]
"#;

/// A server that speaks HTTP on descriptor 0, as small as one can be: it takes the same notes as the recorder and obeys the same
/// files, and echoes websockets in capitals. While `notes/gap` exists, it does not look at a request for 20 ms after it accepted it.
/// What it is doing when it is told to end is lost.
pub const SERVER: &str = r#"
import asyncio, base64, hashlib, os, signal, socket, sys

HERE = os.path.dirname(os.path.abspath(__file__))
FDS = ",".join(sorted(fd for fd in os.listdir("/proc/self/fd") if os.path.lexists("/proc/self/fd/" + fd)))

def note(name, text):
    file = os.open(os.path.join(HERE, "notes", name), os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
    os.write(file, (text + "\n").encode())
    os.close(file)

def exists(name):
    return os.path.exists(os.path.join(HERE, "notes", name))

# Its number where it lives, when it began, and which namespace it lives in: together like no other's.
with open("/proc/self/stat") as file:
    ME = "%d-%s-%s" % (os.getpid(), file.read().rpartition(")")[2].split()[19], os.readlink("/proc/self/ns/pid"))

note("starts", ME)
if exists("broken"):
    sys.exit("broken on purpose")

async def answer(reader, writer):
    try:
        if exists("gap"):
            await asyncio.sleep(0.02)
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        method, path, _ = head.split("\r\n", 1)[0].split(" ", 2)
        headers = {k.lower(): v for k, v in (line.split(": ", 1) for line in head.split("\r\n")[1:] if ": " in line)}
        body = await reader.readexactly(int(headers.get("content-length", "0")))
        probe = headers.get("user-agent") == "paas-probe"
        seen = "%s %s %d %s" % (method, path, len(body), hashlib.md5(body).hexdigest())
        if not probe:
            note("requests", seen)
        if path.startswith("/slow-"):
            await asyncio.sleep(0.2)
        if path == "/hold":
            while not exists("go"):
                await asyncio.sleep(0.005)
        if path == "/exit":
            os._exit(3)
        if headers.get("upgrade") == "websocket":
            key = headers["sec-websocket-key"] + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
            accept = base64.b64encode(hashlib.sha1(key.encode()).digest()).decode()
            writer.write(("HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                          "Sec-WebSocket-Accept: %s\r\n\r\n" % accept).encode())
            while data := await reader.read(4096):
                writer.write(data.upper())
                await writer.drain()
            return
        text = "%s %s\n" % (seen, headers.get("x-forwarded-proto"))
        more = "X-Accel-Redirect: /secret\r\nX-Paas-Id: forged\r\n" if path == "/hostile" else ""
        answer = "HTTP/1.1 200 OK\r\nContent-Length: %d\r\nX-Me: %s\r\nX-Uid: %d\r\nX-Env: %s\r\nX-Argv: %s\r\nX-Fds: %s\r\n%sConnection: close\r\n\r\n" % (
            len(text), ME, os.getuid(), os.environ.get("GREETING"), " ".join(sys.argv[1:]),
            FDS, more)
        writer.write(answer.encode() + (b"" if method == "HEAD" else text.encode()))
        await writer.drain()
    except (asyncio.IncompleteReadError, ConnectionError):
        pass
    finally:
        writer.close()

async def main():
    listener = socket.socket(fileno=0)
    server = await asyncio.start_unix_server(answer, sock=listener)
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    await stop.wait()
    note("stops", ME)
    server.close()

asyncio.run(main())
"#;

/// A recorder site's directory; see the notes it takes.
#[derive(Clone, Debug)]
pub struct Recorder {
    directory: PathBuf,
}

impl Recorder {
    /// Writes the application into `root/sites/name`.
    ///
    /// # Panics
    /// When that cannot be done.
    #[must_use]
    pub fn new(root: &Root, name: &str) -> Recorder {
        Recorder::with(root, name, ("app.py", RECORDER))
    }

    /// The same with an HTTP server of its own, `server.py`.
    ///
    /// # Panics
    /// As [`Recorder::new`].
    #[must_use]
    pub fn serving(root: &Root, name: &str) -> Recorder {
        Recorder::with(root, name, ("server.py", SERVER))
    }

    fn with(root: &Root, name: &str, (file, text): (&str, &str)) -> Recorder {
        root.write(format!("sites/{name}/{file}"), text);
        let site = Recorder {
            directory: root.join(format!("sites/{name}")),
        };
        fs::create_dir_all(site.notes()).expect("the notes' directory can be made");
        fs::set_permissions(site.notes(), fs::Permissions::from_mode(0o777)).expect("it is ours");
        site
    }

    /// The site's directory.
    #[must_use]
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    fn notes(&self) -> PathBuf {
        self.directory.join("notes")
    }

    /// Makes the next start wait until [`Recorder::open`].
    pub fn close(&self) {
        self.set("closed");
    }

    /// Lets waiting starts go on.
    pub fn open(&self) {
        self.unset("closed");
    }

    /// Creates a note the application looks at: `closed`, `broken`, `go`.
    pub fn set(&self, note: &str) {
        fs::write(self.notes().join(note), "").expect("a note can be written");
    }

    /// Removes such a note.
    pub fn unset(&self, note: &str) {
        fs::remove_file(self.notes().join(note)).expect("the note was there");
    }

    fn lines(&self, note: &str) -> Vec<String> {
        fs::read_to_string(self.notes().join(note))
            .unwrap_or_default()
            .lines()
            .map(str::to_owned)
            .collect()
    }

    /// How often it was started: the number of different masters.
    #[must_use]
    pub fn starts(&self) -> usize {
        self.lines("starts")
            .into_iter()
            .collect::<BTreeSet<_>>()
            .len()
    }

    /// Waits until it was started `count` times in all (it may not accept yet).
    pub fn wait_for_starts(&self, count: usize) {
        wait::until_true(
            &format!("start {count} of {}", self.directory.display()),
            || self.starts() >= count,
        );
    }

    /// The requests it ran: `METHOD path length sum`.
    #[must_use]
    pub fn requests(&self) -> Vec<String> {
        self.lines("requests")
    }

    /// How many requests with this method and path it ran.
    #[must_use]
    pub fn ran(&self, method: &str, path: &str) -> usize {
        let start = format!("{method} {path} ");
        self.requests()
            .iter()
            .filter(|request| request.starts_with(&start))
            .count()
    }

    /// Waits until it is inside (or done with) `count` requests of this method and path.
    pub fn wait_for(&self, method: &str, path: &str, count: usize) {
        wait::until_true(&format!("{count} x {method} {path}"), || {
            self.ran(method, path) >= count
        });
    }
}

/// The probe application of `tests/apps/probe`, copied under the root so that notes can be taken beside it.
///
/// # Panics
/// When it cannot be copied.
#[must_use]
pub fn probe(root: &Root, name: &str) -> PathBuf {
    let to = root.join(format!("sites/{name}"));
    copy(&build::workspace().join("tests/apps/probe"), &to);
    fs::set_permissions(&to, fs::Permissions::from_mode(0o777)).expect("it is ours");
    to
}

/// Copies a directory tree of plain files.
///
/// # Panics
/// When something in it cannot be copied.
pub fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap_or_else(|error| panic!("{}: {error}", to.display()));
    for entry in fs::read_dir(from).unwrap_or_else(|error| panic!("{}: {error}", from.display())) {
        let entry = entry.expect("a directory can be read");
        let target = to.join(entry.file_name());
        let kind = entry.file_type().expect("an entry has a type");
        if kind.is_dir() {
            copy(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), &target)
                .unwrap_or_else(|error| panic!("{}: {error}", target.display()));
        }
    }
}
