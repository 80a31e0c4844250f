//! Turns a path into a locked descriptor and its geometry, or into a reason why not.
//!
//! Data flow: path and [`OpenOptions`] → `open(2)` → `flock(2)` → `fsync(2)` → [`Geometry`] →
//! [`Opened`]. The lock is taken before anything of the contents is read: a killed
//! predecessor's writes may still be landing while its lock is held (F46). Then what it left
//! in the page cache is made durable, because it would be read back as if it were (F38).
//!
//! Not here: fixed files (`shard`), why an open was refused in words (`refusal`).

use std::fs::File;
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::libc;

use super::durability::{SyncMethod, write_through_flags};
use super::geometry::{Geometry, errno_of};
use super::guard::{self, DeviceWrite};
use super::lock::{LOCK_WAIT_MS_MAX, lock, pause, waited_ms};
use super::nvme;
use super::poison::Inode;
use super::refusal::OpenError;
use super::way::Way;
use crate::Durability;
use crate::ring::{Poll, Transfers};
use crate::sys;

/// Whether transfers bypass the page cache.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum DirectMode {
    /// Through the page cache.
    #[default]
    Buffered,
    /// Past it (`O_DIRECT`), or not at all.
    Direct,
    /// Past it where the file system can, and this process does not have the file open through
    /// it, else through it; [`Opened::fell_back`] says which.
    PreferDirect,
}

/// How a target is to be opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OpenOptions {
    /// For reading.
    pub read: bool,
    /// For writing. Devices refuse it, unless `device_write` says otherwise.
    pub write: bool,
    /// Make the file if there is none; needs `write`. The name is durable before the open
    /// returns (F39), also where somebody else had made it and not got as far. Takes a second
    /// descriptor, of the directory, until then.
    pub create: bool,
    /// Permission bits of a file that is made, before the umask.
    pub mode: u32,
    /// Past the page cache or through it.
    pub direct: DirectMode,
    /// Lock it against other openers, as `flock(2)` does: shared for reading, exclusive for
    /// writing. Waits up to [`LOCK_WAIT_MS_MAX`].
    pub lock: bool,
    /// Whether a device may be written, which destroys what is on it; needs `write`. It is held
    /// exclusively (`O_EXCL`) while it is open, unless a [`DeviceClaim`](super::DeviceClaim) of
    /// this process holds it already.
    pub device_write: DeviceWrite,
    /// Flush the target before it is first read (F38): what an earlier process wrote and never
    /// flushed can be read back from the page cache, and then be lost all the same. Costs one
    /// flush of the device. Without it, call `sync` before believing what is read.
    pub sync_on_open: bool,
    /// How durable writes become durable; measured at the first of them where it is `None`.
    /// [`SyncMethod::Dsync`] needs direct I/O.
    pub sync_method: Option<SyncMethod>,
    /// How completions of reads and of plain writes are learned of. Other than by interrupt it
    /// needs direct I/O, and a driver with queues for it (`nvme.poll_queues`); where either the
    /// ring or the target cannot, its ops go by interrupt, and the ring's features say so.
    /// The shard then uses all of its core while such ops are in flight. The files and block
    /// devices of a shard that are polled are all polled in the way of the first of them, and so
    /// are its namespaces.
    pub poll: Poll,
    /// Every write is durable when it completes: `O_DSYNC` for data, `O_SYNC` for all. Files and
    /// block devices only; a namespace has no such flags, and is refused with them.
    pub write_through: Option<Durability>,
    /// How reads and writes are asked for; with flags, only by a ring of io_uring.
    pub transfers: Transfers,
}

