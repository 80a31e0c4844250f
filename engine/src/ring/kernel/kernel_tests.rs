//! The same script on the kernel ring and the thread ring, and what only the kernel ring has.

use std::fs::File;
use std::os::fd::AsRawFd;
use std::time::Duration;

use super::register::CLONED as CLONED_BUFFERS;
use super::*;
use crate::buffer::{Arena, ArenaBuf, ArenaConfig, MemRange, SizeClass};
use crate::ring::threads::ThreadRing;
use crate::ring::{OpKind, RingWaker};
use crate::target::loop_device::Loop;

/// `None`, with the reason printed, where io_uring is not to be had.
#[allow(clippy::print_stderr, reason = "a skipped test says why")]
fn kernel_ring(config: &KernelConfig) -> Option<KernelRing> {
    match KernelRing::new(config) {
        Ok(ring) => Some(ring),
        Err(error) if error.is_unavailable() => {
            eprintln!("SKIP: {error}");
            None
        }
        Err(error) => panic!("{error}"),
    }
}

/// A file beside the test binary, which is not on a tmpfs (that would hide alignment rules).
fn temporary_file() -> File {
    let binary = std::env::current_exe().unwrap();
    tempfile::tempfile_in(binary.parent().unwrap()).unwrap()
}

fn arena() -> Arena {
    let classes = vec![SizeClass { bytes: 4096, count: 64 }, SizeClass { bytes: 65_536, count: 4 }];
    Arena::new(&ArenaConfig::new(classes)).unwrap()
}

fn tag(slot: u32) -> Tag {
    Tag { slot, generation: 3 }
}

fn op(kind: OpKind, file: FileRef, offset_bytes: u64, memory: Option<MemRange>) -> Op {
    Op { offset_bytes, memory, ..Op::on(kind, file) }
}

/// Submits everything and reaps `count` completions, sorted by slot.
fn finish<R: Ring>(ring: &mut R, count: usize) -> Vec<(u32, i32)> {
    let mut all = Vec::new();
    while all.len() < count {
        let missing = u32::try_from(count - all.len()).unwrap();
        match ring.enter(Wait::at_least(missing)) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(errno) => panic!("{errno}"),
        }
        ring.reap(&mut all);
    }
    assert!(all.iter().all(|done| done.tag.generation == 3 && !done.more));
    let mut all: Vec<_> = all.iter().map(|done| (done.tag.slot, done.result)).collect();
    all.sort_unstable();
    all
}

const CANCELED: i32 = -(Errno::ECANCELED as i32);

