//! What every target must do, as functions that panic where one does not.
//!
//! Data flow: contents → `make` → a target → packets of all kinds, compared with a byte array.
//! For the tests of any crate that implements [`PacketIo`] and
//! [`IoBackend`](crate::IoBackend); needs no `std`.
//!
//! Each rule is a function of its own; [`check`] and [`check_shaped`] run them all. `make` is
//! called with the contents that the target shall have, and gives a target that nothing else
//! uses.
//!
//! Not here: durability, speed, and what only one backend does.

use alloc::vec;
use alloc::vec::Vec;
use core::cell::Cell;
use core::future::poll_fn;

use bytemuck::Pod;

use crate::error::ErrorKind;
use crate::io::{PacketIo, PacketIoExt};
use crate::layer::Target;
use crate::packet::{CompletionQueue, Packet, Read, Write};
use crate::traits::{IoRead, IoWrite};

mod compare;

use compare::{
    Flight, Nobody, Shredder, below, byte, check_contents, check_error, check_read, check_write,
    driven, index, leave, read, tries, write,
};

/// How far behind the end a growing target is written.
const GROWTH_MAX: u64 = 8192;

/// What the caller knows of the targets it makes. Alignments are in bytes and at least 1;
/// they hold for offsets and lengths, not for memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    /// Length in bytes of the contents that `make` is called with.
    pub len: u64,
    /// What reads must be aligned to.
    pub read_align: u64,
    /// What writes must be aligned to; at most 4096.
    pub write_align: u64,
    /// Writing behind the end makes the target longer, with zeros between. Else it fails as
    /// `OutOfRange` or `NoSpace`.
    pub grows: bool,
}

impl Default for Shape {
    /// 10007 bytes, without alignment, of fixed length.
    fn default() -> Self {
        Self { len: 10_007, read_align: 1, write_align: 1, grows: false }
    }
}

impl Shape {
    fn contents(self) -> Vec<u8> {
        (0..self.len).map(|at| byte(at.wrapping_mul(7) ^ (at / 251))).collect()
    }

    /// Offsets or lengths where mistakes are likely.
    fn borders(self, align: u64) -> Vec<u64> {
        let mut all = vec![0, self.len.saturating_sub(1), self.len + 1];
        if cfg!(not(miri)) {
            all.extend([1, 2, 511, 512, 513, 4095, 4096, 4097]);
            all.extend([self.len / 2, self.len / 2 + 1, self.len, self.len + 4096]);
        }
        for border in &mut all {
            *border -= *border % align;
        }
        all.sort_unstable();
        all.dedup();
        all
    }
}

/// Runs every rule on targets of the default [`Shape`].
///
/// # Panics
/// Where a rule is broken, naming it.
pub fn check<T: Target>(make: impl Fn(Vec<u8>) -> T) {
    check_shaped(make, Shape::default());
}

/// Runs every rule on targets of `shape`.
///
/// # Panics
/// Where a rule is broken, naming it.
pub fn check_shaped<T: Target>(make: impl Fn(Vec<u8>) -> T, shape: Shape) {
    reads_around_borders(&make, shape);
    writes_around_borders(&make, shape);
    empty_packets_succeed(&make, shape);
    offsets_near_overflow_fail(&make, shape);
    queued_packets_come_back_once(&make, shape);
    split_views_tile(&make, shape);
    buffers_come_back(&make, shape);
    dropped_futures_lose_nothing(&make, shape);
    dropped_target_completes_everything(&make, shape);
    refused_packets_are_unchanged(&make, shape);
    reserved_room_is_kept(&make, shape);
    values_are_whole(&make, shape);
    for seed in 1..=tries(3) {
        seeded_workload(&make, shape, seed);
    }
}

/// Reads of every length at every offset around borders: what exists is read without a gap,
/// and what lies behind the end fails as `UnexpectedEof`.
///
/// # Panics
/// Where that is not so.
pub fn reads_around_borders<T: Target>(make: impl Fn(Vec<u8>) -> T, shape: Shape) {
    let model = shape.contents();
    let target = make(model.clone());
    let mut offsets = shape.borders(shape.read_align);
    offsets.push(1 << 40);
    for &at in &offsets {
        for &len in &shape.borders(shape.read_align) {
            check_read("reads_around_borders", &model, at, read(&target, at, len));
        }
    }
}

