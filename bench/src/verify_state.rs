//! What a job has written with which write, in a file, for a later run to check
//! (`verify_state_save`, `verify_state_load`).
//!
//! Data flow: [`Written`] and the seed of the run -> lines of text with a checksum at the end ->
//! the same again. A state that was cut short, or is of other regions, is refused.
//!
//! Not here: reading the blocks back (`run::job`), fio's own format, which is of its own headers.

use std::fs;
use std::path::PathBuf;

use crate::plan::Plan;
use crate::written::Written;

const TITLE: &str = "mfio-bench verify state 1";

/// fio's name for it: `local-<job>-<number of the clone in the run>-verify.state`.
pub(crate) fn path(plan: &Plan, number: u64) -> PathBuf {
    let name = plan.job.name.replace('/', "_");
    PathBuf::from(format!("local-{name}-{}-verify.state", number.saturating_sub(1)))
}

/// Writes the state; an earlier one is replaced at once or not at all.
///
/// # Errors
/// One line.
pub(crate) fn save(plan: &Plan, number: u64, seed: u64, written: &Written) -> Result<(), String> {
    let path = path(plan, number);
    let mut text = format!("{TITLE}\nseed {seed:016x}\n{}", written.describe());
    for (file, block, count, sequence) in written.runs() {
        text.push_str(&format!("run {file} {block} {count} {sequence}\n"));
    }
    text.push_str(&format!("end {:08x}\n", crc32c::crc32c(text.as_bytes())));
    let draft = path.with_extension("state.new");
    let saved = fs::write(&draft, text).and_then(|()| fs::rename(&draft, &path));
    saved.map_err(|error| {
        let reason = crate::plan::reason(&error);
        format!("cannot save the verify state {}: {reason}", path.display())
    })
}

/// Reads the state back into `written`, which knows the regions; the seed of the run that wrote.
///
/// # Errors
/// One line that says what to do.
pub(crate) fn load(plan: &Plan, number: u64, written: &mut Written) -> Result<u64, String> {
    let path = path(plan, number);
    let shown = path.display();
    let text = fs::read_to_string(&path).map_err(|error| {
        let reason = crate::plan::reason(&error);
        format!(
            "cannot load the verify state {shown}: {reason}; a run with verify_state_save=1 and a \
             job of the same name in the same place leaves one"
        )
    })?;
    let broken = || format!("{shown} is no whole verify state of this program; save it again");
    let (body, end) = text.rfind("end ").map(|at| text.split_at(at)).ok_or_else(broken)?;
    if end.trim_end() != format!("end {:08x}", crc32c::crc32c(body.as_bytes())) {
        return Err(broken());
    }
    let rest = body.strip_prefix(TITLE).and_then(|rest| rest.trim_start().strip_prefix("seed "));
    let (seed, rest) = rest.and_then(|rest| rest.split_once('\n')).ok_or_else(broken)?;
    let seed = u64::from_str_radix(seed, 16).map_err(|_| broken())?;
    let runs = rest.strip_prefix(&written.describe()).ok_or_else(|| {
        format!(
            "{shown} is of other files, regions or blocks; give this job the size, offset, bs, \
             nrfiles and verify_interval of the one that wrote"
        )
    })?;
    for line in runs.lines() {
        let numbers = line.strip_prefix("run ").ok_or_else(broken)?;
        let numbers: Vec<u64> = numbers.split(' ').filter_map(|text| text.parse().ok()).collect();
        let &[file, block, count, sequence] = &numbers[..] else { return Err(broken()) };
        written.restore(file, block, count, sequence).ok_or_else(broken)?;
    }
    Ok(seed)
}
