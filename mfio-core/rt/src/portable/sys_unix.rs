//! What Unix is asked: calls relative to open directories.
//!
//! Data flow: directory, path → one system call (or two, where a directory is confined: its
//! part of the path is opened so that nothing leads out, and the rest is one name) → result.
//!
//! Not here: threads (`pool`), the meaning of errors (`errno`).

use alloc::sync::Arc;
use alloc::vec::Vec;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::path::Path;

use rustix::fs::{self, AtFlags, CWD, FileType, Mode, OFlags};
use rustix::fs::{Stat, Timespec, Timestamps, UTIME_OMIT};
use rustix::io::Errno;

use crate::metadata::{DirEntry, FileKind, Metadata, Times, Timestamp};
use crate::options::{Allocate, Follow, OpenOptions};

/// An open directory.
pub(super) struct Dir {
    pub(super) fd: Arc<OwnedFd>,
    pub(super) confined: bool,
}

/// A listing of it.
pub(super) struct Entries(fs::Dir);

/// What every open asks for besides.
const ALWAYS: OFlags = OFlags::CLOEXEC.union(OFlags::NOCTTY);
pub(super) const DIRECTORY: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(ALWAYS);

/// What the system answers to a write that no file is long enough for.
pub(super) const TOO_LARGE: i32 = Errno::FBIG.raw_os_error();

/// The path to what is open already.
#[cfg(target_os = "linux")]
const NOTHING: &[u8] = b"";

/// Systems differ in how wide they make these.
fn wide<T: TryInto<u64>>(number: T) -> u64 {
    number.try_into().unwrap_or(0)
}

fn signed<T: TryInto<i64>>(number: T) -> i64 {
    number.try_into().unwrap_or(0)
}

fn narrow<T: TryFrom<u32> + Default>(number: u32) -> T {
    T::try_from(number).unwrap_or_default()
}

fn mode_of(mode: u32) -> Mode {
    Mode::from_raw_mode(narrow(mode & 0o7777))
}

pub(super) fn kind_of(kind: FileType) -> FileKind {
    match kind {
        FileType::RegularFile => FileKind::File,
        FileType::Directory => FileKind::Directory,
        FileType::Symlink => FileKind::Symlink,
        FileType::Unknown => FileKind::Unknown,
        _ => FileKind::Other,
    }
}

fn metadata_of(stat: &Stat) -> Metadata {
    let time =
        |secs: i64, nanos: u64| Some(Timestamp { secs, nanos: u32::try_from(nanos).unwrap_or(0) });
    let mode = wide(Mode::from_raw_mode(stat.st_mode).as_raw_mode()) & 0o7777;
    let mode = u32::try_from(mode).unwrap_or(0);
    Metadata {
        links: Some(wide(stat.st_nlink)),
        id: Some((wide(stat.st_dev), wide(stat.st_ino))),
        allocated_bytes: Some(wide(stat.st_blocks).saturating_mul(512)),
        accessed: time(signed(stat.st_atime), wide(stat.st_atime_nsec)),
        modified: time(signed(stat.st_mtime), wide(stat.st_mtime_nsec)),
        changed: time(signed(stat.st_ctime), wide(stat.st_ctime_nsec)),
        ..Metadata::new(kind_of(FileType::from_raw_mode(stat.st_mode)), wide(stat.st_size), mode)
    }
}

fn timestamps_of(times: Times) -> Timestamps {
    let spec = |time: Option<Timestamp>| match time {
        Some(time) => Timespec { tv_sec: time.secs, tv_nsec: narrow(time.nanos) },
        None => Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT },
    };
    Timestamps { last_access: spec(times.accessed), last_modification: spec(times.modified) }
}

pub(super) fn flags_of(options: &OpenOptions) -> io::Result<OFlags> {
    let mut flags = match (options.read, options.writes()) {
        (_, false) => OFlags::RDONLY,
        (false, true) => OFlags::WRONLY,
        (true, true) => OFlags::RDWR,
    };
    // A pipe would keep the thread waiting for somebody at its other end.
    flags |= ALWAYS | OFlags::NONBLOCK;
    let wanted = [
        (options.append, OFlags::APPEND),
        (options.truncate, OFlags::TRUNC),
        (options.create || options.create_new, OFlags::CREATE),
        (options.create_new, OFlags::EXCL),
        (options.dsync, OFlags::DSYNC),
        (options.nofollow, OFlags::NOFOLLOW),
    ];
    for (_, flag) in wanted.iter().filter(|(wanted, _)| *wanted) {
        flags |= *flag;
    }
    if options.direct {
        flags |= direct()?;
    }
    Ok(flags)
}

