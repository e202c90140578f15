//! The system calls that the standard library has no safe name for. The only `unsafe` of the launcher, one call in each function.

use std::ffi::{CString, c_char};
use std::io::{Error, Seek, Write};
use std::mem::{size_of, zeroed};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::ptr;

fn check(result: i32, doing: &str) -> Result<i32, String> {
    if result < 0 {
        Err(format!("{doing}: {}", Error::last_os_error()))
    } else {
        Ok(result)
    }
}

/// The process that started this one.
pub fn parent() -> i32 {
    // SAFETY: takes and changes nothing.
    unsafe { libc::getppid() }
}

/// The number of this process.
pub fn own_pid() -> i32 {
    // SAFETY: takes and changes nothing.
    unsafe { libc::getpid() }
}

/// Who this process is to the kernel.
pub fn effective_uid() -> u32 {
    // SAFETY: takes and changes nothing.
    unsafe { libc::geteuid() }
}

/// Sets the mode bits that new files never get.
pub fn umask(mask: u32) {
    // SAFETY: changes a number of this process.
    unsafe { libc::umask(mask) };
}

/// Reads once into `text`; also answers the first descriptor that came along.
pub fn receive(stream: &UnixStream, text: &mut Vec<u8>) -> Result<(usize, Option<OwnedFd>), Error> {
    let mut bytes = [0u8; 4096];
    // Room for one descriptor, aligned as a header must be.
    let mut control = [0u64; 4];
    let mut part = libc::iovec {
        iov_base: bytes.as_mut_ptr().cast(),
        iov_len: bytes.len(),
    };
    // SAFETY: a msghdr of zeros is an empty one.
    let mut message: libc::msghdr = unsafe { zeroed() };
    message.msg_iov = &raw mut part;
    message.msg_iovlen = 1;
    message.msg_control = control.as_mut_ptr().cast();
    message.msg_controllen = size_of::<[u64; 4]>();
    // SAFETY: the message points at `bytes` and `control`, which outlive the call, with their true lengths.
    let count =
        unsafe { libc::recvmsg(stream.as_raw_fd(), &raw mut message, libc::MSG_CMSG_CLOEXEC) };
    let count = usize::try_from(count).map_err(|_| Error::last_os_error())?;
    text.extend(bytes.iter().take(count));
    // SAFETY: the kernel has filled in `control` up to `msg_controllen`; the macro checks that a header fits.
    let header = unsafe { libc::CMSG_FIRSTHDR(&raw const message) };
    // SAFETY: null, or a whole header inside `control`.
    let Some(header) = (unsafe { header.as_ref() }) else {
        return Ok((count, None));
    };
    if header.cmsg_level != libc::SOL_SOCKET || header.cmsg_type != libc::SCM_RIGHTS {
        return Ok((count, None));
    }
    // SAFETY: a message of rights carries at least one descriptor, newly made for this process and owned by nobody else.
    let descriptor =
        unsafe { OwnedFd::from_raw_fd(libc::CMSG_DATA(header).cast::<i32>().read_unaligned()) };
    Ok((count, Some(descriptor)))
}

/// `content` as a file in memory that nobody can change any more.
pub fn sealed(content: &[u8]) -> Result<OwnedFd, String> {
    // SAFETY: the name is a constant string; the flags are known.
    let made = unsafe {
        libc::memfd_create(
            c"vassal".as_ptr(),
            libc::MFD_CLOEXEC | libc::MFD_ALLOW_SEALING,
        )
    };
    let made = check(made, "cannot make a file in memory")?;
    // SAFETY: just made, and owned by nobody else.
    let file = unsafe { OwnedFd::from_raw_fd(made) };
    let mut file = std::fs::File::from(file);
    file.write_all(content)
        .map_err(|error| format!("cannot fill a file in memory: {error}"))?;
    let seals = libc::F_SEAL_WRITE | libc::F_SEAL_GROW | libc::F_SEAL_SHRINK | libc::F_SEAL_SEAL;
    // SAFETY: takes numbers only.
    let result = unsafe { libc::fcntl(made, libc::F_ADD_SEALS, seals) };
    check(result, "cannot seal a file in memory")?;
    file.rewind()
        .map_err(|error| format!("cannot rewind a file in memory: {error}"))?;
    Ok(file.into())
}

