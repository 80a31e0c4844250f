//! The wire format: what is sent is what arrives, and no bytes do harm.
#![allow(clippy::unwrap_used, reason = "a test may fail where it stands")]

use mfio_core::{Error as ByteError, ErrorKind as ByteKind, FailedRange};
use mfio_netfs::wire::{
    BODY_BYTES_MAX, DATA_BYTES_MAX, Flags, HEADER_BYTES, Header, Hello, Limits, Reason, Reply,
    Request, VERSION, WireError, frame,
};
use mfio_rt::{
    Allocate, DirEntry, Error, ErrorKind, FileKind, Follow, LockKind, Metadata, Op, OpenOptions,
    SyncLevel, Times, Timestamp,
};
use proptest::prelude::*;

fn path() -> impl Strategy<Value = Box<[u8]>> {
    prop::collection::vec(any::<u8>(), 0..300).prop_map(Vec::into_boxed_slice)
}

fn time() -> impl Strategy<Value = Timestamp> {
    (any::<i64>(), 0..1_000_000_000_u32).prop_map(|(secs, nanos)| Timestamp { secs, nanos })
}

fn times() -> impl Strategy<Value = Times> {
    let one = || prop::option::of(time());
    (one(), one()).prop_map(|(accessed, modified)| Times { accessed, modified })
}

fn options() -> impl Strategy<Value = OpenOptions> {
    (any::<[bool; 9]>(), 0..=0o7777_u32).prop_map(|(b, mode)| {
        let options = OpenOptions::new().read(b[0]).write(b[1]).append(b[2]).truncate(b[3]);
        let options = options.create(b[4]).create_new(b[5]).direct(b[6]).dsync(b[7]);
        options.nofollow(b[8]).mode(mode)
    })
}

fn request() -> impl Strategy<Value = Request> {
    let follow = || prop_oneof![Just(Follow::Yes), Just(Follow::No)];
    let lock = prop_oneof![Just(LockKind::Shared), Just(LockKind::Exclusive)];
    let level = prop_oneof![Just(SyncLevel::Data), Just(SyncLevel::All)];
    let how =
        prop_oneof![Just(Allocate::Extend), Just(Allocate::KeepSize), Just(Allocate::PunchHole)];
    let id = any::<u64>;
    let names = prop_oneof![
        (id(), path(), options()).prop_map(|(dir, path, options)| Request::OpenFile {
            dir,
            path,
            options
        }),
        (id(), path()).prop_map(|(dir, path)| Request::OpenDir { dir, path }),
        id().prop_map(|dir| Request::Confined { dir }),
        id().prop_map(|dir| Request::ReadDir { dir }),
        (id(), any::<u32>())
            .prop_map(|(listing, entries_max)| Request::NextEntries { listing, entries_max }),
        (id(), path(), any::<u32>()).prop_map(|(dir, path, mode)| Request::CreateDir {
            dir,
            path,
            mode
        }),
        (id(), path()).prop_map(|(dir, path)| Request::RemoveFile { dir, path }),
        (id(), path()).prop_map(|(dir, path)| Request::RemoveDir { dir, path }),
        (id(), path(), id(), path()).prop_map(|(dir, path, to, to_path)| Request::Rename {
            dir,
            path,
            to,
            to_path
        }),
        (id(), path(), id(), path()).prop_map(|(dir, path, to, to_path)| Request::HardLink {
            dir,
            path,
            to,
            to_path
        }),
        (id(), path(), path()).prop_map(|(dir, target, path)| Request::Symlink {
            dir,
            target,
            path
        }),
        (id(), path()).prop_map(|(dir, path)| Request::ReadLink { dir, path }),
        (id(), path(), follow()).prop_map(|(dir, path, follow)| Request::Metadata {
            dir,
            path,
            follow
        }),
        (id(), path(), any::<u32>()).prop_map(|(dir, path, mode)| Request::SetPermissions {
            dir,
            path,
            mode
        }),
        (id(), path(), times(), follow())
            .prop_map(|(dir, path, times, follow)| Request::SetTimes { dir, path, times, follow }),
        id().prop_map(|dir| Request::SyncDir { dir }),
    ];
    let files = prop_oneof![
        (id(), id(), id()).prop_map(|(file, at, len)| Request::Read { file, at, len }),
        (id(), id()).prop_map(|(file, at)| Request::Write { file, at }),
        id().prop_map(|file| Request::FileMetadata { file }),
        (id(), level).prop_map(|(file, level)| Request::SyncFile { file, level }),
        (id(), id()).prop_map(|(file, len)| Request::SetLen { file, len }),
        (id(), id(), id(), how).prop_map(|(file, at, len, how)| Request::Allocate {
            file,
            at,
            len,
            how
        }),
        (id(), any::<u32>()).prop_map(|(file, mode)| Request::SetFilePermissions { file, mode }),
        (id(), times()).prop_map(|(file, times)| Request::SetFileTimes { file, times }),
        (id(), lock, any::<bool>()).prop_map(|(file, kind, wait)| Request::Lock {
            file,
            kind,
            wait
        }),
        id().prop_map(|file| Request::Unlock { file }),
        id().prop_map(|handle| Request::Close { handle }),
        id().prop_map(|request| Request::Cancel { request }),
        Just(Request::Ping {}),
        any::<[u8; 32]>().prop_map(|code| Request::Proof { code }),
    ];
    prop_oneof![names, files]
}

