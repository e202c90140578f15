"""A site that tries to get out. Each attempt answers in one line what came of it: "done", a fact, or the name of the refusal.

The same attempts run outside of any sandbox, for comparison: `python3 app.py ATTEMPT ARGUMENT...`
"""
import ctypes
import errno
import json
import os
import platform
import resource
import select
import signal
import socket
import struct
import subprocess
import sys
import time

libc = ctypes.CDLL(None, use_errno=True)
ATTEMPTS = {}


def attempt(function):
    ATTEMPTS[function.__name__] = function
    return function


def run(name, *arguments):
    """What came of an attempt."""
    try:
        answer = ATTEMPTS[name](*arguments)
        return "done" if answer is None else str(answer)
    except OSError as error:
        return errno.errorcode.get(error.errno, str(error))


# Files


@attempt
def read(path):
    with open(path, "rb") as file:
        file.read(1)


@attempt
def write(path):
    with open(path, "ab"):
        pass


@attempt
def listing(path):
    return " ".join(sorted(os.listdir(path)))


@attempt
def contents(path):
    with open(path, "rb") as file:
        return file.read().decode(errors="replace")


@attempt
def link(target, path):
    os.symlink(target, path)


@attempt
def hard_link(target, path):
    os.link(target, path)


@attempt
def device(path):
    """The memory of the machine, as a device of one's own."""
    os.mknod(path, 0o666 | 0o020000, os.makedev(1, 1))


@attempt
def fill(directory, most):
    """Writes until there is no more room, then makes room again; answers how many MiB it had, and what stopped it."""
    block, written = bytes(1 << 20), 0
    path = os.path.join(directory, "filled")
    try:
        with open(path, "wb", buffering=0) as file:
            while written < int(most):
                file.write(block)
                written += 1
        stopped = "nothing"
    except OSError as error:
        stopped = errno.errorcode[error.errno]
    finally:
        os.unlink(path)
    return "%d %s" % (written, stopped)


