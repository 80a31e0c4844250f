//! Devices that are not this user's: what may be done says how far it went and what it takes.

use std::fs::{Permissions, set_permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use mfio_core::block_on;
use mfio_engine::ring::Poll;
use mfio_engine::ring::auto::{AutoConfig, AutoRing, Backend};
use mfio_engine::{Config, DirectMode, OpenOptions, Shard};

use crate::device::{Guest, destructive, page};
use crate::forbidden::{CHILD, as_nobody};

/// Both are of root alone; everybody may use the character device; everybody may use both.
const NOTHING: u8 = 10;
const GENERIC: u8 = 11;
const BOTH: u8 = 12;

const TEST: &str = "permission::f48_device_of_somebody_else_is_refused_with_what_it_takes";

/// The mode of a device while this lives.
struct Mode<'a>(&'a Path);

impl<'a> Mode<'a> {
    fn of(path: &'a Path, mode: u32) -> Self {
        set_permissions(path, Permissions::from_mode(mode)).unwrap();
        Self(path)
    }
}

impl Drop for Mode<'_> {
    fn drop(&mut self) {
        set_permissions(self.0, Permissions::from_mode(0o600)).unwrap();
    }
}

#[test]
fn f48_device_of_somebody_else_is_refused_with_what_it_takes() {
    if let Ok(allowed) = std::env::var(CHILD) {
        return as_somebody_else(allowed.parse().unwrap());
    }
    let Some(guest) = Guest::alone() else { return };
    let (Some(generic), Some(block)) = (guest.device("MFIO_NG4K"), guest.device("MFIO_NVME4K"))
    else {
        return;
    };
    for (allowed, of_generic, of_block) in
        [(NOTHING, 0o600, 0o600), (GENERIC, 0o666, 0o600), (BOTH, 0o666, 0o666)]
    {
        let _modes = (Mode::of(&generic, of_generic), Mode::of(&block, of_block));
        as_nobody(TEST, allowed);
    }
}

/// Linux 6.2 looks at how the device is open; before, commands take a capability.
fn takes_commands_of_anybody() -> bool {
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    let mut numbers = release.split('.').map_while(|number| number.parse::<u32>().ok());
    (numbers.next(), numbers.next()) >= (Some(6), Some(2))
}

fn as_somebody_else(allowed: u8) {
    let device = |name| PathBuf::from(std::env::var_os(name).unwrap());
    let (generic, block) = (device("MFIO_NG4K"), device("MFIO_NVME4K"));
    let ring = AutoRing::new(Backend::Auto, &AutoConfig::new(8)).unwrap();
    let shard = Shard::with_ring(ring, &Config::new()).unwrap();
    let reading = OpenOptions::new().direct(DirectMode::Direct);
    let refused = |path: &Path, options: &OpenOptions, expected: &[&str]| {
        let error = shard.open(path, options).unwrap_err().to_string();
        println!("{allowed}: {error}");
        for expected in expected.iter().copied().chain([path.to_str().unwrap()]) {
            assert!(error.contains(expected), "{expected}: {error}");
        }
    };
    let grant = ["EACCES", "grant this user access"];
    let writing = destructive(DirectMode::Direct);
    if allowed != BOTH {
        refused(&block, &reading, &grant);
        refused(&block, &writing, &grant);
    }
    if allowed == NOTHING {
        refused(&generic, &reading, &grant);
        refused(&generic, &writing, &[block.to_str().unwrap(), "EACCES", "grant this user"]);
        return;
    }
    if !takes_commands_of_anybody() {
        refused(&generic, &reading, &["is not permitted", "CAP_SYS_ADMIN"]);
        if allowed == BOTH {
            refused(&generic, &writing, &["is not permitted", "CAP_SYS_ADMIN"]);
        }
        return;
    }
    for poll in [Poll::Interrupt, Poll::Polled] {
        let file = shard.open(&generic, &reading.poll(poll)).unwrap();
        block_on(&file, file.read_exact_at(0, page(0))).unwrap().0.unwrap();
        let error = block_on(&file, file.write_all_at(0, page(1))).unwrap().0.unwrap_err();
        assert_eq!(error.error.errno(), Some(libc::EBADF), "{error}");
    }
    if allowed == GENERIC {
        // Nobody can tell what the namespace carries, or keep others away from it.
        refused(&generic, &writing, &["EACCES", block.to_str().unwrap()]);
        return;
    }
    for (path, poll) in
        [(&generic, Poll::Interrupt), (&generic, Poll::Polled), (&block, Poll::Interrupt)]
    {
        let file = shard.open(path, &writing.poll(poll)).unwrap();
        let (done, _) = block_on(&file, file.write_durable_at(0, page(8))).unwrap();
        done.unwrap();
        let (done, bytes) = block_on(&file, file.read_exact_at(0, page(0))).unwrap();
        done.unwrap();
        assert!(bytes.iter().all(|&byte| byte == 8));
    }
}
