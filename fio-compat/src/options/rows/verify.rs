//! Options about checking what was written.
//!
//! Data flow: row -> setter -> field of `Job`.
//!
//! Not here: block headers and checksums (the bench).

use super::{Choice, Kind, Row, digit, row};
use crate::job::Verify;

pub(super) const ROWS: &[Row] = &[
    row(
        "verify",
        &[],
        Kind::Choice { choices: METHODS, not_yet: METHODS_NOT_YET },
        |job| job.verify.as_str().to_owned(),
        "how written data is checked",
    ),
    row(
        "do_verify",
        &[],
        Kind::Bool(|job, value| job.do_verify = value),
        |job| digit(job.do_verify),
        "check after the writes",
    ),
    row(
        "verify_fatal",
        &[],
        Kind::Bool(|job, value| job.verify_fatal = value),
        |job| digit(job.verify_fatal),
        "stop at the first mismatch",
    ),
];

const METHODS: &[Choice] = &[
    ("none", |job| job.verify = Verify::None),
    ("0", |job| job.verify = Verify::None),
    ("crc32c", |job| job.verify = Verify::Crc32c),
    ("crc32c-intel", |job| job.verify = Verify::Crc32c),
];

const METHODS_NOT_YET: &[&str] = &[
    "1",
    "md5",
    "crc64",
    "crc32",
    "crc16",
    "crc7",
    "sha1",
    "sha256",
    "sha512",
    "sha3-224",
    "sha3-256",
    "sha3-384",
    "sha3-512",
    "xxhash",
    "meta",
    "pattern",
    "pattern_hdr",
    "null",
];