fn byte_error() -> impl Strategy<Value = ByteError> {
    let kinds = [ByteKind::Aborted, ByteKind::UnexpectedEof, ByteKind::NoSpace, ByteKind::Os];
    (0..4_usize, any::<i32>(), any::<u16>()).prop_map(move |(kind, errno, status)| {
        ByteError::with_errno(kinds[kind], errno).with_device_status(status)
    })
}

fn kind() -> impl Strategy<Value = FileKind> {
    let kinds = [FileKind::File, FileKind::Directory, FileKind::Symlink, FileKind::Unknown];
    (0..4_usize).prop_map(move |kind| kinds[kind])
}

fn reply() -> impl Strategy<Value = Reply> {
    let entry = (path(), kind()).prop_map(|(name, kind)| DirEntry { name: name.to_vec(), kind });
    let facts =
        (kind(), any::<[u64; 5]>(), time(), any::<bool>()).prop_map(|(kind, n, t, known)| {
            let mut facts = Metadata::new(kind, n[0], 0o644);
            if known {
                facts.links = Some(n[1]);
                facts.id = Some((n[2], n[3]));
                facts.allocated_bytes = Some(n[4]);
                facts.changed = Some(t);
                facts.created = Some(t);
            }
            facts
        });
    let range = (any::<u32>(), any::<u32>(), byte_error()).prop_map(|(start, len, error)| {
        let start = u64::from(start);
        FailedRange { start, end: start + u64::from(len), error }
    });
    let error = (1..=26_u8, 1..=32_u8, any::<i32>()).prop_map(|(op, kind, errno)| {
        let (op, kind) = (Op::from_number(op), ErrorKind::from_number(kind));
        Error::new(op.unwrap(), kind.unwrap()).with_errno(errno)
    });
    prop_oneof![
        Just(Reply::Done {}),
        error.prop_map(|error| Reply::Failed { error }),
        any::<u64>().prop_map(|handle| Reply::Opened { handle }),
        (any::<bool>(), prop::collection::vec(entry, 0..50))
            .prop_map(|(ended, entries)| Reply::Entries { ended, entries }),
        path().prop_map(|path| Reply::Target { path }),
        facts.prop_map(|facts| Reply::Facts { facts }),
        Just(Reply::Data {}),
        (any::<u64>(), any::<u64>(), byte_error()).prop_map(|(at, len, error)| Reply::Missing {
            at,
            len,
            error
        }),
        prop::collection::vec(range, 0..20).prop_map(|failed| Reply::Written { failed }),
        any::<[u8; 32]>().prop_map(|code| Reply::Proven { code }),
        Just(Reply::Goodbye { reason: Reason::Idle }),
    ]
}