impl OpenOptions {
    /// An existing file, for reading, buffered, locked, flushed before it is read.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            read: true,
            write: false,
            create: false,
            mode: 0o644,
            direct: DirectMode::Buffered,
            lock: true,
            device_write: DeviceWrite::Refuse,
            sync_on_open: true,
            sync_method: None,
            poll: Poll::Interrupt,
            write_through: None,
            transfers: Transfers::USUAL,
        }
    }

    /// Sets whether it is opened for reading.
    #[must_use]
    pub const fn read(self, read: bool) -> Self {
        Self { read, ..self }
    }

    /// Sets whether it is opened for writing.
    #[must_use]
    pub const fn write(self, write: bool) -> Self {
        Self { write, ..self }
    }

    /// Sets whether a missing file is made.
    #[must_use]
    pub const fn create(self, create: bool) -> Self {
        Self { create, ..self }
    }

    /// Sets the permission bits of a file that is made.
    #[must_use]
    pub const fn mode(self, mode: u32) -> Self {
        Self { mode, ..self }
    }

    /// Sets whether transfers bypass the page cache.
    #[must_use]
    pub const fn direct(self, direct: DirectMode) -> Self {
        Self { direct, ..self }
    }

    /// Sets how durable writes become durable.
    #[must_use]
    pub const fn sync_method(self, sync_method: Option<SyncMethod>) -> Self {
        Self { sync_method, ..self }
    }

    /// Sets whether every write is durable when it completes.
    #[must_use]
    pub const fn write_through(self, write_through: Option<Durability>) -> Self {
        Self { write_through, ..self }
    }

    /// Sets whether it is locked against other openers.
    #[must_use]
    pub const fn lock(self, lock: bool) -> Self {
        Self { lock, ..self }
    }

    /// Sets whether a device may be written, which destroys what is on it.
    #[must_use]
    pub const fn device_write(self, device_write: DeviceWrite) -> Self {
        Self { device_write, ..self }
    }

    /// Short for [`OpenOptions::device_write`] with [`DeviceWrite::IfUnused`], or with
    /// [`DeviceWrite::Refuse`].
    #[must_use]
    pub const fn allow_device_write(self, allow: bool) -> Self {
        self.device_write(if allow { DeviceWrite::IfUnused } else { DeviceWrite::Refuse })
    }

    /// Sets how completions are learned of.
    #[must_use]
    pub const fn poll(self, poll: Poll) -> Self {
        Self { poll, ..self }
    }

    /// Sets whether the target is flushed before it is first read.
    #[must_use]
    pub const fn sync_on_open(self, sync_on_open: bool) -> Self {
        Self { sync_on_open, ..self }
    }
}

impl Default for OpenOptions {
    fn default() -> Self {
        Self::new()
    }
}

/// An open target.
#[derive(Debug)]
pub struct Opened {
    /// The descriptor; it is closed on exec, and holds the lock.
    pub file: File,
    /// What transfers on it must respect.
    pub geometry: Geometry,
    /// Direct I/O was preferred; the file system has none, or the file is open without.
    pub fell_back: bool,
    /// For as long as it is kept, nobody in this process opens it the other way.
    pub(crate) way: Option<Way>,
    /// The block device of a namespace that is written by commands, claimed (`O_EXCL`) for as
    /// long as this is open.
    pub claim: Option<File>,
    /// How completions are to be learned of.
    pub poll: Poll,
}

