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
    ("md5", |job| job.verify = Verify::Md5),
    ("crc64", |job| job.verify = Verify::Crc64),
    ("crc32", |job| job.verify = Verify::Crc32),
    ("crc16", |job| job.verify = Verify::Crc16),
    ("crc7", |job| job.verify = Verify::Crc7),
    ("sha1", |job| job.verify = Verify::Sha1),
    ("sha256", |job| job.verify = Verify::Sha256),
    ("sha512", |job| job.verify = Verify::Sha512),
    ("sha3-224", |job| job.verify = Verify::Sha3_224),
    ("sha3-256", |job| job.verify = Verify::Sha3_256),
    ("sha3-384", |job| job.verify = Verify::Sha3_384),
    ("sha3-512", |job| job.verify = Verify::Sha3_512),
    ("xxhash", |job| job.verify = Verify::Xxhash),
    ("meta", |job| job.verify = Verify::Meta),
    ("pattern", |job| job.verify = Verify::Pattern),
    ("pattern_hdr", |job| job.verify = Verify::PatternHeader),
    ("null", |job| job.verify = Verify::Null),
];

/// An integer was a method in old releases of fio.
const METHODS_NOT_YET: &[&str] = &["1"];
