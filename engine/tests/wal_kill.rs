//! A process that appends is killed with SIGKILL at any moment, many times: whatever it has
//! reported as acknowledged is found, and the log can be opened again at once.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a test says what it saw")]

use std::collections::BTreeMap;
use std::future::{Future, poll_fn};
use std::io::{BufRead, BufReader, Read, Write};
use std::path::Path;
use std::pin::Pin;
use std::process::{Child, Command, Stdio};
use std::task::Poll;

use mfio_core::block_on;
use mfio_engine::ring::Ring;
use mfio_engine::ring::kernel::{KernelConfig, KernelRing};
use mfio_engine::ring::threads::ThreadRing;
use mfio_engine::wal::{Lsn, Recovery, SegmentDir, Wal, WalConfig, WalError};
use mfio_engine::{Config, Shard};

const KILLS: u64 = 200;
const TASKS: u64 = 8;
const DIR: &str = "WAL_KILL_DIR";
const LIFE: &str = "WAL_KILL_LIFE";
/// How long a log may take to be opened after its process was killed. Its lock is had within
/// two seconds, or the open fails; what comes after that is a dozen flushes, and how long those
/// take is the disk's affair and that of whoever else uses it.
const REOPEN_NS_MAX: u64 = 20_000_000_000;

fn config() -> WalConfig {
    WalConfig { segment_bytes: 128 << 10, block_bytes_max: 16 << 10, ..WalConfig::new() }
}

/// Life, task and count in front, and bytes that follow from them.
fn record_of(id: u64) -> Vec<u8> {
    let len = 16 + (id.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 54) as usize;
    let fill = id.to_le_bytes()[0];
    let mut record = id.to_le_bytes().to_vec();
    record.resize(len, fill);
    record
}

async fn open<R: Ring + 'static>(
    shard: &Shard<R>,
    dir: &Path,
    found: &mut Vec<(Lsn, Vec<u8>)>,
) -> (Wal<R>, Recovery) {
    // On a disk that others keep busy, the dead writer's I/O and with it the lock may outlast
    // the wait of one open.
    let mut attempts_left = 10;
    loop {
        found.clear();
        let visit = async |lsn, record: &[u8]| {
            found.push((lsn, record.to_vec()));
            Ok(())
        };
        match Wal::open(shard, SegmentDir::new(dir), &config(), visit).await {
            Err(WalError::Directory { error, .. })
                if attempts_left > 0 && error.contains("has it locked") =>
            {
                attempts_left -= 1;
            }
            opened => return opened.unwrap(),
        }
    }
}

/// Polls all futures whenever one of them may have something to do.
async fn all(mut works: Vec<Pin<Box<dyn Future<Output = ()> + '_>>>) {
    poll_fn(|cx| {
        works.retain_mut(|work| work.as_mut().poll(cx).is_pending());
        if works.is_empty() { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
}

fn append_for_ever<R: Ring + 'static>(ring: R, dir: &Path, life: u64) {
    let shard = Shard::with_ring(ring, &Config::new()).unwrap();
    let mut found = Vec::new();
    let (wal, _report) = block_on(&shard, open(&shard, dir, &mut found)).unwrap();
    let say = |line: String| {
        let mut out = std::io::stdout().lock();
        writeln!(out, "{line}").unwrap();
        out.flush().unwrap();
    };
    say(String::from("@ready"));
    let work = |task: u64| {
        let wal = wal.clone();
        async move {
            for count in 0.. {
                let id = life << 32 | task << 24 | count;
                let lsn = wal.append(&record_of(id)).await.unwrap();
                say(format!("@acked {lsn} {id}"));
                if task == 0 && count % 4 == 3 {
                    wal.truncate_before(Lsn(lsn.0.saturating_sub(200))).await.unwrap();
                }
            }
        }
    };
    let works = (0..TASKS).map(|task| Box::pin(work(task)) as Pin<Box<dyn Future<Output = ()>>>);
    block_on(&shard, all(works.collect())).unwrap();
}

/// Not a test: what the killed process does.
#[test]
fn child() {
    let (Ok(dir), Ok(life)) = (std::env::var(DIR), std::env::var(LIFE)) else { return };
    let (dir, life) = (Path::new(&dir), life.parse().unwrap());
    match KernelRing::new(&KernelConfig::new(64)) {
        Ok(ring) => append_for_ever(ring, dir, life),
        Err(_) => append_for_ever(ThreadRing::new(2, 64).unwrap(), dir, life),
    }
}

fn start(dir: &Path, life: u64) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["child", "--exact", "--nocapture"])
        .env(DIR, dir)
        .env(LIFE, life.to_string())
        .stdout(Stdio::piped())
        .stderr(Stdio::inherit())
        .spawn()
        .unwrap()
}

