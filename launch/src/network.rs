//! A site's own network with a way out: a namespace that dies with its processes, joined to the host by a pair of `veth` devices.
//! Where the way leads is decided by the packet filter that the daemon has loaded; the site can change nothing of it.
//!
//! The number of the pair is index and name of the host's device and the end of the site's address at once: the kernel refuses a
//! second one, so nobody has to remember which are in use.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::Ipv4Addr;
use std::os::fd::AsRawFd;

use crate::netlink::{Message, Reply};
use crate::order::Lines;
use crate::sys;

/// Index of the site's device in its namespace, above those that a kernel may make there by itself.
const INSIDE: u32 = 1000;
/// Indexes of the host's devices begin here.
const OUTSIDE: u32 = 0x5041_0000;
/// Numbers within a /16; the first is the gateway's.
const NUMBERS: std::ops::RangeInclusive<u32> = 2..=0xfffe;
/// So many taken numbers in a row mean that nearly all are.
const TRIES: u32 = 2000;

/// What the order says of it.
#[derive(Debug, PartialEq, Eq)]
pub struct Network {
    /// The names of the host's devices begin so.
    interface: String,
    /// The first address of the /16 that sites have.
    range: Ipv4Addr,
}

impl Network {
    /// Reads its lines.
    pub fn parse(lines: &Lines<'_>) -> Result<Option<Network>, String> {
        let Some(range) = lines.optional("network")? else {
            return Ok(None);
        };
        let range: Ipv4Addr = range
            .parse()
            .map_err(|_| format!("the daemon's network is not an address: '{range}'"))?;
        let interface = lines.one("interface")?;
        if range.to_bits() & 0xffff != 0 {
            return Err(format!("the daemon's network is no /16: '{range}'"));
        }
        if !(1..=11).contains(&interface.len())
            || !interface.bytes().all(|byte| byte.is_ascii_alphanumeric())
        {
            return Err(format!("the daemon's interface is no name: '{interface}'"));
        }
        Ok(Some(Network {
            interface: interface.to_owned(),
            range,
        }))
    }

    /// Makes the namespace, enters it, and joins it to the one before.
    pub fn enter(&self) -> Result<(), String> {
        let mut host = Route::open()?;
        sys::leave_network()?;
        let inside = File::open("/proc/self/ns/net")
            .map_err(|error| format!("cannot open the new network: {error}"))?;
        let number = self.join(&mut host, &inside)?;
        // There may be no IPv6 at all.
        let _ = fs::write("/proc/sys/net/ipv6/conf/eth0/disable_ipv6", "1");
        let (gateway, own) = (self.address(1), self.address(number));
        host.done(
            &Message::address(OUTSIDE | number, gateway, own),
            "give the host's end an address",
        )?;
        let mut inner = Route::open()?;
        inner.done(&Message::up(1), "switch the loopback on")?;
        inner.done(&Message::up(INSIDE), "switch the site's device on")?;
        inner.done(
            &Message::address(INSIDE, own, gateway),
            "give the site an address",
        )?;
        inner.done(
            &Message::default_route(INSIDE, gateway),
            "set the site's route",
        )
    }

    /// Makes the pair of devices with the first free number.
    fn join(&self, host: &mut Route, inside: &File) -> Result<u32, String> {
        let count = NUMBERS.end() - NUMBERS.start() + 1;
        // Others begin elsewhere.
        let first = std::process::id().wrapping_mul(0x9e37_79b1) >> 8;
        for step in 0..TRIES {
            let number = NUMBERS.start() + (first.wrapping_add(step)) % count;
            let name = format!("{}{number:04x}", self.interface);
            let pair = Message::pair(&name, OUTSIDE | number, "eth0", INSIDE, inside.as_raw_fd());
            match host.ask(&pair)? {
                Reply::Done => return Ok(number),
                Reply::Refused(libc::EBUSY | libc::EEXIST) => {}
                Reply::Refused(code) => {
                    return Err(refused("join the site's network to the host's", code));
                }
            }
        }
        Err("no address is free for the site's network".to_owned())
    }

    fn address(&self, number: u32) -> Ipv4Addr {
        Ipv4Addr::from_bits(self.range.to_bits() | number)
    }
}

fn refused(doing: &str, code: i32) -> String {
    format!(
        "cannot {doing}: {}",
        std::io::Error::from_raw_os_error(code)
    )
}

/// A socket to the kernel's network configuration: of the namespace it was opened in, wherever the process goes.
struct Route(File);

impl Route {
    fn open() -> Result<Route, String> {
        Ok(Route(sys::netlink_route()?.into()))
    }

    fn ask(&mut self, message: &Message) -> Result<Reply, String> {
        let mut buffer = [0; 4096];
        let mut exchange = || {
            self.0.write_all(message.bytes())?;
            self.0.read(&mut buffer)
        };
        let count = exchange()
            .map_err(|error| format!("cannot ask the kernel about the network: {error}"))?;
        Reply::read(buffer.get(..count).unwrap_or_default())
            .ok_or_else(|| "the kernel's answer about the network is garbled".to_owned())
    }

    fn done(&mut self, message: &Message, doing: &str) -> Result<(), String> {
        match self.ask(message)? {
            Reply::Done => Ok(()),
            Reply::Refused(code) => Err(refused(doing, code)),
        }
    }
}