/// Writes, reads, flushes, breaks chains; returns every result in order.
fn script<R: Ring>(mut ring: R) -> Vec<(u32, i32)> {
    let arena = arena();
    ring.register_buffers(arena.region());
    let file = temporary_file();
    let target = ring.register_file(file.as_raw_fd());
    let mut results = Vec::new();

    // One whole write, linked to its flush.
    let mut out = arena.alloc(6000).unwrap();
    out.fill(0xA5);
    assert!(ring.reserve(2));
    let write = op(OpKind::Write, target, 0, Some(out.mem_range()));
    ring.push(Op { link: true, ..write }, tag(1));
    ring.push(op(OpKind::Fdatasync, target, 0, None), tag(2));
    results.extend(finish(&mut ring, 2));

    // Whole, short at the end of the file, and empty behind it (F11, F12).
    let mut into: Vec<ArenaBuf> = (0..3).map(|_| arena.alloc(4096).unwrap()).collect();
    for (slot, offset_bytes) in [(0, 0), (1, 4096), (2, 8192)] {
        let memory = into[slot].mem_range();
        let slot = u32::try_from(slot).unwrap();
        ring.push(op(OpKind::Read, target, offset_bytes, Some(memory)), tag(10 + slot));
    }
    results.extend(finish(&mut ring, 3));
    assert!(into[0].iter().all(|&byte| byte == 0xA5));
    assert!(into[1][..6000 - 4096].iter().all(|&byte| byte == 0xA5));
    assert!(into[1][6000 - 4096..].iter().all(|&byte| byte == 0));

    // A short head breaks its chain; the chain behind it is another one.
    let memory = into[1].mem_range();
    let short = op(OpKind::Read, target, 4096, Some(memory));
    ring.push(Op { link: true, ..short }, tag(20));
    ring.push(Op { link: true, ..op(OpKind::Nop, target, 0, None) }, tag(21));
    ring.push(op(OpKind::Fsync, target, 0, None), tag(22));
    ring.push(op(OpKind::Nop, target, 0, None), tag(23));
    results.extend(finish(&mut ring, 4));

    // A chain ends where its submit ends (F15).
    let memory = into[2].mem_range();
    let empty = op(OpKind::Read, target, 1 << 20, Some(memory));
    ring.push(Op { link: true, ..empty }, tag(30));
    results.extend(finish(&mut ring, 1));
    ring.push(op(OpKind::Nop, target, 0, None), tag(31));
    results.extend(finish(&mut ring, 1));

    // Failures, and a cancel of what is not there (F03).
    let nowhere = FileRef::Plain(-1);
    ring.push(op(OpKind::Read, nowhere, 0, Some(memory)), tag(40));
    ring.push(op(OpKind::Fsync, nowhere, 0, None), tag(41));
    assert!(ring.cancel(tag(999)));
    results.extend(finish(&mut ring, 2));

    ring.unregister_file(target);
    assert_eq!(ring.dropped_completions(), 0);
    results
}

const EXPECTED: [(u32, i32); 13] = [
    (1, 6000),
    (2, 0),
    (10, 4096),
    (11, 6000 - 4096),
    (12, 0),
    (20, 6000 - 4096),
    (21, CANCELED),
    (22, CANCELED),
    (23, 0),
    (30, 0),
    (31, 0),
    (40, -(Errno::EBADF as i32)),
    (41, -(Errno::EBADF as i32)),
];

#[test]
fn kernel_ring_follows_the_script() {
    let Some(ring) = kernel_ring(&KernelConfig::new(8)) else { return };
    assert_eq!(script(ring), EXPECTED);
}

#[test]
fn f36_kernel_ring_without_a_file_table_follows_the_script() {
    let config = KernelConfig { files_max: 0, ..KernelConfig::new(8) };
    let Some(ring) = kernel_ring(&config) else { return };
    assert_eq!(script(ring), EXPECTED);
}

#[test]
fn f31_thread_ring_follows_the_script() {
    assert_eq!(script(ThreadRing::new(3, 8).unwrap()), EXPECTED);
    assert_eq!(script(ThreadRing::new(1, 8).unwrap()), EXPECTED);
}

#[test]
fn f36_full_file_table_falls_back_to_descriptors() {
    let config = KernelConfig { files_max: 2, ..KernelConfig::new(4) };
    let Some(mut ring) = kernel_ring(&config) else { return };
    let file = temporary_file();
    let fd = file.as_raw_fd();
    let first = ring.register_file(fd);
    assert_eq!(first, FileRef::Fixed(0));
    assert_eq!(ring.register_file(fd), FileRef::Fixed(1));
    assert_eq!(ring.register_file(fd), FileRef::Plain(fd));
    ring.unregister_file(first);
    assert_eq!(ring.register_file(fd), first);
    assert_eq!(ring.register_file(-5), FileRef::Plain(-5));
}