#[cfg(any(target_os = "linux", target_os = "android", target_os = "freebsd"))]
fn direct() -> io::Result<OFlags> {
    Ok(OFlags::DIRECT)
}

#[cfg(not(any(target_os = "linux", target_os = "android", target_os = "freebsd")))]
fn direct() -> io::Result<OFlags> {
    Err(io::ErrorKind::Unsupported.into())
}

/// Splits off the last component, with the slashes behind it.
fn split_last(path: &[u8]) -> Option<(&[u8], &[u8])> {
    let end = path.iter().rposition(|&byte| byte != b'/')?;
    let slash = path[..end].iter().rposition(|&byte| byte == b'/')?;
    Some(path.split_at(slash + 1))
}

/// The part of `path` that is a directory to be opened first, and its last component: for calls
/// that do not follow that one, in a directory that is confined if `confined`.
pub(super) fn place_of(path: &[u8], confined: bool) -> io::Result<(Option<&[u8]>, &[u8])> {
    match split_last(path) {
        // Said before anything else is looked at, as the kernel does.
        _ if confined && path.is_empty() => Err(Errno::NOENT.into()),
        Some((dir, last)) if confined => Ok((Some(dir), last)),
        // Nothing but slashes.
        None if confined && path.first() == Some(&b'/') => Err(Errno::XDEV.into()),
        _ => Ok((None, path)),
    }
}

/// The directory that a name is in: this one, or one that was opened for the purpose.
enum Parent<'a> {
    This(BorrowedFd<'a>),
    Other(OwnedFd),
}

impl AsFd for Parent<'_> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::This(fd) => *fd,
            Self::Other(fd) => fd.as_fd(),
        }
    }
}

impl Dir {
    /// A directory by the process's own idea of where it is.
    pub(super) fn ambient(path: &Path) -> io::Result<Self> {
        let fd = fs::openat(CWD, path, DIRECTORY, Mode::empty())?;
        Ok(Self { fd: Arc::new(fd), confined: false })
    }

    /// Opens a path, within the confinement if there is one.
    fn open(&self, path: &[u8], flags: OFlags, mode: Mode) -> io::Result<OwnedFd> {
        if self.confined {
            return open_beneath(&self.fd, path, flags, mode);
        }
        Ok(fs::openat(&self.fd, path, flags, mode)?)
    }