/// Makes `uid` the only one who can open the file.
pub fn give(file: &OwnedFd, uid: u32) -> Result<(), String> {
    // SAFETY: takes numbers only; the descriptor is open.
    let result = unsafe { libc::fchmod(file.as_raw_fd(), 0o400) };
    check(result, "cannot close the configuration to others")?;
    // SAFETY: as above; the group stays.
    let result = unsafe { libc::fchown(file.as_raw_fd(), uid, u32::MAX) };
    check(result, "cannot give the configuration to the site")?;
    Ok(())
}

/// A second number for an open file, above `last`.
pub fn duplicate_above(descriptor: i32, last: i32) -> Result<OwnedFd, String> {
    // SAFETY: takes numbers only; a closed descriptor is an error.
    let made = unsafe { libc::fcntl(descriptor, libc::F_DUPFD_CLOEXEC, last + 1) };
    let made = check(made, &format!("cannot duplicate descriptor {descriptor}"))?;
    // SAFETY: just made, and owned by nobody else.
    Ok(unsafe { OwnedFd::from_raw_fd(made) })
}

/// Makes `place` mean the same open file as `descriptor`, also for the program that follows.
pub fn put(descriptor: i32, place: i32) -> Result<(), String> {
    // SAFETY: takes numbers only. What was open under `place` is of no more use: everything wanted has been duplicated above.
    let result = unsafe { libc::dup2(descriptor, place) };
    check(result, &format!("cannot put a file at descriptor {place}"))?;
    Ok(())
}

/// Nothing above `last` reaches the program that follows.
pub fn close_on_exec_above(last: i32) -> Result<(), String> {
    let (first, flags) = (
        last.unsigned_abs() + 1,
        libc::CLOSE_RANGE_CLOEXEC.cast_signed(),
    );
    // SAFETY: takes numbers only, and closes nothing of this program's.
    let result = unsafe { libc::close_range(first, u32::MAX, flags) };
    check(result, "cannot close the Emperor's files")?;
    Ok(())
}

/// Closes everything above `last`. Only for a process that uses nothing of it any more and ends without a return.
pub fn close_above(last: i32) -> Result<(), String> {
    // SAFETY: takes numbers only; what owned the files does not come to close them once more.
    let result = unsafe { libc::close_range(last.unsigned_abs() + 1, u32::MAX, 0) };
    check(result, "cannot close files")?;
    Ok(())
}

/// A second process that goes on here; whether this is the first.
pub fn fork() -> Result<bool, String> {
    // SAFETY: this program has one thread, so the second process finds no lock taken by another.
    let child = unsafe { libc::fork() };
    Ok(check(child, "cannot make a process")? > 0)
}

/// Waits, at most so long, until one of the two can be read or has ended; the first only if it is `wanted`.
pub fn readable(
    descriptors: [i32; 2],
    wanted: bool,
    most: Option<std::time::Duration>,
) -> Result<[bool; 2], String> {
    let [first, second] = descriptors;
    let wait = |fd| libc::pollfd {
        fd,
        events: libc::POLLIN,
        revents: 0,
    };
    let mut ends = [wait(if wanted { first } else { -1 }), wait(second)];
    let most = most.map_or(-1, |most| {
        i32::try_from(most.as_millis()).map_or(i32::MAX, |most| most + 1)
    });
    // SAFETY: two pollfds, which outlive the call; a negative descriptor is not looked at.
    let ready = unsafe { libc::poll(ends.as_mut_ptr(), 2, most) };
    if ready < 0 && Error::last_os_error().raw_os_error() == Some(libc::EINTR) {
        return Ok([false; 2]);
    }
    check(ready, "cannot wait")?;
    Ok(ends.map(|end| end.revents != 0))
}

