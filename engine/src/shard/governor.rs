//! How many background ops are let in: a little more as long as foreground ops do not
//! suffer, a good part less once they do.
//!
//! Pure: no clock, no queue. Data flow: latencies of foreground ops → windows of a few →
//! their mean against what foreground ops take when next to nothing else is in flight, which
//! is measured anew now and then → the limit.
//!
//! Not here: what is counted and timed (`class`).

/// Samples of one window.
const WINDOW: u32 = 16;

/// Samples of a window in which next to no background op is let in.
const PROBE_WINDOW: u32 = 32;

/// Windows between two in which the latency without background work is measured anew: it
/// costs about 3 % of the background's throughput.
const PROBE_EVERY: u32 = 64;

/// How long foreground ops may take on average, in percent of what they take without
/// background work. That the mean stays near it keeps the 99th percentile below one and a
/// half times its own, as the simulation of several devices shows.
const SLOWDOWN_PERCENT_MAX: u64 = 118;

/// Background completions without a foreground op, per op of the limit, after which the
/// foreground counts as idle.
const ALONE: u32 = 8;

/// How many background ops may be in flight: additive increase, multiplicative decrease.
#[derive(Debug)]
pub(super) struct Governor {
    cap: u32,
    most: u32,
    pub(super) adaptive: bool,
    samples: u32,
    sum_ns: u64,
    /// Of the squares of the samples, in microseconds: to tell noise from a slowdown.
    squares: u64,
    /// What foreground ops take when there is next to no background work; 0 is unknown.
    alone_ns: u64,
    /// Doubles until it hurts for the first time.
    slow_start: bool,
    windows: u32,
    /// Nearly nothing is let in, to see what foreground ops take then.
    pub(super) probing: bool,
    /// Background completions since a foreground op last started.
    pub(super) background_alone: u32,
}

impl Governor {
    pub(super) const fn new(most: u32, adaptive: bool) -> Self {
        Self {
            cap: 1,
            most,
            adaptive,
            samples: 0,
            sum_ns: 0,
            squares: 0,
            alone_ns: 0,
            slow_start: true,
            windows: 0,
            probing: true,
            background_alone: u32::MAX,
        }
    }

    /// How many background ops may be in flight now.
    pub(super) fn limit(&self) -> u32 {
        if !self.adaptive || self.background_alone > self.most.saturating_mul(ALONE) {
            return self.most;
        }
        if self.probing { 1 } else { self.cap }
    }

    /// A foreground op has taken `took_ns` from its start to its completion.
    pub(super) fn sample(&mut self, took_ns: u64) {
        self.samples += 1;
        self.sum_ns += took_ns;
        let took_us = took_ns / 1_000;
        self.squares = self.squares.saturating_add(took_us.saturating_mul(took_us));
        if self.samples < if self.probing { PROBE_WINDOW } else { WINDOW } {
            return;
        }
        let count = u64::from(self.samples);
        let mean_ns = (self.sum_ns / count).max(1);
        let mean_us = mean_ns / 1_000;
        let variance = (self.squares / count).saturating_sub(mean_us * mean_us);
        // How far the mean of a window is off by chance alone.
        let noise_ns = (variance / count).isqrt() * 1_000;
        (self.samples, self.sum_ns, self.squares) = (0, 0, 0);
        if self.probing {
            // Smoothed: one window alone is a rough guess.
            let before = if self.alone_ns == 0 { mean_ns } else { self.alone_ns };
            self.alone_ns = (3 * before + mean_ns) / 4;
            self.probing = false;
            return;
        }
        self.windows += 1;
        if mean_ns > self.alone_ns * SLOWDOWN_PERCENT_MAX / 100 + noise_ns {
            self.slow_start = false;
            self.cap = (self.cap - self.cap.div_ceil(8)).max(1);
        } else {
            let step = if self.slow_start { self.cap } else { 1 };
            self.cap = (self.cap + step).min(self.most);
        }
        self.probing = self.windows.is_multiple_of(PROBE_EVERY);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Feeds latencies that grow with every background op beyond `knee`.
    fn settle(governor: &mut Governor, knee: u32, windows: u32) -> (u32, u32) {
        let (mut least, mut most) = (u32::MAX, 0);
        governor.background_alone = 0;
        for window in 0..windows * WINDOW {
            let beyond = u64::from(governor.limit().saturating_sub(knee));
            let noise = u64::from(window.wrapping_mul(7919) % 64) * 500;
            governor.sample(80_000 + noise + beyond * 10_000);
            if !governor.probing && window > windows * WINDOW / 2 {
                least = least.min(governor.limit());
                most = most.max(governor.limit());
            }
        }
        (least, most)
    }

    #[test]
    fn limit_follows_the_knee_of_the_device() {
        for knee in [1, 7, 31] {
            let mut governor = Governor::new(64, true);
            let (least, most) = settle(&mut governor, knee, 400);
            assert!(least + 4 >= knee && most <= knee + 8, "{knee}: {least} to {most}");
        }
    }

    #[test]
    fn limit_is_the_most_where_no_foreground_op_is_seen_or_nothing_adapts() {
        let mut governor = Governor::new(64, true);
        assert_eq!(governor.limit(), 64);
        governor.background_alone = 0;
        assert_eq!(governor.limit(), 1);
        governor.background_alone = 64 * ALONE + 1;
        assert_eq!(governor.limit(), 64);
        assert_eq!(Governor::new(9, false).limit(), 9);
    }
}