proptest! {
    #[test]
    fn every_request_round_trips(request in request(), id in any::<u64>()) {
        let body = request.body();
        let header = frame(request.kind(), id, &body, 0).unwrap();
        let bytes = header.encode();
        prop_assert_eq!(Header::decode(&bytes), Ok(header));
        prop_assert_eq!(Request::decode(header.kind, &body), Ok(request));
        // One byte fewer is no message, one more neither.
        if let Some((_, short)) = body.split_last() {
            prop_assert!(Request::decode(header.kind, short).is_err());
        }
        let long = [&body[..], &[0]].concat();
        prop_assert!(Request::decode(header.kind, &long).is_err());
    }

    #[test]
    fn every_reply_round_trips(reply in reply()) {
        prop_assert_eq!(Reply::decode(reply.kind(), &reply.body()), Ok(reply));
    }

    #[test]
    fn any_bytes_are_a_message_or_an_error(
        kind in any::<u8>(),
        body in prop::collection::vec(any::<u8>(), 0..400),
    ) {
        // What is understood says the same again.
        if let Ok(request) = Request::decode(kind, &body) {
            prop_assert_eq!(Request::decode(kind, &request.body()), Ok(request));
        }
        if let Ok(reply) = Reply::decode(kind, &body) {
            prop_assert_eq!(Reply::decode(kind, &reply.body()), Ok(reply));
        }
    }

    #[test]
    fn any_header_keeps_its_lengths_inside_the_caps(bytes in any::<[u8; HEADER_BYTES]>()) {
        if let Ok(header) = Header::decode(&bytes) {
            prop_assert!(header.body_len as usize <= BODY_BYTES_MAX);
            prop_assert!(header.data_len as usize <= DATA_BYTES_MAX);
            prop_assert_eq!(header.encode(), bytes);
        }
    }

    #[test]
    fn every_hello_round_trips(
        nonce in any::<[u8; 32]>(),
        n in any::<(u32, u64, u32)>(),
        f in any::<(bool, bool)>(),
    ) {
        let limits = Limits { requests: n.0, bytes: n.1, idle_ms: n.2 };
        let hello = Hello { flags: Flags { checksums: f.0, secret: f.1 }, nonce, limits };
        let bytes = hello.encode();
        prop_assert_eq!(Hello::decode(bytes.as_slice().try_into().unwrap()), Ok(hello));
    }
}

#[test]
fn another_protocol_and_another_version_are_told_apart() {
    let (flags, limits) = (Flags::default(), Limits::default());
    let mut bytes = Hello { flags, nonce: [0; 32], limits }.encode();
    let decode = |bytes: &[u8]| Hello::decode(bytes.try_into().unwrap());
    bytes[8] = 9;
    assert_eq!(decode(&bytes), Err(WireError::Version(9)));
    assert_ne!(VERSION, 9);
    bytes[0] = b'M';
    assert_eq!(decode(&bytes), Err(WireError::Magic));
}

/// A number of items that are not there allocates nothing for them.
#[test]
fn f49_length_bombs_are_errors() {
    let bomb = [&[1][..], &u32::MAX.to_le_bytes()].concat();
    assert_eq!(Reply::decode(67, &bomb), Err(WireError::Truncated));
    assert_eq!(Reply::decode(72, &u32::MAX.to_le_bytes()), Err(WireError::Truncated));
    let long = [&[0; 8][..], &u32::MAX.to_le_bytes()].concat();
    assert_eq!(Request::decode(2, &long), Err(WireError::TooLong(u32::MAX.into())));
}
