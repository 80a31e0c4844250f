//! F43, F47: a device loses its second half under load. The stage is a loop device of 64 MiB,
//! and its backing file, `MFIO_FAULT_IMAGE`, which this program cuts.
//!
//! First only the file becomes shorter: reads behind its end fail with a real `EIO`, while the
//! device keeps its size. Then the device is told, and ends there. All the time many ops are
//! in flight on both sides of the cut.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::rc::Rc;

use mfio_core::{AlignedBuf, ErrorKind, block_on};
use mfio_engine::{DirectMode, Durability, File, Shard};

use crate::stage::{Skip, assert_stamped, device_options, path, shards, stamped_at, told};
use crate::stamped::BLOCK;

const DEVICE: u64 = 64 << 20;
const CUT: u64 = DEVICE / 2;
/// So that a read can lie across the cut.
const READ: usize = 64 << 10;
const READERS: u64 = 32;
const WRITERS: u64 = 8;
/// What the writers change; everything behind it is of write 1.
const WRITTEN: u64 = WRITERS * 64 * BLOCK as u64;
const PHASE_NS: u64 = 400_000_000;
const DRAIN_NS_MAX: u64 = 5_000_000_000;

/// What the device is like, as the readers may expect it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Phase {
    Whole,
    /// It becomes something else at the moment: both answers are right.
    Changing,
    /// The file behind it is short.
    Holed,
    Shrunk,
}

struct Load {
    file: File,
    phase: Cell<Phase>,
    stop: Cell<bool>,
    started: Cell<u64>,
    ended: Cell<u64>,
    /// Failures by kind and errno.
    failed: RefCell<BTreeMap<String, u64>>,
    across: Cell<u64>,
}

fn next(state: &mut u64, below: u64) -> u64 {
    *state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
    (*state >> 33) % below
}

impl Load {
    fn note(&self, what: String) {
        *self.failed.borrow_mut().entry(what).or_default() += 1;
    }

    /// One read anywhere; what lies before the cut has to come, whatever lies behind it.
    async fn read(&self, at: u64) {
        let before = self.phase.get();
        self.started.set(self.started.get() + 1);
        let (result, bytes) = self.file.read_exact_at(at, AlignedBuf::new(READ, BLOCK)).await;
        self.ended.set(self.ended.get() + 1);
        let end = at + READ as u64;
        let Err(error) = result else {
            if at >= WRITTEN {
                assert_stamped(&bytes, at, 1);
            }
            assert!(end <= CUT || before < Phase::Holed, "nothing is left behind the cut");
            return;
        };
        assert!(self.phase.get() != Phase::Whole, "{error}");
        assert!(end > CUT, "the other half is well: {error}");
        let done = usize::try_from(error.done_bytes).unwrap();
        assert!(done < READ);
        assert_stamped(&bytes[..done / BLOCK * BLOCK], at, 1);
        if before == self.phase.get() && before != Phase::Changing {
            // All that is there, and nothing else.
            assert_eq!(error.done_bytes, CUT.saturating_sub(at), "{error}");
            self.across.set(self.across.get() + u64::from(done > 0));
        }
        let (kind, errno) = (error.error.kind(), error.error.errno());
        let told = kind == ErrorKind::Os && matches!(errno, Some(libc::EIO | libc::ENODEV));
        assert!(told, "{error}");
        self.note(format!("{kind:?}, errno {errno:?}"));
    }

    async fn reader(self: Rc<Self>, mut seed: u64) {
        while !self.stop.get() {
            let span = (DEVICE - READ as u64) / BLOCK as u64;
            let at = match next(&mut seed, 8) {
                // Across the cut, more often than chance has it.
                0 => CUT - BLOCK as u64 * (1 + next(&mut seed, 15)),
                _ => next(&mut seed, span) * BLOCK as u64,
            };
            self.read(at).await;
        }
    }

    /// Writes to blocks of its own before the cut, and reads them: none of that may fail.
    async fn writer(self: Rc<Self>, lane: u64) {
        let mut seed = lane;
        for sequence in 2.. {
            if self.stop.get() {
                return;
            }
            let at = (lane + WRITERS * next(&mut seed, 64)) * BLOCK as u64;
            self.started.set(self.started.get() + 1);
            let bytes = stamped_at(at, sequence, BLOCK);
            let (written, mut bytes) = if sequence % 8 == 0 {
                self.file.write_durable_at(at, bytes).await
            } else {
                self.file.write_all_at(at, bytes).await
            };
            written.expect("a neighbour keeps its result");
            bytes.fill(0);
            let (read, bytes) = self.file.read_exact_at(at, bytes).await;
            read.expect("a neighbour keeps its result");
            assert_stamped(&bytes, at, sequence);
            self.ended.set(self.ended.get() + 1);
        }
    }
}

