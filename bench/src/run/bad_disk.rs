//! A disk that lies, under the real worker: what `verify` must find, and what it must call it.
//!
//! Data flow: job text -> plan -> worker on a disk in memory that damages one write -> the faults
//! that the worker reports.
//!
//! Not here: blocks by themselves (`verify::tests`), the built program (`tests/verify.rs`).

use std::cell::RefCell;
use std::io;
use std::rc::Rc;
use std::sync::Arc;

use super::job::{Assignment, equip};
use super::lane::Lane;
use super::phases::passes;
use super::worker::Worker;
use crate::ioengine::{Event, Io, IoEngine, Operation, Queued, Setup, SlotBuffers, Traits};
use crate::measure::{Recorder, Wanted};
use crate::plan::survey;

/// What becomes of the write that is damaged.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Damage {
    /// One bit of it is another.
    Flip,
    /// It goes elsewhere, by so many bytes.
    Misdirect(i64),
    /// It never arrives: what was there stays.
    Lose,
    /// Only its first 512 bytes arrive.
    Tear,
    /// Zeros arrive.
    Zero,
}

/// Bytes, and which write is damaged and how.
struct Platters {
    bytes: Vec<u8>,
    damage: Option<(u64, Damage)>,
    writes: u64,
}

impl Platters {
    fn write(&mut self, data: &[u8], offset: usize) {
        self.writes += 1;
        let struck = self.damage.filter(|(number, _)| *number == self.writes);
        let put = |bytes: &mut Vec<u8>, at: usize, data: &[u8]| {
            bytes[at..at + data.len()].copy_from_slice(data);
        };
        match struck.map(|(_, damage)| damage) {
            None => put(&mut self.bytes, offset, data),
            Some(Damage::Flip) => {
                put(&mut self.bytes, offset, data);
                self.bytes[offset + 1234] ^= 0x10;
            }
            Some(Damage::Misdirect(by)) => {
                let by = isize::try_from(by).unwrap();
                put(&mut self.bytes, offset.checked_add_signed(by).unwrap(), data);
            }
            Some(Damage::Lose) => {}
            Some(Damage::Tear) => put(&mut self.bytes, offset, &data[..512]),
            Some(Damage::Zero) => self.bytes[offset..offset + data.len()].fill(0),
        }
    }
}

/// An engine on such a disk. At depth 1 it completes on the spot, else in the opposite order.
struct Disk {
    platters: Rc<RefCell<Platters>>,
    buffers: SlotBuffers,
    queued: Vec<Event>,
    inline: bool,
}

impl IoEngine for Disk {
    fn open(_setup: &Setup<'_>) -> io::Result<Self> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn traits(&self) -> Traits {
        Traits::default()
    }

    fn synchronous(&self) -> bool {
        self.inline
    }

    fn buffer(&mut self, slot: u32) -> &mut [u8] {
        self.buffers.slot(slot)
    }

    fn queue(&mut self, io: Io) -> Queued {
        let mut platters = self.platters.borrow_mut();
        let (at, len) = (usize::try_from(io.offset_bytes).unwrap(), io.len_bytes as usize);
        let memory = &mut self.buffers.slot(io.slot)[..len];
        match io.operation {
            Operation::Read => memory.copy_from_slice(&platters.bytes[at..at + len]),
            Operation::Write => platters.write(memory, at),
            _ => {}
        }
        let result = i32::try_from(io.len_bytes).unwrap();
        if self.inline {
            return Queued::Done(result);
        }
        self.queued.push(Event { slot: io.slot, result });
        Queued::Pending
    }

    fn commit(&mut self) -> io::Result<()> {
        Ok(())
    }

    fn reap(&mut self, _min: u32, max: u32, events: &mut Vec<Event>) -> io::Result<()> {
        for _ in 0..max {
            events.extend(self.queued.pop());
        }
        Ok(())
    }
}

/// What the jobs of `text` report on such a disk, job by job.
fn reports(text: &str, platters: &Rc<RefCell<Platters>>) -> Vec<Vec<String>> {
    // A file that is never made, in a directory where it could be.
    let place = std::env::temp_dir().display().to_string();
    let text = text.replace("/nowhere", &place).replace("disk", "mfio-bad-disk").replace(' ', "\n");
    let jobs =
        fio_compat::parse_job_text(&text, "bad disk", &crate::machine::Machine).unwrap().jobs;
    let plans = survey(&jobs).unwrap();
    let mut all = Vec::new();
    for (plan, number) in plans.into_iter().zip(1..) {
        let depth = plan.job.iodepth;
        let memory = fio_compat::Memory::default();
        let engine = Disk {
            platters: Rc::clone(platters),
            buffers: SlotBuffers::new(depth, plan.shape.buffer_bytes(), &memory).unwrap(),
            queued: Vec::new(),
            inline: depth == 1,
        };
        let assignment = Assignment {
            plan,
            files: Vec::new().into(),
            number,
            run_seed: 77,
            logs: None,
            recording: None,
        };
        let lane = Lane::new(false);
        let wanted = Wanted { slat: false, clat: false, lat: false };
        let recorder = Recorder::new(wanted);
        let (content, checkers) = equip(&assignment).unwrap();
        let pacing = super::job::pacing(&assignment.plan.job);
        let mut worker =
            Worker::new(engine, (&lane, Arc::clone(&assignment.files)), recorder, content, pacing);
        worker.checkers = checkers;
        passes::<Disk, false>(&mut worker, &assignment);
        let told = worker.mismatches.iter();
        all.push(told.map(|one| format!("{} at {}", one.fault, one.offset_bytes)).collect());
    }
    all
}