/// Opens `path`, locks it, flushes what others left unflushed, and reads its geometry.
///
/// Blocks for up to [`LOCK_WAIT_MS_MAX`] while another process holds the lock, as long while a
/// device that is to be written is in use (by whoever has just closed it, it may still be), and
/// for as long as the flush takes, so it is not for a shard's thread under load.
///
/// A file system that has no flush (`EINVAL`), or is mounted read-only (`EROFS`), is taken to
/// have nothing to flush.
///
/// # Errors
/// - [`OpenError::Options`]: the options contradict themselves; nothing was touched.
/// - [`OpenError::Directory`], [`OpenError::NoPositions`], [`OpenError::BlockDeviceWrite`]:
///   this is not something to open, or not like this.
/// - [`OpenError::NoDirect`]: only with [`DirectMode::Direct`].
/// - [`OpenError::DeviceInUse`], [`OpenError::DeviceBusy`], [`OpenError::Locked`]: in use
///   elsewhere.
/// - [`OpenError::DeviceNotEmpty`], [`OpenError::Unexamined`]: only with
///   [`DeviceWrite::IfUnused`]. [`OpenError::Zoned`]: only for writing.
/// - [`OpenError::OtherWay`]: in use here, past the page cache where this is through it, or the
///   other way round (F45).
/// - [`OpenError::Replaced`]: it became something else meanwhile.
/// - [`OpenError::LostData`]: writes of earlier processes never reached the device (F38).
/// - [`OpenError::Os`]: `ENOENT`, `EACCES`, `EMFILE` (F36) and whatever else the calls say.
pub fn open(path: &Path, options: &OpenOptions) -> Result<Opened, OpenError> {
    open_on(path, options, true, &mut pause)
}

/// As [`open`], on a shard, whose next `enter` may let go of what it has closed: `pause` does it.
pub(crate) fn open_on_shard(
    path: &Path,
    options: &OpenOptions,
    pause: &mut dyn FnMut(),
) -> Result<Opened, OpenError> {
    open_on(path, options, true, pause)
}

/// As [`open`], for whoever transfers nothing: it does not matter how others have it open.
pub(crate) fn look(path: &Path, options: &OpenOptions) -> Result<Opened, OpenError> {
    open_on(path, options, false, &mut pause)
}

fn open_on(
    path: &Path,
    options: &OpenOptions,
    claims: bool,
    pause: &mut dyn FnMut(),
) -> Result<Opened, OpenError> {
    options.validate(path)?;
    // Looked at before it is opened, because opening a pipe or a device can do something; and
    // again afterwards, because it may have become something else.
    let before = std::fs::metadata(path).ok();
    if let Some(metadata) = &before {
        check_kind(path, metadata, options)?;
    }
    if before.as_ref().is_some_and(is_namespace) {
        return open_namespace(path, options, pause);
    }
    let device = before.as_ref().filter(|metadata| options.write && is_block_device(metadata));
    let device = device.map(guard::number);
    if let Some(number) = device {
        guard::check_use(path, number, options.device_write)?;
    }
    let held = options.device_write != DeviceWrite::EvenMounted;
    let exclusive = held && device.is_some_and(|number| !guard::is_claimed(number));
    options.check_file(path)?;
    let (file, mut fell_back) = open_descriptor(path, options, exclusive, pause)?;
    options.transfers.advise(&file);
    let os = |call, errno| OpenError::Os { path: path.to_owned(), call, errno };
    let metadata = file.metadata().map_err(|error| os("fstat", errno_of(&error)))?;
    check_kind(path, &metadata, options)?;
    let now = is_block_device(&metadata).then(|| guard::number(&metadata));
    if options.write && now != device {
        return Err(OpenError::Replaced { path: path.to_owned() });
    }
    if exclusive {
        guard::check_contents(path, path, &file, options.device_write)?;
    }
    let inode = Inode::of(&file).filter(|_| claims);
    let way = inode.map(|inode| take_way(path, options.direct, &file, inode, &mut fell_back));
    let way = way.transpose()?;
    if options.lock {
        lock(path, &file, options.write, pause)?;
    }
    let is_new = before.is_none();
    settle(path, &file, options, is_new, |file| file.sync_all().map_err(|error| errno_of(&error)))?;
    let geometry = Geometry::of(&file).map_err(|errno| os("reading the geometry", errno))?;
    options.check_stream(path, &geometry)?;
    Ok(Opened { file, geometry, fell_back, way, claim: None, poll: options.poll })
}