/// Writes of every length at every offset around borders: they change exactly the bytes they
/// name, and what does not fit fails alone.
///
/// # Panics
/// Where that is not so.
pub fn writes_around_borders<T: Target>(make: impl Fn(Vec<u8>) -> T, shape: Shape) {
    const RULE: &str = "writes_around_borders";
    let mut model = shape.contents();
    let target = make(model.clone());
    let mut fill = 1;
    for &at in &shape.borders(shape.write_align) {
        for &len in &shape.borders(shape.write_align) {
            fill = fill % 250 + 1;
            let done = write(&target, at, vec![fill; index(len)]);
            check_write(RULE, &mut model, shape, at, done);
            let from = at.saturating_sub(100) / shape.read_align * shape.read_align;
            let around = (len + 200).next_multiple_of(shape.read_align);
            check_read(RULE, &model, from, read(&target, from, around));
        }
    }
    check_contents(RULE, &target, &model, shape);
}

/// A packet without bytes succeeds wherever it is sent: behind the end, and at offsets that no
/// target has.
///
/// # Panics
/// Where it fails.
pub fn empty_packets_succeed<T: Target>(make: impl Fn(Vec<u8>) -> T, shape: Shape) {
    const RULE: &str = "empty_packets_succeed";
    let target = make(shape.contents());
    let borders = [0, shape.len, shape.len + 1, 1 << 40, i64::MAX.unsigned_abs(), u64::MAX];
    for at in borders {
        let align = shape.read_align.max(shape.write_align);
        let at = at - at % align;
        let read = read(&target, at, 0);
        assert_eq!((read.error(), read.is_ok()), (None, true), "{RULE}: reading at {at}");
        let written = write(&target, at, Vec::new());
        assert_eq!((written.error(), written.is_ok()), (None, true), "{RULE}: writing at {at}");
    }
    check_contents(RULE, &target, &shape.contents(), shape);
}

/// Where `offset + len` is beyond what offsets can be, packets fail as a whole; nothing panics
/// and nothing is changed.
///
/// # Panics
/// Where that is not so.
pub fn offsets_near_overflow_fail<T: Target>(make: impl Fn(Vec<u8>) -> T, shape: Shape) {
    const RULE: &str = "offsets_near_overflow_fail";
    let target = make(shape.contents());
    let align = shape.read_align.max(shape.write_align);
    for top in [u64::MAX, i64::MAX.unsigned_abs()] {
        let top = top - top % align;
        for back in [0, 1, 2, 5] {
            let (at, len) = (top - back * align, 4 * align);
            let done = read(&target, at, len);
            check_error(RULE, &done, &[ErrorKind::UnexpectedEof, ErrorKind::OutOfRange]);
            assert_eq!(done.contiguous_bytes(), 0, "{RULE}: {len} bytes at {at}");
            // A file may well have its last byte at 2^63 - 2.
            if !shape.grows || at.checked_add(len).is_none_or(|end| end > i64::MAX as u64) {
                let done = write(&target, at, vec![1; index(len)]);
                check_error(RULE, &done, &[ErrorKind::OutOfRange, ErrorKind::NoSpace]);
                assert_eq!(done.contiguous_bytes(), 0, "{RULE}: {len} bytes at {at}");
            }
        }
    }
    check_contents(RULE, &target, &shape.contents(), shape);
}