fn disk(damage: Option<(u64, Damage)>) -> Rc<RefCell<Platters>> {
    Rc::new(RefCell::new(Platters { bytes: vec![0; 1 << 20], damage, writes: 0 }))
}

/// Job options under which every kind of damage must be found.
const MANNERS: [&str; 9] = [
    "bs=4k iodepth=1",
    "bs=4k iodepth=8",
    "bs=4k iodepth=8 verify_async=3",
    "bs=4k iodepth=4 verify_backlog=8",
    "bs=4k iodepth=4 verify_backlog=8 verify_backlog_batch=3 verify_async=1",
    "bsrange=4k-16k iodepth=4",
    "bsrange=4k-16k iodepth=4 verify_backlog=5",
    "bs=16k verify_interval=4k iodepth=2",
    "bssplit=4k/50:8k/50 iodepth=4 verify_async=2",
];

/// A job that writes its region twice, and its method.
fn job(manner: &str, method: &str) -> String {
    format!(
        "[a] filename=/nowhere/disk rw=randwrite size=256k loops=2 ioengine=io_uring \
         verify={method} {manner}"
    )
}

/// Only once the second pass is under way is there an older block that could stay.
fn strike(damage: Damage, manner: &str) -> Vec<String> {
    let healthy = disk(None);
    assert_eq!(reports(&job(manner, "crc32c"), &healthy), [Vec::<String>::new()], "{manner}");
    let writes = healthy.borrow().writes;
    let number = writes / 2 + writes / 4;
    let mut told = reports(&job(manner, "crc32c"), &disk(Some((number, damage))));
    told.remove(0)
}

#[test]
fn verify_names_a_flipped_bit_in_every_manner() {
    for manner in MANNERS {
        let told = strike(Damage::Flip, manner);
        assert_eq!(told.len(), 1, "{manner}: {told:?}");
        assert!(told[0].starts_with("a flipped bit: byte 1234 is "), "{manner}: {told:?}");
    }
}

#[test]
fn verify_names_a_misdirected_block_in_every_manner() {
    for manner in MANNERS {
        // Outside of the region, so that it is missed where it belongs; the older one is there.
        let told = strike(Damage::Misdirect(512 << 10), manner);
        assert!(
            !told.is_empty() && told.iter().all(|one| one.contains("a stale block")),
            "{told:?}"
        );
        // Inside of it, where it stands in the place of another.
        let told = reports(
            &format!(
                "[a] filename=/nowhere/disk rw=write size=64k {manner} ioengine=io_uring verify=md5"
            ),
            &disk(Some((1, Damage::Misdirect(48 << 10)))),
        );
        // What was misdirected is overwritten later by what belongs there, or it is found.
        let zeroed = told[0].iter().filter(|one| one.contains("a zeroed block")).count();
        assert!(zeroed > 0, "{manner}: {told:?}");
    }
    // The last write lands on an earlier one: what is there is whole, and another's.
    for (manner, writes, by) in [
        ("bs=4k iodepth=1", 16, -(56_i64 << 10)),
        ("bs=4k iodepth=1 verify_backlog=16 verify_async=1", 16, -(56 << 10)),
        ("bs=16k verify_interval=4k verify_async=2 iodepth=2", 4, -(32 << 10)),
    ] {
        let text = format!(
            "[a] filename=/nowhere/disk rw=write size=64k {manner} ioengine=io_uring verify=sha256"
        );
        let told = reports(&text, &disk(Some((writes, Damage::Misdirect(by)))));
        let found = told[0].iter().any(|one| one.contains("a misdirected (misplaced) block"));
        assert!(found, "{manner}: {told:?}");
    }
}

#[test]
fn verify_names_a_stale_block_of_an_older_write_in_every_manner() {
    for manner in MANNERS {
        let told = strike(Damage::Lose, manner);
        assert!(!told.is_empty(), "{manner}");
        // Each pass of a job has its own numbers in the headers: the older one is a number.
        assert!(
            told.iter().all(|one| one.contains("a stale block, its last write was lost")),
            "{told:?}"
        );
    }
}

#[test]
fn verify_names_a_torn_block_in_every_manner() {
    for manner in MANNERS {
        let told = strike(Damage::Tear, manner);
        let torn = |one: &&String| one.contains("a torn block: 3584 bytes from byte 512");
        assert_eq!(told.iter().filter(torn).count(), 1, "{manner}: {told:?}");
        // What was not reached at all is still of the older write.
        let rest = told.iter().filter(|one| !torn(one));
        assert!(rest.into_iter().all(|one| one.contains("a stale block")), "{manner}: {told:?}");
    }
}

