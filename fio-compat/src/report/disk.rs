//! What the kernel counted for a disk, and for the disks a stacked one is made of.
//!
//! Data flow: counters the bench has read -> sums or means over slaves -> `render`.
//!
//! Not here: reading counters.

/// What the kernel counted for one disk during the run.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct DiskUtil {
    /// Name under `/sys/block`.
    pub name: String,
    /// Reads completed.
    pub read_ios: u64,
    /// Writes completed.
    pub write_ios: u64,
    /// 512-byte sectors read.
    pub read_sectors: u64,
    /// 512-byte sectors written.
    pub write_sectors: u64,
    /// Reads merged with a neighbour.
    pub read_merges: u64,
    /// Writes merged with a neighbour.
    pub write_merges: u64,
    /// Milliseconds spent reading, summed over requests.
    pub read_ticks: u64,
    /// Milliseconds spent writing, summed over requests.
    pub write_ticks: u64,
    /// Milliseconds requests spent in the queue.
    pub in_queue: u64,
    /// Share of time the disk was busy.
    pub util_percent: f64,
    /// The disks below a stacked one (dm, md).
    pub slaves: Vec<DiskUtil>,
}

impl DiskUtil {
    /// Means over the slaves and the highest of their shares, fio's `aggr` values;
    /// `None` for a disk that is not stacked.
    #[must_use]
    pub fn aggregate(&self) -> Option<Self> {
        let count = u64::try_from(self.slaves.len()).ok().filter(|count| *count > 0)?;
        let mean = |field: fn(&Self) -> u64| self.slaves.iter().map(field).sum::<u64>() / count;
        Some(Self {
            name: self.name.clone(),
            read_ios: mean(|disk| disk.read_ios),
            write_ios: mean(|disk| disk.write_ios),
            read_sectors: mean(|disk| disk.read_sectors),
            write_sectors: mean(|disk| disk.write_sectors),
            read_merges: mean(|disk| disk.read_merges),
            write_merges: mean(|disk| disk.write_merges),
            read_ticks: mean(|disk| disk.read_ticks),
            write_ticks: mean(|disk| disk.write_ticks),
            in_queue: mean(|disk| disk.in_queue),
            util_percent: self.slaves.iter().map(|disk| disk.util_percent).fold(0.0, f64::max),
            slaves: Vec::new(),
        })
    }
}
