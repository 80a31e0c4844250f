//! A shard's counters where any thread can read them.
//!
//! Data flow: shard, at the end of a turn → `Published::publish` → cells → `read`.
//!
//! Four sets of words in turn: the shard stores a few plain words into the oldest and then says
//! which is the newest. It never waits; a reader never waits for it either, not even for one
//! that is suspended in the middle, and begins again only when the shard has published three
//! times while it read. Latencies are counted in place, each bucket on its own, because a
//! histogram needs no moment at which it is consistent.
//!
//! Not here: what is counted (`metrics`), the buckets (`latency`).

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering, fence};

use super::latency::{Cells, Direction, Histogram};
use super::punts::PuntCounter;
use super::{Metrics, Punts, punts};
use crate::config::Config;

/// Classes of ops whose latencies are kept apart.
pub const LATENCY_CLASSES: usize = 3;

/// Sets of words. The newest and those before it may be read while the next is written.
const SETS: usize = 4;

/// Two cache lines of its own at least, so that a reader disturbs nothing else.
#[derive(Debug)]
#[repr(align(128))]
pub(crate) struct Published {
    /// How often has been published; the newest set is at that number modulo [`SETS`].
    newest: AtomicU64,
    sets: [[AtomicU64; Metrics::COUNT]; SETS],
    /// Somebody has asked for a reader.
    wanted: AtomicBool,
    /// Of each class, of each direction; empty where latencies are not wanted.
    latency: Vec<[Cells; Direction::ALL.len()]>,
    /// Where punts are to be counted and can be.
    punts: Option<PuntCounter>,
}

impl Published {
    /// Called by the shard's thread, whose punts are counted if that is wanted.
    pub(crate) fn new(config: &Config) -> Self {
        let classes = if config.latency { LATENCY_CLASSES } else { 0 };
        Self {
            newest: AtomicU64::new(0),
            sets: [const { [const { AtomicU64::new(0) }; Metrics::COUNT] }; SETS],
            wanted: AtomicBool::new(false),
            latency: (0..classes).map(|_| Direction::ALL.map(|_| Cells::new())).collect(),
            punts: config.count_punts.then(PuntCounter::of_this_thread).flatten(),
        }
    }

    /// Whether there is a reader.
    #[inline]
    pub(crate) fn is_wanted(&self) -> bool {
        self.wanted.load(Ordering::Relaxed)
    }

    /// Shows `metrics` to every reader. Called by the shard's thread only.
    pub(crate) fn publish(&self, metrics: &Metrics) {
        let next = self.newest.load(Ordering::Relaxed).wrapping_add(1);
        // Whoever sees a word of this set sees that the last one was finished, and thus, if it
        // was reading this very set, that it was overtaken.
        fence(Ordering::Release);
        for (cell, word) in self.set(next).iter().zip(metrics.words()) {
            cell.store(word, Ordering::Relaxed);
        }
        self.newest.store(next, Ordering::Release);
    }

    #[allow(clippy::cast_possible_truncation, reason = "a remainder of a small number")]
    fn set(&self, number: u64) -> &[AtomicU64; Metrics::COUNT] {
        &self.sets[(number % SETS as u64) as usize]
    }

    fn read(&self) -> Metrics {
        let mut words = [0; Metrics::COUNT];
        loop {
            let number = self.newest.load(Ordering::Acquire);
            for (word, cell) in words.iter_mut().zip(self.set(number)) {
                *word = cell.load(Ordering::Relaxed);
            }
            // Not before the words have been read.
            fence(Ordering::Acquire);
            let since = self.newest.load(Ordering::Relaxed).wrapping_sub(number);
            // One more may be under way than is finished, and it must not be into this set.
            if since + 1 < SETS as u64 {
                return Metrics::from_words(words);
            }
            std::hint::spin_loop();
        }
    }

    /// Where the latencies of that kind are counted, if they are.
    pub(crate) fn latency(&self, class: usize, direction: Direction) -> Option<&Cells> {
        let classes = self.latency.get(class.min(LATENCY_CLASSES - 1))?;
        Some(&classes[direction as usize])
    }
}

/// Reads the metrics of one shard, from any thread, without a lock. The shard does not notice,
/// and need not be running: of one that has gone, the last state remains.
///
/// What it shows is as old as the shard's last turn; a shard that is asleep has not counted
/// anything since.
#[derive(Clone)]
pub struct MetricsReader(Arc<Published>);