/// Goes the way that this process already goes with the file, where it has a choice (F45).
fn take_way(
    path: &Path,
    mode: DirectMode,
    file: &File,
    inode: Inode,
    fell_back: &mut bool,
) -> Result<Way, OpenError> {
    let direct = mode != DirectMode::Buffered && !*fell_back;
    let other = match Way::claim(inode, direct) {
        Ok(way) => return Ok(way),
        Err(direct) => OpenError::OtherWay { path: path.to_owned(), direct },
    };
    if !direct || mode != DirectMode::PreferDirect {
        return Err(other);
    }
    let os = |errno| OpenError::Os { path: path.to_owned(), call: "fcntl", errno };
    let flags = fcntl(file, FcntlArg::F_GETFL).map_err(os)?;
    let buffered = OFlag::from_bits_retain(flags) - OFlag::O_DIRECT;
    fcntl(file, FcntlArg::F_SETFL(buffered)).map_err(os)?;
    *fell_back = true;
    Way::claim(inode, false).map_err(|_| other)
}

/// Opens the character device of a namespace, which is always past the page cache and takes no
/// `O_DIRECT`. What its own cache holds is flushed before it is read (F38); what a process wrote
/// through the block device and its page cache has gone down when that was closed.
fn open_namespace(
    path: &Path,
    options: &OpenOptions,
    pause: &mut dyn FnMut(),
) -> Result<Opened, OpenError> {
    let sys = Path::new("/sys");
    options.check_namespace(path)?;
    let claim = if options.write { hold_namespace(path, options)? } else { None };
    let buffered = OpenOptions { create: false, ..options.direct(DirectMode::Buffered) };
    let (file, _) = open_descriptor(path, &buffered, false, pause)?;
    let os = |call, errno| OpenError::Os { path: path.to_owned(), call, errno };
    let metadata = file.metadata().map_err(|error| os("fstat", errno_of(&error)))?;
    if !is_namespace(&metadata) {
        return Err(OpenError::Replaced { path: path.to_owned() });
    }
    if options.lock {
        lock(path, &file, options.write, pause)?;
    }
    let why = |why| OpenError::Namespace { path: path.to_owned(), why };
    let geometry = nvme::geometry(&file, sys).map_err(why)?;
    if options.sync_on_open {
        nvme::flush(&file, &geometry).map_err(why)?;
    }
    Ok(Opened { file, geometry, fell_back: false, way: None, claim, poll: options.poll })
}

/// The block device of the namespace: held, or only open where a claim of this process holds it.
fn hold_namespace(path: &Path, options: &OpenOptions) -> Result<Option<File>, OpenError> {
    let metadata = std::fs::metadata(path);
    let os = |errno| OpenError::Os { path: path.to_owned(), call: "stat", errno };
    let metadata = metadata.map_err(|error| os(errno_of(&error)))?;
    guard::hold_namespace(path, &metadata, options.device_write, true)
}

fn is_namespace(metadata: &std::fs::Metadata) -> bool {
    nvme::is_namespace(metadata, Path::new("/sys"))
}

fn is_block_device(metadata: &std::fs::Metadata) -> bool {
    metadata.file_type().is_block_device()
}

fn check_kind(
    path: &Path,
    metadata: &std::fs::Metadata,
    options: &OpenOptions,
) -> Result<(), OpenError> {
    let path = || path.to_owned();
    let is_device = is_block_device(metadata) || is_namespace(metadata);
    if metadata.is_dir() {
        return Err(OpenError::Directory { path: path() });
    }
    if !metadata.is_file() && !is_device {
        return Err(OpenError::NoPositions { path: path() });
    }
    let refused = is_device && options.write && options.device_write == DeviceWrite::Refuse;
    if refused { Err(OpenError::BlockDeviceWrite { path: path() }) } else { Ok(()) }
}

