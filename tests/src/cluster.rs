//! Several machines on one: 2 balancers and 4 backends, each in a network namespace of its own with its own nginx, daemon and (on a
//! backend) Emperor, run by `paasctl up`. They share what real ones would share: the registry, and the sites' files.
//!
//! The test's own thread moves to where visitors come from, so that it reaches the machines by their addresses.

use std::cell::RefCell;
use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use rustix::process::Signal;

use crate::clock::Clock;
use crate::network::{Namespace, Switch};
use crate::process::{self, Process, Seen};
use crate::{Paasctl, Request, Response, Root, build, nginx, wait};

/// Where visitors come from.
const VISITORS: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 254);
const PORT: u16 = 80;

/// What a test wants of its cluster.
#[derive(Clone, Debug)]
pub struct Options {
    /// How many balancers.
    pub balancers: u8,
    /// How many backends.
    pub backends: u8,
    /// More `paas.toml` for balancers: lines of `[balancer]`, then other sections.
    pub balancer: String,
    /// More `paas.toml` for backends: lines of `[backend]`, then other sections.
    pub backend: String,
    /// Whether each machine has a clock that can be set; see [`Machine::set_clock`].
    pub clocks: bool,
}

impl Default for Options {
    fn default() -> Self {
        Options {
            balancers: 2,
            backends: 4,
            balancer: String::new(),
            backend: String::new(),
            clocks: false,
        }
    }
}

/// A running cluster; all of it ends when it is dropped.
#[derive(Debug)]
pub struct Cluster<'r> {
    root: &'r Root,
    machines: Vec<Machine>,
    switch: Switch,
}