/// Reads what there is, as far as there is room; nothing at the end.
pub fn read_bytes(descriptor: i32, room: &mut [u8]) -> Result<&[u8], Error> {
    // SAFETY: the room outlives the call, and its true length is given.
    let count = unsafe { libc::read(descriptor, room.as_mut_ptr().cast(), room.len()) };
    let count = usize::try_from(count).map_err(|_| Error::last_os_error())?;
    Ok(room.get(..count).unwrap_or_default())
}

/// Leaves every further group.
pub fn drop_groups() -> Result<(), String> {
    // SAFETY: an empty list is never read.
    let result = unsafe { libc::setgroups(0, ptr::null()) };
    check(result, "cannot leave root's groups")?;
    Ok(())
}

/// Sets the real, effective and saved group.
pub fn set_gid(gid: u32) -> Result<(), String> {
    // SAFETY: takes numbers only.
    let result = unsafe { libc::setresgid(gid, gid, gid) };
    check(result, &format!("cannot become gid {gid}"))?;
    Ok(())
}

/// Sets the real, effective and saved user.
pub fn set_uid(uid: u32) -> Result<(), String> {
    // SAFETY: takes numbers only.
    let result = unsafe { libc::setresuid(uid, uid, uid) };
    check(result, &format!("cannot become uid {uid}"))?;
    Ok(())
}

/// Whether giving up root has not worked.
pub fn can_be_root_again() -> bool {
    // SAFETY: takes a number only, and must fail.
    unsafe { libc::setuid(0) == 0 }
}

/// This process, and what it becomes, is killed when the Emperor ends; an Emperor that has ended already is an error.
pub fn die_with(emperor: i32, pipe: i32) -> Result<(), String> {
    // SAFETY: sets a number of this process.
    let result = unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) };
    check(result, "cannot tie the site to the Emperor")?;
    let mut end = libc::pollfd {
        fd: pipe,
        events: 0,
        revents: 0,
    };
    // SAFETY: one pollfd, which outlives the call.
    let hung_up = unsafe { libc::poll(&raw mut end, 1, 0) } > 0
        && end.revents & (libc::POLLHUP | libc::POLLERR) != 0;
    if parent() != emperor || hung_up {
        return Err("the Emperor has ended meanwhile".to_owned());
    }
    Ok(())
}

/// Becomes another program; comes back only with an error.
pub fn exec(program: &CString, arguments: &[CString], environment: &[CString]) -> Error {
    let pointers = |texts: &[CString]| -> Vec<*const c_char> {
        texts
            .iter()
            .map(|text| text.as_ptr())
            .chain([ptr::null()])
            .collect()
    };
    let (arguments, environment) = (pointers(arguments), pointers(environment));
    // SAFETY: puts back what the Emperor and Rust's start-up have set; a handler is not installed.
    unsafe { libc::signal(libc::SIGPIPE, libc::SIG_DFL) };
    // SAFETY: all strings end in zero and both lists in null; they outlive the call.
    unsafe { libc::execve(program.as_ptr(), arguments.as_ptr(), environment.as_ptr()) };
    Error::last_os_error()
}

/// Starts a program that is killed when this one ends, however it does.
pub fn spawn_dying_with_us(
    command: &mut std::process::Command,
) -> Result<std::process::Child, Error> {
    use std::os::unix::process::CommandExt;
    // SAFETY: takes and changes nothing.
    let us = unsafe { libc::getpid() };
    let die = move || {
        // SAFETY: sets a number of the new process.
        if unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) } < 0 {
            return Err(Error::last_os_error());
        }
        if parent() != us {
            return Err(Error::from_raw_os_error(libc::ESRCH));
        }
        Ok(())
    };
    // SAFETY: between fork and exec only system calls are made: no memory is taken, no lock.
    unsafe { command.pre_exec(die) };
    command.spawn()
}

