//! The promises of an arena: disjoint, aligned, stable, and checked after the release.

use super::*;

fn config(classes: &[(u32, u32)]) -> ArenaConfig {
    ArenaConfig::new(classes.iter().map(|&(bytes, count)| SizeClass { bytes, count }).collect())
}

fn arena(classes: &[(u32, u32)]) -> Arena {
    Arena::new(&config(classes)).unwrap()
}

#[test]
fn buffers_of_an_arena_are_disjoint_aligned_and_zeroed() {
    let arena = arena(&[(512, 5), (4096, 7), (6144, 3), (65_536, 2)]);
    let mut all = Vec::new();
    for (len_bytes, count) in [(512, 5), (4096, 7), (6144, 3), (65_536, 2)] {
        for _ in 0..count {
            all.push(arena.alloc(len_bytes).unwrap());
        }
    }
    assert_eq!(arena.in_use(), 17);
    assert!(arena.alloc(1).is_none());
    let mut spans = Vec::new();
    for buf in &mut all {
        let addr = buf.as_ptr().addr();
        assert_eq!(addr % 512, 0);
        assert!(buf.capacity_bytes() < 4096 || addr % 4096 == 0);
        assert!(buf.iter().all(|&byte| byte == 0));
        buf.fill(0xFF);
        spans.push((addr, addr + buf.capacity_bytes()));
    }
    spans.sort_unstable();
    assert!(spans.windows(2).all(|pair| pair[0].1 <= pair[1].0));
    drop(all);
    assert_eq!(arena.in_use(), 0);
}

#[test]
fn full_class_falls_through_to_the_next_larger_one() {
    let arena = arena(&[(65_536, 1), (512, 1), (4096, 1)]);
    let capacities = |len_bytes| arena.alloc(len_bytes).map(|buf| buf.capacity_bytes());
    assert_eq!(capacities(1), Some(512));
    let smallest = arena.alloc(100).unwrap();
    assert_eq!((smallest.len(), smallest.capacity_bytes()), (100, 512));
    assert_eq!(capacities(100), Some(4096));
    let middle = arena.alloc(512).unwrap();
    assert_eq!(capacities(100), Some(65_536));
    assert_eq!(capacities(65_537), None);
    assert_eq!(capacities(0), None);
    assert_eq!(arena.len_bytes_max(), 65_536);
    drop((smallest, middle));
}

#[test]
fn last_buffer_back_is_the_next_one_out() {
    let arena = arena(&[(4096, 64)]);
    let first = arena.alloc(4096).unwrap();
    let address = first.as_ptr();
    drop(first);
    assert_eq!(arena.alloc(4096).unwrap().as_ptr(), address);
}

#[test]
fn buffer_outlives_its_arena_and_keeps_its_address_when_moved() {
    let arena = arena(&[(4096, 1)]);
    let mut buf = arena.alloc(4096).unwrap();
    drop(arena);
    let address = buf.as_ptr();
    buf.fill(7);
    let moved = std::thread::spawn(move || {
        assert!(buf.iter().all(|&byte| byte == 7));
        buf
    });
    assert_eq!(moved.join().unwrap().as_ptr(), address);
}

#[test]
fn invalid_classes_are_refused_by_name() {
    let refused = |classes: &[(u32, u32)]| config(classes).validate().unwrap_err();
    assert_eq!(refused(&[]), ArenaError::NoClasses);
    for bytes in [0, 511, 513, 4095, (1 << 30) + 512, u32::MAX] {
        assert_eq!(refused(&[(bytes, 1)]), ArenaError::ClassBytes { bytes });
    }
    assert_eq!(refused(&[(512, 0)]), ArenaError::ClassCount { bytes: 512, count: 0 });
    assert_eq!(refused(&[(512, 1), (512, 2)]), ArenaError::ClassTwice { bytes: 512 });
    assert_eq!(refused(&[(1 << 30, 3000)]), ArenaError::TooLarge);
    assert_eq!(refused(&[(512, u32::MAX - 1), (1024, 1)]), ArenaError::TooLarge);
    for error in [refused(&[]), refused(&[(1, 1)]), refused(&[(512, 0)])] {
        assert!(!error.to_string().is_empty());
    }
}