/// Packets under way together come back exactly once each, with their own tag and bytes.
///
/// # Panics
/// Where that is not so.
pub fn queued_packets_come_back_once<T: Target>(make: impl Fn(Vec<u8>) -> T, shape: Shape) {
    const RULE: &str = "queued_packets_come_back_once";
    let mut model = shape.contents();
    let target = make(model.clone());
    let block = 64_u64.next_multiple_of(shape.write_align).next_multiple_of(shape.read_align);
    let blocks = (shape.len / block).clamp(1, tries(64));
    let mut writes = Flight::new();
    for at in (0..blocks).map(|number| number * block) {
        writes.send(&target, at, vec![byte(at / block) | 0x80; index(block)]);
    }
    for (at, done) in writes.land(&target) {
        check_write(RULE, &mut model, shape, at, done);
    }
    let mut reads = Flight::<Read>::new();
    for number in 0..3 * blocks {
        reads.send(&target, number % blocks * block, vec![0; index(block)]);
    }
    for (at, done) in reads.land(&target) {
        check_read(RULE, &model, at, done);
    }
    check_contents(RULE, &target, &model, shape);
}

/// Views that are split before they are sent tile their packet: every part is at its place,
/// and only parts that fail are missing.
///
/// # Panics
/// Where that is not so.
pub fn split_views_tile<T: Target>(make: impl Fn(Vec<u8>) -> T, shape: Shape) {
    const RULE: &str = "split_views_tile";
    let mut model = shape.contents();
    let target = make(model.clone());
    let seed = Cell::new(0x5eed);
    let shredder = Shredder { target: &target, align: shape.read_align, seed: &seed };
    for round in 0..tries(100) {
        let at = below(&seed, shape.len + 1) / shape.read_align * shape.read_align;
        let len = below(&seed, shape.len + 500) / shape.read_align * shape.read_align;
        let packet = Packet::<Read, _>::new(vec![0xee; index(len)]);
        check_read(RULE, &model, at, driven(&target, shredder.io(at, packet)));
        if round % 3 == 0 {
            let writer = Shredder { align: shape.write_align, ..shredder };
            let at = at - at % shape.write_align;
            let len = len - len % shape.write_align;
            let data = (0..len).map(|at| byte(at ^ round)).collect::<Vec<_>>();
            let done = driven(&target, writer.io(at, Packet::<Write, _>::new(data)));
            check_write(RULE, &mut model, shape, at, done);
        }
    }
    check_contents(RULE, &target, &model, shape);
}

/// The very same buffer comes back, whatever has happened.
///
/// # Panics
/// Where another comes back.
pub fn buffers_come_back<T: Target>(make: impl Fn(Vec<u8>) -> T, shape: Shape) {
    const RULE: &str = "buffers_come_back";
    let target = make(shape.contents());
    let align = shape.read_align.max(shape.write_align);
    for at in [0, shape.len / align * align, u64::MAX - u64::MAX % align] {
        let buffer = vec![0; index(align * 3)];
        let (address, len) = (buffer.as_ptr(), buffer.len());
        let (_, buffer) = driven(&target, target.read_exact(at, buffer));
        assert_eq!((buffer.as_ptr(), buffer.len()), (address, len), "{RULE}: read at {at}");
        let (_, buffer) = driven(&target, target.write_exact(at, buffer));
        assert_eq!((buffer.as_ptr(), buffer.len()), (address, len), "{RULE}: write at {at}");
    }
}

/// Futures dropped before or after they have sent their packet leave a target that works, and
/// nothing is written but what was to be written.
///
/// # Panics
/// Where that is not so.
pub fn dropped_futures_lose_nothing<T: Target>(make: impl Fn(Vec<u8>) -> T, shape: Shape) {
    const RULE: &str = "dropped_futures_lose_nothing";
    let model = shape.contents();
    let target = make(model.clone());
    // Writes bring what is there already: whether they happen cannot be told.
    let some = (shape.len / shape.write_align * shape.write_align).min(4096);
    let same = model[..index(some - some % shape.write_align)].to_vec();
    for round in 0..tries(200) {
        let polled = round % 2 == 1;
        let buffer = vec![0; index(shape.len / shape.read_align * shape.read_align)];
        leave(target.io(0, Packet::<Read, _>::new(buffer)), polled);
        leave(target.io(0, Packet::<Write, _>::new(same.clone())), polled);
        leave(target.read_value::<[u8; 4096]>(0), polled);
        let mut queue = CompletionQueue::<Read, Vec<u8>>::new();
        let packet = Packet::new(vec![0; index(shape.read_align)]);
        // Refused or not: the queue goes with what it has.
        drop(queue.send(&target, 0, packet, round));
        if round % 16 == 0 {
            check_contents(RULE, &target, &model, shape);
        }
    }
    check_contents(RULE, &target, &model, shape);
    leave(target.io(0, Packet::<Read, _>::new(vec![0; index(shape.read_align)])), true);
    drop(target);
}

