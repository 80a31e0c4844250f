//! The sequences, one rule per test.

use super::*;

fn shape(len_bytes: u64, mix: Mix, random: bool) -> Shape {
    Shape {
        regions: vec![Region { start_bytes: 0, len_bytes }],
        read_bytes: 4096,
        write_bytes: 4096,
        mix,
        random,
        random_map: true,
        limit_bytes: None,
        limit_ios: None,
        flush_every: 0,
        flush: Operation::Fdatasync,
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
            Step::Finished => unreachable!("cut off by one_pass"),
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
        long.read_bytes = 65536;
        long.random_map = random_map;
        for step in one_pass(long) {
            let Step::Do { offset_bytes, len_bytes, .. } = step else { unreachable!("finished") };
            assert!(offset_bytes + u64::from(len_bytes) <= (1 << 20) + 4096);
            assert!(len_bytes.is_multiple_of(4096) && len_bytes > 0);
        }
    }
}