    /// Where the last component of `path` is to be looked for, and that component: it is for
    /// calls that do not follow it.
    fn parent<'p>(&self, path: &'p [u8]) -> io::Result<(Parent<'_>, &'p [u8])> {
        let (dir, last) = place_of(path, self.confined)?;
        let Some(dir) = dir else { return Ok((Parent::This(self.fd.as_fd()), last)) };
        let dir = open_beneath(&self.fd, dir, path_only(), Mode::empty())?;
        Ok((Parent::Other(dir), last))
    }

    pub(super) fn open_file(&self, path: &[u8], options: &OpenOptions) -> io::Result<File> {
        let creates = options.create || options.create_new;
        let mode = if creates { mode_of(options.mode) } else { Mode::empty() };
        let file = File::from(self.open(path, flags_of(options)?, mode)?);
        // A directory can be opened for reading, and then not be read.
        if FileType::from_raw_mode(fs::fstat(&file)?.st_mode) == FileType::Directory {
            return Err(Errno::ISDIR.into());
        }
        Ok(file)
    }

    pub(super) fn open_dir(&self, path: &[u8]) -> io::Result<Self> {
        let fd = self.open(path, DIRECTORY, Mode::empty())?;
        Ok(Self { fd: Arc::new(fd), confined: self.confined })
    }

    pub(super) fn confined(&self) -> io::Result<Self> {
        // Asked now, so that a system without this says so here.
        let fd = open_beneath(&self.fd, b".", DIRECTORY, Mode::empty())?;
        Ok(Self { fd: Arc::new(fd), confined: true })
    }

    pub(super) fn entries(&self) -> io::Result<Entries> {
        Ok(Entries(fs::Dir::read_from(&self.fd)?))
    }

    pub(super) fn create_dir(&self, path: &[u8], mode: u32) -> io::Result<()> {
        let (parent, last) = self.parent(path)?;
        Ok(fs::mkdirat(parent, last, mode_of(mode))?)
    }

    pub(super) fn remove_file(&self, path: &[u8]) -> io::Result<()> {
        let (parent, last) = self.parent(path)?;
        Ok(fs::unlinkat(parent, last, AtFlags::empty())?)
    }

    pub(super) fn remove_dir(&self, path: &[u8]) -> io::Result<()> {
        let (parent, last) = self.parent(path)?;
        Ok(fs::unlinkat(parent, last, AtFlags::REMOVEDIR)?)
    }

    pub(super) fn rename(&self, path: &[u8], to: &Self, to_path: &[u8]) -> io::Result<()> {
        let (parent, last) = self.parent(path)?;
        let (to_parent, to_last) = to.parent(to_path)?;
        Ok(fs::renameat(parent, last, to_parent, to_last)?)
    }

    pub(super) fn hard_link(&self, path: &[u8], to: &Self, to_path: &[u8]) -> io::Result<()> {
        if self.confined {
            // The call below would look behind a last `..`.
            drop(self.open(path, path_only() | OFlags::NOFOLLOW, Mode::empty())?);
        }
        let (parent, last) = self.parent(path)?;
        let (to_parent, to_last) = to.parent(to_path)?;
        Ok(fs::linkat(parent, last, to_parent, to_last, AtFlags::empty())?)
    }

    pub(super) fn symlink(&self, target: &[u8], path: &[u8]) -> io::Result<()> {
        if target.is_empty() {
            return Err(Errno::NOENT.into());
        }
        let (parent, last) = self.parent(path)?;
        Ok(fs::symlinkat(target, parent, last)?)
    }

    pub(super) fn read_link(&self, path: &[u8]) -> io::Result<Vec<u8>> {
        if self.confined {
            return read_link_beneath(self, path);
        }
        Ok(fs::readlinkat(&self.fd, path, Vec::new())?.into_bytes())
    }

    pub(super) fn metadata(&self, path: &[u8], follow: Follow) -> io::Result<Metadata> {
        if self.confined {
            let flags = match follow {
                Follow::Yes => path_only(),
                Follow::No => path_only() | OFlags::NOFOLLOW,
            };
            return Ok(metadata_of(&fs::fstat(self.open(path, flags, Mode::empty())?)?));
        }
        Ok(metadata_of(&fs::statat(&self.fd, path, at_flags(follow))?))
    }

    pub(super) fn set_mode(&self, path: &[u8], mode: u32) -> io::Result<()> {
        if self.confined {
            return set_mode_beneath(self, path, mode_of(mode));
        }
        Ok(fs::chmodat(&self.fd, path, mode_of(mode), AtFlags::empty())?)
    }

    pub(super) fn set_times(&self, path: &[u8], times: Times, follow: Follow) -> io::Result<()> {
        if times == Times::default() {
            // Linux answers that this was done, even for a path that leads nowhere.
            return self.metadata(path, follow).map(|_| ());
        }
        let times = timestamps_of(times);
        if self.confined {
            return set_times_beneath(self, path, &times, follow);
        }
        Ok(fs::utimensat(&self.fd, path, &times, at_flags(follow))?)
    }

    pub(super) fn sync(&self) -> io::Result<()> {
        Ok(fs::fsync(&self.fd)?)
    }
}

fn at_flags(follow: Follow) -> AtFlags {
    match follow {
        Follow::Yes => AtFlags::empty(),
        Follow::No => AtFlags::SYMLINK_NOFOLLOW,
    }
}

#[cfg(target_os = "linux")]
pub(super) fn path_only() -> OFlags {
    OFlags::PATH | OFlags::CLOEXEC
}

#[cfg(not(target_os = "linux"))]
fn path_only() -> OFlags {
    OFlags::RDONLY | OFlags::CLOEXEC
}

/// How often the kernel is asked again when something was renamed while it walked.
#[cfg(target_os = "linux")]
pub(super) const WALKS_MAX: usize = 64;

/// How a path is walked that must not lead out.
#[cfg(target_os = "linux")]
pub(super) const BENEATH: fs::ResolveFlags =
    fs::ResolveFlags::BENEATH.union(fs::ResolveFlags::NO_MAGICLINKS);

#[cfg(target_os = "linux")]
fn open_beneath(fd: &OwnedFd, path: &[u8], flags: OFlags, mode: Mode) -> io::Result<OwnedFd> {
    let mut opened = Err(Errno::AGAIN);
    for _ in 0..WALKS_MAX {
        opened = fs::openat2(fd, path, flags, mode, BENEATH);
        if !matches!(opened, Err(Errno::AGAIN)) {
            break;
        }
    }
    Ok(opened?)
}

#[cfg(not(target_os = "linux"))]
fn open_beneath(_: &OwnedFd, _: &[u8], _: OFlags, _: Mode) -> io::Result<OwnedFd> {
    Err(io::ErrorKind::Unsupported.into())
}

#[cfg(target_os = "linux")]
fn read_link_beneath(dir: &Dir, path: &[u8]) -> io::Result<Vec<u8>> {
    let link = dir.open(path, path_only() | OFlags::NOFOLLOW, Mode::empty())?;
    if FileType::from_raw_mode(fs::fstat(&link)?.st_mode) != FileType::Symlink {
        return Err(Errno::INVAL.into());
    }
    Ok(fs::readlinkat(&link, NOTHING, Vec::new())?.into_bytes())
}