/// Packets that are under way when the target is dropped come back all the same: done, or
/// failed, and never as done with bytes that were not read.
///
/// # Panics
/// Where bytes are wrong. It hangs where a packet is lost.
pub fn dropped_target_completes_everything<T: Target>(make: impl Fn(Vec<u8>) -> T, shape: Shape) {
    const RULE: &str = "dropped_target_completes_everything";
    let model = shape.contents();
    let target = make(model.clone());
    let mut queue = CompletionQueue::<Read, Vec<u8>>::new();
    let len = 700_u64.next_multiple_of(shape.read_align);
    for tag in 0..if cfg!(miri) { 4 } else { 32 } {
        let packet = Packet::new(vec![0xee; index(len)]);
        drop(queue.send(&target, tag * shape.read_align, packet, tag * shape.read_align));
    }
    drop(target);
    while queue.in_flight() > 0 {
        let next = driven(&Nobody, poll_fn(|cx| queue.poll_pop(cx)));
        let (at, done) = next.expect("packets are in flight");
        let start = index(at).min(model.len());
        let bytes = done.bytes();
        assert!(bytes == &model[start..start + bytes.len()], "{RULE}: {bytes:?} at {at}");
    }
}

/// A target that is full hands packets back as they were, and takes them when it has been
/// driven.
///
/// # Panics
/// Where that is not so.
pub fn refused_packets_are_unchanged<T: Target>(make: impl Fn(Vec<u8>) -> T, shape: Shape) {
    const RULE: &str = "refused_packets_are_unchanged";
    let model = shape.contents();
    let target = make(model.clone());
    let mut queue = CompletionQueue::<Read, Vec<u8>>::new();
    let mut refused = None;
    let mut sent = 0;
    while sent < tries(3000) && refused.is_none() {
        let buffer = vec![byte(sent); index(shape.read_align)];
        let address = buffer.as_ptr();
        if let Err(unsent) = queue.send(&target, 0, Packet::new(buffer), sent) {
            let buffer = unsent.packet.into_buffer();
            assert_eq!((unsent.param, buffer.as_ptr()), (0, address), "{RULE}");
            assert!(buffer.iter().all(|&found| found == byte(sent)), "{RULE}: touched");
            refused = Some(buffer);
        } else {
            sent += 1;
        }
    }
    if let Some(buffer) = refused {
        // Awaiting waits for room, and driving makes it.
        let done = driven(&target, target.io(0, Packet::<Read, _>::new(buffer)));
        check_read(RULE, &model, 0, done);
    }
    let mut seen = vec![false; index(sent)];
    for _ in 0..sent {
        let next = driven(&target, poll_fn(|cx| queue.poll_pop(cx)));
        let (tag, done) = next.expect("packets are in flight");
        assert!(!core::mem::replace(&mut seen[index(tag)], true), "{RULE}: {tag} came twice");
        check_read(RULE, &model, 0, done);
    }
    assert_eq!(queue.in_flight(), 0, "{RULE}");
}

/// Room that was reserved is there, and given back it is there for others.
///
/// # Panics
/// Where that is not so.
pub fn reserved_room_is_kept<T: Target>(make: impl Fn(Vec<u8>) -> T, shape: Shape) {
    const RULE: &str = "reserved_room_is_kept";
    let model = shape.contents();
    let target = make(model.clone());
    for round in 0..index(tries(300)) {
        driven(&target, poll_fn(|cx| PacketIo::<Read, u64>::poll_ready(&target, cx)));
        let one = PacketIo::<Read, u64>::reserve(&target, 1);
        assert!(one, "{RULE}: ready, but has no room for one ({round})");
        PacketIo::<Read, u64>::release(&target, 1);
        let views = round % 7 + 1;
        if !PacketIo::<Read, u64>::reserve(&target, views) {
            continue;
        }
        if round % 2 == 0 {
            PacketIo::<Read, u64>::release(&target, views);
            continue;
        }
        let mut flight = Flight::<Read>::new();
        for sent in 0..views {
            let packet = Packet::new(vec![0; index(shape.read_align)]);
            let accepted = flight.queue.send(&target, 0, packet, flight.tag()).is_ok();
            assert!(accepted, "{RULE}: {views} reserved, {sent} accepted");
            flight.places.push(Some(0));
        }
        for (at, done) in flight.land(&target) {
            check_read(RULE, &model, at, done);
        }
    }
}

