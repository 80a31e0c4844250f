//! A process that writes blocks in place is killed with SIGKILL at any moment, many times: the
//! next one gets the lock within two seconds and finds every acknowledged block with that
//! contents or contents that were issued later, and nothing that nobody wrote.
//!
//! A write says where it goes before it is issued and when it is acknowledged, over a pipe.
//! Writes in flight do not overlap, so each block has one known state, and at most one more
//! that may have come. `MFIO_BLOCK_KILLS` says how many kills, 50 if it does not.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a test says what it saw")]

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::rc::Rc;

use mfio_core::{AlignedBuf, block_on};
use mfio_engine::ring::auto::{AutoConfig, Backend};
use mfio_engine::ring::{AutoRing, RingKind};
use mfio_engine::target::LOCK_WAIT_MS_MAX;
use mfio_engine::{Config, DirectMode, Durability, File, OpenOptions, Shard, SyncMethod};

mod stamped;

use stamped::{BLOCK, sequence_of, stamp};

const KILLS: u64 = 50;
const BLOCKS: usize = 2048;
/// The longest write, so that much is in flight when the process dies.
const LONG: usize = 256;
const TASKS: u64 = 8;
const PATH: &str = "BLOCK_KILL_PATH";
const LIFE: &str = "BLOCK_KILL_LIFE";

fn next(state: &mut u64, below: usize) -> usize {
    *state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
    (*state >> 33) as usize % below
}

/// How life number `life` does it.
#[derive(Clone, Copy, Debug)]
struct Manner {
    backend: Backend,
    direct: DirectMode,
    method: SyncMethod,
}

impl Manner {
    fn of(life: u64) -> Self {
        let direct = !life.is_multiple_of(3);
        let methods = [SyncMethod::LinkedFlush, SyncMethod::WriteThenFlush, SyncMethod::Dsync];
        let method = methods[usize::try_from(life / 3).unwrap() % if direct { 3 } else { 2 }];
        let backend = if life % 4 == 3 { Backend::Threads } else { Backend::Auto };
        let direct = if direct { DirectMode::Direct } else { DirectMode::Buffered };
        Self { backend, direct, method }
    }

    fn shard(self) -> Shard {
        let ring = AutoRing::new(self.backend, &AutoConfig::new(64)).unwrap();
        Shard::with_ring(ring, &Config::new()).unwrap()
    }

    fn options(self) -> OpenOptions {
        OpenOptions::new().write(true).direct(self.direct).sync_method(Some(self.method))
    }
}

fn say(line: &str) {
    // One line is one write(2) of less than PIPE_BUF bytes: it is there or not.
    writeln!(std::io::stdout().lock(), "@{line}").unwrap();
}

/// What the writers of one process share.
struct Writers {
    file: File,
    busy: RefCell<Vec<bool>>,
    sequence: Cell<u64>,
}

impl Writers {
    /// A range of blocks that no write in flight touches.
    fn range(&self, seed: &mut u64) -> (usize, usize) {
        loop {
            let count = match next(seed, 16) {
                0 => LONG,
                1..8 => 2 + next(seed, 7),
                _ => 1,
            };
            let first = next(seed, BLOCKS - count + 1);
            let mut busy = self.busy.borrow_mut();
            let range = &mut busy[first..first + count];
            if !range.contains(&true) {
                range.fill(true);
                return (first, count);
            }
        }
    }

    /// Killed by a signal, data that the kernel has taken is safe as well, so a plain write is
    /// one of the ways, too.
    async fn write(&self, at: u64, bytes: AlignedBuf, how: usize) {
        let file = &self.file;
        match how {
            0 => file.write_all_at(at, bytes).await.0.unwrap(),
            1 => {
                file.write_all_at(at, bytes).await.0.unwrap();
                file.sync(Durability::Full).await.unwrap();
            }
            2 if bytes.len() == BLOCK => {
                let mut page = file.shard().arena().alloc(BLOCK).unwrap();
                page.copy_from_slice(&bytes);
                let chain = file.chain().write_at(at, page).sync(Durability::Data);
                chain.commit().await.0.unwrap();
            }
            _ => file.write_durable_at(at, bytes).await.0.unwrap(),
        }
    }

