//! Decides, target by target, whether a lone op is better executed by a plain system call.
//!
//! Data flow: an op with nothing else in flight → [`Course::next`] → staged or pushed → its
//! latency, while a trial runs → the better way for the next 65,536 lone ops, then another
//! trial. Never guessed: on one machine the ring wins where on the next the call does.
//! Reads and writes are decided apart, because file systems know `RWF_NOWAIT` for one and not
//! for the other. The clock is read during a trial only.
//!
//! Only where it cannot block: cached files through `RWF_NOWAIT`, and what lies in memory.
//! Never direct I/O on a device: nothing could end such a wait early.
//!
//! Not here: executing it (`ring::kernel`), how an op goes where that is settled (`lone`).

use std::fs::File;
use std::os::unix::fs::MetadataExt;

use super::core::Core;
use super::slot::{Linked, Occupant};
use crate::ring::{Inline, Op, OpKind, Ring, RingKind, Tag};
use crate::target::{Geometry, TargetKind};

/// Lone ops of one trial: half of them each way.
const TRIAL_OPS: usize = 64;

/// Lone ops between two trials.
const SETTLED_OPS: u32 = 1 << 16;

/// Whether lone ops may bypass the ring.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum BypassMode {
    /// Measured for each target, reads and writes apart.
    #[default]
    Auto,
    /// Every op goes through the ring.
    Off,
}

/// How a lone op of one target goes at present.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Lone {
    /// Through the ring, because nothing else can be done or is allowed.
    RingOnly,
    /// Alternately both ways, which are being compared.
    Measuring,
    /// Through the ring, which was measured to be at least as fast.
    Ring,
    /// By a system call, which was measured to be faster.
    Inline,
}

/// How lone ops of a target go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bypass {
    /// Reads.
    pub read: Lone,
    /// Writes.
    pub write: Lone,
}

/// Both directions of a target.
#[derive(Debug)]
pub(crate) struct Courses {
    read: Course,
    write: Course,
}

impl Courses {
    /// `None` where lone ops have no other way than the ring.
    pub(super) fn of(file: Option<&File>, geometry: &Geometry) -> Option<Box<Self>> {
        let how = possible(file?, geometry);
        let course = || Course { how, ..Course::default() };
        (how != Inline::No).then(|| Box::new(Self { read: course(), write: course() }))
    }

    fn course(&mut self, is_read: bool) -> &mut Course {
        if is_read { &mut self.read } else { &mut self.write }
    }

    /// Has the next `left` lone ops bypass the ring, each way.
    #[cfg(test)]
    pub(super) fn settle(&mut self, left: u32) {
        for course in [&mut self.read, &mut self.write] {
            (course.settled, course.left) = (Some(true), left);
        }
    }

    /// How the next lone op goes, where it was settled that it bypasses the ring; `None`, and
    /// nothing is counted, where it does not, or there is to be a trial.
    #[inline]
    pub(super) fn settled(&mut self, is_read: bool) -> Option<Inline> {
        let course = self.course(is_read);
        if course.settled != Some(true) || course.left == 0 {
            return None;
        }
        course.left -= 1;
        Some(course.how)
    }

    pub(super) fn state(&self) -> Bypass {
        Bypass { read: self.read.state(), write: self.write.state() }
    }
}

/// What a lone op on the target may be executed by.
fn possible(file: &File, geometry: &Geometry) -> Inline {
    if geometry.file_system.is_tmpfs() || is_zram(file, geometry) {
        Inline::Blocking
    } else if geometry.direct {
        Inline::No
    } else {
        Inline::NoWait
    }
}

/// Whether the device is a compressed disk in memory, which completes what it is given before
/// it returns.
fn is_zram(file: &File, geometry: &Geometry) -> bool {
    if geometry.kind != TargetKind::BlockDevice {
        return false;
    }
    let Ok(metadata) = file.metadata() else { return false };
    let (major, minor) =
        (nix::sys::stat::major(metadata.rdev()), nix::sys::stat::minor(metadata.rdev()));
    let link = std::fs::read_link(format!("/sys/dev/block/{major}:{minor}"));
    let name = link.ok().and_then(|path| path.file_name().map(std::ffi::OsStr::to_os_string));
    name.is_some_and(|name| name.to_string_lossy().starts_with("zram"))
}

/// One direction of a target.
#[derive(Debug)]
struct Course {
    how: Inline,
    /// Which way was better; `None` while that is measured.
    settled: Option<bool>,
    /// Lone ops until the next trial.
    left: u32,
    /// Nanoseconds through the ring, and inline.
    samples: [Vec<u64>; 2],
}

impl Default for Course {
    fn default() -> Self {
        let samples = || Vec::with_capacity(TRIAL_OPS / 2);
        Self { how: Inline::No, settled: None, left: 0, samples: [samples(), samples()] }
    }
}

impl Course {
    /// How the next lone op goes, and whether it is to be timed.
    fn next(&mut self) -> (Inline, bool) {
        let inline = match self.settled {
            Some(_) if self.left == 0 => {
                self.settled = None;
                self.samples.iter_mut().for_each(Vec::clear);
                false
            }
            Some(inline) => {
                self.left -= 1;
                return (if inline { self.how } else { Inline::No }, false);
            }
            None => self.samples[1].len() < self.samples[0].len(),
        };
        (if inline { self.how } else { Inline::No }, true)
    }

