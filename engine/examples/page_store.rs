//! A page store: pages with a number and a checksum, a small buffer pool over the shard's arena,
//! reads of what is missing as one batch, and write-back of what is dirty as one batch and one
//! flush. Pages are updated at random, then all of them are checked through a fresh pool, and a
//! damaged page must be found.
//!
//! `cargo run --release -p mfio-engine --example page_store -- [FOLDER]`
#![allow(clippy::print_stdout, reason = "an example says what it saw")]

mod outcome;

use std::collections::BTreeMap;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use mfio_engine::buffer::ArenaBuf;
use mfio_engine::ring::AutoRing;
use mfio_engine::ring::auto::{AutoConfig, Backend};
use mfio_engine::{Config, DirectMode, Durability, File, OpenOptions, Shard};

const PAGE: usize = 4096;
const PAGES: u64 = 256;
/// The most pages in memory, and so in a batch.
const POOL: usize = 64;
/// Checksum of the rest, and page number; then the caller's bytes.
const HEADER: usize = 12;

type Outcome<T> = Result<T, Box<dyn std::error::Error>>;

struct PageStore {
    file: File,
    /// The pages in memory, and whether they are dirty.
    pool: BTreeMap<u64, (ArenaBuf, bool)>,
}

fn seal(page: &mut [u8], number: u64) {
    page[4..HEADER].copy_from_slice(&number.to_le_bytes());
    let sum = crc32c::crc32c(&page[4..]);
    page[..4].copy_from_slice(&sum.to_le_bytes());
}

/// Also where it is whole, and another page.
fn is_damaged(page: &[u8], number: u64) -> bool {
    page[..4] != crc32c::crc32c(&page[4..]).to_le_bytes() || page[4..HEADER] != number.to_le_bytes()
}

impl PageStore {
    fn open(shard: &Shard, path: &Path) -> Outcome<Self> {
        let options = OpenOptions::new().write(true).direct(DirectMode::PreferDirect);
        Ok(Self { file: shard.open(path, &options)?, pool: BTreeMap::new() })
    }

    /// Reads those of `pages`, at most [`POOL`], that are not in memory.
    async fn fetch(&mut self, pages: &[u64]) -> Outcome<()> {
        let missing = pages.iter().copied().filter(|page| !self.pool.contains_key(page));
        let missing: Vec<u64> = missing.collect();
        if self.pool.len() + missing.len() > POOL {
            self.write_back().await?;
            self.pool.retain(|page, _| pages.contains(page));
        }
        let mut batch = self.file.shard().batch::<POOL, ArenaBuf>();
        let mut places = BTreeMap::new();
        for page in missing {
            let buffer = self.file.shard().arena().alloc(PAGE).ok_or("the arena is used up")?;
            let pushed = batch.push_read(&self.file, page * PAGE as u64, buffer);
            places.insert(pushed.map_err(|_| "the batch is full")?, page);
        }
        batch.run().await;
        while let Some(read) = batch.reap() {
            read.result?;
            let page = places[&read.index];
            if is_damaged(&read.buffer, page) {
                return Err(format!("page {page} is damaged").into());
            }
            self.pool.insert(page, (read.buffer, false));
        }
        Ok(())
    }

    /// Writes what is dirty, and makes it durable. Pages stay in memory.
    async fn write_back(&mut self) -> Outcome<()> {
        let mut batch = self.file.shard().batch::<POOL, ArenaBuf>();
        let mut places = BTreeMap::new();
        let dirty = self.pool.iter().filter(|(_, (_, dirty))| *dirty).map(|(page, _)| *page);
        for page in dirty.collect::<Vec<_>>() {
            let mut buffer = self.pool.remove(&page).ok_or("seen just now")?.0;
            seal(&mut buffer, page);
            let pushed = batch.push_write(&self.file, page * PAGE as u64, buffer);
            places.insert(pushed.map_err(|_| "the batch is full")?, page);
        }
        batch.run().await;
        while let Some(written) = batch.reap() {
            written.result?;
            self.pool.insert(places[&written.index], (written.buffer, false));
        }
        Ok(self.file.sync(Durability::Data).await?)
    }
}

async fn run(shard: &Shard, path: &Path) -> Outcome<()> {
    let (mut store, mut model) =
        (PageStore::open(shard, path)?, vec![0_u8; usize::try_from(PAGES)?]);
    let mut random = 1_u64;
    for round in 1..=40_u8 {
        let step = |_| {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (random >> 33) % PAGES
        };
        let mut pages: Vec<u64> = (0..24).map(step).collect();
        pages.sort_unstable();
        pages.dedup();
        store.fetch(&pages).await?;
        for page in pages {
            let (buffer, dirty) = store.pool.get_mut(&page).ok_or("fetched just now")?;
            buffer[HEADER..].fill(round);
            (*dirty, model[usize::try_from(page)?]) = (true, round);
        }
    }
    store.write_back().await?;
    drop(store);

    let mut store = PageStore::open(shard, path)?;
    for first in (0..PAGES).step_by(POOL) {
        let pages: Vec<u64> = (first..first + POOL as u64).collect();
        store.fetch(&pages).await?;
        for page in pages {
            let fill = model[usize::try_from(page)?];
            if store.pool[&page].0[HEADER..].iter().any(|&byte| byte != fill) {
                return Err(format!("page {page} is not what was written").into());
            }
        }
    }
    drop(store);
    std::fs::OpenOptions::new().write(true).open(path)?.write_all_at(&[0xee], 7 * 4096 + 99)?;
    let mut store = PageStore::open(shard, path)?;
    let found = store.fetch(&[6, 7, 8]).await.err().ok_or("damage was not found")?;
    println!("40 rounds over {PAGES} pages are right; then: {found}");
    Ok(())
}

fn main() -> ExitCode {
    outcome::told(try_main())
}

fn try_main() -> Outcome<()> {
    let folder = std::env::args().nth(1).map_or_else(std::env::temp_dir, PathBuf::from);
    let path = folder.join(format!("mfio-page-store-{}", std::process::id()));
    let mut empty = vec![0; PAGE * usize::try_from(PAGES)?];
    empty.chunks_mut(PAGE).zip(0..).for_each(|(page, number)| seal(page, number));
    std::fs::write(&path, empty)?;
    let ring = AutoRing::new(Backend::Auto, &AutoConfig::new(64))?;
    let shard = Shard::with_ring(ring, &Config::new())?;
    let result = shard.block_on(run(&shard, &path))?;
    std::fs::remove_file(&path)?;
    result
}
