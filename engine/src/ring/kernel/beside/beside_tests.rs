//! Companions without a device: `/dev/null` carries out any command at once, moving nothing,
//! and a file of a file system refuses to be polled.

use std::fs::File;
use std::os::fd::AsRawFd;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use proptest::prelude::*;

use super::*;
use crate::buffer::{ArenaConfig, MemRange, SizeClass, quarantined};
use crate::ring::kernel::KernelConfig;
use crate::ring::{Limits, Poll, Ring, RingWaker, Transfers};
use crate::target::loop_device::Loop;

const SPACE: Space = Space {
    nsid: 1,
    block_shift: 12,
    blocks: 1 << 40,
    volatile_cache: true,
    deallocate: true,
    write_zeroes: true,
    compare: true,
    copy_blocks_max: 8,
    readable: true,
    writable: true,
    read_fua: false,
    write_fua: false,
};

/// A range that takes `COMMANDS` commands.
const COMMANDS: u64 = 5;
const LONG_BYTES: u64 = COMMANDS << (16 + 12);

struct Place {
    ring: KernelRing,
    /// By commands; by commands that would be polled for; polled file.
    files: [FileRef; 3],
    _fds: [File; 2],
    page: Box<[u8; 8192]>,
}

/// `None` where this machine has no io_uring, or none with commands.
fn place(entries: u32) -> Option<Place> {
    let mut ring = KernelRing::new(&KernelConfig::new(entries)).ok()?;
    let null = std::fs::OpenOptions::new().read(true).write(true).open("/dev/null").unwrap();
    let file = tempfile::tempfile().unwrap();
    std::os::unix::fs::FileExt::write_all_at(&file, &[7; 8192], 0).unwrap();
    let fd = null.as_raw_fd();
    let files = [
        ring.register_namespace(fd, SPACE, Poll::Interrupt)?,
        ring.register_namespace(fd, SPACE, Poll::Polled)?,
        ring.register_polled(file.as_raw_fd(), Poll::Polled)?,
    ];
    Some(Place { ring, files, _fds: [null, file], page: Box::new([0; 8192]) })
}

