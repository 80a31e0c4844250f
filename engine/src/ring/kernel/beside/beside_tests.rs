//! Companions without a device: `/dev/null` carries out any command at once, moving nothing,
//! and a file of a file system refuses to be polled.

use std::fs::File;
use std::os::fd::AsRawFd;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use proptest::prelude::*;

use super::*;
use crate::buffer::{ArenaConfig, MemRange, SizeClass, quarantined};
use crate::ring::kernel::KernelConfig;
use crate::ring::kernel::fork_tests::{End, in_child};
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
#[allow(clippy::print_stdout, reason = "a skipped test says why")]
fn f08_rest_of_a_region_is_registered_with_companions_in_the_place_of_its_first() {
    let Ok(mut ring) = KernelRing::new(&KernelConfig::new(4)) else { return };
    let (own, other) = (arena(8192), arena(4096));
    if !ring.register_first(own.region(), 4096) {
        return println!("SKIP: memory is limited, or the table of buffers is fixed");
    }
    assert_eq!(own.region().registered_bytes(), 4096);
    let null = File::open("/dev/null").unwrap();
    let Some(_) = ring.register_namespace(null.as_raw_fd(), SPACE, Poll::Polled) else { return };
    let before = used(&ring);
    let span = ring.add_region(other.region()).unwrap();
    assert_eq!(span.first_index, 1, "the entry of the first is taken");
    ring.register_rest(own.region());
    assert_eq!(own.region().registered_bytes(), own.region().len_bytes());
    assert_eq!(used(&ring).contains(&0), before.contains(&0));
    // Neither can be registered again.
    assert!(!ring.register_first(other.region(), 4096));
    ring.register_rest(own.region());
    assert_eq!(own.region().registered_bytes(), own.region().len_bytes());
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
        let why = "SKIP: the queues of this kernel know no streams (Linux 6.16 does)";
        std::io::Write::write_all(&mut std::io::stderr().lock(), why.as_bytes()).unwrap();
    }
}

/// The kernel's own answer, asked for past everything that is tested here.
fn kernel_pauses_before_it_polls() -> bool {
    let flags = params::flag::IOPOLL | params::flag::HYBRID_IOPOLL;
    params::setup(1, params::Params { flags, ..params::Params::default() }).is_ok()
}

/// Whether the running kernel is Linux 6.13 or later.
fn linux_has_hybrid_polling() -> bool {
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    let mut numbers = release.split(['.', '-']).map_while(|text| text.parse::<u32>().ok());
    (numbers.next(), numbers.next()) >= (Some(6), Some(13))
}

#[test]
fn f34_polling_after_a_pause_is_in_use_or_said_to_need_linux_6_13() {
    let Ok(mut ring) = KernelRing::new(&KernelConfig::new(8)) else { return };
    let null = std::fs::OpenOptions::new().read(true).write(true).open("/dev/null").unwrap();
    let file = tempfile::tempfile().unwrap();
    std::os::unix::fs::FileExt::write_all_at(&file, &[7; 8192], 0).unwrap();
    let Some(polled) = ring.register_polled(file.as_raw_fd(), Poll::Hybrid) else { return };
    let namespace = ring.register_namespace(null.as_raw_fd(), SPACE, Poll::Hybrid);
    let in_use = ring.features.in_use.iter().filter(|name| **name == "HYBRID_IOPOLL").count();
    let told = |ring: &KernelRing, text| {
        ring.features.degraded.iter().filter(|told| told.contains(text)).count()
    };
    let pauses = kernel_pauses_before_it_polls();
    assert_eq!(pauses, linux_has_hybrid_polling());
    assert_eq!(in_use, usize::from(pauses), "{:?}", ring.features);
    assert_eq!(told(&ring, "HYBRID_IOPOLL"), usize::from(!pauses), "{:?}", ring.features);
    assert_eq!(told(&ring, "Linux 6.13"), usize::from(!pauses), "{:?}", ring.features);

    // What cannot be polled goes by interrupt from the second time on, as where there is no pause.
    let page = Box::new([0_u8; 8192]);
    let base = page.as_ptr().cast_mut();
    let memory = MemRange::of_raw(base.wrapping_add(base.align_offset(4096)), 4096, None).unwrap();
    let mut done = Vec::new();
    for target in [Some(polled), namespace].into_iter().flatten() {
        for round in 0..4 {
            let op = Op::transfer(OpKind::Read, target, 0, memory);
            ring.push(op, Tag { slot: 0, generation: round });
            while done.is_empty() {
                ring.enter(Wait::at_least(1)).unwrap();
                ring.reap(&mut done);
            }
            let result = done.pop().unwrap().result;
            let refused = round == 0 && result == -(Errno::EAGAIN as i32);
            assert!(refused || result == 4096, "round {round}: {result}");
        }
    }

    // One ring polls in one way.
    assert_eq!(told(&ring, "shards of their own"), 0);
    for _ in 0..2 {
        assert!(ring.register_polled(file.as_raw_fd(), Poll::Polled).is_some());
        assert_eq!(told(&ring, "shards of their own"), 1);
    }
}

