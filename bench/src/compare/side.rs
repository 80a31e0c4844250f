//! One side of a comparison: an engine, and what else differs from the job.
//!
//! Data flow: `"ENGINE OPTION=VALUE …"` -> [`Side`] -> the job as this side runs it.
//!
//! Not here: running it (`sample`).

use std::collections::BTreeSet;

use fio_compat::engine_names;

use crate::subcommand::{Asked, one_job};

/// Engines of fio's that job files may name, but that are another one here: under their names a
/// comparison would mislead.
const STAND_INS: [&str; 2] = ["libaio", "posixaio"];

/// What one side is.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Side {
    /// `a`, `b` and so on.
    pub(super) name: String,
    /// What was asked for, as it was.
    pub(super) text: String,
    engine: String,
    options: Vec<(String, String)>,
}

impl Side {
    /// Reads `ENGINE [OPTION=VALUE …]`, the value of the option `--name`.
    ///
    /// # Errors
    /// One line.
    pub(super) fn parse(name: &str, text: &str) -> Result<Self, String> {
        let mut words = text.split_whitespace();
        let engine = words.next().ok_or_else(|| needs(name))?.to_owned();
        if STAND_INS.contains(&engine.as_str()) {
            return Err(format!(
                "--{name} {engine}: there is no {engine} here, job files that name it run on \
                 io_uring: compare io_uring"
            ));
        }
        if !engine_names().any(|known| known == engine) {
            let known = known();
            return Err(format!("--{name} {engine}: compare has only {known}"));
        }
        let option = |word: &str| {
            let (option, value) = word
                .split_once('=')
                .ok_or_else(|| format!("--{name}: `{word}` is no OPTION=VALUE"))?;
            Ok((option.to_owned(), value.to_owned()))
        };
        let options = words.map(option).collect::<Result<_, String>>()?;
        Ok(Self { name: name.to_owned(), text: text.to_owned(), engine, options })
    }

    /// The job of the command line `args` as this side runs it on `cpu`. Nothing is measured
    /// that costs time inside the loop, unless `gtod_reduce=0` asks for fio's full statistics.
    ///
    /// # Errors
    /// One line.
    pub(super) fn job(
        &self,
        args: &[String],
        cpu: Option<u32>,
        said: &mut BTreeSet<String>,
    ) -> Result<Asked, String> {
        let engine = ("ioengine".to_owned(), self.engine.clone());
        let overrides: Vec<_> = std::iter::once(engine).chain(self.options.clone()).collect();
        let mut asked = one_job("compare", args, &overrides, said)?;
        let job = &mut asked.job;
        if job.numjobs != 1 {
            return Err("compare runs its job on one core: numjobs must be 1".into());
        }
        if !job.is_set("gtod_reduce") || job.gtod_reduce {
            job.gtod_reduce = true;
            (job.disable_lat, job.disable_clat, job.disable_slat) = (true, true, true);
            job.disable_bw_measurement = true;
        }
        if job.cpus_allowed.is_empty() {
            job.cpus_allowed = vec![cpu.ok_or("no CPU is available to this process")?];
        }
        Ok(asked)
    }
}

/// The engines that can be compared.
fn known() -> String {
    let known = engine_names().filter(|name| !STAND_INS.contains(name));
    known.collect::<Vec<_>>().join(", ")
}

/// What to say where a side is missing.
pub(super) fn needs(name: &str) -> String {
    let known = known();
    format!("compare needs --{name} ENGINE, one of {known}")
}

#[cfg(test)]
mod tests {
    use fio_compat::IoEngine;

    use super::*;

    fn args(text: &str) -> Vec<String> {
        text.split_whitespace().map(str::to_owned).collect()
    }

    #[test]
    fn side_is_an_engine_and_options_that_win() {
        let side = Side::parse("a", "io_uring iodepth=8 fixedbufs=0").unwrap();
        let args = args("--name=x --size=1m --iodepth=2");
        let job = side.job(&args, Some(0), &mut BTreeSet::new()).unwrap().job;
        assert_eq!((job.ioengine, job.iodepth), (IoEngine::IoUring, 8));
        assert_eq!((job.fixedbufs, job.registerfiles, job.gtod_reduce), (false, true, true));
        assert_eq!(job.cpus_allowed, [0]);
    }

    #[test]
    fn no_ops_can_be_compared_and_register_nothing() {
        for (engine, text) in [(IoEngine::Nop, "nop"), (IoEngine::RawNop, "raw_nop")] {
            let side = Side::parse("a", text).unwrap();
            let job =
                side.job(&args("--name=x --size=1m"), Some(0), &mut BTreeSet::new()).unwrap().job;
            assert_eq!((job.ioengine, job.fixedbufs, job.registerfiles), (engine, false, false));
        }
    }

    #[test]
    fn statistics_are_off_unless_a_side_asks_for_them() {
        let side = Side::parse("b", "raw_uring gtod_reduce=0").unwrap();
        let job = side.job(&args("--name=x --size=1m"), Some(0), &mut BTreeSet::new()).unwrap().job;
        assert!(!job.gtod_reduce && !job.disable_clat && !job.disable_slat && !job.disable_lat);
    }

    #[test]
    fn every_engine_that_is_one_can_be_a_side_with_its_own_options() {
        let job = |text: &str| {
            let side = Side::parse("a", text).unwrap();
            side.job(&args("--name=x --size=1m"), Some(0), &mut BTreeSet::new()).unwrap().job
        };
        for engine in engine_names().filter(|name| !STAND_INS.contains(name)) {
            assert_eq!(job(engine).ioengine_requested, engine);
        }
        let polled = job("pvsync2 hipri=1 hipri_percentage=50 direct=1");
        assert_eq!((polled.ioengine, polled.engine.hipri_percent), (IoEngine::Psync, 50));
    }

    #[test]
    fn what_is_no_side_is_refused() {
        assert!(Side::parse("a", "").unwrap_err().contains("needs --a ENGINE"));
        assert!(Side::parse("a", "mmap").unwrap_err().contains("compare has only io_uring,"));
        assert!(Side::parse("a", "libaio").unwrap_err().contains("compare io_uring"));
        assert!(Side::parse("a", "psync direct").unwrap_err().contains("no OPTION=VALUE"));
        let side = Side::parse("a", "psync numjobs=2").unwrap();
        let refused = side.job(&args("--name=x --size=1m"), Some(0), &mut BTreeSet::new());
        assert!(refused.err().unwrap().contains("numjobs must be 1"));
    }
}
