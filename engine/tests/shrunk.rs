//! A block device that becomes shorter while it is open: what is lost is said to be a lost
//! device, not the end of a file or a lack of space.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a test says what it saw")]

#[path = "../src/target/loop_device.rs"]
mod loop_device;

use std::process::Command;

use mfio_core::{AlignedBuf, Error, ErrorKind, block_on};
use mfio_engine::ring::Ring;
use mfio_engine::ring::kernel::{KernelConfig, KernelRing};
use mfio_engine::ring::threads::ThreadRing;
use mfio_engine::{Config, DirectMode, OpenOptions, Shard};
use nix::errno::Errno;

use loop_device::Loop;

fn page() -> AlignedBuf {
    AlignedBuf::new(4096, 4096)
}

fn shrinks_under<R: Ring>(ring: R, direct: DirectMode) {
    let image = tempfile::NamedTempFile::new_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    image.as_file().set_len(8 << 20).unwrap();
    let Some(device) = Loop::over(image.path(), &[]) else { return };
    let shard = Shard::with_ring(ring, &Config::new()).unwrap();
    let options = OpenOptions::new().write(true).allow_device_write(true).direct(direct);
    let file = shard.open(device.path(), &options).unwrap();
    let read = |at| block_on(&shard, file.read_exact_at(at, page())).unwrap().0;
    let write = |at| block_on(&shard, file.write_all_at(at, page())).unwrap().0;
    write(0).unwrap();
    write(6 << 20).unwrap();

    image.as_file().set_len(4 << 20).unwrap();
    let told = Command::new("losetup").arg("--set-capacity").arg(device.path()).status();
    assert!(told.unwrap().success());
    let gone = Error::os(Errno::ENODEV as i32);
    read(0).unwrap();
    write(0).unwrap();
    for at in [4 << 20, 6 << 20] {
        assert_eq!(read(at).unwrap_err().error, gone, "read at {at}");
        assert_eq!(write(at).unwrap_err().error, gone, "write at {at}");
    }
    for at in [4 << 20, 6 << 20] {
        let page = || shard.arena().alloc(4096).unwrap();
        for chain in [file.chain().read_at(at, page()), file.chain().write_at(at, page())] {
            let (ended, _) = block_on(&shard, chain.commit()).unwrap();
            assert_eq!(ended.unwrap_err().io.error, gone, "step at {at}");
        }
    }
    // What was never there is what it was.
    assert_eq!(read(8 << 20).unwrap_err().error.kind(), ErrorKind::UnexpectedEof);
    assert_ne!(write(8 << 20).unwrap_err().error, gone);
}

#[test]
fn f47_device_that_shrank_is_gone_where_it_ended() {
    shrinks_under(ThreadRing::new(2, 8).unwrap(), DirectMode::Direct);
    match KernelRing::new(&KernelConfig::new(8)) {
        Ok(ring) => shrinks_under(ring, DirectMode::Direct),
        Err(error) => println!("SKIP kernel ring: {error}"),
    }
}