/// How many mappings of the ring `fd` a child inherits, and how many it does not.
fn mappings(fd: i32) -> [usize; 2] {
    let inode = std::fs::metadata(format!("/proc/self/fd/{fd}")).unwrap();
    let inode = std::os::unix::fs::MetadataExt::ino(&inode).to_string();
    let told = std::fs::read_to_string("/proc/self/smaps").unwrap();
    let (mut counts, mut is_ours) = ([0; 2], false);
    for line in told.lines() {
        if line.contains("io_uring") {
            is_ours = line.split_ascii_whitespace().nth(4) == Some(&inode);
        } else if is_ours && line.starts_with("VmFlags:") {
            counts[usize::from(line.split(' ').any(|flag| flag == "dc"))] += 1;
            is_ours = false;
        }
    }
    counts
}

#[test]
fn f26_child_faults_on_a_companion_and_the_parent_is_unharmed() {
    let faults = End::Signal(libc::SIGSEGV);
    for poll in [Poll::Polled, Poll::Hybrid] {
        let Ok(mut ring) = KernelRing::new(&KernelConfig::new(8)) else { return };
        let file = tempfile::tempfile().unwrap();
        let Some(target) = ring.register_polled(file.as_raw_fd(), poll) else { return };
        let page = Box::new([3_u8; 8192]);
        let base = page.as_ptr().cast_mut();
        let at = base.wrapping_add(base.align_offset(4096));
        let memory = MemRange::of_raw(at, 4096, None).unwrap();
        let op = Op::transfer(OpKind::Write, target, 0, memory);
        ring.push(op, Tag { slot: 1, generation: 0 });
        // The op is queued: a child that could submit it would have it written once more, and
        // one that could take its completion would leave the parent without.
        let companion = |ring: &mut KernelRing| {
            let beside = ring.beside.as_mut().unwrap();
            core::ptr::from_mut(beside.files.as_mut().unwrap())
        };
        let files = companion(&mut ring);
        let sqe = Sqe::of(&op, Tag { slot: 2, generation: 0 }).entry();
        // SAFETY: lifetime: the ring outlives the children. Aliasing: each has memory of its
        // own, and nothing else uses it there. Bounds: it is one companion.
        let of_child = || unsafe { &mut *files };
        assert_eq!(in_child(|| i32::from(of_child().turn(0).is_ok())), faults, "{poll:?}");
        assert_eq!(in_child(|| i32::from(of_child().turn(1).is_ok())), faults, "{poll:?}");
        let pushes = || {
            of_child().push(&sqe);
            0
        };
        assert_eq!(in_child(pushes), faults, "{poll:?}");
        let reaps = || {
            of_child().reap(|_, _| {}, |_| (0, 0, false));
            0
        };
        assert_eq!(in_child(reaps), faults, "{poll:?}");
        assert_eq!(in_child(|| i32::from(ring.enter(Wait::NONE).is_ok())), faults, "{poll:?}");
        assert_eq!(file.metadata().unwrap().len(), 0, "nothing was submitted");

        let mut done = Vec::with_capacity(8);
        for round in 1..4 {
            while done.is_empty() {
                ring.enter(Wait::at_least(1)).unwrap();
                ring.reap(&mut done);
            }
            let completion = done.pop().unwrap();
            // Refused where the file cannot be polled for, and done by interrupt the next time.
            let refused = round == 1 && completion.result == -(Errno::EAGAIN as i32);
            assert!(refused || completion.result == 4096, "{completion:?}");
            assert!(done.is_empty());
            ring.push(op, Tag { slot: 1, generation: round });
        }
        assert_eq!(file.metadata().unwrap().len(), 4096);
        while done.is_empty() {
            ring.enter(Wait::at_least(1)).unwrap();
            ring.reap(&mut done);
        }
    }
}

#[test]
fn f26_queues_of_a_companion_are_mapped_for_no_child() {
    let Ok(mut ring) = KernelRing::new(&KernelConfig::new(8)) else { return };
    let file = tempfile::tempfile().unwrap();
    let Some(_) = ring.register_polled(file.as_raw_fd(), Poll::Hybrid) else { return };
    assert_eq!(mappings(ring.ring.get().as_raw_fd()), [0, 2], "the main ring");
    let files = ring.beside.as_ref().unwrap().files.as_ref().unwrap();
    assert_eq!(mappings(files.descriptor()), [0, 2], "the companion");
}