    fn timed(&mut self, inline: bool, ns: u64) {
        let samples = &mut self.samples[usize::from(inline)];
        if self.settled.is_some() || samples.len() == TRIAL_OPS / 2 {
            return;
        }
        samples.push(ns);
        if self.samples.iter().all(|samples| samples.len() == TRIAL_OPS / 2) {
            let [ring, inline] = self.samples.each_mut().map(|samples| {
                samples.sort_unstable();
                samples[TRIAL_OPS / 4]
            });
            self.settled = Some(inline < ring);
            self.left = SETTLED_OPS;
        }
    }

    fn state(&self) -> Lone {
        match self.settled {
            _ if self.how == Inline::No => Lone::RingOnly,
            None => Lone::Measuring,
            Some(false) => Lone::Ring,
            Some(true) => Lone::Inline,
        }
    }
}

/// A lone op that is being timed.
#[derive(Clone, Copy, Debug)]
pub(super) struct Timed {
    tag: Tag,
    target: u32,
    is_read: bool,
    inline: bool,
    started_ns: u64,
    /// The shard's count of ops with this one: another one spoils the sample.
    ops: u64,
}

impl<R: Ring> Core<R> {
    /// What a target's lone ops may do, if anything.
    pub(super) fn courses(&self, file: Option<&File>, geometry: &Geometry) -> Option<Box<Courses>> {
        let can = self.bypass == BypassMode::Auto;
        let can = can && self.ring.features().kind == RingKind::Kernel;
        can.then(|| Courses::of(file, geometry)).flatten()
    }

    /// Starts the transfer of `tag`, with at most one other op in flight, by another way than
    /// a push; false, with nothing staged any more, where there is none.
    #[cold]
    #[inline(never)]
    pub(super) fn start_lone(&mut self, tag: Tag) -> bool {
        if self.in_flight > 0 {
            self.ring.unstage();
            return false;
        }
        let Some(Occupant::Transfer(transfer)) = self.slots.find(tag) else { return false };
        let odd = transfer.bounced || transfer.counted || transfer.atomic;
        if odd || transfer.linked != Linked::No {
            // Durability is the ring's business: the flush is linked, or will be.
            return false;
        }
        let (target, is_read, memory) = (transfer.target, transfer.is_read, transfer.memory);
        let offset_bytes = transfer.offset_bytes;
        let entry = self.targets.get_mut(target);
        // What a calibration does is to go the way of the user's durable writes.
        let Some(courses) = entry.courses.as_mut().filter(|_| !entry.scratch) else {
            return false;
        };
        let (how, timed) = courses.course(is_read).next();
        if timed {
            let inline = how != Inline::No;
            let started_ns = self.ring.now_ns();
            let ops = self.metrics.ops + 1;
            self.timed = Some(Timed { tag, target, is_read, inline, started_ns, ops });
        }
        if how == Inline::No {
            return false;
        }
        let kind = if is_read { OpKind::Read } else { OpKind::Write };
        self.ring.stage(Op::transfer(kind, entry.file, offset_bytes, memory), tag, how);
        if self.slots.is_stamped() {
            self.slots.stamp_pushed(tag, self.ring.now_ns());
        }
        self.in_flight += 1;
        self.metrics.ops += 1;
        true
    }

    /// Takes the time of a lone op that has completed.
    #[cold]
    pub(super) fn take_time(&mut self) {
        let Some(timed) = self.timed else { return };
        let spoilt = self.metrics.ops != timed.ops;
        if !spoilt && self.slots.find(timed.tag).is_some() {
            return;
        }
        self.timed = None;
        if spoilt || !self.targets.exists(timed.target) {
            return;
        }
        let ns = self.ring.now_ns() - timed.started_ns;
        if let Some(courses) = &mut self.targets.get_mut(timed.target).courses {
            courses.course(timed.is_read).timed(timed.inline, ns);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn course() -> Course {
        Course { how: Inline::NoWait, ..Course::default() }
    }

    /// Runs one trial in which the ring takes `ring_ns` and the call `inline_ns`.
    fn trial(course: &mut Course, ring_ns: u64, inline_ns: u64) {
        let mut ways = Vec::new();
        while course.state() == Lone::Measuring || ways.is_empty() {
            let (how, timed) = course.next();
            assert!(timed);
            let inline = how != Inline::No;
            ways.push(inline);
            // One in ten is an outlier, which a median does not mind.
            let outlier = if ways.len() % 10 == 0 { 1_000_000 } else { 0 };
            course.timed(inline, outlier + if inline { inline_ns } else { ring_ns });
        }
        assert_eq!(ways.len(), TRIAL_OPS);
        assert!(ways.windows(2).all(|pair| pair[0] != pair[1]), "alternately");
    }

    #[test]
    fn trial_keeps_the_faster_way_and_is_repeated() {
        let mut course = course();
        trial(&mut course, 1000, 500);
        assert_eq!(course.state(), Lone::Inline);
        for _ in 0..SETTLED_OPS {
            assert_eq!(course.next(), (Inline::NoWait, false));
        }
        trial(&mut course, 500, 1000);
        assert_eq!(course.state(), Lone::Ring);
        for _ in 0..SETTLED_OPS {
            assert_eq!(course.next(), (Inline::No, false));
        }
        trial(&mut course, 500, 500);
        assert_eq!(course.state(), Lone::Ring, "no gain, no bypass");
    }

    #[test]
    fn spoilt_samples_lengthen_a_trial_and_nothing_else() {
        let mut course = course();
        for _ in 0..1000 {
            assert_eq!(course.next(), (Inline::No, true));
        }
        trial(&mut course, 2, 1);
        assert_eq!(course.state(), Lone::Inline);
    }
}