#[test]
fn f20_completions_beyond_the_completion_queue_are_not_lost() {
    let Some(mut ring) = kernel_ring(&KernelConfig::new(8)) else { return };
    let mut done = Vec::new();
    for first in (0..64).step_by(8) {
        assert!(ring.reserve(8));
        for slot in first..first + 8 {
            ring.push(op(OpKind::Nop, FileRef::Plain(-1), 0, None), tag(slot));
        }
        assert_eq!(ring.enter(Wait::NONE), Ok(8));
    }
    while done.len() < 64 {
        ring.reap(&mut done);
        ring.enter(Wait::NONE).unwrap();
    }
    let mut slots: Vec<u32> = done.iter().map(|done| done.tag.slot).collect();
    slots.sort_unstable();
    assert_eq!(slots, (0..64).collect::<Vec<_>>());
    assert_eq!(ring.dropped_completions(), 0);
    assert_eq!(ring.stats().submitted, 64);
}

#[test]
fn f19_full_queue_refuses_all_or_nothing_and_a_forgotten_reserve_panics() {
    let Some(mut ring) = kernel_ring(&KernelConfig::new(4)) else { return };
    assert!(!ring.reserve(5));
    for slot in 0..3 {
        ring.push(op(OpKind::Nop, FileRef::Plain(-1), 0, None), tag(slot));
    }
    assert!(!ring.reserve(2));
    assert!(ring.reserve(1));
    ring.push(op(OpKind::Nop, FileRef::Plain(-1), 0, None), tag(3));
    assert!(!ring.cancel(tag(0)));
    let refused = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        ring.push(op(OpKind::Nop, FileRef::Plain(-1), 0, None), tag(4));
    }));
    assert!(refused.is_err());
    // Waiting with a full queue submits it and arms the wake-up behind it.
    assert_eq!(finish(&mut ring, 4), [(0, 0), (1, 0), (2, 0), (3, 0)]);
}

/// Wakes from another thread, before and during a wait.
fn wake_script<R: Ring>(mut ring: R) {
    let mut done = Vec::new();
    for _ in 0..3 {
        let waker = ring.waker();
        let other = std::thread::spawn(move || {
            crate::sys::pause(Duration::from_millis(20));
            waker.wake();
            waker.wake();
        });
        ring.enter(Wait::at_least(1)).unwrap();
        ring.reap(&mut done);
        other.join().unwrap();
        // The second of the two may have come after the first was seen.
        let until = |ring: &R, ms: u64| Some(ring.now_ns() + ms * 1_000_000);
        ring.enter(Wait { min: 1, deadline_ns: until(&ring, 20) }).unwrap();
        ring.reap(&mut done);
        // Nobody waits now: the next wait returns at once, the one after it does not.
        ring.waker().wake();
        ring.enter(Wait::at_least(1)).unwrap();
        ring.reap(&mut done);
        let before = ring.now_ns();
        ring.enter(Wait { min: 1, deadline_ns: until(&ring, 10) }).unwrap();
        ring.reap(&mut done);
        assert!(ring.now_ns() - before >= 9_000_000, "nothing happened, so it slept");
    }
    assert!(done.is_empty(), "a wake is no completion of an op");
}

#[test]
fn wake_from_another_thread_ends_a_wait() {
    wake_script(ThreadRing::new(1, 4).unwrap());
    let Some(ring) = kernel_ring(&KernelConfig::new(4)) else { return };
    wake_script(ring);
}

#[test]
fn f03_cancelled_read_of_an_empty_pipe_completes_as_cancelled() {
    let Some(mut ring) = kernel_ring(&KernelConfig::new(4)) else { return };
    let (reader, writer) = std::io::pipe().unwrap();
    let arena = arena();
    let mut buf = arena.alloc(512).unwrap();
    let file = ring.register_file(reader.as_raw_fd());
    ring.push(op(OpKind::Read, file, 0, Some(buf.mem_range())), tag(1));
    assert_eq!(ring.enter(Wait::NONE), Ok(1));
    assert!(ring.cancel(tag(1)));
    // The request itself is not an op.
    assert_eq!(ring.enter(Wait::NONE), Ok(0));
    assert_eq!(finish(&mut ring, 1), [(1, CANCELED)]);
    assert_eq!(ring.stats().submitted, 1);
    assert_eq!(ring.ops_taken, ring.ops_reaped);
    drop(writer);
}