    async fn run(self: Rc<Self>, mut seed: u64) {
        loop {
            let (first, count) = self.range(&mut seed);
            let sequence = self.sequence.get();
            self.sequence.set(sequence + 1);
            let at = (first * BLOCK) as u64;
            let mut bytes = AlignedBuf::new(count * BLOCK, BLOCK);
            stamp(&mut bytes, at, sequence);
            say(&format!("issued {sequence} {first} {count}"));
            self.write(at, bytes, next(&mut seed, 8)).await;
            say(&format!("acked {sequence} {first} {count}"));
            self.busy.borrow_mut()[first..first + count].fill(false);
        }
    }
}

/// Not a test: what the killed process does.
#[test]
fn child() {
    let (Ok(path), Ok(life)) = (std::env::var(PATH), std::env::var(LIFE)) else { return };
    let life: u64 = life.parse().unwrap();
    let manner = Manner::of(life);
    let shard = manner.shard();
    let file = shard.open(Path::new(&path), &manner.options()).unwrap();
    // No sequence is used twice, whatever life it is of.
    let sequence = Cell::new(life << 32);
    let writers = Rc::new(Writers { file, busy: RefCell::new(vec![false; BLOCKS]), sequence });
    say("ready 0 0 0");
    let start = |task| shard.spawn(Rc::clone(&writers).run(life << 8 | task)).unwrap();
    let tasks: Vec<_> = (0..TASKS).map(start).collect();
    shard
        .block_on(async {
            for task in tasks {
                task.await.unwrap();
            }
        })
        .unwrap();
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Said {
    Ready,
    Issued,
    Acked,
}

/// What a line of the child says: what, sequence, first block, blocks.
fn heard(line: &str) -> Option<(Said, u64, usize, usize)> {
    let (_, line) = line.strip_suffix('\n')?.split_once('@')?;
    let mut words = line.split(' ');
    let said = match words.next()? {
        "ready" => Said::Ready,
        "issued" => Said::Issued,
        "acked" => Said::Acked,
        _ => return None,
    };
    let sequence = words.next()?.parse().ok()?;
    let mut number = || words.next()?.parse().ok();
    Some((said, sequence, number()?, number()?))
}

/// A file, and what is known of each of its blocks.
struct Victim {
    path: PathBuf,
    /// The newest write known to have reached the block.
    known: Vec<u64>,
    /// Another write that may have.
    maybe: Vec<Option<u64>>,
}

/// What all lives together came to.
#[derive(Debug, Default)]
struct Totals {
    issued: u64,
    acknowledged: u64,
    blocks_checked: u64,
    /// Blocks of writes that were not acknowledged and are there all the same.
    landed_blocks: u64,
    /// Writes of which only some blocks are there.
    torn_writes: u64,
    /// How often the dead still held the lock.
    locked: u64,
    slowest_open_ns: u64,
}

impl Victim {
    fn new(path: PathBuf) -> Self {
        let mut bytes = vec![0; BLOCKS * BLOCK];
        stamp(&mut bytes, 0, 0);
        std::fs::write(&path, bytes).unwrap();
        Self { path, known: vec![0; BLOCKS], maybe: vec![None; BLOCKS] }
    }

    fn start(&self, life: u64) -> Child {
        Command::new(std::env::current_exe().unwrap())
            .args(["child", "--exact", "--nocapture"])
            .env(PATH, &self.path)
            .env(LIFE, life.to_string())
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit())
            .spawn()
            .unwrap()
    }

    fn take(&mut self, line: &str, totals: &mut Totals) -> bool {
        let Some((said, sequence, first, count)) = heard(line) else { return false };
        for block in first..first + count {
            if said == Said::Issued {
                assert_eq!(self.maybe[block].replace(sequence), None, "writes do not overlap");
            } else {
                assert_eq!(self.maybe[block].take(), Some(sequence));
                self.known[block] = sequence;
            }
        }
        totals.issued += u64::from(said == Said::Issued);
        totals.acknowledged += u64::from(said == Said::Acked);
        true
    }

    /// Lets a child write until it has said `lines_max` lines, and kills it. The moment is
    /// chosen by how much was done, so the machine's load changes nothing.
    fn kill_one(&mut self, life: u64, lines_max: u64, totals: &mut Totals) {
        let mut child = self.start(life);
        let mut lines = BufReader::new(child.stdout.take().unwrap());
        let (mut line, mut count) = (String::new(), 0);
        while count <= lines_max {
            line.clear();
            assert!(lines.read_line(&mut line).unwrap() > 0, "the child has ended by itself");
            count += u64::from(self.take(&line, totals));
        }
        child.kill().unwrap();
        // What it had said before it died counts.
        let mut rest = Vec::new();
        lines.read_to_end(&mut rest).unwrap();
        for line in String::from_utf8_lossy(&rest).split_inclusive('\n') {
            self.take(line, totals);
        }
        child.wait().unwrap();
    }

    /// Opens the file as the next process would, and looks at every block.
    fn check(&mut self, shard: &Shard, manner: Manner, totals: &mut Totals) {
        let plain = std::fs::File::open(&self.path).unwrap();
        totals.locked += u64::from(plain.try_lock().is_err());
        drop(plain);
        let from_ns = shard.now_ns();
        // It waits for the lock as long as is allowed, and fails where that is not enough.
        let file = shard.open(&self.path, &manner.options()).unwrap();
        totals.slowest_open_ns = totals.slowest_open_ns.max(shard.now_ns() - from_ns);
        let bytes = AlignedBuf::new(BLOCKS * BLOCK, BLOCK);
        let (read, bytes) = block_on(shard, file.read_exact_at(0, bytes)).unwrap();
        read.unwrap();
        let (mut landed, mut missing) = (BTreeMap::<u64, u64>::new(), BTreeMap::new());
        for (block, bytes) in bytes.chunks_exact(BLOCK).enumerate() {
            let seen = sequence_of(bytes, (block * BLOCK) as u64).unwrap();
            let (known, maybe) = (self.known[block], self.maybe[block].take());
            assert!(
                seen == known || Some(seen) == maybe,
                "block {block} holds write {seen:#x}, {known:#x} was acknowledged, {maybe:x?} was \
                 in flight"
            );
            if let Some(maybe) = maybe {
                let of = if seen == maybe { &mut landed } else { &mut missing };
                *of.entry(maybe).or_default() += 1;
            }
            self.known[block] = seen;
        }
        totals.blocks_checked += BLOCKS as u64;
        totals.landed_blocks += landed.values().sum::<u64>();
        totals.torn_writes +=
            landed.keys().filter(|write| missing.contains_key(*write)).count() as u64;
    }
}

