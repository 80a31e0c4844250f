//! What must hold of the parsers, whatever they are given.
//!
//! Data flow: bytes of the fuzzer → text → parser → an invocation that can be shown, or one line
//! that says what is wrong. The fuzzer's own limits (`scripts/fuzz`) see to it that neither takes
//! long or much memory.
//!
//! Not here: particular cases (the crate's own tests).

use std::collections::BTreeMap;

use fio_compat::trace::{TRACE_HEADER, TraceLine, TraceParser};
use fio_compat::{Invocation, ParseError, Source, parse_command_line, parse_job_text};

/// A machine whose files are what the fuzzer says.
struct Machine<'a>(BTreeMap<&'static str, &'a str>);

/// The names by which texts can include one another.
const NAMES: [&str; 5] = ["a", "b", "c", "d", "e"];

impl Source for Machine<'_> {
    fn read_job_file(&self, path: &str) -> Result<String, String> {
        self.0.get(path).map(|text| (*text).to_owned()).ok_or_else(|| "no such file".to_owned())
    }

    fn env(&self, name: &str) -> Option<String> {
        (name == "E").then(|| "${E}$ncpus[x]".to_owned())
    }

    fn cpus(&self) -> u32 {
        4
    }

    fn page_size(&self) -> u64 {
        4096
    }

    fn memory_mib(&self) -> u64 {
        1000
    }
}

fn check(parsed: Result<Invocation, ParseError>) {
    match parsed {
        Ok(invocation) => {
            assert!(!invocation.show_command().contains('\0'));
            for job in &invocation.jobs {
                assert!(!job.effective().is_empty());
            }
        }
        Err(error) => assert!(!error.to_string().contains('\n'), "{error}"),
    }
}

/// A job file, and up to five others that it can include, with a zero byte between them.
pub fn job_file(data: &[u8]) {
    let Ok(text) = str::from_utf8(data) else { return };
    let mut texts = text.split('\0');
    let main = texts.next().unwrap_or_default();
    let machine = Machine(NAMES.into_iter().zip(texts).collect());
    check(parse_job_text(main, "main", &machine));
}

/// Arguments, one a line, and a job file `a` behind a zero byte.
pub fn command_line(data: &[u8]) {
    let Ok(text) = str::from_utf8(data) else { return };
    let (arguments, file) = text.split_once('\0').unwrap_or((text, "[j]\nrw=read\nsize=4k\n"));
    let arguments: Vec<String> = arguments.lines().map(str::to_owned).collect();
    check(parse_command_line(&arguments, &Machine([("a", file)].into_iter().collect())));
}

/// Options by what their values are: a size, a block size, a time, a percentage, numbers and
/// their ranges, a count, a name, and arithmetic of a job file.
const OPTIONS: [&str; 10] = [
    "size",
    "bs",
    "runtime",
    "rwmixread",
    "percentile_list",
    "cpus_allowed",
    "iodepth",
    "filename",
    "offset",
    "rw",
];

/// One value for each kind of option: whatever is taken is shown in a form that is taken too,
/// and means the same.
pub fn values(data: &[u8]) {
    let Ok(value) = str::from_utf8(data) else { return };
    if value.contains(['\n', '\r', '\0']) {
        return;
    }
    let machine = Machine(BTreeMap::new());
    for option in OPTIONS {
        let Ok(shown) = show(option, value, &machine) else { continue };
        let Some(shown) = shown else { continue };
        if matches!(option, "filename" | "rw") {
            continue;
        }
        match show(option, &shown, &machine) {
            Ok(again) => assert_eq!(again, Some(shown), "{option}={value}"),
            Err(error) => panic!("{option}={value} is shown as {shown}, which is refused: {error}"),
        }
    }
}

/// Any trace: times never go back, and what was understood means the same when written anew.
pub fn trace(data: &[u8]) {
    let mut parser = TraceParser::new("t");
    let mut again = TraceParser::new("again");
    assert_eq!(again.line(TRACE_HEADER.as_bytes()), Ok(None));
    let mut added = 0;
    let mut due_us = 0;
    for line in data.split(|byte| *byte == b'\n') {
        let io = match parser.line(line) {
            Ok(io) => io,
            Err(error) => return assert!(!error.to_string().contains('\n'), "{error}"),
        };
        let Some(io) = io else { continue };
        assert!(io.due_us >= due_us);
        if due_us == 0 {
            // A trace begins with its first line.
            assert_eq!(again.line(b"0 . add"), Ok(None));
        }
        due_us = io.due_us;
        for name in &parser.files()[added..] {
            for action in ["add", "open"] {
                assert_eq!(again.line(format!("{due_us} {name} {action}").as_bytes()), Ok(None));
            }
        }
        added = parser.files().len();
        let line = TraceLine {
            time_us: io.due_us,
            file: &parser.files()[io.file],
            action: io.action,
            offset_bytes: io.offset_bytes,
            len_bytes: io.len_bytes,
        };
        let found = again.line(line.to_string().trim_end().as_bytes());
        let found = found.expect("a line that was written can be read").expect("it is an I/O");
        assert_eq!((found.action, found.offset_bytes), (io.action, io.offset_bytes));
        assert_eq!((found.due_us, found.len_bytes), (io.due_us, io.len_bytes));
        assert_eq!(again.files()[found.file], parser.files()[io.file]);
    }
}

/// How the effective configuration says the option, on a job that has nothing else.
fn show(option: &str, value: &str, machine: &Machine<'_>) -> Result<Option<String>, ParseError> {
    let invocation = parse_job_text(&format!("[j]\n{option}={value}\n"), "main", machine)?;
    let settings = invocation.jobs.first().map(|job| job.effective()).unwrap_or_default();
    Ok(settings.into_iter().find(|setting| setting.option == option).map(|setting| setting.value))
}
