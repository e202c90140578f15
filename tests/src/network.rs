//! A network of its own for a test: namespaces, joined by a switch, whose cables can be pulled.
//!
//! Nothing of it has a name on the machine: the namespaces live as long as the test holds them open or something runs in them,
//! and the kernel takes devices, addresses and rules away with them, however the test ends.

use std::env;
use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Write};
use std::net::Ipv4Addr;
use std::os::fd::{AsFd, AsRawFd};
use std::process::{Command, Stdio};

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

/// Runs this program once more, with these arguments, in a network of its own, whose kernel forwards packets: the machine's is left
/// alone. Says whether it did; in there it does not.
///
/// # Errors
/// The kernel does not allow it, or the program has failed in there.
pub fn again_in_its_own(
    arguments: impl IntoIterator<Item = impl AsRef<OsStr>>,
) -> io::Result<bool> {
    const INSIDE: &str = "PAAS_TEST_OWN_NETWORK";
    if env::var_os(INSIDE).is_some() {
        return Ok(false);
    }
    let script = "ip link set lo up && sysctl -qw net.ipv4.ip_forward=1 && exec \"$@\"";
    let status = Command::new("unshare")
        .args(["--net", "sh", "-c", script, "sh"])
        .arg(env::current_exe()?)
        .args(arguments)
        .env(INSIDE, "1")
        .status()?;
    match status.success() {
        true => Ok(true),
        false => Err(io::Error::other(format!("in its own network: {status}"))),
    }
}

/// A network namespace.
#[derive(Debug)]
pub struct Namespace(File);

impl Namespace {
    /// Makes one.
    ///
    /// # Errors
    /// The kernel, or whatever this runs in, does not allow it.
    pub fn new() -> io::Result<Namespace> {
        // Only another process can make it: this one has threads, and no `unsafe`.
        let mut maker = Command::new("unshare")
            .args(["--net", "sh", "-c", "echo made; exec cat"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()?;
        let mut said = String::new();
        if let Some(out) = maker.stdout.take() {
            let _ = BufReader::new(out).read_line(&mut said)?;
        }
        let namespace = match said.trim() {
            "made" => File::open(format!("/proc/{}/ns/net", maker.id())),
            _ => Err(io::ErrorKind::PermissionDenied.into()),
        };
        // Its input ends, and with it the maker.
        let output = maker.wait_with_output()?;
        namespace.map(Namespace).map_err(|error| {
            let words = String::from_utf8_lossy(&output.stderr);
            io::Error::new(error.kind(), format!("{error}: {}", words.trim()))
        })
    }

    /// Its path, while the test lives.
    #[must_use]
    pub fn path(&self) -> String {
        format!("/proc/{}/fd/{}", std::process::id(), self.0.as_raw_fd())
    }

    /// Moves the calling thread there, and the threads and processes that it makes from now on.
    ///
    /// # Panics
    /// When the kernel refuses.
    pub fn enter(&self) {
        move_into_link_name_space(self.0.as_fd(), Some(LinkNameSpaceType::Network))
            .expect("the namespace can be entered");
    }

    /// A command that runs there.
    #[must_use]
    pub fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new("nsenter");
        command
            .arg(format!("--net={}", self.path()))
            .arg("--")
            .arg(program);
        command
    }

    /// Sets devices, addresses and routes: lines as `ip` takes them.
    ///
    /// # Panics
    /// When one of them is refused.
    pub fn ip(&self, lines: &str) {
        let mut command = self.command("ip");
        let mut ip = command
            .args(["-batch", "-"])
            .stdin(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("ip can be run");
        let mut input = ip.stdin.take().expect("a pipe");
        input.write_all(lines.as_bytes()).expect("ip reads");
        drop(input);
        let output = ip.wait_with_output().expect("ip ends");
        assert!(
            output.status.success(),
            "ip: {}{lines}",
            String::from_utf8_lossy(&output.stderr)
        );
    }
}

/// A switch, and the namespace it stands in: where visitors come from.
#[derive(Debug)]
pub struct Switch {
    outside: Namespace,
}

impl Switch {
    /// Sets one up, with an address for the visitors.
    ///
    /// # Errors
    /// As [`Namespace::new`].
    pub fn new(visitors: Ipv4Addr) -> io::Result<Switch> {
        let outside = Namespace::new()?;
        outside.ip(&format!(
            "link set lo up\nlink add switch type bridge\nlink set switch up\naddress add {visitors}/24 dev switch\n"
        ));
        Ok(Switch { outside })
    }

    /// Where visitors come from.
    #[must_use]
    pub fn outside(&self) -> &Namespace {
        &self.outside
    }

    /// Makes a machine's namespace and plugs it in.
    ///
    /// # Errors
    /// As [`Namespace::new`].
    pub fn connect(&self, name: &str, address: Ipv4Addr) -> io::Result<Namespace> {
        let machine = Namespace::new()?;
        self.outside.ip(&format!(
            "link add {name} type veth peer name eth0 netns {}\nlink set {name} master switch up\n",
            machine.path()
        ));
        machine.ip(&format!(
            "link set lo up\nlink set eth0 up\naddress add {address}/24 dev eth0\n"
        ));
        Ok(machine)
    }

    /// Pulls a machine's cable: what is sent to it or by it is lost, and nobody is told.
    pub fn unplug(&self, name: &str) {
        self.outside.ip(&format!("link set {name} down\n"));
    }

    /// Plugs it in again.
    pub fn plug(&self, name: &str) {
        self.outside.ip(&format!("link set {name} up\n"));
    }
}
