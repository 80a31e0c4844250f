//! What a job's I/O looks like beyond its direction: sizes, places, files and their order.
//!
//! Data flow: `options` parses text into these -> the bench's generator follows them.
//!
//! Not here: the plain fields of every job (`job`), drawing anything (the bench).

use crate::error::ParseError;

use super::{Extent, Job, Rw};

/// One block size of a `bssplit` and its share of all I/Os.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BlockShare {
    /// Bytes.
    pub bytes: u64,
    /// Percent; the shares of one direction add up to 100.
    pub percent: u32,
}

/// How the number behind the direction (`rw=randread:8`) continues a random I/O.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Sequencer {
    /// The following I/Os go on behind the random one.
    #[default]
    Sequential,
    /// The following I/Os repeat its offset.
    Identical,
}

/// One zone of `zoned` or `zoned_abs`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Zone {
    /// Percent of the I/Os that go here.
    pub access_percent: u32,
    /// Its length: percent of the region, or bytes for `zoned_abs`.
    pub length: u64,
}

/// How random offsets are distributed over the region (`random_distribution`).
#[derive(Debug, Clone, PartialEq, Default)]
pub enum Distribution {
    /// Every block alike.
    #[default]
    Random,
    /// Few blocks are hot; `center` (0 to 1) says where, else it is drawn.
    Zipf {
        /// Skew; not 1.
        theta: f64,
        /// Where the hot spot is.
        center: Option<f64>,
    },
    /// The 80/20 rule with another split.
    Pareto {
        /// Between 0 and 1.
        h: f64,
        /// Where the hot spot is.
        center: Option<f64>,
    },
    /// A bell of this deviation in percent of the region.
    Normal {
        /// Percent.
        deviation_percent: f64,
        /// Where its middle is.
        center: Option<f64>,
    },
    /// Shares of the I/Os on shares of the region.
    Zoned(Vec<Zone>),
    /// Shares of the I/Os on lengths in bytes.
    ZonedAbs(Vec<Zone>),
}

/// Where random numbers for offsets come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum RandomGenerator {
    /// Draws that may repeat; the random map sorts that out.
    #[default]
    Tausworthe,
    /// The same with 64 bits.
    Tausworthe64,
    /// A full cycle: every block once, without a map.
    Lfsr,
}

/// How the next file of several is chosen (`file_service_type`).
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub enum FileService {
    /// Each in turn.
    #[default]
    RoundRobin,
    /// Drawn, all alike.
    Random,
    /// The next one when this one is done.
    Sequential,
    /// Drawn, few files are hot.
    Zipf(f64),
    /// Drawn, few files are hot.
    Pareto(f64),
    /// Drawn, a bell.
    Normal(f64),
}

/// `zonemode=strided`: I/O stays in a range until an amount is done, then skips ahead.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Strided {
    /// Bytes done in a zone before the next; 0 is the zone's range.
    pub size_bytes: u64,
    /// Length of a zone; 0 is its size.
    pub range_bytes: u64,
    /// Bytes between two zones.
    pub skip_bytes: u64,
}

/// Everything above, for one job.
#[derive(Debug, Clone, PartialEq)]
pub struct Workload {
    /// The number behind the direction: I/Os per random offset, or bytes added per I/O.
    pub rw_number: Option<i64>,
    /// What the number does in a random job.
    pub rw_sequencer: Sequencer,
    /// Shares of block sizes by direction; empty is one size.
    pub bs_split: [Vec<BlockShare>; 3],
    /// Smallest and largest block by direction.
    pub bs_range: [Option<(u64, u64)>; 3],
    /// Any length of a range, not multiples of its smallest.
    pub bs_unaligned: bool,
    /// The first block size is for sequential I/O, the second for random.
    pub bs_is_seq_rand: bool,
    /// Alignment of random offsets by direction; `None` is the smallest block.
    pub block_align: [Option<u64>; 3],
    /// Share of random I/Os in a random job, by direction.
    pub percentage_random: [u8; 3],
    /// Distribution of random offsets, by direction.
    pub distribution: [Distribution; 3],
    /// Run without a map where there is no memory for one.
    pub softrandommap: bool,
    /// Where offsets come from.
    pub random_generator: RandomGenerator,
    /// Seeds that do not repeat include those of buffers and files.
    pub allrandrepeat: bool,
    /// Number of files made of the job's name.
    pub nrfiles: u32,
    /// How many are open at a time; 0 is all.
    pub openfiles: u32,
    /// How the next file is chosen.
    pub file_service: FileService,
    /// I/Os before another file is chosen.
    pub file_service_ios: u64,
    /// Size of each file, or a range it is drawn from.
    pub filesize: Option<(u64, u64)>,
    /// Pattern for names: `$jobname.$jobnum.$filenum`.
    pub filename_format: Option<String>,
    /// Added to the offset once per clone before this one.
    pub offset_increment: Extent,
    /// Relative offsets are rounded up to this; 0 is the smallest block.
    pub offset_align: u64,
    /// Write until the target is full.
    pub fill_device: bool,
    /// Zones of a strided job.
    pub strided: Option<Strided>,
    /// Lengths for the zones, kept until `zonemode` is known.
    pub zone: Strided,
}

