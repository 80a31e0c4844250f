//! Traces: what is read, what is refused and where, what is written.
//!
//! Data flow: text -> parser -> I/Os or a complaint with line and column; and back.
//!
//! Not here: following a trace (the bench).
#![allow(clippy::unwrap_used, reason = "a test; clippy.toml covers only functions marked so")]

mod machine;

use fio_compat::trace::{
    TRACE_HEADER, TRACE_LINE_BYTES_MAX, TraceAction, TraceIo, TraceLine, TraceParser, is_trace_name,
};
use fio_compat::{ParseError, ReplaySkip};
use machine::Machine;
use proptest::prelude::*;

/// As fio 3.33 wrote it: two files, reads and writes at random, a sync after every third write.
const CAPTURED: &str = include_str!("fixtures/fio-3.33.iolog");

fn parse(text: &str) -> Result<(Vec<TraceIo>, Vec<String>), ParseError> {
    let mut parser = TraceParser::new("t");
    let mut ios = Vec::new();
    for line in text.lines() {
        ios.extend(parser.line(line.as_bytes())?);
    }
    parser.end()?;
    Ok((ios, parser.files().to_vec()))
}

fn told(text: &str) -> String {
    parse(text).unwrap_err().to_string()
}

#[test]
fn read_iolog_understands_what_fio_wrote() {
    let (ios, files) = parse(CAPTURED).unwrap();
    assert_eq!(files, ["a.dat", "b.dat"]);
    let count = |action| ios.iter().filter(|io| io.action == action).count();
    let lines = |word: &str| CAPTURED.matches(word).count();
    assert_eq!(count(TraceAction::Read), lines(" read "));
    assert_eq!(count(TraceAction::Write), lines(" write "));
    assert_eq!(count(TraceAction::Sync), lines(" sync "));
    assert_eq!(ios.len(), 19);
    // Counted from the first line, which is at 23.
    assert_eq!((ios[0].due_us, ios[1].due_us), (127 - 23, 3841 - 23));
    assert_eq!((ios[1].offset_bytes, ios[1].len_bytes, ios[1].file), (20480, 4096, 1));
}

#[test]
fn read_iolog_of_version_2_adds_waits_up() {
    let text = "fio version 2 iolog\n/f add\n/f open\n\n/f write 0 512\n/f wait 500 0\n\
                /f wait 99 0\n/f wait 100 0\n/f read 512 1024\n/f sync\n/f datasync 0 0\n\
                /f close\n";
    let (ios, _) = parse(text).unwrap();
    let found: Vec<_> = ios.iter().map(|io| (io.due_us, io.action, io.len_bytes)).collect();
    let expected = [
        (0, TraceAction::Write, 512),
        (600, TraceAction::Read, 1024),
        (600, TraceAction::Sync, 0),
        (600, TraceAction::Datasync, 0),
    ];
    assert_eq!(found, expected);
}

#[test]
fn read_iolog_never_goes_back_in_time() {
    let text = "fio version 3 iolog\n1000 f add\n1000 f open\n1500 f read 0 1\n1200 f read 1 1\n\
                1300 f read 2 1\n";
    let due: Vec<u64> = parse(text).unwrap().0.iter().map(|io| io.due_us).collect();
    assert_eq!(due, [500, 500, 600]);
}

#[test]
fn read_iolog_says_where_a_trace_is_wrong() {
    let two = |line: &str| told(&format!("fio version 2 iolog\nf add\nf open\n{line}\n"));
    let three = |line: &str| told(&format!("fio version 3 iolog\n0 f add\n0 f open\n{line}\n"));
    for (found, expected) in [
        (two("f frob 0 1"), "t:4:3: there is no action `frob`"),
        (two("g read 0 1"), "t:4:1: `g` was not added; a line with `add` must come first"),
        (two("f read 0"), "t:4:9: a length is missing here"),
        (two("f read"), "t:4:7: an offset is missing here"),
        (two("f"), "t:4:2: an action is missing here"),
        (two("f read x 1"), "t:4:8: `x` is not a whole number"),
        (two("f read -1 1"), "t:4:8: `-1` is not a whole number"),
        (two("f read 0 4k"), "t:4:10: `4k` is not a whole number"),
        (two("f read 0 0"), "t:4:10: a length of 0 moves nothing"),
        (two("f read 0 4294967296"), "t:4:10: the length exceeds 2147483647 bytes"),
        (two("f read 9223372036854775807 1"), "t:4:8: the end exceeds what a file can hold"),
        (two("f read 0 1 2"), "t:4:12: `2` is one word too many"),
        (two("f open 1"), "t:4:8: `1` is one word too many"),
        (three("f read 0 1"), "t:4:1: `f` is not a whole number as the time must be"),
        (three("7 f wait 1 0"), "t:4:5: version 3 has no `wait`"),
        (three("7"), "t:4:2: the name of a file is missing here"),
        (told("fio version 3 iolog\n0 f add\n1 f read 0 1"), "t:3:3: `f` is not open here"),
        (told("fio version 4 iolog"), "t:1:1: this is no trace; the first line must be"),
        (
            told("\u{7}taebinary"),
            "t:1:1: this is a binary trace of blktrace, which is not read; print",
        ),
        (told(""), "t: the trace is empty"),
        (two(&"x".repeat(TRACE_LINE_BYTES_MAX + 1)), "t:4:1: the line is longer than 4095 bytes"),
    ] {
        assert!(found.starts_with(expected), "{found} instead of {expected}");
    }
    let mut parser = TraceParser::new("t");
    parser.line(TRACE_HEADER.as_bytes()).unwrap();
    let told = parser.line(b"0 \xff add").unwrap_err().to_string();
    assert_eq!(told, "t:2:3: this is not UTF-8");
}