#[test]
fn f01_write_after_release_is_found_in_a_poisoned_arena() {
    let poisoning = ArenaConfig { poison_released: true, ..config(&[(4096, 2), (512, 1)]) };
    let arena = Arena::new(&poisoning).unwrap();
    let mut late = arena.alloc(4096).unwrap();
    let good = arena.alloc(512).unwrap();
    let range = late.mem_range();
    late.fill(1);
    drop((late, good));
    assert_eq!(arena.in_use(), 0);
    // What a kernel does whose target CQE was not waited for.
    range.write_at(100, &[9]);
    let found = arena.verify_released();
    assert_eq!((found.ranges, found.changed_at_bytes), (2, vec![4096 + 100]));
    // Both are available again, and what is released again is compared afresh.
    let again = [arena.alloc(4096).unwrap(), arena.alloc(4096).unwrap()];
    drop(again);
    assert!(arena.alloc(4096).is_none());
    assert_eq!(arena.verify_released(), Released { ranges: 2, changed_at_bytes: vec![] });
    assert_eq!(arena.verify_released(), Released::default());
}

#[test]
fn ranges_never_straddle_a_registered_piece() {
    // 3 × 640 MiB do not fit two to a piece; nothing is touched, so nothing is used up.
    let arena = arena(&[(512, 3), (640 << 20, 3)]);
    arena.region().set_registered_bytes(arena.bytes());
    let mut indices = Vec::new();
    for _ in 0..3 {
        let mut buf = arena.alloc(640 << 20).unwrap();
        indices.push(buf.mem_range().buf_index());
        std::mem::drop(buf);
        let keep = arena.alloc(640 << 20).unwrap();
        super::super::quarantine(keep, "test of the layout", 1);
    }
    assert_eq!(indices, [Some(0), Some(1), Some(2)]);
}

#[test]
fn only_whole_ranges_of_the_registered_prefix_are_fixed() {
    let arena = arena(&[(4096, 4)]);
    let region = arena.region();
    let at = |offset: usize, len| {
        MemRange::of_raw(region.base().wrapping_add(offset), len, Some(region))
    };
    assert_eq!(at(0, 4096).unwrap().buf_index(), None);
    region.set_registered_bytes(8192);
    assert_eq!(at(0, 4096).unwrap().buf_index(), Some(0));
    assert_eq!(at(4096, 4096).unwrap().buf_index(), Some(0));
    assert_eq!(at(4097, 4096).unwrap().buf_index(), None);
    assert_eq!(at(8192, 1).unwrap().buf_index(), None);
    let mut elsewhere = [0_u8; 8];
    let outside = MemRange::of_raw(elsewhere.as_mut_ptr(), 8, Some(region)).unwrap();
    assert_eq!(outside.buf_index(), None);
    assert_eq!(outside.sub(2, 3).addr(), elsewhere.as_mut_ptr().wrapping_add(2));
}

#[test]
fn f09_memory_of_no_length_or_too_much_is_no_range() {
    let mut byte = 0_u8;
    assert!(MemRange::of_raw(&raw mut byte, 0, None).is_none());
    assert!(MemRange::of_raw(core::ptr::null_mut(), 1, None).is_none());
    assert!(MemRange::of_raw(&raw mut byte, TRANSFER_BYTES_MAX + 1, None).is_none());
}

#[test]
#[should_panic(expected = "stays inside")]
fn access_beyond_a_range_panics() {
    let arena = arena(&[(512, 1)]);
    arena.alloc(512).unwrap().mem_range().write_at(510, &[0; 3]);
}

#[test]
fn free_list_gives_out_every_index_exactly_once_under_contention() {
    let list = Arc::new(FreeList::full(64));
    let owners: Arc<[AtomicU32]> = (0..64).map(|_| AtomicU32::new(0)).collect();
    let threads = (1..=4).map(|thread| {
        let (list, owners) = (Arc::clone(&list), Arc::clone(&owners));
        std::thread::spawn(move || {
            for round in 0..20_000 {
                let held: Vec<u32> = (0..round % 20).map_while(|_| list.pop()).collect();
                for &index in &held {
                    assert_eq!(owners[index as usize].swap(thread, Ordering::Relaxed), 0);
                }
                for &index in &held {
                    assert_eq!(owners[index as usize].swap(0, Ordering::Relaxed), thread);
                    list.push(index);
                }
            }
        })
    });
    for thread in threads.collect::<Vec<_>>() {
        thread.join().unwrap();
    }
    let mut all: Vec<u32> = std::iter::from_fn(|| list.pop()).collect();
    all.sort_unstable();
    assert_eq!(all, (0..64).collect::<Vec<_>>());
}