/// Lets a child append for a while, kills it, and returns what it has acknowledged.
fn kill_one(dir: &Path, life: u64, acks_max: usize) -> BTreeMap<u64, u64> {
    let mut child = start(dir, life);
    let mut lines = BufReader::new(child.stdout.take().unwrap());
    let mut acked = BTreeMap::new();
    let mut line = String::new();
    let mut take = |line: &str| {
        let mut words = line.split_once("@acked ").map_or("", |(_, acked)| acked).split(' ');
        if let (Some(lsn), Some(id)) = (words.next(), words.next())
            && line.ends_with('\n')
        {
            acked.insert(lsn.parse().unwrap(), id.trim().parse().unwrap());
        }
        acked.len()
    };
    // The moment is chosen by how much has been done, so it falls anywhere between two polls,
    // and the machine's load changes nothing.
    loop {
        line.clear();
        assert!(lines.read_line(&mut line).unwrap() > 0, "the child has ended by itself");
        if take(&line) >= acks_max || (acks_max == 0 && line.contains("@ready")) {
            break;
        }
    }
    child.kill().unwrap();
    // What it had said before it died counts.
    let mut rest = Vec::new();
    lines.read_to_end(&mut rest).unwrap();
    for line in String::from_utf8_lossy(&rest).split_inclusive('\n') {
        take(line);
    }
    child.wait().unwrap();
    acked
}

fn check_after_kill<R: Ring + 'static>(
    shard: &Shard<R>,
    dir: &Path,
    acked: &BTreeMap<u64, u64>,
    newest: u64,
    life: u64,
) -> (usize, u64) {
    let mut found = Vec::new();
    let from = shard.with_ring_ref(Ring::now_ns);
    let (wal, report) = block_on(shard, open(shard, dir, &mut found)).unwrap();
    let took_ns = shard.with_ring_ref(Ring::now_ns) - from;
    assert!(took_ns <= REOPEN_NS_MAX, "{took_ns} ns to open the log again");
    let first = report.first_lsn;
    for ((expected, (lsn, record)), at) in (first.0..).zip(&found).zip(0..) {
        assert_eq!(lsn.0, expected, "record {at} of {report:?}");
        let id = u64::from_le_bytes(record[..8].try_into().unwrap());
        assert_eq!(*record, record_of(id), "record {lsn}");
        assert!(id >> 32 <= life, "record {lsn} is from the future");
    }
    assert_eq!(report.records, found.len() as u64);
    // The child may have truncated what is 200 records old.
    assert!(report.next_lsn.0 > newest, "{newest} was acknowledged: {report:?}");
    assert!(first.0 + 200 <= newest.max(201), "{first} is the first, {newest} the newest");
    for (lsn, id) in acked.range(first.0..) {
        let (_, record) = &found[usize::try_from(lsn - first.0).unwrap()];
        assert_eq!(*record, record_of(*id), "record {lsn}");
    }
    drop(wal);
    (found.len(), took_ns)
}

fn kill_many<R: Ring + 'static>(ring: R) {
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let log = dir.path().join("log");
    let shard = Shard::with_ring(ring, &Config::new()).unwrap();
    let (mut acked_all, mut found_all, mut slowest_ns, mut newest) = (0, 0, 0, 0);
    for life in 1..=KILLS {
        let acks = usize::try_from(life * 37 % 97).unwrap();
        let acked = kill_one(&log, life, acks);
        newest = acked.last_key_value().map_or(newest, |(lsn, _)| newest.max(*lsn));
        let (found, took_ns) = check_after_kill(&shard, &log, &acked, newest, life);
        acked_all += acked.len();
        found_all += found;
        slowest_ns = slowest_ns.max(took_ns);
    }
    println!(
        "{KILLS} kills: {acked_all} records acknowledged, {found_all} found; the slowest open \
         took {} ms",
        slowest_ns / 1_000_000
    );
    assert!(acked_all > 1000 && found_all > acked_all);
}

#[test]
fn f46_killed_process_loses_nothing_that_it_has_acknowledged() {
    match KernelRing::new(&KernelConfig::new(64)) {
        Ok(ring) => kill_many(ring),
        Err(_) => kill_many(ThreadRing::new(2, 64).unwrap()),
    }
}