/// A handle that becomes readable when the process ends.
pub fn process_handle(pid: u32) -> Result<OwnedFd, String> {
    // SAFETY: takes numbers only.
    let made = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) };
    let made = check(
        i32::try_from(made).unwrap_or(-1),
        "cannot get a handle on the command",
    )?;
    // SAFETY: just made, and owned by nobody else.
    Ok(unsafe { OwnedFd::from_raw_fd(made) })
}

/// What ended a wait.
pub enum Wake {
    /// The process has ended.
    Ended,
    /// The pipe had a byte, or has ended.
    Told(Option<u8>),
    /// Neither, in time.
    Late,
}

/// Waits for the end of a process, for a byte on the pipe (none if it is -1), or until the time is over.
pub fn wait_for(
    pipe: i32,
    process: &OwnedFd,
    most: Option<std::time::Duration>,
) -> Result<Wake, String> {
    let wait = |fd| libc::pollfd {
        fd,
        events: libc::POLLIN,
        revents: 0,
    };
    let mut ends = [wait(process.as_raw_fd()), wait(pipe)];
    let most = most.map_or(-1, |most| {
        i32::try_from(most.as_millis()).unwrap_or(i32::MAX)
    });
    // SAFETY: two pollfds, which outlive the call; a negative descriptor is not looked at.
    let ready = unsafe { libc::poll(ends.as_mut_ptr(), 2, most) };
    if ready < 0 && Error::last_os_error().raw_os_error() == Some(libc::EINTR) {
        return Ok(Wake::Told(Some(u8::MAX)));
    }
    check(ready, "cannot wait for the command")?;
    if ends[0].revents != 0 {
        return Ok(Wake::Ended);
    }
    if ends[1].revents == 0 {
        return Ok(Wake::Late);
    }
    let mut byte = 0_u8;
    // SAFETY: room for one byte, which outlives the call.
    let count = unsafe { libc::read(pipe, (&raw mut byte).cast(), 1) };
    Ok(Wake::Told((count == 1).then_some(byte)))
}

/// Writes a few bytes to a pipe.
pub fn write_bytes(pipe: i32, bytes: &[u8]) -> Result<(), Error> {
    // SAFETY: the bytes outlive the call, and their true length is given.
    let count = unsafe { libc::write(pipe, bytes.as_ptr().cast(), bytes.len()) };
    match usize::try_from(count) {
        Ok(count) if count == bytes.len() => Ok(()),
        _ => Err(Error::last_os_error()),
    }
}

/// Asks a child, not waited for yet, to end.
pub fn terminate(child: u32) {
    signal(child.cast_signed(), libc::SIGTERM);
}

/// Kills the process group of a child that is not waited for yet.
pub fn kill_group(child: u32) {
    signal(-child.cast_signed(), libc::SIGKILL);
}

fn signal(target: i32, signal: i32) {
    // SAFETY: takes numbers only. The child is not waited for, so its number is nobody else's. Gone already is as good.
    unsafe { libc::kill(target, signal) };
}

/// A directory, open only to be shown elsewhere. No part of its path may be a symbolic link.
pub fn open_directory(path: &str) -> Result<OwnedFd, String> {
    let name = CString::new(path).map_err(|_| "a zero byte in a path".to_owned())?;
    // SAFETY: an open_how of zeros is a valid one.
    let mut how: libc::open_how = unsafe { zeroed() };
    how.flags = (libc::O_PATH | libc::O_DIRECTORY | libc::O_CLOEXEC) as u64;
    how.resolve = libc::RESOLVE_NO_SYMLINKS;
    // SAFETY: the path ends in zero; the structure outlives the call, and its true size is given.
    let made = unsafe {
        libc::syscall(
            libc::SYS_openat2,
            libc::AT_FDCWD,
            name.as_ptr(),
            &raw const how,
            size_of::<libc::open_how>(),
        )
    };
    match i32::try_from(made) {
        // SAFETY: just made, and owned by nobody else.
        Ok(made) if made >= 0 => Ok(unsafe { OwnedFd::from_raw_fd(made) }),
        _ => Err(match Error::last_os_error() {
            error if error.raw_os_error() == Some(libc::ELOOP) => {
                format!("a symbolic link has come into the way to {path}")
            }
            error => format!("cannot open {path}: {error}"),
        }),
    }
}