@attempt
def program(*words):
    """Its output, or how it ended."""
    done = subprocess.run(words, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    return done.stdout.decode(errors="replace").strip() or "exit %d" % done.returncode


@attempt
def descriptors():
    """What is open here, and in the first process of the sandbox."""
    found = []
    for pid in ("self", "1"):
        for number in sorted(os.listdir("/proc/%s/fd" % pid), key=int):
            try:
                found.append("%s:%s=%s" % (pid, number, os.readlink("/proc/%s/fd/%s" % (pid, number))))
            except OSError:
                pass  # the one that lists
    return "\n".join(found)


# Processes


@attempt
def processes():
    """Who is to be seen: each one's parent and command."""
    seen = []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open("/proc/%s/stat" % pid) as stat, open("/proc/%s/cmdline" % pid) as command:
                seen.append("%s %s %s" % (pid, stat.read().rpartition(")")[2].split()[1], command.read().replace("\0", " ")))
        except OSError:
            pass
    return "\n".join(seen)


@attempt
def kill(pid):
    os.kill(int(pid), 0)


@attempt
def kill_all():
    """Every process there is, but for this one."""
    os.kill(-1, signal.SIGKILL)


@attempt
def status(field, pid="self"):
    with open("/proc/%s/status" % pid) as file:
        for line in file:
            name, _, value = line.partition(":")
            if name == field:
                return value.strip()


@attempt
def limit(name):
    return "%d %d" % resource.getrlimit(getattr(resource, name))


@attempt
def raise_core():
    """Cores of any size again, or at least the handler that the machine may have for them."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))


@attempt
def crash(directory):
    """A process that dumps its core where it stands, if it may; answers what lies there afterwards."""
    if os.fork() == 0:
        os.chdir(directory)
        os.kill(os.getpid(), signal.SIGABRT)
    _, ended = os.wait()
    return "signal %d, dumped %s, there is: %s" % (os.WTERMSIG(ended), os.WCOREDUMP(ended), listing(directory))


@attempt
def fork_bomb():
    """Forks until that is refused; the children stay. Answers how many they are, and the refusal."""
    children = 0
    while children < 20000:
        try:
            if os.fork() == 0:
                os.closerange(0, 200)  # or the answer would not end
                while True:
                    signal.pause()
            children += 1
        except OSError as error:
            return "%d %s" % (children, errno.errorcode[error.errno])
    return "%d nothing" % children


@attempt
def memory_bomb(mebibytes):
    held = []
    for _ in range(int(mebibytes)):
        held.append(b"x" * (1 << 20))
    return "%d" % len(held)


def until(end, work):
    """A child that works until then."""
    child = os.fork()
    if child == 0:
        os.closerange(0, 200)
        try:
            while time.monotonic() < end:
                work()
        finally:
            os._exit(0)
    return child


def calculate():
    for _ in range(100000):
        pass


def touch():
    """Takes memory, page by page, and gives it back."""
    held = bytearray(64 << 20)
    held[::4096] = bytes(len(held[::4096]))


def fork():
    try:
        child = os.fork()
    except OSError:
        return
    if child == 0:
        os._exit(0)
    os.waitpid(child, 0)


@attempt
def harass(seconds, calculating, touching, forking):
    """So many processes of each kind that use up the machine for a while; answers when they have ended."""
    end = time.monotonic() + float(seconds)
    works = [calculate] * int(calculating) + [touch] * int(touching) + [fork] * int(forking)
    for child in [until(end, work) for work in works]:
        os.waitpid(child, 0)
    return len(works)


# Sockets


@attempt
def unix(path):
    """`@NAME` is an abstract one."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(path.replace("@", "\0", 1) if path.startswith("@") else path)


LISTENING = []


@attempt
def listen(path):
    """From now on, for as long as this process lives."""
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(path.replace("@", "\0", 1))
    listener.listen()
    LISTENING.append(listener)


@attempt
def tcp(host, port):
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as connection:
        connection.settimeout(5)
        connection.connect((host, int(port)))


@attempt
def raw_socket(family, kind, protocol):
    socket.socket(int(family), int(kind), int(protocol)).close()


@attempt
def sockets():
    """All unix sockets that the kernel shows."""
    with open("/proc/net/unix") as file:
        return " ".join(sorted(line.split()[7] for line in file.read().splitlines()[1:] if len(line.split()) > 7))


@attempt
def interfaces():
    return " ".join(sorted(name for _, name in socket.if_nameindex()))


# System calls, by what they would open. The kernel's numbers, on x86-64 and elsewhere.
CALLS = {
    "ptrace": (101, 117),
    "process_vm_readv": (310, 270),
    "process_vm_writev": (311, 271),
    "mount": (165, 40),
    "umount2": (166, 39),
    "pivot_root": (155, 41),
    "chroot": (161, 51),
    "open_tree": (428, 428),
    "move_mount": (429, 429),
    "fsopen": (430, 430),
    "mount_setattr": (442, 442),
    "unshare": (272, 97),
    "setns": (308, 268),
    "clone3": (435, 435),
    "keyctl": (250, 219),
    "add_key": (248, 217),
    "request_key": (249, 218),
    "io_uring_setup": (425, 425),
    "bpf": (321, 280),
    "perf_event_open": (298, 241),
    "userfaultfd": (323, 282),
    "name_to_handle_at": (303, 264),
    "open_by_handle_at": (304, 265),
    "fanotify_init": (300, 262),
    "pidfd_getfd": (438, 438),
    "kcmp": (312, 272),
    "init_module": (175, 105),
    "finit_module": (313, 273),
    "delete_module": (176, 106),
    "reboot": (169, 142),
    "swapon": (167, 224),
    "acct": (163, 89),
    "syslog": (103, 116),
    "sethostname": (170, 161),
    "settimeofday": (164, 170),
    "sync": (162, 81),
}


def raw(name, *arguments):
    number = CALLS[name][platform.machine() != "x86_64"]
    ctypes.set_errno(0)
    result = libc.syscall(ctypes.c_long(number), *map(ctypes.c_long, arguments))
    if result < 0:
        raise OSError(ctypes.get_errno(), name)
    return result


@attempt
def call(name, *arguments):
    """In a process of its own, which ends: some of them would change this one for good."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            raw(name, *map(int, arguments))
            answer = "done"
        except OSError as error:
            answer = errno.errorcode.get(error.errno, str(error.errno))
        os.write(writer, answer.encode())
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader) as answer:
        said = answer.read()
    os.waitpid(child, 0)
    return said or "killed"


@attempt
def namespace(flag):
    """A child in a namespace of its own, by `clone`, which is allowed without one."""
    clone, mask = (56, 220)[platform.machine() != "x86_64"], int(flag, 16)
    result = libc.syscall(ctypes.c_long(clone), ctypes.c_long(mask | signal.SIGCHLD), *[ctypes.c_long(0)] * 4)
    if result == 0:
        os._exit(0)
    if result < 0:
        raise OSError(ctypes.get_errno(), "clone")
    os.waitpid(result, 0)


@attempt
def type_into_terminal(request):
    """As if the one in front of the terminal had typed it (TIOCSTI, TIOCLINUX, TIOCSETD)."""
    ours, theirs = os.openpty()
    buffer = ctypes.create_string_buffer(struct.pack("i", 0))
    ctypes.set_errno(0)
    result = libc.ioctl(theirs, ctypes.c_ulong(int(request, 16)), buffer)
    error = ctypes.get_errno()
    os.close(ours), os.close(theirs)
    if result < 0:
        raise OSError(error, "ioctl")


@attempt
def uname():
    return os.uname().nodename


@attempt
def flood_descriptor(number, seconds):
    """Writes to a descriptor as fast as it goes; answers how many bytes went."""
    end, written, block = time.monotonic() + float(seconds), 0, b"\5" * 4096
    os.set_blocking(int(number), False)
    while time.monotonic() < end:
        try:
            written += os.write(int(number), block)
        except BlockingIOError:
            select.select([], [int(number)], [], 0.05)
    return written


def application(environ, start_response):
    said = environ["wsgi.input"].read()
    answer = run(*json.loads(said)) if said else "alive"
    start_response("200 OK", [("Content-Type", "text/plain"), ("X-Uid", str(os.getuid()))])
    return [answer.encode()]


if __name__ == "__main__":
    print(run(*sys.argv[1:]))
