//! TCP ports that belong to this test alone, also among tests that run beside it in other processes.
//!
//! Asking the kernel for a free port and closing it again would let two tests get the same one.
//! Instead a test locks a block of ports below the ephemeral range (`flock`, so that a killed test
//! gives its block back).

use std::fs::{File, OpenOptions, Permissions};
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;

use rustix::fs::{FlockOperation, flock};

const FIRST: u16 = 21_000;
const BLOCK: u16 = 50;
const BLOCKS: u16 = 200;

/// A locked block of ports.
#[derive(Debug)]
pub struct Ports {
    next: u16,
    end: u16,
    _lock: File,
}

impl Ports {
    /// Locks a block that no other test has.
    ///
    /// # Panics
    /// When all are taken.
    #[must_use]
    pub fn lock() -> Ports {
        let directory = std::env::temp_dir().join("paas-test-ports");
        std::fs::create_dir_all(&directory).expect("the directory of port locks can be made");
        // For tests of all users. It may be another's, who has done so.
        let _ = std::fs::set_permissions(&directory, Permissions::from_mode(0o1777));
        for block in 0..BLOCKS {
            // A lock takes no right to write. Where everybody may write, not even root may open another's file to create it.
            let path = directory.join(block.to_string());
            let create = |_| OpenOptions::new().create(true).append(true).open(&path);
            let file = File::open(&path)
                .or_else(create)
                .expect("a port lock can be opened");
            if flock(&file, FlockOperation::NonBlockingLockExclusive).is_ok() {
                let first = FIRST + block * BLOCK;
                return Ports {
                    next: first,
                    end: first + BLOCK,
                    _lock: file,
                };
            }
        }
        panic!("no free block of ports: {BLOCKS} tests run at once?");
    }

    /// The next port of the block that can be bound now.
    ///
    /// # Panics
    /// When the block is used up.
    pub fn take(&mut self) -> u16 {
        self.take_run(1)
    }

    /// The first of `count` ports in a row that can be bound now.
    ///
    /// # Panics
    /// When the block is used up.
    pub fn take_run(&mut self, count: u16) -> u16 {
        let mut first = self.next;
        while first + count <= self.end {
            match (first..first + count)
                .rev()
                .find(|port| TcpListener::bind(("127.0.0.1", *port)).is_err())
            {
                Some(taken) => first = taken + 1,
                None => {
                    self.next = first + count;
                    return first;
                }
            }
        }
        panic!("the test's {BLOCK} ports are used up");
    }
}
