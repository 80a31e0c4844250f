//! One seed is one run: on every thread, in every order.

use engine_sim::{run, sweep};

const OPS: u32 = 1000;

const SEEDS: u64 = 200;

#[test]
fn same_seed_gives_the_same_run_and_other_seeds_give_others() {
    let first = sweep(0..SEEDS, OPS, None, 2);
    let second = sweep(0..SEEDS, OPS, None, 1);
    assert_eq!((first.hashes.len(), first.seeds), (200, SEEDS));
    assert_eq!(first.hashes, second.hashes);
    assert_eq!(first.stats, second.stats);
    assert_eq!(first.coverage, second.coverage);
    assert_eq!(first.knobs, second.knobs);

    let mut hashes: Vec<u64> = first.hashes.iter().map(|(_, hash)| *hash).collect();
    hashes.sort_unstable();
    hashes.dedup();
    assert_eq!(hashes.len(), 200, "two seeds took the same path");
}

#[test]
fn run_depends_on_nothing_that_ran_before() {
    let alone = run(7, OPS, None);
    let _other = run(8, OPS, None);
    assert_eq!(alone, run(7, OPS, None));
}