fn kills() -> u64 {
    std::env::var("MFIO_BLOCK_KILLS").ok().map_or(KILLS, |kills| kills.parse().unwrap())
}

#[test]
fn f46_killed_writer_leaves_every_acknowledged_block_and_nothing_invented() {
    let directory = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    // One mode for each file: direct and buffered are not mixed (F45).
    let mut direct = Victim::new(directory.path().join("direct"));
    let mut buffered = Victim::new(directory.path().join("buffered"));
    let probe = direct.path.clone();
    let shard = Manner::of(0).shard();
    if shard.features().kind != RingKind::Kernel {
        println!("without io_uring: all lives run on threads");
    }
    let has_direct = shard.open(&probe, &OpenOptions::new().direct(DirectMode::Direct)).is_ok();
    let (mut totals, mut seed, kills) = (Totals::default(), 7, kills());
    for life in 1..=kills {
        let manner = Manner::of(life);
        let is_direct = manner.direct == DirectMode::Direct;
        if is_direct && !has_direct {
            println!("SKIP life {life}: no O_DIRECT here");
            continue;
        }
        let victim = if is_direct { &mut direct } else { &mut buffered };
        // Some as soon as they are ready.
        let lines = if life % 10 == 0 { 0 } else { 1 + next(&mut seed, 200) as u64 };
        victim.kill_one(life, lines, &mut totals);
        victim.check(&shard, manner, &mut totals);
    }
    println!("{kills} kills: {totals:?}");
    assert!(totals.acknowledged >= kills * 5 && totals.issued > totals.acknowledged, "{totals:?}");
    // The lock was waited for no longer than that, or the open would have failed; here with the
    // flush that comes after it.
    assert!(totals.slowest_open_ns < 10 * LOCK_WAIT_MS_MAX * 1_000_000, "{totals:?}");
}