#[cfg(not(target_os = "linux"))]
fn read_link_beneath(_: &Dir, _: &[u8]) -> io::Result<Vec<u8>> {
    Err(io::ErrorKind::Unsupported.into())
}

#[cfg(target_os = "linux")]
fn set_times_beneath(dir: &Dir, path: &[u8], times: &Timestamps, follow: Follow) -> io::Result<()> {
    let nofollow = if follow == Follow::No { OFlags::NOFOLLOW } else { OFlags::empty() };
    let found = dir.open(path, path_only() | nofollow, Mode::empty())?;
    let flags = AtFlags::EMPTY_PATH | AtFlags::SYMLINK_NOFOLLOW;
    Ok(fs::utimensat(&found, NOTHING, times, flags)?)
}

#[cfg(not(target_os = "linux"))]
fn set_times_beneath(_: &Dir, _: &[u8], _: &Timestamps, _: Follow) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}

/// The file is found without being opened, which not everything can be, nor by everybody who
/// may change its mode. Such a descriptor takes a new mode only by its name in `/proc`.
#[cfg(target_os = "linux")]
fn set_mode_beneath(dir: &Dir, path: &[u8], mode: Mode) -> io::Result<()> {
    use std::os::fd::AsRawFd;
    let found = dir.open(path, path_only(), Mode::empty())?;
    let name = std::format!("/proc/self/fd/{}", found.as_raw_fd());
    match fs::chmodat(CWD, name, mode, AtFlags::empty()) {
        // Nothing is mounted there.
        Err(Errno::NOENT) => set_mode_of_opened(dir, path, mode),
        done => Ok(done?),
    }
}

#[cfg(not(target_os = "linux"))]
fn set_mode_beneath(dir: &Dir, path: &[u8], mode: Mode) -> io::Result<()> {
    set_mode_of_opened(dir, path, mode)
}

fn set_mode_of_opened(dir: &Dir, path: &[u8], mode: Mode) -> io::Result<()> {
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | ALWAYS;
    Ok(fs::fchmod(dir.open(path, flags, Mode::empty())?, mode)?)
}

impl Entries {
    pub(super) fn next(&mut self) -> Option<io::Result<DirEntry>> {
        loop {
            let entry = match self.0.next()? {
                Ok(entry) => entry,
                Err(error) => return Some(Err(error.into())),
            };
            let name = entry.file_name().to_bytes();
            if !matches!(name, b"." | b"..") {
                let (name, kind) = (name.to_vec(), kind_of(entry.file_type()));
                return Some(Ok(DirEntry { name, kind }));
            }
        }
    }
}

pub(super) fn read_at(file: &File, to: &mut [u8], at: u64) -> io::Result<usize> {
    file.read_at(to, at)
}

/// What of a file is in memory, without waiting for the rest.
#[cfg(target_os = "linux")]
pub(super) fn read_cached(file: &File, to: &mut [u8], at: u64) -> io::Result<usize> {
    use rustix::io::{ReadWriteFlags, preadv2};
    Ok(preadv2(file, &mut [io::IoSliceMut::new(to)], at, ReadWriteFlags::NOWAIT)?)
}

#[cfg(not(target_os = "linux"))]
pub(super) fn read_cached(_file: &File, _to: &mut [u8], _at: u64) -> io::Result<usize> {
    Err(io::ErrorKind::Unsupported.into())
}

pub(super) fn write_at(file: &File, from: &[u8], at: u64) -> io::Result<usize> {
    file.write_at(from, at)
}

pub(super) fn file_metadata(file: &File) -> io::Result<Metadata> {
    Ok(metadata_of(&fs::fstat(file)?))
}

pub(super) fn set_file_mode(file: &File, mode: u32) -> io::Result<()> {
    Ok(fs::fchmod(file, mode_of(mode))?)
}

#[cfg(any(target_os = "linux", target_os = "android"))]
pub(super) fn allocate(file: &File, at: u64, len: u64, how: Allocate) -> io::Result<()> {
    use rustix::fs::FallocateFlags;
    let flags = match how {
        Allocate::Extend => FallocateFlags::empty(),
        Allocate::KeepSize => FallocateFlags::KEEP_SIZE,
        Allocate::PunchHole => FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE,
    };
    Ok(fs::fallocate(file, flags, at, len)?)
}

#[cfg(not(any(target_os = "linux", target_os = "android")))]
pub(super) fn allocate(_: &File, _: u64, _: u64, _: Allocate) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}