impl Default for Workload {
    fn default() -> Self {
        Self {
            rw_number: None,
            rw_sequencer: Sequencer::default(),
            bs_split: Default::default(),
            bs_range: [None; 3],
            bs_unaligned: false,
            bs_is_seq_rand: false,
            block_align: [None; 3],
            percentage_random: [100; 3],
            distribution: Default::default(),
            softrandommap: false,
            random_generator: RandomGenerator::default(),
            allrandrepeat: false,
            nrfiles: 1,
            openfiles: 0,
            file_service: FileService::default(),
            file_service_ios: 1,
            filesize: None,
            filename_format: None,
            offset_increment: Extent::Bytes(0),
            offset_align: 0,
            fill_device: false,
            strided: None,
            zone: Strided::default(),
        }
    }
}

impl Job {
    /// Smallest and largest block of a direction: 0 reads, 1 writes, 2 trims.
    #[must_use]
    pub fn block_range(&self, direction: usize) -> (u64, u64) {
        let split = self.workload.bs_split.get(direction).map_or(&[][..], Vec::as_slice);
        let sizes = || split.iter().filter(|share| share.percent > 0).map(|share| share.bytes);
        if let (Some(least), Some(most)) = (sizes().min(), sizes().max()) {
            return (least, most);
        }
        let plain = [self.bs.read_bytes, self.bs.write_bytes, self.bs.trim_bytes];
        let plain = plain.get(direction).copied().unwrap_or(self.bs.trim_bytes);
        self.workload.bs_range.get(direction).copied().flatten().unwrap_or((plain, plain))
    }

    /// Which of the three block sizes the job uses.
    #[must_use]
    pub fn blocks_in_use(&self) -> [bool; 3] {
        if self.workload.bs_is_seq_rand {
            let mixed = self.workload.percentage_random.iter().any(|percent| *percent < 100);
            let random = self.rw.is_random();
            return [!random || mixed, random, false];
        }
        [self.rw.reads(), self.rw.writes_data(), self.rw.trims()]
    }

    /// The smallest block the job issues: the unit regions are rounded to.
    #[must_use]
    pub fn block_min_bytes(&self) -> u64 {
        let used = (0..3).filter(|direction| self.blocks_in_use()[*direction]);
        used.map(|direction| self.block_range(direction).0).min().unwrap_or(0)
    }

    /// Settles sizes and maps, and refuses what contradicts itself.
    pub(super) fn settle_workload(&mut self) -> Result<(), ParseError> {
        if matches!(self.rw, Rw::TrimWrite | Rw::RandTrimWrite) {
            // A block that is trimmed and then written is one block; fio takes that of the trims.
            self.bs.write_bytes = self.bs.trim_bytes;
            self.workload.bs_split[1] = self.workload.bs_split[2].clone();
            self.workload.bs_range[1] = self.workload.bs_range[2];
            self.workload.block_align[1] = self.workload.block_align[2];
        }
        if self.workload.strided.is_some() {
            let Strided { size_bytes, range_bytes, skip_bytes } = self.workload.zone;
            if size_bytes == 0 && range_bytes == 0 {
                let error = self.error("zonemode", "zonemode=strided needs a zonesize");
                return Err(error.with_remedy("give zonesize, and zonerange or zoneskip"));
            }
            let range = if range_bytes == 0 { size_bytes } else { range_bytes };
            let size = if size_bytes == 0 { range_bytes } else { size_bytes };
            let block = (0..3).filter(|direction| self.blocks_in_use()[*direction]);
            let largest = block.map(|direction| self.block_range(direction).1).max().unwrap_or(0);
            if range < largest {
                let message = format!("a zone of {range} bytes has no room for a block");
                return Err(self.error("zonerange", message));
            }
            self.workload.strided =
                Some(Strided { size_bytes: size, range_bytes: range, skip_bytes });
        } else if self.is_set("zonesize") || self.is_set("zonerange") || self.is_set("zoneskip") {
            let error = self.error("zonesize", "zones have no effect without zonemode");
            return Err(error.with_remedy("add zonemode=strided"));
        }
        if self.workload.fill_device && !self.rw.writes_data() {
            let error = self.error("fill_device", "only a job that writes can fill its target");
            return Err(error.with_remedy("use rw=write"));
        }
        if self.workload.openfiles != 0 && self.workload.openfiles < self.workload.nrfiles {
            let error = self.error("openfiles", "all files of a job are kept open");
            return Err(error.with_remedy("remove openfiles, or give as many as nrfiles"));
        }
        Ok(())
    }
}