#[test]
fn f32_registered_buffers_are_used_and_reported() {
    let Some(mut ring) = kernel_ring(&KernelConfig::new(4)) else { return };
    let arena = arena();
    ring.register_buffers(arena.region());
    let registered = arena.region().registered_bytes();
    let features = ring.features().clone();
    if registered == arena.bytes() {
        assert!(features.in_use.contains(&"registered buffers"));
        assert_eq!(arena.alloc(4096).unwrap().mem_range().buf_index(), Some(0));
    } else {
        assert!(features.degraded.iter().any(|text| text.contains("RLIMIT_MEMLOCK")));
    }
    if registered > 0 {
        // A second region is refused, and said so.
        ring.register_buffers(arena.region());
        assert!(ring.features().degraded.last().unwrap().contains("one region"));
        assert_eq!(arena.region().registered_bytes(), registered);
    }
}

#[test]
fn deadline_ends_a_wait_with_ops_in_flight() {
    let Some(mut ring) = kernel_ring(&KernelConfig::new(4)) else { return };
    let (reader, writer) = std::io::pipe().unwrap();
    let arena = arena();
    let mut buf = arena.alloc(512).unwrap();
    let file = ring.register_file(reader.as_raw_fd());
    ring.push(op(OpKind::Read, file, 0, Some(buf.mem_range())), tag(1));
    let before = ring.now_ns();
    let deadline_ns = Some(before + 5_000_000);
    assert_eq!(ring.enter(Wait { min: 1, deadline_ns }), Ok(1));
    assert!(ring.now_ns() - before >= 5_000_000);
    drop(writer);
    assert_eq!(finish(&mut ring, 1), [(1, 0)]);
}

#[test]
fn f08_region_is_fixed_while_it_is_registered_and_its_entries_are_reused() {
    let Some(mut ring) = kernel_ring(&KernelConfig::new(4)) else { return };
    let arena = arena();
    ring.register_buffers(arena.region());
    let other = self::arena();
    let Some(span) = ring.add_region(other.region()) else { return };
    assert_eq!((span.first_index, span.registered_bytes), (1, other.bytes()));
    let file = temporary_file();
    let target = ring.register_file(file.as_raw_fd());
    let mut buf = other.alloc(4096).unwrap();
    buf.fill(3);
    let memory = MemRange::of_span(buf.as_mut_ptr(), 4096, other.region(), span);
    assert_eq!(memory.unwrap().buf_index(), Some(1));
    ring.push(op(OpKind::Write, target, 0, memory), tag(1));
    assert_eq!(finish(&mut ring, 1), [(1, 4096)]);
    // The entry is empty now, which shows that the index is what the kernel went by.
    ring.remove_region(span);
    ring.push(op(OpKind::Read, target, 0, memory), tag(2));
    assert_eq!(finish(&mut ring, 1), [(2, -(Errno::EFAULT as i32))]);
    // The next region takes its place, and does not answer for its addresses.
    let next = self::arena();
    assert_eq!(ring.add_region(next.region()), Some(span));
    ring.push(op(OpKind::Read, target, 0, memory), tag(3));
    assert_eq!(finish(&mut ring, 1), [(3, -(Errno::EFAULT as i32))]);
    assert!(
        MemRange::of_span(buf.as_mut_ptr(), 1, next.region(), span).unwrap().buf_index().is_none()
    );
}

