//! Draws the hostile limits of one run from its seed.
//!
//! Data flow: [`Random`] → [`Scenario`]: a device, the sizes of ring, slots, backlog and arena,
//! which faults happen and how often, and what the workload likes to do. Every run gets
//! another mix, so that rare combinations are met by some (swarm testing).
//!
//! Not here: the ops themselves (`life`).

use mfio_engine::ring::Plant;
use mfio_engine::ring::sim::{FaultRates, FileSpec, Random, SimConfig, SimFeatures};
use mfio_engine::{ClassLimits, SyncMethod};

/// What is longer than this is a long transfer: it does not fit into 16 bits.
pub(crate) const LONG_BYTES: u32 = 64 << 10;

/// The longest transfer of all; two such buffers are there.
pub(crate) const LONG_BYTES_MAX: u32 = 96 << 10;

/// What one run is like.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Scenario {
    pub(crate) spec: FileSpec,
    pub(crate) ring: SimConfig,
    pub(crate) in_flight_max: u32,
    pub(crate) backlog_max: u32,
    /// How many buffers of 4 KiB the arena has; of 512 bytes and 16 KiB in proportion.
    pub(crate) buffers: u32,
    /// Reads, writes and durable writes start and end at multiples of this.
    pub(crate) write_unit_bytes: u32,
    /// Reads likewise; smaller than the file's alignment makes them bounce.
    pub(crate) read_unit_bytes: u32,
    /// The longest transfer.
    pub(crate) len_bytes_max: u32,
    /// Ops go to the first bytes of the file, so that they meet.
    pub(crate) hot_bytes: u32,
    pub(crate) weights: Weights,
    /// How durable writes become durable; `None` for another way in each life.
    pub(crate) sync_method: Option<SyncMethod>,
    pub(crate) coalesce: bool,
    pub(crate) classes: ClassLimits,
    /// The file is large, and some transfers are longer than [`LONG_BYTES`].
    pub(crate) long: bool,
}

/// How often the workload does what, relative to each other.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Weights {
    pub(crate) read: u32,
    pub(crate) write: u32,
    pub(crate) durable: u32,
    pub(crate) flush: u32,
    /// Of 256 packets, how many are futures; the others go through a completion queue.
    pub(crate) future: u32,
    /// Of 256 steps, how many drop a future.
    pub(crate) drop: u32,
    /// Of 256 steps, how many are followed by a turn.
    pub(crate) turn: u32,
    /// One step in so many ends the life of the shard.
    pub(crate) life_steps: u32,
    /// Of 256 lives, how many end with a power loss.
    pub(crate) crash: u32,
    pub(crate) zero: u32,
    pub(crate) chain: u32,
    /// Of 256 packets, how many become a batch of several.
    pub(crate) batch: u32,
    /// Of 256 steps, how many let another thread send something.
    pub(crate) elsewhere: u32,
    /// Of 256 flushes and packets of a completion queue, how many go through another handle.
    pub(crate) twin: u32,
}

