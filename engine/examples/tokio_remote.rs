//! A multi-threaded Tokio program over an engine: handles are `Send`, completions wake the
//! tasks of whichever thread they run on, and no Tokio thread ever blocks on I/O.
//!
//! `cargo run -p mfio-engine --example tokio_remote`

mod outcome;

use std::error::Error;
use std::process::ExitCode;

use mfio_engine::{Durability, Engine, OpenOptions, Shards};

const PAGE: usize = 4096;
const TASKS: u64 = 16;
const PAGES_EACH: u64 = 64;

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() -> ExitCode {
    outcome::told(try_main().await)
}

async fn try_main() -> Result<(), Box<dyn Error + Send + Sync>> {
    let dir = tempfile::tempdir()?;
    let path = dir.path().join("pages");
    let engine = Engine::builder().shards(Shards::Count(1)).queue_depth(64).build()?;
    let options = OpenOptions::new().write(true).create(true);
    let file = engine.remote().open(&path, &options).await?;

    // Every task owns a range of pages: writes them, and reads them back.
    let tasks: Vec<_> = (0..TASKS)
        .map(|task| {
            let file = file.clone();
            tokio::spawn(async move {
                let mut page = vec![0; PAGE];
                for number in task * PAGES_EACH..(task + 1) * PAGES_EACH {
                    page.fill(content(number));
                    let (written, back) = file.write_all_at(number * PAGE as u64, page).await;
                    written?;
                    page = back;
                }
                for number in task * PAGES_EACH..(task + 1) * PAGES_EACH {
                    let (read, back) = file.read_exact_at(number * PAGE as u64, page).await;
                    read?;
                    page = back;
                    assert!(page.iter().all(|&byte| byte == content(number)), "page {number}");
                }
                Ok::<_, mfio_engine::IoError>(())
            })
        })
        .collect();
    for task in tasks {
        task.await??;
    }
    file.sync(Durability::Data).await?;

    // What the file holds now, seen without the engine.
    let bytes = tokio::task::spawn_blocking(move || std::fs::read(path)).await??;
    assert_eq!(bytes.len() as u64, TASKS * PAGES_EACH * PAGE as u64);
    for (number, page) in (0..).zip(bytes.chunks(PAGE)) {
        assert!(page.iter().all(|&byte| byte == content(number)), "page {number}");
    }
    drop(file);
    let report = tokio::task::spawn_blocking(|| engine.shutdown()).await?;
    assert!(report.is_clean(), "{report:?}");
    Ok(())
}

/// What every byte of a page is.
fn content(page: u64) -> u8 {
    u8::try_from(page % 251).unwrap_or(0)
}
