//! The machine as `fio_compat` needs to know it: job files, environment, sizes.
//!
//! Not here: what is done with the answers.

use std::io::Read;

use fio_compat::Source;
use nix::unistd::{SysconfVar, sysconf};

/// Answers from the system this runs on.
pub(crate) struct Machine;

fn system(variable: SysconfVar) -> u64 {
    let value = sysconf(variable).ok().flatten().unwrap_or(0);
    u64::try_from(value).unwrap_or(0)
}

impl Source for Machine {
    fn read_job_file(&self, path: &str) -> Result<String, String> {
        let text = if path == "-" {
            let mut text = String::new();
            std::io::stdin().lock().read_to_string(&mut text).map(|_| text)
        } else {
            std::fs::read_to_string(path)
        };
        text.map_err(|error| crate::plan::reason(&error))
    }

    fn read_bytes(&self, path: &str, most: usize) -> Result<Vec<u8>, String> {
        let most = u64::try_from(most).unwrap_or(u64::MAX);
        let mut bytes = Vec::new();
        let read =
            std::fs::File::open(path).and_then(|file| file.take(most).read_to_end(&mut bytes));
        read.map(|_| bytes).map_err(|error| crate::plan::reason(&error))
    }

    fn env(&self, name: &str) -> Option<String> {
        std::env::var(name).ok()
    }

    fn cpus(&self) -> u32 {
        u32::try_from(system(SysconfVar::_NPROCESSORS_CONF)).unwrap_or(1).max(1)
    }

    fn page_size(&self) -> u64 {
        system(SysconfVar::PAGE_SIZE)
    }

    fn memory_mib(&self) -> u64 {
        (system(SysconfVar::_PHYS_PAGES) * self.page_size()) >> 20
    }
}