#[test]
fn write_iolog_can_name_files_without_blanks() {
    assert!(is_trace_name("/dev/sda") && is_trace_name("ä"));
    for name in ["", "a b", "a\nb", "a\u{7}", &"x".repeat(257)] {
        assert!(!is_trace_name(name), "{name}");
    }
}

#[test]
fn replay_options_are_parsed_and_shown() {
    let args = "--name=r --read_iolog=a:b\\:c --read_iolog_chunked=1 --replay_no_stall=1 \
                --replay_time_scale=50 --replay_redirect=/x --replay_scale=2 --replay_align=4k \
                --replay_skip=write,sync --write_iolog=w";
    let args = args.split_whitespace().collect::<Vec<_>>().join(" ");
    let replay = Machine::default().run(&args).unwrap().jobs.remove(0).replay;
    assert_eq!(replay.read, ["a", "b:c"]);
    assert_eq!((replay.time_scale_percent, replay.scale, replay.align_bytes), (50, 2, 4096));
    assert_eq!(replay.skip, ReplaySkip { write: true, sync: true, ..ReplaySkip::default() });
    assert!(replay.chunked && replay.no_stall);
    assert_eq!((replay.redirect.as_deref(), replay.write.as_deref()), (Some("/x"), Some("w")));
    for (option, expected) in [
        ("replay_align=3k", "power of two"),
        ("replay_skip=all", "valid values are read, write, trim, sync"),
        ("replay_scale=0", "replay_scale"),
        ("replay_time_scale=0", "replay_time_scale"),
        ("verify=crc32c", "verify does not go with read_iolog"),
        ("rate_iops=5", "rate_iops does not go with read_iolog"),
        ("fsync=5", "fsync does not go with read_iolog"),
        ("merge_blktrace_file=x", "merge_blktrace_file"),
        ("log_store_compressed=1", "log_store_compressed"),
    ] {
        let told = Machine::default().run(&format!("--name=r --read_iolog=a --{option}"));
        let told = told.unwrap_err().to_string();
        assert!(told.contains(expected), "{told}");
    }
    let warned = Machine::default().run("--name=r --read_iolog=a --rw=write --bs=8k").unwrap();
    let warned: Vec<String> = warned.warnings.iter().map(ToString::to_string).collect();
    assert!(
        warned.iter().any(|line| line.contains("no effect of rw, bs: read_iolog")),
        "{warned:?}"
    );
}

/// Actions that are I/O and may have any length.
fn action() -> impl Strategy<Value = TraceAction> {
    prop_oneof![
        Just(TraceAction::Read),
        Just(TraceAction::Write),
        Just(TraceAction::Trim),
        Just(TraceAction::Sync),
        Just(TraceAction::Datasync),
    ]
}

proptest! {
    #[test]
    fn write_iolog_lines_are_read_as_they_were_meant(
        ios in prop::collection::vec(
            (0u64..1 << 40, 0usize..3, action(), 0u64..1 << 50, 1u32..1 << 31), 0..50),
    ) {
        let names = ["/dev/a", "b", "c.d"];
        let mut text = format!("{TRACE_HEADER}\n");
        let mut time_us = 0;
        for name in names {
            for action in [TraceAction::Add, TraceAction::Open] {
                let line =
                    TraceLine { time_us, file: name, action, offset_bytes: 0, len_bytes: 0 };
                text.push_str(&line.to_string());
            }
        }
        let mut expected = Vec::new();
        for (gap_us, file, action, offset_bytes, len_bytes) in ios {
            time_us += gap_us;
            let line = TraceLine { time_us, file: names[file], action, offset_bytes, len_bytes };
            text.push_str(&line.to_string());
            expected.push(TraceIo { due_us: time_us, file, action, offset_bytes, len_bytes });
        }
        let (found, files) = parse(&text).unwrap();
        prop_assert_eq!(found, expected);
        prop_assert_eq!(files, names);
    }

    #[test]
    fn any_trace_is_understood_or_refused_at_its_line(
        three: bool,
        lines in prop::collection::vec(
            prop_oneof![
                "\\PC{0,20}",
                "[0-9]{1,3} [fg] (add|open|close|read|sync|wait)",
                "[0-9]{1,3} [fg] (read|write|trim|sync|datasync) [0-9]{1,21} [0-9]{1,11}",
                "[fg] (add|open|close|read|wait)( [0-9]{1,4} [0-9]{1,4})?",
            ], 0..12),
    ) {
        let header = if three { TRACE_HEADER } else { "fio version 2 iolog" };
        let text = format!("{header}\n{}", lines.join("\n"));
        match parse(&text) {
            Ok((ios, files)) => {
                prop_assert!(ios.is_sorted_by_key(|io| io.due_us));
                prop_assert!(ios.iter().all(|io| io.file < files.len()));
            }
            Err(error) => {
                let told = error.to_string();
                prop_assert!(told.starts_with("t:") && !told.contains('\n'), "{}", told);
            }
        }
    }
}