/// The descriptor, and whether direct I/O was given up for it. `exclusive` is for a device.
fn open_descriptor(
    path: &Path,
    options: &OpenOptions,
    exclusive: bool,
    pause: &mut dyn FnMut(),
) -> Result<(File, bool), OpenError> {
    let started_ns = sys::now_ns();
    let mut open = |flags| {
        // std always adds O_CLOEXEC.
        let mut how = std::fs::OpenOptions::new();
        // With O_CREAT, O_EXCL would mean something else: that there is no file yet.
        how.read(options.read).write(options.write).create(options.create && !exclusive);
        let through = write_through_flags(options.write_through);
        let flags = flags | through | if exclusive { libc::O_EXCL } else { 0 };
        how.mode(options.mode).custom_flags(flags);
        loop {
            match how.open(path).map_err(|error| errno_of(&error)) {
                // Of a ring that has gone, or of a process, the kernel closes files late.
                Err(Errno::EBUSY) if exclusive && waited_ms(started_ns) < LOCK_WAIT_MS_MAX => {
                    pause();
                }
                other => return other,
            }
        }
    };
    let path = || path.to_owned();
    let os = |errno| match errno {
        Errno::EBUSY if exclusive => OpenError::DeviceBusy { path: path() },
        errno => OpenError::Os { path: path(), call: "open", errno },
    };
    if options.direct == DirectMode::Buffered {
        return open(0).map(|file| (file, false)).map_err(os);
    }
    match open(libc::O_DIRECT) {
        Ok(file) => Ok((file, false)),
        Err(Errno::EINVAL) if options.direct == DirectMode::PreferDirect => {
            open(0).map(|file| (file, true)).map_err(os)
        }
        Err(Errno::EINVAL) => Err(OpenError::NoDirect { path: path() }),
        Err(errno) => Err(os(errno)),
    }
}

/// Makes durable what is to be believed from now on: the contents, before they are read (F38),
/// and the name, where it may be new (F39).
fn settle(
    path: &Path,
    file: &File,
    options: &OpenOptions,
    is_new: bool,
    mut sync: impl FnMut(&File) -> Result<(), Errno>,
) -> Result<(), OpenError> {
    let os = |call, errno| OpenError::Os { path: path.to_owned(), call, errno };
    // A process that had made the file and was killed may not have got as far as the directory,
    // so the name of a file that was there counts as new, too.
    let may_be_new = options.create && file.metadata().is_ok_and(|metadata| metadata.is_file());
    settle_contents(path, options, may_be_new && is_new, || sync(file))?;
    if !may_be_new {
        return Ok(());
    }
    // The path may have led through a symbolic link: the name is where the file is.
    let place = std::fs::canonicalize(path).map_err(|error| os("realpath", errno_of(&error)))?;
    let directory = place.parent().unwrap_or(Path::new("/"));
    let directory = File::open(directory);
    let directory = directory.map_err(|error| os("open of its directory", errno_of(&error)))?;
    match sync(&directory) {
        Ok(()) | Err(Errno::EROFS | Errno::EBADF | Errno::EINVAL) => Ok(()),
        Err(errno) => Err(os("fsync of its directory", errno)),
    }
}

/// Makes the contents durable before they are read (F38), unless that is not wanted and the file
/// was there before.
pub(crate) fn settle_contents(
    path: &Path,
    options: &OpenOptions,
    is_new: bool,
    sync: impl FnOnce() -> Result<(), Errno>,
) -> Result<(), OpenError> {
    if !options.sync_on_open && !is_new {
        return Ok(());
    }
    match sync() {
        Ok(()) | Err(Errno::EROFS | Errno::EBADF | Errno::EINVAL) => Ok(()),
        Err(errno @ (Errno::EIO | Errno::ENOSPC | Errno::EDQUOT)) => {
            Err(OpenError::LostData { path: path.to_owned(), errno })
        }
        Err(errno) => Err(OpenError::Os { path: path.to_owned(), call: "fsync", errno }),
    }
}

#[cfg(test)]
#[path = "open_tests.rs"]
mod tests;
