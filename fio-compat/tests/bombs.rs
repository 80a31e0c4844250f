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

#[test]
fn f49_files_that_include_themselves_are_refused() {
    let machine = Machine::default().with_file("a.fio", "[a]\nsize=4k\ninclude a.fio\n");
    let error = machine.run("a.fio").unwrap_err().to_string();
    assert!(error.contains("an included file cannot start a section"), "{error}");
    let machine =
        Machine::default().with_file("a.fio", "[a]\ninclude b\n").with_file("b", "include b\n");
    let error = machine.run("a.fio").unwrap_err().to_string();
    assert!(error.starts_with("b:1:1: files include one another more than 16 deep"), "{error}");
}

#[test]
fn f49_deep_parentheses_and_huge_ranges_are_refused() {
    for value in ["(".repeat(1 << 20), "(1+".repeat(1 << 20), format!("{}1", "(".repeat(40))] {
        let error = Machine::file(&format!("[a]\nsize={value}\n")).unwrap_err().to_string();
        assert!(error.contains("nested too deeply"), "{}", &error[error.len() - 200..]);
    }
    for line in ["cpus_allowed=0-4294967295", "cpumask=0xffffffffffffffffff", "iodepth=4294967296"]
    {
        assert!(Machine::file(&format!("[a]\nsize=4k\n{line}\n")).is_err(), "{line}");
    }
    let widest = "[a]\nsize=4k\nbsrange=1-18446744073709551615\n";
    assert!(Machine::file(widest).is_ok() || Machine::file(widest).is_err());
}

/// A line of 10 MB for each option: read or refused, and never repeated in full.
#[test]
fn f49_lines_of_10_megabytes_are_read_or_refused_in_a_short_line() {
    let options = fio_compat::Job::new("").effective();
    for letter in ["1", "x", "1:", "1,", "1k-", "0x", "'", "\"", "${E}", "$ncpus", "4k/1:"] {
        let megabytes = if ["1", "x"].contains(&letter) { 10 } else { 1 };
        let long = letter.repeat((megabytes << 20) / letter.len());
        // One option of each grammar.
        for option in ["size", "bs", "filename", "bssplit", "cpus_allowed", "percentile_list", "rw"]
            .into_iter()
            .chain(["verify_pattern", "runtime", "ignore_error", "random_distribution", "bogus"])
        {
            assert!(
                option == "bogus" || options.iter().any(|row| row.option == option),
                "{option}"
            );
            let machine = Machine::default().with_env("E", "4k");
            let machine = machine.with_file("a.fio", &format!("[a]\n{option}={long}\n"));
            if let Err(error) = machine.run("a.fio") {
                assert!(error.to_string().len() < 10_000, "{option} {letter}");
            }
        }
        assert!(Machine::file(&format!("[a]\n{long}\n")).is_err());
        assert!(Machine::file(&format!("[{long}\n")).is_err());
    }
}

#[test]
fn f49_defaults_that_every_job_copies_are_refused_before_memory_is_full() {
    let mut text = format!("[global]\nsize=4k\ndescription={}\n", "x".repeat(1 << 20));
    text.push_str(&"[a]\n".repeat(4000));
    let error = Machine::file(&text).unwrap_err().to_string();
    assert!(error.contains("the jobs hold more than 256 MiB; shorten what [global]"), "{error}");
}

/// Each assignment costs the same, however long what was assigned before is.
#[test]
fn f49_many_options_after_a_long_one_are_refused_or_cheap() {
    let mut text = format!("[a]\nsize=4k\nfilename={}\n", "x".repeat(1 << 20));
    text.push_str(&"bs=4k\n".repeat(20_000));
    assert!(Machine::file(&text).is_ok());
    text.push_str(&"bs=4k\n".repeat(1 << 17));
    let error = Machine::file(&text).unwrap_err().to_string();
    assert!(error.contains("there are more than 131072 options; put what"), "{error}");
}

#[test]
fn f49_comments_included_again_and_again_are_refused() {
    let machine = Machine::default().with_file("b", &"# nothing\n".repeat(1 << 20));
    let machine = machine.with_file("a.fio", &format!("[a]\nsize=4k\n{}", "include b\n".repeat(9)));
    let error = machine.run("a.fio").unwrap_err().to_string();
    assert!(error.contains("there is more than 64 MiB of text"), "{error}");
}

#[test]
fn f49_zero_bytes_and_other_controls_are_refused_in_one_line() {
    for text in
        ["[a]\nsi\0ze=4k\n", "[a]\nsize=4\0k\n", "\0", "[a\0]\nsize=\u{7}\n", "[a]\nrw=\r\0\n"]
    {
        let error = Machine::file(text).unwrap_err().to_string();
        assert!(!error.contains(|c: char| c.is_control()), "{error:?}");
    }
}
