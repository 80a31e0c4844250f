//! The sequences, one rule per test.

use super::*;

fn shape(len_bytes: u64, mix: Mix, random: bool) -> Shape {
    Shape {
        regions: vec![Region { start_bytes: 0, len_bytes }],
        blocks: [Blocks::One(4096), Blocks::One(4096), Blocks::One(4096)],
        blocks_by_pattern: false,
        mix,
        random,
        random_map: true,
        limit_bytes: None,
        renews: false,
        limit_ios: None,
        flush_every: 0,
        flush: Operation::Fdatasync,
        places: Places::default(),
    }
}

fn one_pass(mut shape: Shape) -> Vec<Step> {
    if shape.limit_bytes.is_none() {
        shape.limit_bytes = Some(shape.pass_bytes());
    }
    let mut generator = Generator::new(&shape, 7);
    let steps = core::iter::from_fn(|| Some(generator.step()));
    steps.take_while(|step| *step != Step::Finished).collect()
}

fn offsets(steps: &[Step], direction: Operation) -> Vec<u64> {
    let of = |step: &Step| match step {
        Step::Do { operation, offset_bytes, .. } if *operation == direction => Some(*offset_bytes),
        _ => None,
    };
    steps.iter().filter_map(of).collect()
}

#[test]
fn partial_final_block_is_never_issued() {
    let steps = one_pass(shape(10_000, Mix::Read, false));
    assert_eq!(offsets(&steps, Operation::Read), [0, 4096]);
}

#[test]
fn random_map_touches_every_block_once_and_the_seed_fixes_the_order() {
    let steps = one_pass(shape(1 << 20, Mix::Write, true));
    let mut seen = offsets(&steps, Operation::Write);
    assert_ne!(seen[..4], [0, 4096, 8192, 12288]);
    assert_eq!(steps, one_pass(shape(1 << 20, Mix::Write, true)));
    seen.sort_unstable();
    assert_eq!(seen, (0..256).map(|block| block * 4096).collect::<Vec<_>>());
}

#[test]
fn mixed_sequential_has_a_cursor_per_direction_and_a_common_amount() {
    let steps = one_pass(shape(1 << 20, Mix::Both { read_percent: 50 }, false));
    let (reads, writes) = (offsets(&steps, Operation::Read), offsets(&steps, Operation::Write));
    assert_eq!(reads.len() + writes.len(), 256);
    assert!(reads.len() > 90 && writes.len() > 90);
    for list in [reads, writes] {
        assert!(list.iter().zip(0..).all(|(at, index)| *at == index * 4096_u64));
    }
}

#[test]
fn amount_beyond_the_region_wraps() {
    let mut wrapping = shape(8192, Mix::Write, false);
    wrapping.limit_bytes = Some(4 * 4096);
    assert_eq!(offsets(&one_pass(wrapping), Operation::Write), [0, 4096, 0, 4096]);
}

#[test]
fn number_of_ios_ends_the_pass_early() {
    let mut short = shape(1 << 20, Mix::Read, true);
    short.limit_ios = Some(5);
    assert_eq!(one_pass(short).len(), 5);
}

#[test]
fn flush_follows_every_nth_write() {
    let mut flushing = shape(4 * 4096, Mix::Write, false);
    flushing.flush_every = 2;
    let kinds: Vec<Operation> = one_pass(flushing)
        .iter()
        .map(|step| match step {
            Step::Do { operation, .. } => *operation,
            _ => unreachable!("cut off by one_pass"),
        })
        .collect();
    use Operation::{Fdatasync, Write};
    assert_eq!(kinds[..5], [Write, Write, Fdatasync, Write, Write]);
}

#[test]
fn several_files_take_turns_and_offsets_start_at_their_regions() {
    let mut two = shape(8192, Mix::Read, false);
    two.regions.push(Region { start_bytes: 65536, len_bytes: 8192 });
    let mut seen = offsets(&one_pass(two), Operation::Read);
    seen.sort_unstable();
    assert_eq!(seen, [0, 4096, 65536, 69632]);
}

#[test]
fn long_random_reads_end_inside_the_region() {
    for random_map in [false, true] {
        let mut long = shape((1 << 20) + 4096, Mix::Both { read_percent: 50 }, true);
        long.blocks[0] = Blocks::One(65536);
        long.random_map = random_map;
        for step in one_pass(long) {
            let Step::Do { offset_bytes, len_bytes, .. } = step else { unreachable!("finished") };
            assert!(offset_bytes + u64::from(len_bytes) <= (1 << 20) + 4096);
            assert!(len_bytes.is_multiple_of(4096) && len_bytes > 0);
        }
    }
}

fn steps_of(shape: &Shape, count: usize) -> Vec<u64> {
    let mut generator = Generator::new(shape, 7);
    let mut list = Vec::new();
    while list.len() < count {
        let Step::Do { offset_bytes, .. } = generator.step() else { break };
        list.push(offset_bytes);
    }
    list
}