/// The descriptor stays open, under its number, for the program that follows.
pub fn keep_open(descriptor: &impl AsRawFd) -> Result<(), String> {
    // SAFETY: takes numbers only; the descriptor is open.
    let result = unsafe { libc::fcntl(descriptor.as_raw_fd(), libc::F_SETFD, 0) };
    check(result, "cannot hand a file on")?;
    Ok(())
}

/// The scheduling that every process has by default: neither real time nor before others.
pub fn schedule_as_usual() -> Result<(), String> {
    let usual = libc::sched_param { sched_priority: 0 };
    // SAFETY: the structure outlives the call.
    let result = unsafe { libc::sched_setscheduler(0, libc::SCHED_OTHER, &raw const usual) };
    check(result, "cannot be scheduled as usual")?;
    // SAFETY: takes numbers only. -1 is an answer, too, and no less usual than an error.
    if unsafe { libc::getpriority(libc::PRIO_PROCESS, 0) } < 0 {
        // SAFETY: takes numbers only.
        let result = unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, 0) };
        check(result, "cannot be as nice as usual")?;
    }
    Ok(())
}

/// Sets how much of `resource` this process and what it becomes may have.
pub fn limit(resource: libc::__rlimit_resource_t, most: u64) -> Result<(), String> {
    let limit = libc::rlimit {
        rlim_cur: most,
        rlim_max: most,
    };
    // SAFETY: the structure outlives the call.
    let result = unsafe { libc::setrlimit(resource, &raw const limit) };
    check(result, "cannot set a limit")?;
    Ok(())
}

/// A socket to the network configuration of the present namespace.
pub fn netlink_route() -> Result<OwnedFd, String> {
    // SAFETY: takes numbers only.
    let made = unsafe {
        libc::socket(
            libc::AF_NETLINK,
            libc::SOCK_RAW | libc::SOCK_CLOEXEC,
            libc::NETLINK_ROUTE,
        )
    };
    let made = check(made, "cannot ask the kernel about the network")?;
    // SAFETY: just made, and owned by nobody else.
    Ok(unsafe { OwnedFd::from_raw_fd(made) })
}

/// Goes into a network of its own, with nothing in it.
pub fn leave_network() -> Result<(), String> {
    // SAFETY: takes a number only; this process has one thread.
    let result = unsafe { libc::unshare(libc::CLONE_NEWNET) };
    check(result, "cannot make a network")?;
    Ok(())
}

/// Makes descriptor 0 the terminal of a session of our own: jobs, signals of its keys, and nobody else's.
pub fn take_terminal() -> Result<(), String> {
    // SAFETY: takes nothing.
    let session = unsafe { libc::setsid() };
    check(session, "cannot make a session")?;
    // SAFETY: takes numbers only.
    let taken = unsafe { libc::ioctl(0, libc::TIOCSCTTY, 0) };
    check(taken, "cannot take the terminal")?;
    Ok(())
}

/// This program's own file, open only to be shown elsewhere.
pub fn open_self() -> Result<OwnedFd, String> {
    use std::os::unix::fs::OpenOptionsExt;
    let file = std::fs::OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_PATH)
        .open("/proc/self/exe");
    file.map(OwnedFd::from)
        .map_err(|error| format!("cannot open the launcher itself: {error}"))
}