impl Place {
    fn op(&mut self, kind: u8) -> Op {
        let base = self.page.as_mut_ptr();
        let memory = MemRange::of_raw(base.wrapping_add(base.align_offset(4096)), 4096, None);
        let [commands, polled, file] = self.files;
        match kind {
            0 => Op::on(OpKind::Nop, FileRef::Plain(-1)),
            1 => Op::transfer(OpKind::Read, commands, 0, memory.unwrap()),
            2 => Op::transfer(OpKind::Write, polled, 4096, memory.unwrap()),
            3 => Op::transfer(OpKind::Read, file, 0, memory.unwrap()),
            4 => Op::range(OpKind::WriteZeroes, commands, 0, LONG_BYTES),
            5 => Op::range(OpKind::Discard, polled, 4096, 1 << 45),
            6 => Op::on(OpKind::Fdatasync, commands),
            7 => Op::on(OpKind::Fsync, file),
            // Refused without being sent, and something that is not served.
            8 => Op::transfer(OpKind::Read, commands, 1, memory.unwrap()),
            _ => Op::on(OpKind::Fdatasync, FileRef::Beside(99)),
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// Each op is answered once, whatever it shares the queue with, and an `enter` leaves
    /// nothing in any queue.
    #[test]
    fn f19_one_room_for_all_queues_and_one_answer_for_each_op(
        entries in prop::sample::select(vec![1_u32, 2, 4, 8]),
        hosted: bool,
        steps in prop::collection::vec((0..10_u8, 0..4_u8), 1..120),
    ) {
        let Some(mut place) = place(entries) else { return Ok(()) };
        if hosted {
            place.ring.watch();
        }
        let Limits { sq_entries, cq_entries, .. } = place.ring.limits();
        let (mut pending, mut next, mut done) = (Vec::new(), 0_u32, Vec::new());
        for (kind, then) in steps {
            if pending.len() < cq_entries as usize && place.ring.reserve(1) {
                let tag = Tag { slot: next % 64, generation: next };
                let op = place.op(kind);
                place.ring.push(op, tag);
                pending.push((tag, kind));
                next += 1;
                prop_assert!(!place.ring.reserve(sq_entries));
            }
            let full = pending.len() == cq_entries as usize || !place.ring.reserve(1);
            if then == 0 || full {
                let sleeps = then == 1 && !pending.is_empty();
                place.ring.enter(Wait { min: u32::from(sleeps), deadline_ns: None }).unwrap();
                prop_assert!(place.ring.reserve(sq_entries), "everything was taken");
                place.ring.reap(&mut done);
            }
            for completion in done.drain(..) {
                let at = pending.iter().position(|(tag, _)| *tag == completion.tag);
                prop_assert!(at.is_some(), "{completion:?} comes once");
                let (_, kind) = pending.remove(at.unwrap());
                check(kind, completion.result)?;
            }
        }
        while !pending.is_empty() {
            place.ring.enter(Wait::at_least(1)).unwrap();
            place.ring.reap(&mut done);
            for completion in done.drain(..) {
                pending.retain(|(tag, _)| *tag != completion.tag);
            }
        }
        let beside = place.ring.beside.as_ref().unwrap();
        prop_assert_eq!((beside.held, beside.in_flight, beside.more.len()), (0, 0, 0));
        prop_assert!(place.ring.reserve(sq_entries) && !place.ring.reserve(sq_entries + 1));
    }
}

fn check(kind: u8, result: i32) -> Result<(), TestCaseError> {
    let refused = |errno: Errno| -(errno as i32);
    match kind {
        // Demoted at the first, done by interrupt at the next.
        2 => prop_assert!([refused(Errno::EAGAIN), 4096].contains(&result), "{}", result),
        3 => prop_assert!([refused(Errno::EAGAIN), 4096].contains(&result), "{}", result),
        1 => prop_assert_eq!(result, 4096),
        8 => prop_assert_eq!(result, refused(Errno::EINVAL)),
        9 => prop_assert_eq!(result, refused(Errno::EBADF)),
        _ => prop_assert_eq!(result, 0),
    }
    Ok(())
}

#[test]
fn f34_refusal_is_said_once_for_each_target_and_later_ops_go_by_interrupt() {
    let Some(mut place) = place(8) else { return };
    let mut done = Vec::new();
    for round in 0..3 {
        for (slot, kind) in (0..).zip([2, 3]) {
            let op = place.op(kind);
            place.ring.push(op, Tag { slot, generation: round });
        }
        while done.len() < 2 {
            place.ring.enter(Wait::at_least(1)).unwrap();
            place.ring.reap(&mut done);
        }
        let again = -(Errno::EAGAIN as i32);
        for completion in done.drain(..) {
            // Kernels exist that poll for the file of any file system.
            let refused = round == 0 && completion.result == again;
            assert!(refused || completion.result == 4096, "{completion:?}");
        }
    }
    let told = place.ring.features.degraded.iter().filter(|text| text.contains("EOPNOTSUPP"));
    assert!((1..=2).contains(&told.count()));
}

#[test]
fn f34_what_takes_no_commands_at_all_is_not_asked_for_ever() {
    let Some(mut place) = place(8) else { return };
    // A file of a file system, said to be a namespace.
    let file = tempfile::tempfile().unwrap();
    let fd = file.as_raw_fd();
    let Some(target) = place.ring.register_namespace(fd, SPACE, Poll::Polled) else { return };
    let mut done = Vec::new();
    for (round, expected) in (0..).zip([Errno::EAGAIN, Errno::EOPNOTSUPP, Errno::EOPNOTSUPP]) {
        let op = Op { file: target, ..place.op(1) };
        place.ring.push(op, Tag { slot: 0, generation: round });
        while done.is_empty() {
            place.ring.enter(Wait::at_least(1)).unwrap();
            place.ring.reap(&mut done);
        }
        assert_eq!(done.drain(..).next().unwrap().result, -(expected as i32), "round {round}");
    }
}

#[test]
fn f28_wake_without_a_poll_in_flight_ends_one_wait_only() {
    let Some(mut place) = place(4) else { return };
    let waker = place.ring.waker();
    for _ in 0..3 {
        waker.wake();
        place.ring.enter(Wait::at_least(1)).unwrap();
        let mut done = Vec::new();
        place.ring.reap(&mut done);
        assert!(done.is_empty());
        // The next one sleeps until its time is over.
        let start_ns = place.ring.now_ns();
        let deadline_ns = Some(start_ns + 20_000_000);
        place.ring.enter(Wait { min: 1, deadline_ns }).unwrap();
        assert!(place.ring.now_ns() - start_ns >= 20_000_000);
    }
}

#[test]
fn f28_host_is_told_of_what_is_left_for_another_turn() {
    let Some(mut place) = place(1) else { return };
    place.ring.watch();
    let mut done = Vec::new();
    // One entry for a command after the other.
    let op = place.op(4);
    place.ring.push(op, Tag { slot: 0, generation: 0 });
    let mut turns = 0;
    while done.is_empty() {
        place.ring.enter(Wait::NONE).unwrap();
        place.ring.reap(&mut done);
        let fd = place.ring.poll_fd().unwrap();
        let told = poll(&mut [PollFd::new(fd, PollFlags::POLLIN)], PollTimeout::from(2000_u16));
        assert!(!done.is_empty() || told == Ok(1));
        turns += 1;
    }
    assert_eq!((done[0].result, done.len()), (0, 1));
    assert!(turns <= COMMANDS + 1);
}

#[test]
fn f03_cancelled_range_sends_no_further_command() {
    let Some(mut place) = place(4) else { return };
    let tag = Tag { slot: 3, generation: 1 };
    let op = place.op(4);
    place.ring.push(op, tag);
    assert!(place.ring.cancel(tag));
    place.ring.enter(Wait::at_least(1)).unwrap();
    let mut done = Vec::new();
    place.ring.reap(&mut done);
    assert_eq!((done[0].tag, done[0].result), (tag, -(Errno::ECANCELED as i32)));
    let ring = &place.ring;
    assert_eq!(ring.stats().submitted, 1, "what was under way is all");
    assert!(ring.beside.as_ref().unwrap().is_idle());
}

/// Which entries of the table of the companion that sends commands are used.
fn used(ring: &KernelRing) -> Vec<u16> {
    let commands = ring.beside.as_ref().unwrap().commands.as_ref().unwrap();
    (0..8).filter(|&index| commands.fixed(Some(index)).is_some()).collect()
}

fn arena(bytes: u32) -> crate::buffer::Arena {
    let classes = vec![SizeClass { bytes, count: 4 }];
    crate::buffer::Arena::new(&ArenaConfig::new(classes)).unwrap()
}

#[test]
fn f08_what_is_registered_later_is_registered_with_companions_too() {
    let Ok(mut ring) = KernelRing::new(&KernelConfig::new(4)) else { return };
    let (own, gap, behind) = (arena(4096), arena(4096), arena(8192));
    ring.register_buffers(own.region());
    let Some(first) = ring.add_region(gap.region()) else { return };
    let last = ring.add_region(behind.region()).unwrap();
    ring.remove_region(first);
    let null = File::open("/dev/null").unwrap();
    let Some(_) = ring.register_namespace(null.as_raw_fd(), SPACE, Poll::Polled) else { return };
    // All three entries count as cloned, the empty one too; or none where the kernel cannot.
    let before = used(&ring);
    if before.is_empty() {
        let told = &ring.features().degraded;
        assert!(told.iter().any(|text| text.contains("cloned buffers")), "{told:?}");
        let late = arena(4096);
        ring.add_region(late.region()).unwrap();
        assert!(used(&ring).is_empty(), "without a table, ops go unregistered");
        return;
    }
    assert_eq!(before, [0, 1, 2]);
    let (fills, late) = (arena(4096), arena(16_384));
    let span = ring.add_region(fills.region()).unwrap();
    assert_eq!(span.first_index, first.first_index, "it fills the gap");
    let end = ring.add_region(late.region()).unwrap();
    assert_eq!(used(&ring), [0, 1, 2, 3]);
    // What goes takes nothing else with it.
    ring.remove_region(span);
    assert_eq!(used(&ring), [0, 2, 3]);
    ring.remove_region(last);
    ring.remove_region(end);
    assert_eq!(used(&ring), [0]);
    let again = ring.add_region(gap.region()).unwrap();
    assert_eq!((again.first_index, used(&ring)), (1, vec![0, 1]));
}

#[test]
fn f07_data_of_commands_in_flight_is_not_freed_with_the_ring() {
    let before = quarantined();
    let Some(mut place) = place(4) else { return };
    let op = place.op(5);
    place.ring.push(op, Tag { slot: 0, generation: 0 });
    let note = place.ring.beside.as_ref().unwrap().notes[0].as_ref().unwrap();
    assert_eq!(note.words.0[8..16], 1_u64.to_le_bytes());
    assert!(note.words.0.as_ptr().addr().is_multiple_of(16));
    drop(place);
    assert!(quarantined() >= before);
}

#[test]
fn f23_command_that_may_succeed_later_is_to_be_asked_for_again() {
    let Some(mut place) = place(4) else { return };
    let again = -(Errno::EAGAIN as i32);
    let not_ready = -(Errno::EREMOTEIO as i32);
    // A read, a range, a flush; with the status as it is, and with "do not retry".
    for (kind, status, expected) in
        [(1, 0x0082, again), (1, 0x4082, not_ready), (4, 0x0021, again), (6, 0x0082, not_ready)]
    {
        let (op, tag) = (place.op(kind), Tag { slot: 0, generation: 7 });
        let mut beside = Beside::default();
        beside.begin(op, tag);
        beside.ended(tag, status, true);
        assert_eq!(beside.done.pop_front().unwrap().result, expected, "{kind}: {status:#x}");
        let told = u16::try_from(status).unwrap();
        assert_eq!(beside.failed, [(tag, told)], "and what it said is kept");
    }
}

/// A device without streams refuses the first of them, so the kernel has read it where it stands.
#[test]
fn stream_reaches_the_device_with_writes_only() {
    let backing = tempfile::NamedTempFile::new().unwrap();
    backing.as_file().set_len(1 << 20).unwrap();
    let Some(device) = Loop::over(backing.path(), &[]) else { return };
    let name = device.path().file_name().unwrap().to_str().unwrap();
    let told = std::fs::read_to_string(format!("/sys/block/{name}/queue/max_write_streams"));
    if told.is_ok_and(|streams| streams.trim() == "0") {
        let Ok(mut ring) = KernelRing::new(&KernelConfig::new(4)) else { return };
        let flags = libc::O_DIRECT;
        let mut options = File::options();
        let options = options.read(true).write(true);
        let file = std::os::unix::fs::OpenOptionsExt::custom_flags(options, flags);
        let file = file.open(device.path()).unwrap();
        let mut page = Box::new([0_u8; 8192]);
        let base = page.as_mut_ptr();
        let memory = base.wrapping_add(base.align_offset(4096));
        let memory = MemRange::of_raw(memory, 4096, None).unwrap();
        for (stream, kind, expected) in [
            (0, OpKind::Write, 4096),
            (1, OpKind::Write, -(nix::errno::Errno::EINVAL as i32)),
            (1, OpKind::Read, 4096),
        ] {
            let transfers = Transfers { stream, async_every: 0, ..Transfers::USUAL };
            let target = ring.register_flagged(file.as_raw_fd(), transfers).unwrap();
            assert!(ring.reserve(1));
            ring.push(Op::transfer(kind, target, 0, memory), Tag { slot: 0, generation: 0 });
            let mut completions = Vec::new();
            while completions.is_empty() {
                ring.enter(Wait::at_least(1)).unwrap();
                ring.reap(&mut completions);
            }
            assert_eq!(completions[0].result, expected, "{kind:?} on stream {stream}");
            ring.unregister_file(target);
        }
    } else {
        println!("SKIP: the queues of this kernel know no streams (Linux 6.16 does)");
    }
}