/// Values are read and written as a whole, or there is an error.
///
/// # Panics
/// Where that is not so.
pub fn values_are_whole<T: Target>(make: impl Fn(Vec<u8>) -> T, shape: Shape) {
    match shape.read_align.max(shape.write_align) {
        ..=8 => values::<u64, T>(make, shape),
        9..=512 => values::<[u8; 512], T>(make, shape),
        _ => values::<[u8; 4096], T>(make, shape),
    }
}

fn values<V: Pod, T: Target>(make: impl Fn(Vec<u8>) -> T, shape: Shape) {
    const RULE: &str = "values_are_whole";
    let mut model = shape.contents();
    let target = make(model.clone());
    let size = size_of::<V>() as u64;
    for at in (0..(shape.len / size).min(tries(20))).map(|number| number * size) {
        let mut value = V::zeroed();
        bytemuck::bytes_of_mut(&mut value).fill(byte(at / size) + 1);
        let written = driven(&target, target.write_value(at, value));
        assert_eq!(written, Ok(()), "{RULE}: writing at {at}");
        model[index(at)..index(at + size)].copy_from_slice(bytemuck::bytes_of(&value));
        let found = driven(&target, target.read_value::<V>(at));
        let found = found.expect("values_are_whole: what was written can be read");
        assert!(bytemuck::bytes_of(&found) == bytemuck::bytes_of(&value), "{RULE}: at {at}");
    }
    check_contents(RULE, &target, &model, shape);
    let last = shape.len.saturating_sub(size / 2);
    let at = last - last % shape.read_align;
    let cut = driven(&target, target.read_value::<V>(at)).map(|_| ());
    if at + size > shape.len {
        let kind = cut.map_err(|error| error.kind());
        assert_eq!(kind, Err(ErrorKind::UnexpectedEof), "{RULE}: beyond the end");
    }
}

/// Reads and writes, alone, together and in parts, as `seed` has it, against a byte array.
///
/// # Panics
/// Where a result or a byte differs.
pub fn seeded_workload<T: Target>(make: impl Fn(Vec<u8>) -> T, shape: Shape, seed: u64) {
    const RULE: &str = "seeded_workload";
    let mut model = shape.contents();
    let target = make(model.clone());
    let seed = Cell::new(seed | 1 << 33);
    let any = |align: u64, bound: u64| below(&seed, bound) / align * align;
    for step in 0..tries(150) {
        let bound = shape.len + 300;
        if below(&seed, 3) > 0 {
            let mut reads = Flight::<Read>::new();
            for _ in 0..=below(&seed, 12) {
                let at = any(shape.read_align, bound);
                let len = any(shape.read_align, bound / 2);
                reads.send(&target, at, vec![0xee; index(len)]);
            }
            for (at, done) in reads.land(&target) {
                check_read(RULE, &model, at, done);
            }
            continue;
        }
        // Writes under way together must not overlap: nobody says which comes last.
        let mut writes = Flight::<Write>::new();
        let share = (bound / 4).next_multiple_of(shape.write_align);
        for number in 0..4 {
            let within = any(shape.write_align, share);
            let len = any(shape.write_align, share - within + 1);
            let data = vec![byte(step * 4 + number); index(len)];
            writes.send(&target, number * share + within, data);
        }
        for (at, done) in writes.land(&target) {
            check_write(RULE, &mut model, shape, at, done);
        }
    }
    check_contents(RULE, &target, &model, shape);
}