fn spawn(shard: &Shard, load: &Rc<Load>) -> Vec<mfio_engine::JoinHandle<()>> {
    let readers = (0..READERS).map(|seed| shard.spawn(Rc::clone(load).reader(seed)).unwrap());
    let readers: Vec<_> = readers.collect();
    let writers = (0..WRITERS).map(|lane| shard.spawn(Rc::clone(load).writer(lane)).unwrap());
    readers.into_iter().chain(writers).collect()
}

fn tell_the_device(device: &Path) {
    let told = Command::new("losetup").arg("--set-capacity").arg(device).status().unwrap();
    assert!(told.success());
}

async fn shrink_under_load(shard: &Shard, load: &Rc<Load>, device: &Path, image: &Path) {
    let tasks = spawn(shard, load);
    shard.sleep_ns(PHASE_NS).await;
    assert!(load.failed.borrow().is_empty());
    load.phase.set(Phase::Changing);
    std::fs::OpenOptions::new().write(true).open(image).unwrap().set_len(CUT).unwrap();
    // What was in flight at that moment is through after this.
    shard.sleep_ns(PHASE_NS / 4).await;
    load.phase.set(Phase::Holed);
    shard.sleep_ns(PHASE_NS).await;
    let holed: u64 = load.failed.borrow().values().sum();
    assert!(holed > 0 && load.across.get() > 0, "the cut was met");
    let real = load.failed.borrow().keys().all(|what| what.contains("errno Some(5)"));
    assert!(real, "a real EIO: {:?}", load.failed.borrow());
    load.phase.set(Phase::Changing);
    tell_the_device(device);
    shard.sleep_ns(PHASE_NS / 4).await;
    load.phase.set(Phase::Shrunk);
    shard.sleep_ns(PHASE_NS).await;
    // Where it was when it was opened, it is gone, and that is not a lost flush.
    let (written, _) = load.file.write_all_at(CUT, stamped_at(CUT, 1, BLOCK)).await;
    let error = written.expect_err("behind the end");
    assert_eq!(error.error.errno(), Some(libc::ENODEV), "{error}");
    load.file.sync(Durability::Data).await.expect("what is there is durable");
    assert!(!load.file.is_poisoned());
    load.stop.set(true);
    for task in tasks {
        task.await.unwrap();
    }
    assert_eq!(load.started.get(), load.ended.get(), "every op has completed");
}

fn shrink(name: &str, shard: &Shard, device: &Path, image: &Path) {
    std::fs::OpenOptions::new().write(true).open(image).unwrap().set_len(DEVICE).unwrap();
    tell_the_device(device);
    let file = shard.open(device, &device_options(DirectMode::Direct)).unwrap();
    assert_eq!(file.geometry().len_bytes, DEVICE);
    for at in (0..DEVICE).step_by(1 << 20) {
        block_on(shard, file.write_all_at(at, stamped_at(at, 1, 1 << 20))).unwrap().0.unwrap();
    }
    block_on(shard, file.sync(Durability::Full)).unwrap().unwrap();
    let load = Rc::new(Load {
        file,
        phase: Cell::new(Phase::Whole),
        stop: Cell::new(false),
        started: Cell::new(0),
        ended: Cell::new(0),
        failed: RefCell::default(),
        across: Cell::new(0),
    });
    shard.block_on(shrink_under_load(shard, &load, device, image)).unwrap();
    // And a shutdown in the middle of it.
    load.stop.set(false);
    let _tasks = spawn(shard, &load);
    shard.block_on(shard.sleep_ns(PHASE_NS / 8)).unwrap();
    let (in_flight, from_ns) = (shard.in_flight(), shard.now_ns());
    assert_eq!(shard.shutdown(), 0, "everything came back");
    let took_ns = shard.now_ns() - from_ns;
    assert!(took_ns <= DRAIN_NS_MAX, "{took_ns} ns to drain");
    println!(
        "{name}: {} ops, failed {:?}, {} across the cut; {in_flight} in flight drained in {} us",
        load.ended.get(),
        load.failed.borrow(),
        load.across.get(),
        took_ns / 1000
    );
}

pub(crate) fn check() -> Result<(), Skip> {
    let (device, image) = (path(), PathBuf::from(told("MFIO_FAULT_IMAGE")));
    for (name, shard) in shards() {
        shrink(name, &shard, &device, &image);
    }
    Ok(())
}
