//! The syntax of job files: sections, comments, includes, variables.
//!
//! Data flow: text in memory -> `Invocation` -> fields.
//!
//! Not here: complaints (`errors`), the command line (`command_line`).

mod machine;

use fio_compat::{Extent, Rw};
use machine::Machine;

#[test]
fn global_sections_affect_only_what_follows() {
    let text = "[a]\n[global]\nbs=8k\n[b]\n[globalx]\nbs=16k\n[c]\n";
    let jobs = Machine::file(text).unwrap().jobs;
    let sizes: Vec<u64> = jobs.iter().map(|job| job.bs.read_bytes).collect();
    assert_eq!(sizes, [4096, 8192, 16384]);
}

#[test]
fn comments_blanks_and_spaces_around_equals_are_ignored() {
    let text = "\u{feff}; top\n\n[a]  # why\n\t rw = randread ; inline\nsize\t=\t1m#x\r\n\
                filename=foo;bar\n";
    let jobs = Machine::file(text).unwrap().jobs;
    assert_eq!((jobs[0].name.as_str(), jobs[0].rw), ("a", Rw::RandRead));
    assert_eq!(
        (jobs[0].size, jobs[0].filenames[0].as_str()),
        (Some(Extent::Bytes(1 << 20)), "foo")
    );
}

#[test]
fn include_is_relative_and_nests() {
    let machine = Machine::default()
        .with_file("d/a.fio", "[a]\ninclude sub/b.inc\nbs=8k\n")
        .with_file("d/sub/b.inc", "rw=write\ninclude c.inc\n")
        .with_file("d/sub/c.inc", "iodepth=1\nbs=4k\nnumjobs=3\n");
    let jobs = machine.run("d/a.fio").unwrap().jobs;
    assert_eq!((jobs[0].rw, jobs[0].numjobs, jobs[0].bs.read_bytes), (Rw::Write, 3, 8192));
}

#[test]
fn variables_and_keywords_are_filled_in() {
    let machine = Machine::default()
        .with_file("a.fio", "[a]\nfilename=${DEV}\nnumjobs=$ncpus\nbs=$pagesize\nsize=(2*$ncpus)\n")
        .with_env("DEV", "/dev/x");
    let text = "[b]\nsize=8*$mb_memory\ndescription=${NONE}x\n";
    let invocation = machine.with_file("b.fio", text).run("a.fio b.fio");
    // 8 bytes are less than a block: the substitution worked and the check saw its result.
    assert!(invocation.unwrap_err().to_string().contains("size of job `a` is 8 bytes"));
    let machine = Machine::default().with_file("b.fio", text);
    let invocation = machine.run("b.fio").unwrap();
    assert_eq!(invocation.jobs[0].size, Some(Extent::Bytes(8000)));
    assert!(invocation.warnings[0].to_string().contains("${NONE} is not set"));
}

#[test]
fn flags_may_stand_bare_or_with_a_value() {
    let text = "[a]\ntime_based\nruntime=1\nthread=1\ngroup_reporting=0\ndirect=true\n";
    let job = Machine::file(text).unwrap().jobs.remove(0);
    assert!(job.time_based && job.thread && !job.group_reporting && job.direct);
}

#[test]
fn own_options_are_told_from_global_ones() {
    let text = "[global]\nsize=64m\ntime_based\nruntime=2\n[a]\nreadwrite=randrw\nblocksize=4k\n";
    let invocation = Machine::file(text).unwrap();
    let names = |list: &[(String, String)]| -> Vec<String> {
        list.iter().map(|(name, _)| name.clone()).collect()
    };
    assert_eq!(names(&invocation.global_options), ["size", "time_based", "runtime"]);
    assert_eq!(names(&invocation.jobs[0].job_options), ["rw", "bs"]);
}

#[test]
fn mistake_in_a_global_section_without_jobs_is_found() {
    assert!(Machine::file("[global]\nbs=4q\n").is_err());
}
