//! How many connections wait at a unix socket and how many may: the kernel's socket diagnosis (`NETLINK_SOCK_DIAG`, what `ss`
//! uses). Unlike a trial connection it disturbs nobody.

use std::io;
use std::os::fd::BorrowedFd;

use rustix::fs::fstat;
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, netlink, recv, send, socket_with,
};

// linux/netlink.h, linux/sock_diag.h, linux/unix_diag.h
const SOCK_DIAG_BY_FAMILY: u16 = 20;
const NLM_F_REQUEST: u16 = 1;
const NLMSG_ERROR: u16 = 2;
const ALL_STATES: u32 = u32::MAX;
const UDIAG_SHOW_RQLEN: u32 = 0x10;
const UNIX_DIAG_RQLEN: u16 = 4;
const HEADER: usize = 16;
const ANSWER: usize = 16;
const ATTRIBUTE: usize = 4;

/// A listening socket's queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Queue {
    /// Connections that wait to be accepted.
    pub waiting: u32,
    /// The backlog that `listen` was told, as the kernel capped it.
    pub backlog: u32,
}

impl Queue {
    /// Whether the next `connect` would be refused with `EAGAIN` (the kernel lets one more wait than the backlog says).
    pub fn is_full(self) -> bool {
        self.waiting > self.backlog
    }
}

/// Asks the kernel about a listening socket.
pub fn of(listener: BorrowedFd<'_>) -> io::Result<Queue> {
    let inode = u32::try_from(fstat(listener)?.st_ino)
        .map_err(|_| io::Error::other("the socket's inode has more than 32 bits"))?;
    let kernel = socket_with(
        AddressFamily::NETLINK,
        SocketType::DGRAM,
        SocketFlags::CLOEXEC,
        Some(netlink::SOCK_DIAG),
    )?;
    send(&kernel, &request(inode), SendFlags::empty())?;
    let mut answer = [0u8; 512];
    let (_, length) = recv(&kernel, &mut answer, RecvFlags::DONTWAIT)?;
    answer.get(..length).and_then(parse).ok_or_else(|| {
        io::Error::other("the kernel's socket diagnosis knows nothing about the socket")
    })
}

fn request(inode: u32) -> Vec<u8> {
    let mut request = Vec::with_capacity(40);
    request.extend(40u32.to_ne_bytes());
    request.extend(SOCK_DIAG_BY_FAMILY.to_ne_bytes());
    request.extend(NLM_F_REQUEST.to_ne_bytes());
    request.extend([0; 8]); // sequence, sender
    request.extend([1, 0, 0, 0]); // AF_UNIX, protocol, padding
    request.extend(ALL_STATES.to_ne_bytes());
    request.extend(inode.to_ne_bytes());
    request.extend(UDIAG_SHOW_RQLEN.to_ne_bytes());
    request.extend([0xff; 8]); // no cookie
    request
}

fn parse(answer: &[u8]) -> Option<Queue> {
    let u16_at = |at: usize| Some(u16::from_ne_bytes(answer.get(at..at + 2)?.try_into().ok()?));
    let u32_at = |at: usize| Some(u32::from_ne_bytes(answer.get(at..at + 4)?.try_into().ok()?));
    if u16_at(4)? == NLMSG_ERROR {
        return None;
    }
    let mut at = HEADER + ANSWER;
    while let (Some(length), Some(kind)) = (u16_at(at), u16_at(at + 2)) {
        if kind == UNIX_DIAG_RQLEN {
            return Some(Queue {
                waiting: u32_at(at + ATTRIBUTE)?,
                backlog: u32_at(at + ATTRIBUTE + 4)?,
            });
        }
        // Attributes begin at multiples of four bytes; a length below its own header would never end.
        at += usize::from(length).max(ATTRIBUTE).next_multiple_of(4);
    }
    None
}
