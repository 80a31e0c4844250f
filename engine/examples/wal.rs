//! A write-ahead log: append, "crash", recover, truncate. Checks itself and prints what it saw.
//!
//! `cargo run -p mfio-engine --example wal [DIR]`; without a directory, in a temporary one.
#![allow(clippy::print_stdout, reason = "an example shows what happens")]

mod outcome;

use std::error::Error;
use std::future::{Future, poll_fn};
use std::path::Path;
use std::pin::Pin;
use std::process::ExitCode;
use std::task::Poll;

use mfio_core::block_on;
use mfio_engine::ring::Ring;
use mfio_engine::ring::kernel::{KernelConfig, KernelRing};
use mfio_engine::ring::threads::ThreadRing;
use mfio_engine::wal::{Lsn, SegmentDir, Wal, WalConfig, WalError};
use mfio_engine::{Config, Shard};

type Outcome<T> = Result<T, Box<dyn Error>>;
type Appending<'a> = Pin<Box<dyn Future<Output = Result<Lsn, WalError>> + 'a>>;

/// Opens the log in `dir` and collects what is in it.
async fn open<R: Ring + 'static>(
    shard: &Shard<R>,
    dir: &Path,
) -> Result<(Wal<R>, Vec<(Lsn, String)>), WalError> {
    let config =
        WalConfig { segment_bytes: 64 << 10, block_bytes_max: 16 << 10, ..WalConfig::new() };
    let mut found = Vec::new();
    let visit = async |lsn, record: &[u8]| {
        found.push((lsn, String::from_utf8_lossy(record).into()));
        Ok(())
    };
    let (wal, report) = Wal::open(shard, SegmentDir::new(dir), &config, visit).await?;
    println!(
        "opened: {} records, {} to {}, in {} segments",
        report.records, report.first_lsn, report.next_lsn, report.segments
    );
    Ok((wal, found))
}

/// Awaits all appends at once: they share blocks, and so flushes.
async fn all(mut appends: Vec<Appending<'_>>) -> Result<Vec<Lsn>, WalError> {
    let mut numbers = Vec::new();
    poll_fn(|cx| {
        appends.retain_mut(|append| match append.as_mut().poll(cx) {
            Poll::Ready(number) => {
                numbers.push(number);
                false
            }
            Poll::Pending => true,
        });
        if appends.is_empty() { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
    numbers.into_iter().collect()
}

fn demonstrate<R: Ring + 'static>(ring: R, dir: &Path) -> Outcome<()> {
    let shard = Shard::with_ring(ring, &Config::new())?;
    let busy = |_| "the shard is driven already";

    let (wal, found) = block_on(&shard, open(&shard, dir)).map_err(busy)??;
    assert!(found.is_empty(), "a new log has no records");
    // One record, durable when the future resolves.
    let first = block_on(&shard, wal.append(b"account 1: +5")).map_err(busy)??;
    assert_eq!(first, Lsn(1));
    // Many at once.
    let records: Vec<String> = (0..1000).map(|n| format!("account {n}: +{n}")).collect();
    let appends = records.iter().map(|r| Box::pin(wal.append(r.as_bytes())) as Appending<'_>);
    let numbers = block_on(&shard, all(appends.collect())).map_err(busy)??;
    println!("{} records durable in {} blocks", numbers.len(), wal.blocks());
    assert!(wal.blocks() < 200, "records share blocks");
    // Without waiting; nothing is promised of it before a commit.
    let unpromised = wal.append_no_wait(b"never committed")?;
    assert!(wal.durable_lsn() < unpromised);

    // As if the process had died here.
    drop(wal);
    let (wal, found) = block_on(&shard, open(&shard, dir)).map_err(busy)??;
    assert!(found.len() >= 1001, "everything acknowledged is found");
    assert_eq!(found[0], (Lsn(1), String::from("account 1: +5")));
    for (record, (lsn, text)) in records.iter().zip(&found[1..]) {
        assert_eq!(record, text, "record {lsn}");
    }

    // A checkpoint elsewhere makes the old records superfluous.
    let newest = wal.durable_lsn();
    let kept = block_on(&shard, wal.truncate_before(newest)).map_err(busy)??;
    println!("truncated before {newest}: the log begins with {kept}");
    let next = block_on(&shard, wal.append(b"after the checkpoint")).map_err(busy)??;
    drop(wal);
    let (_wal, found) = block_on(&shard, open(&shard, dir)).map_err(busy)??;
    assert_eq!(found[0].0, kept);
    assert_eq!(found.last(), Some(&(next, String::from("after the checkpoint"))));
    println!("all as it should be");
    Ok(())
}

fn main() -> ExitCode {
    outcome::told(try_main())
}

fn try_main() -> Outcome<()> {
    let temporary = tempfile::tempdir()?;
    let dir = std::env::args().nth(1).map(Into::into);
    let dir = dir.unwrap_or_else(|| temporary.path().join("log"));
    match KernelRing::new(&KernelConfig::new(64)) {
        Ok(ring) => demonstrate(ring, &dir),
        Err(error) => {
            println!("{error}; on threads instead");
            demonstrate(ThreadRing::new(2, 64)?, &dir)
        }
    }
}