impl<'r> Cluster<'r> {
    /// 2 balancers and 4 backends, all registered and up. None where the machine does not allow namespaces; says so.
    #[must_use]
    pub fn start(root: &'r Root) -> Option<Cluster<'r>> {
        Cluster::with(root, &Options::default())
    }

    /// With these options.
    ///
    /// # Panics
    /// When it does not come up.
    #[must_use]
    pub fn with(root: &'r Root, options: &Options) -> Option<Cluster<'r>> {
        let switch = match Switch::new(VISITORS) {
            Ok(switch) => switch,
            Err(error) => {
                eprintln!(
                    "SKIPPED: network namespaces cannot be made here (they need root): {error}"
                );
                return None;
            }
        };
        switch.outside().enter();
        let balancers = (1..=options.balancers).map(|number| (Kind::Balancer, number));
        let backends = (1..=options.backends).map(|number| (Kind::Backend, number));
        let machines: Vec<Machine> = balancers
            .chain(backends)
            .map(|(kind, number)| Machine::make(root, &switch, options, kind, number))
            .collect();
        let cluster = Cluster {
            root,
            machines,
            switch,
        };
        cluster.paasctl().ok(&["add-user", "owner"]);
        for backend in cluster.backends() {
            cluster
                .paasctl()
                .ok(&["add-backend", &backend.name, &backend.address.to_string()]);
        }
        for machine in &cluster.machines {
            machine.begin();
        }
        for machine in &cluster.machines {
            machine.wait_until_up();
        }
        Some(cluster)
    }

    /// `paasctl`, as an operator types it on a machine.
    #[must_use]
    pub fn paasctl_at(&self, machine: &str) -> Paasctl {
        Paasctl::new(&self.machine(machine).root)
    }

    /// The same on the first balancer.
    #[must_use]
    pub fn paasctl(&self) -> Paasctl {
        self.paasctl_at("balancer1")
    }

    /// What `paasctl ... --json` says.
    ///
    /// # Panics
    /// When it fails.
    #[track_caller]
    #[must_use]
    pub fn ask(&self, arguments: &[&str]) -> serde_json::Value {
        let text = self.paasctl().ok(&[arguments, &["--json"]].concat());
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"))
    }

    /// A machine by its name: `balancer1`, `b1` ...
    ///
    /// # Panics
    /// When there is none.
    #[must_use]
    pub fn machine(&self, name: &str) -> &Machine {
        self.machines
            .iter()
            .find(|machine| machine.name == name)
            .unwrap_or_else(|| panic!("no machine {name}"))
    }

    /// Its backends.
    pub fn backends(&self) -> impl Iterator<Item = &Machine> {
        self.machines
            .iter()
            .filter(|machine| machine.kind == Kind::Backend)
    }

    /// Its balancers.
    pub fn balancers(&self) -> impl Iterator<Item = &Machine> {
        self.machines
            .iter()
            .filter(|machine| machine.kind == Kind::Balancer)
    }

    /// Where visitors find the platform.
    #[must_use]
    pub fn addresses(&self) -> Vec<SocketAddr> {
        self.balancers().map(|balancer| balancer.address).collect()
    }

    /// A `GET` through each balancer.
    ///
    /// # Panics
    /// When one does not answer.
    #[track_caller]
    #[must_use]
    pub fn get(&self, host: &str, target: &str) -> Vec<Response> {
        self.addresses()
            .into_iter()
            .map(|balancer| {
                let answer = Request::get(host, target).send_to(balancer);
                answer.unwrap_or_else(|error| panic!("{balancer}: {error}"))
            })
            .collect()
    }

    /// Adds a site of `owner`.
    ///
    /// # Panics
    /// When that is refused.
    #[track_caller]
    pub fn add_site(&self, domain: &str, directory: &Path, more: &[&str]) {
        let directory = directory.to_string_lossy();
        let arguments = ["add-site", domain, "--user", "owner", "--directory"];
        let entry = ["--entry", "app:application", "--no-check"];
        self.paasctl()
            .ok(&[&arguments[..], &[&*directory], &entry, more].concat());
    }

    /// The backend where a site is at home.
    ///
    /// # Panics
    /// When it has none.
    #[track_caller]
    #[must_use]
    pub fn home(&self, domain: &str) -> String {
        let route = self.ask(&["route", domain]);
        let home = route["backend"].as_str();
        home.unwrap_or_else(|| panic!("{route}")).to_owned()
    }

    /// Pulls a machine's cable: packets are lost, nobody is told.
    pub fn unplug(&self, name: &str) {
        self.switch.unplug(name);
    }

    /// Plugs it in again.
    pub fn plug(&self, name: &str) {
        self.switch.plug(name);
    }

    /// Takes a machine's power: nobody hears of it, and nothing is left but its files.
    pub fn power_off(&self, name: &str) {
        self.unplug(name);
        self.machine(name).kill();
    }

    /// Switches it on again, perhaps with another address, and waits until it is up.
    pub fn power_on(&self, name: &str) {
        self.plug(name);
        self.machine(name).begin();
        self.machine(name).wait_until_up();
    }

    /// Gives a machine that is off another address.
    ///
    /// # Panics
    /// When its settings cannot be written.
    pub fn readdress(&mut self, name: &str, address: Ipv4Addr) {
        let at = self
            .machines
            .iter()
            .position(|machine| machine.name == name);
        let machine = &mut self.machines[at.unwrap_or_else(|| panic!("no machine {name}"))];
        let (old, new) = (machine.address, SocketAddr::from((address, PORT)));
        machine.namespace.ip(&format!(
            "address delete {}/24 dev eth0\naddress add {address}/24 dev eth0\n",
            old.ip()
        ));
        let file = machine.root.join("etc/paas/paas.toml");
        let text = fs::read_to_string(&file).expect("the settings can be read");
        fs::write(&file, text.replace(&old.to_string(), &new.to_string())).expect("they are ours");
        machine.address = new;
    }

    /// The lines that the balancers have logged.
    #[must_use]
    pub fn access_log(&self) -> Vec<String> {
        self.balancers()
            .map(|balancer| balancer.log("balancer-access.log"))
            .flat_map(|log| log.lines().map(str::to_owned).collect::<Vec<_>>())
            .collect()
    }

    /// Checks that no nginx process died by a signal (unless the test sent one) and nothing panicked.
    ///
    /// # Panics
    /// When something did.
    #[track_caller]
    pub fn assert_healthy(&self) {
        for machine in &self.machines {
            nginx::assert_no_crash(&machine.log("nginx-error.log"));
            let daemon = machine.log("paasctl.log");
            assert!(!daemon.contains("panicked"), "{}: {daemon}", machine.name);
        }
    }

    /// The test's directory.
    #[must_use]
    pub fn root(&self) -> &'r Root {
        self.root
    }
}

impl Drop for Cluster<'_> {
    fn drop(&mut self) {
        for machine in &self.machines {
            machine.thaw();
            if let Some(up) = &*machine.up.borrow() {
                up.signal(Signal::TERM);
            }
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Balancer,
    Backend,
}

/// A machine of the cluster.
#[derive(Debug)]
pub struct Machine {
    /// `balancer1`, `b1` ...
    pub name: String,
    /// Where its nginx listens.
    pub address: SocketAddr,
    /// Where its files lie.
    pub root: PathBuf,
    kind: Kind,
    clock: Option<Clock>,
    // Before its namespace.
    up: RefCell<Option<Process>>,
    namespace: Namespace,
}

impl Machine {
    fn make(root: &Root, switch: &Switch, options: &Options, kind: Kind, number: u8) -> Machine {
        let (name, last, section, workers) = match kind {
            Kind::Balancer => (format!("balancer{number}"), number, "balancer", 2),
            Kind::Backend => (format!("b{number}"), 10 + number, "backend", 1),
        };
        let ip = Ipv4Addr::new(10, 0, 0, last);
        let address = SocketAddr::from((ip, PORT));
        let (listen, more) = match kind {
            Kind::Balancer => (format!("listen = [\"{address}\"]"), &options.balancer),
            Kind::Backend => (
                format!("listen = \"{address}\"\ntrusted = [\"10.0.0.0/24\"]\nworkers = 1"),
                &options.backend,
            ),
        };
        let directory = root.join(&name);
        root.write(
            format!("{name}/etc/paas/paas.toml"),
            format!(
                "name = \"{name}\"\nroles = [\"{section}\"]\nregistry = {:?}\n\n[nginx]\nworkers = {workers}\nmodule = {:?}\n\n[{section}]\n{listen}\n{more}",
                root.join("registry/registry.db"),
                build::module(),
            ),
        );
        Machine {
            namespace: switch.connect(&name, ip).expect("one more namespace"),
            name,
            address,
            clock: options.clocks.then(|| Clock::new(&directory)),
            root: directory,
            kind,
            up: RefCell::new(None),
        }
    }

    /// Where `up` writes.
    fn output(&self) -> PathBuf {
        self.root.with_extension("up.log")
    }

    /// `paasctl up`, with mounts of its own.
    fn begin(&self) {
        let mut command = self.namespace.command("unshare");
        command
            .args(["--mount", "setpriv", "--pdeathsig", "TERM", "--"])
            .arg(build::program("paasctl"))
            .arg("--root")
            .arg(&self.root)
            .arg("up")
            .envs(self.clock.iter().flat_map(Clock::environment));
        let _ = fs::remove_file(self.output());
        let up = Process::start(&self.name, &mut command, &self.output(), Signal::TERM);
        *self.up.borrow_mut() = Some(up);
    }

    /// Sets its clock: so many seconds beside the true time.
    ///
    /// # Panics
    /// When it has none of its own.
    pub fn set_clock(&self, seconds: i64) {
        self.clock.as_ref().expect("a clock").set(seconds);
    }

    fn wait_until_up(&self) {
        wait::until(&format!("{} is up", self.name), || {
            let mut up = self.up.borrow_mut();
            let up = up.as_mut().expect("it was begun");
            assert!(up.ended().is_none(), "{} ended: {}", self.name, up.output());
            up.output().contains(" is up; ").then_some(())
        });
    }

    /// `up`, what it started, and all that came of that.
    #[must_use]
    pub fn processes(&self) -> Vec<Seen> {
        match &*self.up.borrow() {
            Some(up) => process::family(up.id()),
            None => Vec::new(),
        }
    }

    fn kill(&self) {
        // Stopped, none makes another.
        for one in self.freeze() {
            process::send(one.pid, Signal::KILL);
            wait::until_true("its end", || match &mut *self.up.borrow_mut() {
                Some(up) if up.id() == one.pid => up.ended().is_some(),
                _ => Seen::look(one.pid).is_none(),
            });
        }
        *self.up.borrow_mut() = None;
    }

    /// Stops all of its processes where they are, and tells which; its kernel still takes connections.
    pub fn freeze(&self) -> Vec<Seen> {
        let mut before = Vec::new();
        loop {
            let all = self.processes();
            if all == before {
                return all;
            }
            for one in &all {
                process::send(one.pid, Signal::STOP);
            }
            before = all;
        }
    }

    /// Lets them go on.
    pub fn thaw(&self) {
        for one in self.processes() {
            process::send(one.pid, Signal::CONT);
        }
    }

    /// Its daemon.
    ///
    /// # Panics
    /// When it does not run.
    #[must_use]
    pub fn daemon(&self) -> Seen {
        self.running("daemon", |seen| {
            seen.command.contains("paasctl") && seen.command.ends_with("serve")
        })
    }

    /// Its Emperor.
    ///
    /// # Panics
    /// When it does not run.
    #[must_use]
    pub fn emperor(&self) -> Seen {
        self.running("Emperor", |seen| {
            seen.command.contains("uwsgi") && seen.command.contains("emperor.ini")
        })
    }

    /// Its nginx's master.
    ///
    /// # Panics
    /// When it does not run.
    #[must_use]
    pub fn nginx(&self) -> Seen {
        self.running("nginx", |seen| seen.command.starts_with("nginx: master"))
    }

    /// Its nginx's workers.
    #[must_use]
    pub fn workers(&self) -> Vec<Seen> {
        let is_worker = |seen: &Seen| seen.command.starts_with("nginx: worker process");
        self.processes().into_iter().filter(is_worker).collect()
    }

    fn running(&self, what: &str, is: impl Fn(&Seen) -> bool) -> Seen {
        wait::until(&format!("{}'s {what}", self.name), || {
            self.processes().into_iter().find(&is)
        })
    }

    /// Ends one of its processes by `kill -9`, and waits for its end; `up` starts another.
    pub fn kill_one(&self, one: &Seen) {
        process::send(one.pid, Signal::KILL);
        wait::until_true("its end", || Seen::look(one.pid).is_none());
    }

    /// What its daemon says of itself, if it answers.
    #[must_use]
    pub fn daemon_status(&self) -> Option<serde_json::Value> {
        process::ask_daemon(&self.root.join("run/paas/control.sock"), "/status")
    }

    /// The backends that it would turn no request to, with what its probes say of them.
    #[must_use]
    pub fn ill(&self) -> Vec<serde_json::Value> {
        let all = process::ask_daemon(&self.root.join("run/paas/control.sock"), "/backends");
        let all = all
            .as_ref()
            .and_then(serde_json::Value::as_array)
            .into_iter();
        all.flatten()
            .filter(|one| one["serves"] != true)
            .cloned()
            .collect()
    }

    /// How many sites its daemon says are not asleep.
    #[must_use]
    pub fn awake(&self) -> usize {
        let status = self.daemon_status().unwrap_or_default();
        let sites = status["sites"].as_array().into_iter().flatten();
        sites.filter(|site| site["state"] != "asleep").count()
    }

    /// One of its logs, as far as it goes.
    #[must_use]
    pub fn log(&self, name: &str) -> String {
        fs::read(self.root.join("var/log/paas").join(name))
            .map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
            .unwrap_or_default()
    }

    /// Takes a directory away from it, as if it were on storage that is gone: what it has open stays open, nothing is found any more.
    ///
    /// # Panics
    /// When it is off.
    pub fn hide(&self, directory: &Path) {
        let empty = self.root.join("nothing");
        fs::create_dir_all(&empty).expect("a directory can be made");
        fs::set_permissions(&empty, fs::Permissions::from_mode(0o755)).expect("it is ours");
        self.mount(
            "mount",
            &["--bind".as_ref(), empty.as_ref(), directory.as_ref()],
        );
    }

    /// Gives it back.
    ///
    /// # Panics
    /// When it is off.
    pub fn show(&self, directory: &Path) {
        self.mount("umount", &[directory.as_ref()]);
    }

    fn mount(&self, program: &str, arguments: &[&std::ffi::OsStr]) {
        let up = self.up.borrow();
        let pid = up.as_ref().expect("it is on").id();
        let output = std::process::Command::new("nsenter")
            .arg(format!("--mount=/proc/{pid}/ns/mnt"))
            .arg(program)
            .args(arguments)
            .output()
            .expect("nsenter can be run");
        assert!(output.status.success(), "{output:?}");
    }
}