#[test]
fn verify_names_a_zeroed_block_in_every_manner() {
    for manner in MANNERS {
        let told = strike(Damage::Zero, manner);
        assert!(!told.is_empty(), "{manner}");
        assert!(told.iter().all(|one| one.contains("a zeroed block")), "{manner}: {told:?}");
    }
}

/// Each method finds each kind of damage that its header or its payload can show.
#[test]
fn verify_finds_damage_on_a_disk_by_every_method() {
    let methods = "crc32c md5 crc64 crc32 crc16 crc7 sha1 sha256 sha512 sha3-224 sha3-256 sha3-384 \
                   sha3-512 xxhash meta";
    for method in methods.split_whitespace() {
        for damage in [Damage::Flip, Damage::Lose, Damage::Tear, Damage::Zero] {
            let told = reports(&job("bs=4k iodepth=4", method), &disk(Some((100, damage))));
            // A header alone says nothing about what follows it.
            let blind = method == "meta" && matches!(damage, Damage::Flip | Damage::Tear);
            assert_eq!(told[0].len(), usize::from(!blind), "{method} {damage:?}: {told:?}");
        }
    }
}

/// A write of one job that lands in the region of another is found by the one that lost it, and
/// by the one that has it.
#[test]
fn verify_with_several_jobs_on_distinct_regions_names_the_right_one() {
    for manner in ["iodepth=1", "iodepth=4 verify_async=2", "iodepth=4 verify_backlog=4"] {
        let text = format!(
            "[global] filename=/nowhere/disk rw=write size=64k bs=4k ioengine=io_uring \
             verify=crc32c {manner} [a] offset=256k [b] offset=64k [c] offset=128k"
        );
        // Job b is the second, its 16 writes are numbers 17 to 32; `a` is verified before.
        let platters = disk(Some((20, Damage::Misdirect(192 << 10))));
        let told = reports(&text, &platters);
        assert_eq!((told[0].len(), told[1].len(), told[2].len()), (0, 1, 0), "{manner}: {told:?}");
        assert!(told[1][0].contains("a zeroed block"), "{told:?}");
        // Read again, what landed in a's region is whole, and not where it belongs.
        let read = text.replace("rw=write", "rw=read").replace(" verify_backlog=4", "");
        let told = reports(&read, &platters);
        assert_eq!(told[0].len(), 1, "{manner}: {told:?}");
        assert!(told[0][0].starts_with("bad header offset 77824: a misdirected"), "{told:?}");
    }
}

#[test]
fn verify_write_sequence_0_and_verify_header_seed_0_let_older_blocks_pass() {
    let lost = |options: &str| {
        let text = job(&format!("bs=4k iodepth=4 {options}"), "crc32c");
        reports(&text, &disk(Some((100, Damage::Lose))))[0].clone()
    };
    assert_eq!(lost("").len(), 1);
    assert_eq!(lost("verify_header_seed=0").len(), 1, "the number still tells");
    assert_eq!(lost("verify_write_sequence=0"), [""; 0]);
    // A block of another run: its number may be right.
    let foreign = |options: &str| {
        let platters = disk(None);
        let one = |rw: &str| {
            format!("[a] filename=/nowhere/disk rw={rw} size=64k bs=4k verify=md5 {options}")
        };
        assert_eq!(reports(&one("write"), &platters)[0], [""; 0]);
        let older = platters.borrow().bytes[..4096].to_vec();
        // Job b has another seed; the same writes bear the same numbers.
        let two = format!(
            "[x] filename=/nowhere/disk offset=512k rw=read size=64k bs=4k {}",
            one("write")
        );
        platters.borrow_mut().damage = Some((17, Damage::Lose));
        let told = reports(&two, &platters).pop().unwrap();
        assert_eq!(platters.borrow().bytes[..4096], older);
        told
    };
    let told = foreign("");
    assert!(told.len() == 1 && told[0].contains("a stale block of another run"), "{told:?}");
    assert_eq!(foreign("verify_header_seed=0"), [""; 0], "same number, same place");
    assert_eq!(foreign("verify_write_sequence=0").len(), 1, "the seed still tells");
}

#[test]
fn experimental_verify_replays_the_writes_and_finds_damage() {
    for manner in
        ["rw=randwrite", "rw=randwrite norandommap=1", "rw=randrw", "rw=write bsrange=4k-8k"]
    {
        let text = format!(
            "[a] filename=/nowhere/disk size=256k bs=4k iodepth=4 verify=crc32c \
             experimental_verify=1 {manner} ioengine=io_uring"
        );
        let healthy = disk(None);
        assert_eq!(reports(&text, &healthy)[0], [""; 0], "{manner}");
        let last = healthy.borrow().writes;
        for damage in [Damage::Flip, Damage::Zero] {
            let told = reports(&text, &disk(Some((last, damage))));
            assert!(!told[0].is_empty(), "{manner} {damage:?}");
        }
    }
}
