//! What the kernel knows about unix sockets: how many connections wait at one, how many may, which file it is bound to, and who
//! is connected to it. It is its socket diagnosis (`NETLINK_SOCK_DIAG`, what `ss` uses); unlike a trial connection it disturbs
//! nobody.

use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use rustix::fs::{fstat, makedev};
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, netlink, recv, send, socket_with,
};

// linux/netlink.h, linux/sock_diag.h, linux/unix_diag.h, net/tcp_states.h
const SOCK_DIAG_BY_FAMILY: u16 = 20;
const NLM_F_REQUEST: u16 = 1;
const NLM_F_DUMP: u16 = 0x300;
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const ALL_STATES: u32 = u32::MAX;
const ESTABLISHED: u32 = 1 << 1;
const UDIAG_SHOW_NAME: u32 = 1;
const UDIAG_SHOW_VFS: u32 = 2;
const UDIAG_SHOW_RQLEN: u32 = 0x10;
const UNIX_DIAG_NAME: u16 = 0;
const UNIX_DIAG_VFS: u16 = 1;
const UNIX_DIAG_RQLEN: u16 = 4;
const HEADER: usize = 16;
const ANSWER: usize = 16;
const ATTRIBUTE: usize = 4;
/// The kernel sends a dump in parts of at most this.
const PART: usize = 32 * 1024;

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

/// A listening socket's queue.
pub fn of(listener: BorrowedFd<'_>) -> io::Result<Queue> {
    let answer = ask_about(listener, UDIAG_SHOW_RQLEN)?;
    let queue = attribute(&answer, UNIX_DIAG_RQLEN).and_then(|value| {
        Some(Queue {
            waiting: u32_at(value, 0)?,
            backlog: u32_at(value, 4)?,
        })
    });
    queue.ok_or_else(unknown)
}

/// Device and inode (its lower 32 bits) of the file that a socket is bound to, whatever name it has by now.
pub fn file_of(listener: BorrowedFd<'_>) -> io::Result<(u64, u64)> {
    let answer = ask_about(listener, UDIAG_SHOW_VFS)?;
    let file = attribute(&answer, UNIX_DIAG_VFS).and_then(|value| {
        // As the kernel counts devices: 12 bits of major, 20 of minor.
        let (inode, device) = (u32_at(value, 0)?, u32_at(value, 4)?);
        Some((makedev(device >> 20, device & 0xf_ffff), inode.into()))
    });
    file.ok_or_else(unknown)
}

/// As [`file_of`], of the file that has this name now.
pub fn file_at(path: &Path) -> io::Result<(u64, u64)> {
    std::fs::symlink_metadata(path).map(|found| (found.dev(), found.ino() & u64::from(u32::MAX)))
}

/// How many connections to a socket that was bound to `name` have been accepted and not closed since.
pub fn accepted(name: &Path) -> io::Result<usize> {
    let kernel = kernel()?;
    let question = request(0, ESTABLISHED, UDIAG_SHOW_NAME, NLM_F_DUMP);
    send(&kernel, &question, SendFlags::empty())?;
    let (mut part, mut count) = (vec![0u8; PART], 0);
    loop {
        let (_, length) = recv(&kernel, part.as_mut_slice(), RecvFlags::empty())?;
        let mut rest = part.get(..length).unwrap_or_default();
        while let (Some(size), Some(kind)) = (u32_at(rest, 0), u16_at(rest, 4)) {
            match kind {
                NLMSG_DONE => return Ok(count),
                NLMSG_ERROR => return Err(unknown()),
                _ => {}
            }
            let size = usize::try_from(size).unwrap_or(usize::MAX).max(HEADER);
            let message = rest.get(..size).unwrap_or(rest);
            let found = attribute(message, UNIX_DIAG_NAME)
                .map(|found| found.strip_suffix(b"\0").unwrap_or(found));
            count += usize::from(found == Some(name.as_os_str().as_bytes()));
            rest = rest.get(size.next_multiple_of(4)..).unwrap_or_default();
        }
    }
}

fn ask_about(socket: BorrowedFd<'_>, show: u32) -> io::Result<Vec<u8>> {
    let inode = u32::try_from(fstat(socket)?.st_ino)
        .map_err(|_| io::Error::other("the socket's inode has more than 32 bits"))?;
    let kernel = kernel()?;
    send(
        &kernel,
        &request(inode, ALL_STATES, show, 0),
        SendFlags::empty(),
    )?;
    let mut answer = vec![0u8; 512];
    let (_, length) = recv(&kernel, answer.as_mut_slice(), RecvFlags::DONTWAIT)?;
    answer.truncate(length);
    match u16_at(&answer, 4) {
        Some(SOCK_DIAG_BY_FAMILY) => Ok(answer),
        _ => Err(unknown()),
    }
}

fn kernel() -> io::Result<OwnedFd> {
    Ok(socket_with(
        AddressFamily::NETLINK,
        SocketType::DGRAM,
        SocketFlags::CLOEXEC,
        Some(netlink::SOCK_DIAG),
    )?)
}

fn unknown() -> io::Error {
    io::Error::other("the kernel's socket diagnosis does not tell about the socket")
}

fn request(inode: u32, states: u32, show: u32, flags: u16) -> Vec<u8> {
    let mut request = Vec::with_capacity(40);
    request.extend(40u32.to_ne_bytes());
    request.extend(SOCK_DIAG_BY_FAMILY.to_ne_bytes());
    request.extend((NLM_F_REQUEST | flags).to_ne_bytes());
    request.extend([0; 8]); // sequence, sender
    request.extend([1, 0, 0, 0]); // AF_UNIX, protocol, padding
    request.extend(states.to_ne_bytes());
    request.extend(inode.to_ne_bytes());
    request.extend(show.to_ne_bytes());
    request.extend([0xff; 8]); // no cookie
    request
}

/// The value of one of a message's attributes.
fn attribute(message: &[u8], wanted: u16) -> Option<&[u8]> {
    let mut at = HEADER + ANSWER;
    while let (Some(length), Some(kind)) = (u16_at(message, at), u16_at(message, at + 2)) {
        let length = usize::from(length).max(ATTRIBUTE);
        if kind == wanted {
            return message.get(at + ATTRIBUTE..at + length);
        }
        // Attributes begin at multiples of four bytes; a length below its own header would never end.
        at += length.next_multiple_of(4);
    }
    None
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_ne_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}
