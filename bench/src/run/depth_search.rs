//! The highest depth that keeps a latency: doubling until it fails, then halving the rest.
//!
//! Data flow: a verdict per window -> the next depth, or the end of the search. Pure.
//!
//! Not here: windows and latencies (`judge`), slots (`worker`).

/// What follows from a verdict.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Next {
    /// Another window at the same depth.
    Stay,
    /// Go on at this depth.
    Depth(u32),
    /// The depth is found: forget everything measured so far, one more window at that depth.
    Measure,
    /// … and that window is over.
    Found,
    /// Not even one I/O at a time keeps the latency.
    Hopeless,
}

/// The search.
#[derive(Clone, Debug)]
pub(crate) struct DepthSearch {
    depth: u32,
    /// The highest that met the goal and has not failed since; 0 is none.
    low: u32,
    /// The lowest that failed.
    high: Option<u32>,
    most: u32,
    /// The window that is measured runs.
    last: bool,
    /// Never end (`latency_run`).
    endless: bool,
}

impl DepthSearch {
    /// Begins at depth 1.
    pub(crate) fn new(most: u32, endless: bool) -> Self {
        Self { depth: 1, low: 0, high: None, most: most.max(1), last: false, endless }
    }

    /// The depth to run at.
    pub(crate) const fn depth(&self) -> u32 {
        self.depth
    }

    /// Takes the verdict on a window at [`DepthSearch::depth`].
    pub(crate) fn judge(&mut self, met: bool) -> Next {
        if met { self.up() } else { self.down() }
    }

    fn up(&mut self) -> Next {
        if self.last {
            return Next::Found;
        }
        self.low = self.depth;
        let next = match self.high {
            Some(high) => self.depth.midpoint(high),
            None => self.depth.saturating_mul(2).min(self.most),
        };
        if next != self.depth {
            self.depth = next;
            return Next::Depth(next);
        }
        if self.endless {
            // What failed once may do later on: the next window tries one more.
            self.high = self.high.map(|high| high + 1).filter(|high| *high <= self.most);
            return Next::Stay;
        }
        self.last = true;
        Next::Measure
    }

    fn down(&mut self) -> Next {
        self.last = false;
        if self.depth == 1 {
            return if self.endless { Next::Stay } else { Next::Hopeless };
        }
        self.high = Some(self.depth);
        if self.low >= self.depth {
            // It met the goal before and does no longer.
            self.low = 0;
        }
        self.depth = self.depth.midpoint(self.low).max(1);
        Next::Depth(self.depth)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::Random;

    /// Runs a search to its end: the depth, and the number of windows.
    fn run(most: u32, mut keeps: impl FnMut(u32) -> bool) -> (Next, u32, u32) {
        let mut search = DepthSearch::new(most, false);
        for windows in 1..100_000 {
            let next = search.judge(keeps(search.depth()));
            assert!((1..=most).contains(&search.depth()));
            if matches!(next, Next::Found | Next::Hopeless) {
                return (next, search.depth(), windows);
            }
        }
        panic!("the search does not end");
    }

    #[test]
    fn latency_target_finds_the_highest_depth_that_keeps_it() {
        for most in [1, 2, 3, 7, 16, 32, 100, 1024] {
            for best in 1..=most {
                let (next, depth, windows) = run(most, |depth| depth <= best);
                assert_eq!((next, depth), (Next::Found, best), "{best} of {most}");
                assert!(windows <= 2 * most.ilog2() + 5, "{windows} windows for {best} of {most}");
            }
            assert_eq!(run(most, |_| false), (Next::Hopeless, 1, 1));
        }
    }

    /// Whatever a noisy device answers, the search ends: each failure lowers the highest depth
    /// that is tried again.
    #[test]
    fn search_ends_on_a_device_that_answers_at_random() {
        for seed in 0..2000 {
            let mut random = Random::new(seed);
            let (_, _, windows) = run(64, |_| random.below(4) > 0);
            assert!(windows < 64 * 8, "{windows}");
        }
    }

    #[test]
    fn latency_run_follows_a_device_that_becomes_slower_and_faster() {
        let mut search = DepthSearch::new(32, true);
        let mut best = 20;
        for window in 0..300 {
            best = [20, 5, 32][window / 100];
            let next = search.judge(search.depth() <= best);
            assert!(!matches!(next, Next::Found | Next::Hopeless | Next::Measure));
            if window % 100 > 80 {
                assert!(search.depth().abs_diff(best) <= 1, "{} for {best}", search.depth());
            }
        }
        assert_eq!(best, 32);
        let mut search = DepthSearch::new(8, true);
        assert_eq!(search.judge(false), Next::Stay);
    }
}