impl MetricsReader {
    /// A reader of what the shard publishes, from its next turn on and of `metrics` now.
    pub(crate) fn new(published: &Arc<Published>, metrics: &Metrics) -> Self {
        published.wanted.store(true, Ordering::Relaxed);
        published.publish(metrics);
        Self(Arc::clone(published))
    }

    /// The counters, all of them as they were at the end of one and the same turn.
    #[must_use]
    pub fn metrics(&self) -> Metrics {
        self.0.read()
    }

    /// Latencies of all classes in that direction; `None` unless
    /// [`Config::latency`](crate::Config::latency) is set. Allocates the copy.
    #[must_use]
    pub fn latency(&self, direction: Direction) -> Option<Histogram> {
        let mut histogram = Histogram::empty();
        if self.0.latency.is_empty() {
            return None;
        }
        for class in &self.0.latency {
            class[direction as usize].add_to(&mut histogram);
        }
        Some(histogram)
    }

    /// Latencies of one class, below [`LATENCY_CLASSES`], in that direction. `None` for any
    /// other class, and as [`MetricsReader::latency`] says.
    #[must_use]
    pub fn latency_of(&self, class: usize, direction: Direction) -> Option<Histogram> {
        let mut histogram = Histogram::empty();
        self.0.latency.get(class)?[direction as usize].add_to(&mut histogram);
        Some(histogram)
    }

    /// What can be seen of ops that the kernel hands to workers: their number, where it may be
    /// counted, of this shard, and the workers of the whole process. Reads `/proc` each time:
    /// for a report every second, not for every turn.
    #[must_use]
    pub fn punts(&self) -> Punts {
        let ops = self.0.punts.as_ref().and_then(PuntCounter::ops);
        Punts { ops, ..punts() }
    }
}

impl fmt::Debug for MetricsReader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("MetricsReader").field(&self.metrics()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reader_never_sees_half_of_a_turn() {
        let published = Arc::new(Published::new(&Config::new()));
        let reader = MetricsReader::new(&published, &Metrics::default());
        let stop = Arc::new(AtomicBool::new(false));
        let reading = std::thread::spawn({
            let stop = Arc::clone(&stop);
            move || {
                let (mut last, mut reads) = (0, 0_u64);
                while !stop.load(Ordering::Relaxed) {
                    let metrics = reader.metrics();
                    assert!(metrics.named().iter().all(|&(_, value)| value == metrics.ops));
                    assert!(metrics.ops >= last, "counters do not run backwards");
                    last = metrics.ops;
                    reads += 1;
                }
                reads
            }
        });
        for turn in 1..500_000 {
            published.publish(&Metrics::from_words([turn; Metrics::COUNT]));
            // A turn does something besides.
            (0..20).for_each(|_| std::hint::spin_loop());
        }
        stop.store(true, Ordering::Relaxed);
        assert!(reading.join().unwrap() > 0);
    }

    #[test]
    fn latencies_are_kept_apart_by_class_and_direction() {
        let published = Arc::new(Published::new(&Config { latency: true, ..Config::new() }));
        let reader = MetricsReader::new(&published, &Metrics::default());
        let mut stamps = super::super::Stamps::new(2, Arc::clone(&published));
        stamps.pushed(1, 100);
        stamps.pushed(1, 900);
        stamps.reaped(1100);
        stamps.left(1, 2, Direction::Write);
        stamps.left(1, 2, Direction::Write);
        stamps.left(0, 0, Direction::Read);
        let written = reader.latency_of(2, Direction::Write).unwrap();
        assert_eq!((written.count(), written.max_ns()), (1, 1000), "a retry starts nothing");
        assert_eq!(reader.latency(Direction::Write).unwrap(), written);
        assert_eq!(reader.latency_of(0, Direction::Write).unwrap().count(), 0);
        assert_eq!(reader.latency(Direction::Read).unwrap().count(), 0);
        assert_eq!(reader.latency_of(LATENCY_CLASSES, Direction::Read), None);
        let off =
            MetricsReader::new(&Arc::new(Published::new(&Config::new())), &Metrics::default());
        assert_eq!(off.latency(Direction::Read), None);
    }
}
