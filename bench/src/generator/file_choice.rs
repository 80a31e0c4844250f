//! Which of several files is next.
//!
//! Data flow: service rule and amounts left per file -> index of a file. A file whose pass is
//! done is left out until all are done; then all start over.
//!
//! Not here: places within a file (`place`).

use fio_compat::{Distribution, FileService};

use super::distribution::Drawer;
use crate::random::Random;

/// Chooses among the files of a job.
pub(crate) struct FileChoice {
    service: FileService,
    /// I/Os on one file before the next.
    every: u64,
    in_row: u64,
    current: usize,
    drawer: Option<Drawer>,
    random: Random,
    /// Whether passes are counted at all.
    bounded: bool,
    pass: Vec<u64>,
    left: Vec<u64>,
    /// What fits no I/O any more.
    unit: u64,
}

impl FileChoice {
    /// `pass` is what one pass over each file amounts to.
    pub(crate) fn new(
        (service, every): (FileService, u64),
        pass: Vec<u64>,
        bounded: bool,
        unit: u64,
        seed: u64,
    ) -> Self {
        let mut random = Random::new(seed);
        let count = u64::try_from(pass.len()).unwrap_or(1);
        let drawn = match service {
            FileService::Zipf(theta) => Some(Distribution::Zipf { theta, center: None }),
            FileService::Pareto(h) => Some(Distribution::Pareto { h, center: None }),
            FileService::Normal(deviation_percent) => {
                Some(Distribution::Normal { deviation_percent, center: None })
            }
            FileService::Random => Some(Distribution::Random),
            FileService::RoundRobin | FileService::Sequential => None,
        };
        let drawer = drawn.map(|kind| Drawer::new(&kind, count, 1, &mut random));
        Self {
            service,
            every: every.max(1),
            in_row: 0,
            // The first choice is the first file.
            current: pass.len().saturating_sub(1),
            drawer,
            random,
            bounded,
            left: pass.clone(),
            pass,
            unit,
        }
    }

    fn is_done(&self, file: usize) -> bool {
        self.bounded && self.left[file] < self.unit
    }

    /// The next file.
    pub(crate) fn next(&mut self) -> usize {
        let stays = self.in_row > 0
            && (self.in_row < self.every || self.service == FileService::Sequential)
            && !self.is_done(self.current);
        if !stays {
            self.move_on();
        }
        self.in_row += 1;
        self.current
    }

    fn move_on(&mut self) {
        let count = self.left.len();
        if (0..count).all(|file| self.is_done(file)) {
            self.left.clone_from(&self.pass);
        }
        let wanted = match &self.drawer {
            Some(drawer) => {
                usize::try_from(drawer.draw(&mut self.random)).unwrap_or(0).min(count - 1)
            }
            None => (self.current + 1) % count,
        };
        let open = (0..count).map(|step| (wanted + step) % count).find(|at| !self.is_done(*at));
        self.current = open.unwrap_or(wanted);
        self.in_row = 0;
    }

    /// Notes what was chosen for the current file.
    pub(crate) fn note(&mut self, bytes: u64) {
        if self.bounded {
            let left = &mut self.left[self.current];
            *left = left.saturating_sub(bytes);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sequence(service: FileService, every: u64, pass: &[u64], count: usize) -> Vec<usize> {
        let mut choice = FileChoice::new((service, every), pass.to_vec(), true, 1, 9);
        let mut list = Vec::new();
        for _ in 0..count {
            list.push(choice.next());
            choice.note(1);
        }
        list
    }

    #[test]
    fn file_service_type_decides_the_order_of_files() {
        use FileService::{RoundRobin, Sequential};
        assert_eq!(sequence(RoundRobin, 1, &[3, 3], 6), [0, 1, 0, 1, 0, 1]);
        assert_eq!(sequence(RoundRobin, 2, &[3, 3], 6), [0, 0, 1, 1, 0, 1]);
        assert_eq!(sequence(Sequential, 1, &[2, 1, 2], 6), [0, 0, 1, 2, 2, 0]);
        // A short file is left out until the others are done as well.
        assert_eq!(sequence(RoundRobin, 1, &[1, 3], 5), [0, 1, 1, 1, 0]);
    }

    #[test]
    fn file_service_type_random_and_zipf_cover_all_files_unevenly_or_not() {
        for (service, even) in [(FileService::Random, true), (FileService::Zipf(1.5), false)] {
            let mut choice = FileChoice::new((service, 1), vec![u64::MAX; 8], false, 1, 9);
            let mut counts = [0_u32; 8];
            for _ in 0..8000 {
                counts[choice.next()] += 1;
            }
            let most = counts.iter().max().copied().unwrap_or(0);
            assert_eq!(most < 1200, even, "{counts:?}");
        }
    }
}
