//! Small inputs that ask for a lot: each is refused, or costs no more than it says.
//!
//! Data flow: a text that multiplies itself -> the parser -> an error that names the limit.
//!
//! Not here: inputs that are merely wrong (`errors`).

mod machine;

use machine::Machine;

#[test]
fn f49_files_that_include_one_another_ever_wider_are_refused() {
    let mut machine = Machine::default().with_file("a.fio", "[a]\nsize=4k\ninclude f0\n");
    for depth in 0..12 {
        let twice = format!("include f{}\n", depth + 1).repeat(8);
        machine = machine.with_file(&format!("f{depth}"), &twice);
    }
    machine = machine.with_file("f12", "bs=4k\n");
    let error = machine.run("a.fio").unwrap_err().to_string();
    assert!(error.contains("more than 1024 files are included"), "{error}");
}

#[test]
fn f49_cpu_ranges_that_repeat_take_no_memory_each() {
    let list = vec!["0-8191"; 20_000].join(",");
    let error = Machine::file(&format!("[a]\nsize=4k\ncpus_allowed={list}\n")).unwrap_err();
    assert!(error.to_string().contains("there is no CPU 8191"), "{error}");
}

#[test]
fn f49_more_jobs_than_fio_runs_are_refused() {
    let error = Machine::file(&"[a]\nsize=4k\n".repeat(4097)).unwrap_err().to_string();
    assert!(error.starts_with("a.fio:8193:1:"), "{error}");
    assert!(error.contains("more than 4096 jobs"), "{error}");
    assert!(Machine::file(&"[a]\nsize=4k\n".repeat(4096)).is_ok());
}
