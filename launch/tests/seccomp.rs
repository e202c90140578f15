//! What the seccomp filter answers, by running its program as the kernel would: for both architectures, on any machine.

#[path = "../seccomp/compile.rs"]
mod compile;

const LIST: &str = include_str!("../seccomp/allowed.txt");
const X86_64: u32 = 0xc000_003e;
const AARCH64: u32 = 0xc000_00b7;
const ALLOW: u32 = 0x7fff_0000;
const ENOSYS: u32 = 0x0005_0000 | 38;
const KILL_PROCESS: u32 = 0x8000_0000;

/// A system call as the filter sees it.
#[derive(Clone, Copy)]
struct Call {
    architecture: u32,
    number: u32,
    arguments: [u64; 6],
}

impl Call {
    /// The 32 bits at `offset` of the kernel's `seccomp_data`.
    fn word(self, offset: u32) -> u32 {
        match offset {
            0 => self.number,
            4 => self.architecture,
            16.. => {
                let argument = self.arguments[(offset as usize - 16) / 8];
                (if offset.is_multiple_of(8) {
                    argument
                } else {
                    argument >> 32
                }) as u32
            }
            _ => panic!("the filter looks at byte {offset}"),
        }
    }
}

/// The part of classic BPF that seccomp filters are made of.
fn run(program: &[u8], call: Call) -> u32 {
    let mut accumulator = 0_u32;
    let mut next = 0;
    loop {
        let at = &program[next * 8..next * 8 + 8];
        let code = u16::from_le_bytes([at[0], at[1]]);
        let value = u32::from_le_bytes([at[4], at[5], at[6], at[7]]);
        next += 1;
        let mut jump = |taken: bool| next += usize::from(if taken { at[2] } else { at[3] });
        match code {
            0x20 => accumulator = call.word(value),
            0x54 => accumulator &= value,
            0x05 => next += value as usize,
            0x15 => jump(accumulator == value),
            0x25 => jump(accumulator > value),
            0x35 => jump(accumulator >= value),
            0x06 => return value,
            _ => panic!("instruction {code:#x}"),
        }
    }
}

fn x86_64(number: u32, arguments: &[u64]) -> u32 {
    let filter = compile::compile(LIST, "x86_64").unwrap();
    answer(&filter, X86_64, number, arguments)
}

fn aarch64(number: u32, arguments: &[u64]) -> u32 {
    let filter = compile::compile(LIST, "aarch64").unwrap();
    answer(&filter, AARCH64, number, arguments)
}

fn answer(filter: &[u8], architecture: u32, number: u32, given: &[u64]) -> u32 {
    let mut arguments = [0; 6];
    arguments[..given.len()].copy_from_slice(given);
    run(
        filter,
        Call {
            architecture,
            number,
            arguments,
        },
    )
}

#[test]
fn what_a_site_needs_is_allowed() {
    // read, openat, execve, futex, sendmsg, epoll_wait, clone of a thread
    for number in [0, 257, 59, 202, 46, 232] {
        assert_eq!(x86_64(number, &[]), ALLOW, "{number}");
    }
    assert_eq!(x86_64(56, &[0x3d_0f00]), ALLOW);
    // read, openat, execve, futex, clone
    for number in [63, 56, 221, 98, 220] {
        assert_eq!(aarch64(number, &[]), ALLOW, "{number}");
    }
}

#[test]
fn what_would_lead_out_does_not_exist() {
    // mount, ptrace, bpf, unshare, setns, keyctl, io_uring_setup, clone3, userfaultfd, kexec_load, open_by_handle_at, sync
    for number in [165, 101, 321, 272, 308, 250, 425, 435, 323, 246, 304, 162] {
        assert_eq!(x86_64(number, &[]), ENOSYS, "{number}");
    }
    for number in [40, 117, 280, 97, 268, 219, 425, 435, 282, 104, 265] {
        assert_eq!(aarch64(number, &[]), ENOSYS, "{number}");
    }
}

#[test]
fn what_is_allowed_in_part_is_looked_at() {
    let new_user = 0x1000_0000;
    for (number, arguments, answer) in [
        (56, vec![new_user | 17], ENOSYS),
        (56, vec![0x2000_0000], ENOSYS),
        // The upper half of a flag word is not what the kernel reads.
        (56, vec![1 << 40], ALLOW),
        (16, vec![0, 0x5412], ENOSYS),
        (16, vec![0, 0x541c], ENOSYS),
        // The kernel reads 32 bits of an ioctl's number: more of them change nothing.
        (16, vec![0, 0x1_0000_5412], ENOSYS),
        (16, vec![0, 0x5401], ALLOW),
        (41, vec![1, 1, 0], ALLOW),
        (41, vec![2, 1, 6], ALLOW),
        (41, vec![2, 1, 132], ENOSYS),
        (41, vec![16, 3, 0], ALLOW),
        (41, vec![16, 3, 12], ENOSYS),
        (41, vec![38, 5, 0], ENOSYS),
        (41, vec![17, 3, 0], ENOSYS),
        (16, vec![0, 0x5423], ENOSYS),
        // setrlimit, prlimit64: of cores, and only to ask; a pointer is looked at as a whole.
        (160, vec![4, 0x7fff_0000_0000], ENOSYS),
        (160, vec![7, 0x7fff_0000_0000], ALLOW),
        (302, vec![0, 4, 0x7fff_0000_0000], ENOSYS),
        (302, vec![0, 4, 0x1_0000_0000], ENOSYS),
        (302, vec![0, 4, 0, 0x7fff_0000_0000], ALLOW),
        (302, vec![0, 7, 0x7fff_0000_0000], ALLOW),
        (135, vec![0xffff_ffff], ALLOW),
        (135, vec![0x0004_0000], ENOSYS),
    ] {
        assert_eq!(
            x86_64(number, &arguments),
            answer,
            "{number} {arguments:x?}"
        );
    }
}

#[test]
fn another_abi_does_not_lead_around_it() {
    // x32: `read` and `mount` with the bit that marks the ABI.
    assert_eq!(x86_64(0x4000_0000, &[]), ENOSYS);
    assert_eq!(x86_64(0x4000_0000 | 165, &[]), ENOSYS);
    // 32 bits: another architecture to the kernel.
    let filter = compile::compile(LIST, "x86_64").unwrap();
    assert_eq!(answer(&filter, 0x4000_0003, 3, &[]), KILL_PROCESS);
}

#[test]
fn a_list_with_a_mistake_does_not_compile() {
    for list in [
        "read\nread",
        "raed",
        "read arg0 = 1",
        "read arg9 == 1",
        "read arg0 == 1\nread",
    ] {
        assert!(compile::compile(list, "x86_64").is_err(), "{list}");
    }
    assert!(compile::compile("read\nx86_64: open", "aarch64").is_ok());
}
