//! Tests the recovery of a small store on a simulated device: the power is cut at another step
//! of each of many seeds, and whatever was committed must be found again.
//!
//! `cargo run -p mfio-engine --features sim --example sim_recovery [-- --skip-flush]`; with
//! `--skip-flush` the *store* has a bug, the simulation finds it, and the exit status is 1.
#![allow(clippy::print_stdout, reason = "an example shows what happens")]

use std::error::Error;
use std::process::ExitCode;

use mfio_engine::ring::Ring;
use mfio_engine::ring::sim::{FaultRates, FileSpec, Random, SimConfig, SimDevice};
use mfio_engine::{Config, Durability, File, Shard};

const SECTOR: usize = 512;
const PAGE: usize = 4 * SECTOR;
const SEEDS: u64 = 300;
const LIVES: u32 = 4;

type Outcome<T> = Result<T, Box<dyn Error>>;

/// One page, kept in two places of which one is valid. Sectors 0 and 1 are superblocks, which
/// name a generation twice; the page of generation g lies in place g % 2. Nothing in here knows
/// of simulations: on a kernel's ring it is the same code.
struct Store<R: Ring> {
    shard: Shard<R>,
    file: File<R>,
    generation: u64,
    skip_flush: bool,
}

const fn page_at(generation: u64) -> u64 {
    (2 * SECTOR + (generation % 2) as usize * PAGE) as u64
}

impl<R: Ring> Store<R> {
    /// Recovers: the newest valid superblock says which page counts.
    async fn open(shard: Shard<R>, file: File<R>, skip_flush: bool) -> Outcome<(Self, Vec<u8>)> {
        let blocks = shard.arena().alloc(2 * SECTOR).ok_or("the arena is in use")?;
        let (read, blocks) = file.read_exact_at(0, blocks).await;
        read?;
        let mut generation = 0;
        for block in blocks.chunks(SECTOR) {
            let (a, b) = (block[..8].try_into()?, block[8..16].try_into()?);
            if u64::from_le_bytes(a) == !u64::from_le_bytes(b) {
                generation = generation.max(u64::from_le_bytes(a));
            }
        }
        let page = shard.arena().alloc(PAGE).ok_or("the arena is in use")?;
        let (read, page) = file.read_exact_at(page_at(generation), page).await;
        read?;
        Ok((Self { shard, file, generation, skip_flush }, page.to_vec()))
    }

    /// Replaces the page, all or nothing, and durably.
    async fn commit(&mut self, bytes: &[u8; PAGE]) -> Outcome<()> {
        let next = self.generation + 1;
        let mut page = self.shard.arena().alloc(PAGE).ok_or("the arena is in use")?;
        page.copy_from_slice(bytes);
        self.file.write_all_at(page_at(next), page).await.0?;
        if !self.skip_flush {
            // The superblock must not survive without what it points to.
            self.file.sync(Durability::Data).await?;
        }
        let mut block = self.shard.arena().alloc(SECTOR).ok_or("the arena is in use")?;
        block.fill(0);
        block[..8].copy_from_slice(&next.to_le_bytes());
        block[8..16].copy_from_slice(&(!next).to_le_bytes());
        let at = (next % 2) * SECTOR as u64;
        self.file.write_durable_at(at, block).await.0?;
        self.generation = next;
        Ok(())
    }
}

/// The page of each generation looks different; that of generation 0 is the empty device's.
fn contents(generation: u64) -> [u8; PAGE] {
    [(generation % 251) as u8; PAGE]
}

/// A few lives of the store on one device, each ended by a power cut.
fn torture(seed: u64, skip_flush: bool) -> Outcome<()> {
    let size = u32::try_from(2 * SECTOR + 2 * PAGE)?;
    let device = SimDevice::new(&[FileSpec::direct(size)]);
    let mut random = Random::new(seed);
    // Transfers are short, late and torn, and flushes fail.
    let faults = FaultRates { eio: 0, interrupted: 0, enospc: 0, ..FaultRates::HOSTILE };
    let (mut committed, mut tried) = (0, 0);
    for life in 0..LIVES {
        let ring = SimConfig { faults, ..SimConfig::calm(random.bits()) };
        let (shard, power) = Shard::simulated(&device, ring, &Config::new())?;
        let file = shard.open_simulated(&device, 0);
        let opening = Store::open(shard.clone(), file, skip_flush);
        let (mut store, page) = shard.block_on(opening)??;
        let found = store.generation;
        if !(committed..=tried).contains(&found) {
            return Err(format!("life {life}: {found} found, {committed} was committed").into());
        }
        if page != contents(found) {
            return Err(format!("life {life}: the page of generation {found} is damaged").into());
        }
        (committed, tried) = (found, found);
        power.crash_after(u64::from(random.below(400)));
        loop {
            tried += 1;
            let page = contents(tried);
            match shard.block_on_while_powered(&power, store.commit(&page))? {
                Some(Ok(())) => committed = tried,
                // What a failed flush has left nobody knows: start again from the device.
                Some(Err(_)) => power.crash(),
                None => break,
            }
        }
    }
    Ok(())
}

fn main() -> ExitCode {
    let skip_flush = std::env::args().any(|word| word == "--skip-flush");
    for seed in 0..SEEDS {
        if let Err(error) = torture(seed, skip_flush) {
            println!("seed {seed}: {error}");
            return ExitCode::FAILURE;
        }
    }
    println!("{SEEDS} seeds with {LIVES} power cuts each: everything committed was found");
    ExitCode::SUCCESS
}