#[test]
fn rw_with_a_number_strides_forwards_and_backwards() {
    let mut strided = shape(32768, Mix::Read, false);
    strided.limit_bytes = Some(1 << 20);
    strided.places.number = Some(4096);
    assert_eq!(steps_of(&strided, 6), [0, 8192, 16384, 24576, 0, 8192]);
    strided.places.number = Some(-8192);
    assert_eq!(steps_of(&strided, 4), [0, 24576, 20480, 16384]);
}

#[test]
fn rw_sequencer_continues_or_repeats_a_random_offset() {
    for identical in [false, true] {
        let mut runs = shape(1 << 30, Mix::Read, true);
        runs.random_map = false;
        runs.limit_bytes = Some(1 << 20);
        (runs.places.number, runs.places.runs) = (Some(4), true);
        runs.places.identical = identical;
        let list = steps_of(&runs, 40);
        for run in list.chunks(4) {
            let step = if identical { 0 } else { 4096 };
            let expected: Vec<u64> = (0..4).map(|index| run[0] + index * step).collect();
            assert_eq!(run, expected);
        }
        assert_ne!(list[4], list[3] + 4096);
    }
}

#[test]
fn percentage_random_leaves_the_rest_sequential() {
    let mut partly = shape(1 << 30, Mix::Read, true);
    partly.limit_bytes = Some(1 << 26);
    partly.places.percent_random[0] = 25;
    let list = steps_of(&partly, 10_000);
    let random = list.windows(2).filter(|pair| pair[1] != pair[0] + 4096).count();
    assert!((2_300..2_700).contains(&random), "{random}");
}

#[test]
fn blockalign_aligns_offsets_and_ends_inside_the_region() {
    let mut aligned = shape(1 << 20, Mix::Read, true);
    aligned.places.align = [16384; 3];
    aligned.limit_bytes = Some(1 << 24);
    let list = steps_of(&aligned, 1000);
    assert!(list.iter().all(|at| at.is_multiple_of(16384) && at + 4096 <= 1 << 20));
    assert!(list.contains(&((1 << 20) - 16384)));
    aligned.places.align = [512; 3];
    let list = steps_of(&aligned, 1000);
    assert!(list.iter().all(|at| at.is_multiple_of(512) && at + 4096 <= 1 << 20));
    assert!(list.iter().any(|at| !at.is_multiple_of(4096)));
}

#[test]
fn bs_is_seq_rand_takes_the_first_size_in_order_and_the_second_at_random() {
    for (random, expected) in [(false, 4096), (true, 16384)] {
        let mut by_pattern = shape(1 << 20, Mix::Write, random);
        by_pattern.blocks_by_pattern = true;
        by_pattern.blocks[1] = Blocks::One(16384);
        let steps = one_pass(by_pattern);
        let length = |step: &Step| match step {
            Step::Do { len_bytes, .. } => *len_bytes,
            _ => 0,
        };
        assert!(steps.iter().all(|step| length(step) == expected));
        assert_eq!(steps.len(), (1 << 20) / expected as usize);
    }
}

#[test]
fn rw_trimwrite_trims_each_block_before_it_is_written() {
    for random in [false, true] {
        let steps = one_pass(shape(1 << 18, Mix::TrimWrite, random));
        assert_eq!(steps.len(), 128);
        for pair in steps.chunks(2) {
            assert_eq!(offsets(pair, Operation::Trim), offsets(pair, Operation::Write));
        }
    }
}

#[test]
fn bssplit_with_a_random_map_covers_everything_once() {
    let mut split = shape(1 << 20, Mix::Write, true);
    split.blocks[1] = Blocks::split(&[(4096, 50), (8192, 30), (32768, 20)]);
    let mut seen = vec![0_u32; 256];
    for step in one_pass(split) {
        let Step::Do { offset_bytes, len_bytes, .. } = step else { unreachable!("finished") };
        for page in 0..u64::from(len_bytes) / 4096 {
            seen[usize::try_from(offset_bytes / 4096 + page).unwrap()] += 1;
        }
    }
    assert!(seen.iter().all(|count| *count == 1), "{seen:?}");
}

#[test]
fn invalidate_separates_passes_and_changes_no_amount() {
    for random in [false, true] {
        let mut shape = shape(64 * 4096, Mix::Read, random);
        shape.renews = true;
        shape.limit_bytes = Some(5 * 32 * 4096);
        let mut generator = Generator::new(&shape, 7);
        let mut passes = vec![0];
        loop {
            match generator.step() {
                Step::Renew => passes.push(0),
                Step::Finished => break,
                _ => *passes.last_mut().unwrap() += 1,
            }
        }
        assert_eq!(passes, [64, 64, 32], "random: {random}");
    }
}
