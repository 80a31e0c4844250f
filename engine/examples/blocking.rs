//! An ordinary blocking program over an engine: threads, no runtime, the same handles.
//!
//! `cargo run -p mfio-engine --example blocking`

mod outcome;

use std::error::Error;
use std::process::ExitCode;

use mfio_core::{BlockingRead, BlockingWrite};
use mfio_engine::{Durability, Engine, OpenOptions, Shards, block_on};

const PAGE: usize = 4096;
const THREADS: u64 = 4;
const PAGES_EACH: u64 = 64;

fn main() -> ExitCode {
    outcome::told(try_main())
}

fn try_main() -> Result<(), Box<dyn Error>> {
    let dir = tempfile::tempdir()?;
    let path = dir.path().join("pages");
    let engine = Engine::builder().shards(Shards::Count(1)).queue_depth(64).build()?;
    let remote = engine.remote();
    let options = OpenOptions::new().write(true).create(true);
    let file = block_on(&remote, remote.open(&path, &options))??;

    std::thread::scope(|scope| {
        for thread in 0..THREADS {
            let file = &file;
            scope.spawn(move || {
                for number in thread * PAGES_EACH..(thread + 1) * PAGES_EACH {
                    let (at, mut page) = (number * PAGE as u64, [content(number); PAGE]);
                    file.blocking_write_exact(at, &page).expect("there is room for the file");
                    page.fill(0);
                    file.blocking_read_exact(at, &mut page).expect("it was written");
                    assert!(page.iter().all(|&byte| byte == content(number)), "page {number}");
                }
            });
        }
    });
    block_on(&file, file.sync(Durability::Data))??;

    // What the file holds now, seen without the engine.
    let bytes = std::fs::read(path)?;
    assert_eq!(bytes.len() as u64, THREADS * PAGES_EACH * PAGE as u64);
    for (number, page) in (0..).zip(bytes.chunks(PAGE)) {
        assert!(page.iter().all(|&byte| byte == content(number)), "page {number}");
    }
    drop(file);
    let report = engine.shutdown();
    assert!(report.is_clean(), "{report:?}");
    Ok(())
}

/// What every byte of a page is.
fn content(page: u64) -> u8 {
    u8::try_from(page % 251).unwrap_or(0)
}