#[test]
fn shared_region_is_cloned_by_rings_of_other_threads() {
    let shared = arena();
    let Ok(bytes) = share(&shared) else { return };
    assert_eq!(share(&shared), Ok(bytes));
    let read = |at: u32| {
        let (shared, file) = (shared.clone(), temporary_file());
        std::thread::spawn(move || {
            let mut ring = kernel_ring(&KernelConfig::new(4)).unwrap();
            let own = arena();
            ring.register_buffers(own.region());
            let before = ring.add_region(arena().region());
            let span = ring.add_region(shared.region()).unwrap();
            assert_eq!(span.registered_bytes, bytes);
            let cloned = ring.features().in_use.contains(&CLONED_BUFFERS);
            let explained = ring.features().degraded.iter().any(|text| text.contains("6.13"));
            assert!(cloned != explained, "{:?}", ring.features());
            let target = ring.register_file(file.as_raw_fd());
            let mut buf = shared.alloc(4096).unwrap();
            buf.fill(u8::try_from(at).unwrap());
            let memory = MemRange::of_span(buf.as_mut_ptr(), 4096, shared.region(), span);
            assert!(memory.unwrap().buf_index().is_some());
            ring.push(op(OpKind::Write, target, 0, memory), tag(at));
            let mut own = own.alloc(4096).unwrap();
            ring.push(op(OpKind::Read, target, 0, Some(own.mem_range())), tag(at + 10));
            let results = finish(&mut ring, 2);
            assert_eq!(results[0], (at, 4096));
            assert!(results[1].1 >= 0, "the ring's own arena is still fixed");
            ring.remove_region(span);
            before.into_iter().for_each(|span| ring.remove_region(span));
        })
    };
    for thread in [read(1), read(2)] {
        thread.join().unwrap();
    }
}

/// Pinned memory of this process in bytes.
fn pinned_bytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmPin:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() << 10
}

#[test]
fn f32_shared_arena_is_pinned_once_however_many_rings_know_it() {
    // Far larger than what other tests pin meanwhile.
    let classes = vec![SizeClass { bytes: 1 << 20, count: 256 }];
    let arena = Arena::new(&ArenaConfig { shared: true, ..ArenaConfig::new(classes) }).unwrap();
    if arena.region().shared().is_none() {
        return;
    }
    let rings: Vec<_> = (0..4)
        .filter_map(|number| {
            let mut ring = kernel_ring(&KernelConfig::new(4))?;
            if number == 0 {
                // Its own arena.
                ring.register_buffers(arena.region());
                assert_eq!(arena.region().registered_bytes(), arena.bytes());
                assert_eq!(arena.alloc(4096).unwrap().mem_range().buf_index(), Some(0));
            } else {
                ring.register_buffers(self::arena().region());
                assert!(ring.add_region(arena.region()).is_some());
            }
            Some(ring)
        })
        .collect();
    if rings.iter().all(|ring| ring.features().in_use.contains(&CLONED_BUFFERS)) {
        let pinned = pinned_bytes();
        assert!((256 << 20..400 << 20).contains(&pinned), "{pinned} bytes are pinned");
    }
}

/// `EOPNOTSUPP` inline, or of an older kernel, is what the shard has other ways for.
#[test]
fn block_device_takes_a_discard_as_a_command() {
    let Some(mut ring) = kernel_ring(&KernelConfig::new(8)) else { return };
    let backing =
        tempfile::NamedTempFile::new_in(std::env::current_exe().unwrap().parent().unwrap());
    let backing = backing.unwrap();
    backing.as_file().set_len(1 << 20).unwrap();
    let Some(device) = Loop::over(backing.path(), &[]) else { return };
    let file = File::options().read(true).write(true).open(device.path()).unwrap();
    let target = ring.register_file(file.as_raw_fd());
    let mut push = |slot, force_async| {
        assert!(ring.reserve(1));
        let discard = Op::range(OpKind::DiscardDevice, target, 4096, 8192);
        ring.push(Op { force_async, ..discard }, tag(slot));
    };
    push(0, false);
    push(1, true);
    let results = finish(&mut ring, 2);
    let refused = -(Errno::EOPNOTSUPP as i32);
    assert!(results.iter().all(|(_, result)| [0, refused].contains(result)), "{results:?}");
    if ring.supports(OpKind::DiscardDevice) && results[1].1 == 0 {
        assert_eq!(results, [(0, 0), (1, 0)], "a loop device needs no worker");
    }
}
