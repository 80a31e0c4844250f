//! F42: a file system becomes full in the middle of a batch. The stage is an empty ext4 of
//! 64 MiB on a loop device.

use mfio_core::{AlignedBuf, ErrorKind, block_on};
use mfio_engine::{DirectMode, Durability, File, Shard};

use crate::stage::{Skip, assert_stamped, file_options, kind, path, shards, stamped_at};
use crate::stamped::BLOCK;

const CHUNK: usize = 1 << 20;
/// Of each of the two files, in one batch.
const WRITES: u64 = 16;

/// What a batch of chunks for one file came to, in the order of the file.
struct Batch {
    whole: u64,
    failed: u64,
    partly_bytes: u64,
}

fn read(shard: &Shard, file: &File, at: u64, len: usize) -> AlignedBuf {
    let (read, bytes) =
        block_on(shard, file.read_exact_at(at, AlignedBuf::new(len, BLOCK))).unwrap();
    read.unwrap();
    bytes
}

/// One batch: chunks from byte `base` on for `greedy`, and between them new contents for the
/// pages of `neighbour`, which have their space.
fn batch(shard: &Shard, greedy: &File, neighbour: &File, base: u64, round: u64) -> Batch {
    let mut batch = shard.batch::<32, AlignedBuf>();
    let mut of_greedy = [None; 32];
    for number in 0..WRITES {
        let at = base + number * CHUNK as u64;
        let pushed = batch.push_write(greedy, at, stamped_at(at, round, CHUNK)).unwrap();
        of_greedy[pushed] = Some(at);
        let at = number * BLOCK as u64;
        batch.push_write(neighbour, at, stamped_at(at, round, BLOCK)).unwrap();
    }
    block_on(shard, batch.run()).unwrap();
    let (mut came_to, mut reaped) = (Batch { whole: 0, failed: 0, partly_bytes: 0 }, 0);
    let mut written = Vec::new();
    while let Some(done) = batch.reap() {
        reaped += 1;
        match (of_greedy[done.index], done.result) {
            (None, result) => result.expect("the neighbour has its space"),
            (Some(at), Ok(())) => {
                came_to.whole += 1;
                written.push((at, CHUNK));
            }
            (Some(at), Err(error)) => {
                assert_eq!(error.error.kind(), ErrorKind::NoSpace, "{error}");
                assert!(error.done_bytes < CHUNK as u64, "{error}");
                came_to.failed += 1;
                came_to.partly_bytes += error.done_bytes;
                let blocks = usize::try_from(error.done_bytes).unwrap() / BLOCK * BLOCK;
                written.push((at, blocks));
            }
        }
    }
    assert_eq!(reaped, 2 * WRITES, "each has one result");
    // What is said to be done is there, also of a write that failed.
    for (at, len) in written.into_iter().filter(|&(_, len)| len > 0) {
        assert_stamped(&read(shard, greedy, at, len), at, round);
    }
    assert_stamped(&read(shard, neighbour, 0, 16 * BLOCK), 0, round);
    came_to
}

fn full_in_the_middle_of_a_batch(name: &str, shard: &Shard, direct: DirectMode) {
    let directory = path();
    let (greedy_path, neighbour_path) = (directory.join("greedy"), directory.join("neighbour"));
    let open = |path| shard.open(path, &file_options(direct)).unwrap();
    let (greedy, neighbour) = (open(&greedy_path), open(&neighbour_path));
    block_on(shard, neighbour.write_all_at(0, stamped_at(0, 0, 16 * BLOCK))).unwrap().0.unwrap();
    block_on(shard, neighbour.sync(Durability::Full)).unwrap().unwrap();
    let (mut base, mut round) = (0, 0);
    let last = loop {
        round += 1;
        let came_to = batch(shard, &greedy, &neighbour, base, round);
        base += WRITES * CHUNK as u64;
        if came_to.failed > 0 {
            break came_to;
        }
        assert!(base < 64 << 20, "64 MiB do not fit into 64 MiB");
    };
    // Still full: a durable write fails by name and says nothing about what is durable.
    let at = base + 64 * CHUNK as u64;
    let (written, _) =
        block_on(shard, greedy.write_durable_at(at, stamped_at(at, 9, CHUNK))).unwrap();
    assert_eq!(kind(&written), Some(ErrorKind::NoSpace), "{written:?}");
    let (written, _) =
        block_on(shard, neighbour.write_durable_at(0, stamped_at(0, 99, BLOCK))).unwrap();
    written.unwrap();
    block_on(shard, greedy.sync(Durability::Data)).unwrap().unwrap();
    assert!(!greedy.is_poisoned() && !neighbour.is_poisoned(), "nothing was lost");
    // Space returns, and everybody goes on.
    drop(greedy);
    std::fs::remove_file(&greedy_path).unwrap();
    block_on(shard, neighbour.sync(Durability::Full)).unwrap().unwrap();
    let again = open(&greedy_path);
    let (written, _) =
        block_on(shard, again.write_durable_at(0, stamped_at(0, 7, 8 * CHUNK))).unwrap();
    written.unwrap();
    assert_stamped(&read(shard, &again, 0, 8 * CHUNK), 0, 7);
    assert_eq!(shard.metrics().flush_failures, 0);
    println!(
        "{name}, {direct:?}: the last batch had {} chunks whole and {} refused, {} bytes of \
         which were written",
        last.whole, last.failed, last.partly_bytes
    );
    drop((again, neighbour));
    std::fs::remove_file(greedy_path).unwrap();
    std::fs::remove_file(neighbour_path).unwrap();
}

/// A write of more than there is: as much as fits is written, and the error says how much.
fn write_that_fits_in_part(name: &str, shard: &Shard, direct: DirectMode) {
    let greedy_path = path().join("large");
    let greedy = shard.open(&greedy_path, &file_options(direct)).unwrap();
    let (written, _) =
        block_on(shard, greedy.write_all_at(0, stamped_at(0, 5, 64 * CHUNK))).unwrap();
    let error = written.unwrap_err();
    assert_eq!(error.error.kind(), ErrorKind::NoSpace, "{error}");
    println!("{name}, {direct:?}: {error}");
    assert!((1..64 * CHUNK as u64).contains(&error.done_bytes), "{error}");
    let done = usize::try_from(error.done_bytes).unwrap() / BLOCK * BLOCK;
    assert_stamped(&read(shard, &greedy, 0, done), 0, 5);
    assert!(!greedy.is_poisoned());
    drop(greedy);
    std::fs::remove_file(greedy_path).unwrap();
}

pub(crate) fn check() -> Result<(), Skip> {
    for (name, shard) in shards() {
        for direct in [DirectMode::Direct, DirectMode::Buffered] {
            write_that_fits_in_part(name, &shard, direct);
            full_in_the_middle_of_a_batch(name, &shard, direct);
        }
    }
    Ok(())
}