impl Scenario {
    pub(crate) fn draw(random: &mut Random, plant: Option<Plant>) -> Self {
        let spec = draw_spec(random);
        let sq_entries = random.pick(&[1, 2, 4, 8, 32]);
        let cq_entries = sq_entries * random.pick(&[1, 1, 2]);
        let write_unit_bytes = match spec.align_bytes {
            1 => random.pick(&[1, 8, 100, 512, 4096]),
            align => align,
        };
        let ring = SimConfig {
            seed: random.bits(),
            sq_entries,
            cq_entries,
            transfer_bytes_max: random.pick(&[4096, 8192, 1 << 20]),
            files_registered_max: random.below(2),
            latency_ns_max: random.pick(&[1000, 10_000, 50_000]),
            faults: draw_faults(random),
            plant,
            service: None,
            knobs: random.pick(&[0, 2048, 8192, 16384]),
            features: draw_features(random),
        };
        Self {
            spec,
            ring,
            in_flight_max: random.pick(&[1, 2, 4, 16, 64]),
            backlog_max: random.pick(&[1, 2, 8, 32]),
            buffers: random.pick(&[3, 8, 16]),
            write_unit_bytes,
            read_unit_bytes: random.pick(&[write_unit_bytes, write_unit_bytes, 64, 1]),
            len_bytes_max: random.pick(&[512, 4096, 4096, 16384]).max(write_unit_bytes),
            hot_bytes: (spec.size_bytes / random.pick(&[1, 1, 2, 8])).max(4096),
            weights: Weights {
                read: random.between(1, 8),
                write: random.between(1, 8),
                durable: random.below(6),
                flush: random.below(4),
                future: random.pick(&[0, 64, 128, 255]),
                drop: random.pick(&[0, 16, 64, 128]),
                turn: random.pick(&[32, 96, 160, 255]),
                life_steps: random.pick(&[50, 200, 500, 1000]),
                crash: random.pick(&[0, 128, 256]),
                zero: random.below(3),
                chain: random.below(5),
                batch: random.pick(&[0, 32, 128, 255]),
                elsewhere: random.pick(&[0, 0, 4, 32]),
                twin: random.pick(&[0, 0, 32, 128]),
            },
            coalesce: !random.one_in(4),
            classes: ClassLimits {
                log_backlog_max: random.pick(&[1, 2, 8]),
                background_backlog_max: random.pick(&[1, 2, 8]),
                background_in_flight_max: random.pick(&[1, 4, 64]),
                adaptive: random.one_in(2),
                ..ClassLimits::new()
            },
            long: spec.size_bytes > LONG_BYTES_MAX,
            sync_method: random.pick(&[
                None,
                Some(SyncMethod::LinkedFlush),
                Some(SyncMethod::WriteThenFlush),
                Some(SyncMethod::Dsync),
            ]),
        }
    }
}

fn draw_spec(random: &mut Random) -> FileSpec {
    // Not a multiple of 4096: the end of the file may come in the middle of a block.
    let kib = if random.one_in(12) { 160 } else { random.pick(&[16, 32, 64]) };
    let size_bytes = kib * 1024 + random.below(8) * 512;
    let mut spec = if random.one_in(3) {
        FileSpec::buffered(size_bytes)
    } else {
        let align_bytes = random.pick(&[512, 512, 4096]);
        let memory_align_bytes = random.pick(&[4, 512]).min(align_bytes);
        FileSpec { align_bytes, memory_align_bytes, ..FileSpec::direct(size_bytes) }
    };
    if random.one_in(8) {
        spec.space_sectors = Some(random.below(size_bytes / 512));
    }
    spec
}

/// Each feature is missing in some runs, so that what is done without it is done too (F33).
fn draw_features(random: &mut Random) -> SimFeatures {
    SimFeatures {
        vectored_fixed: !random.one_in(3),
        registered_quarters: random.pick(&[4, 4, 4, 2, 1, 0]),
        ranges: !random.one_in(4),
    }
}

/// Each fault is off in some runs, rare in some and frequent in some.
fn draw_faults(random: &mut Random) -> FaultRates {
    let mut faults = FaultRates::HOSTILE;
    let rates: [&mut u16; 21] = [
        &mut faults.short,
        &mut faults.zero,
        &mut faults.eagain,
        &mut faults.interrupted,
        &mut faults.eio,
        &mut faults.enospc,
        &mut faults.flush_fail,
        &mut faults.enter_eintr,
        &mut faults.enter_eagain,
        &mut faults.enter_ebusy,
        &mut faults.partial_submit,
        &mut faults.chain_cut,
        &mut faults.start_delay,
        &mut faults.delay,
        &mut faults.cq_delay,
        &mut faults.torn_copy,
        &mut faults.more,
        &mut faults.stale,
        &mut faults.stuck,
        &mut faults.enter_enomem,
        &mut faults.partial_reap,
    ];
    for rate in rates {
        *rate = match random.below(8) {
            0 | 1 => 0,
            2 => rate.saturating_mul(3),
            3 => *rate / 4,
            _ => *rate,
        };
    }
    faults
}
