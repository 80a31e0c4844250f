//! What systems other than Unix are asked, with the means of `std` alone.
//!
//! Data flow: absolute path of the directory, relative path → one call of `std::fs` → result.
//! A directory that is renamed takes its handles with it only where the system does.
//!
//! Not here: threads (`pool`), the meaning of errors (`errno`).

use alloc::string::ToString;
use alloc::vec::Vec;
use std::fs::{self, File, FileTimes};
use std::io;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use super::file::system_time;
use crate::metadata::{DirEntry, FileKind, Metadata, Times, Timestamp};
use crate::options::{Allocate, Follow, OpenOptions};

/// What the system answers to a write that no file is long enough for: here it is not known.
pub(super) const TOO_LARGE: i32 = 0;

/// A directory, by its absolute path.
pub(super) struct Dir(PathBuf);

/// A listing of it.
pub(super) struct Entries(fs::ReadDir);

fn unsupported<T>() -> io::Result<T> {
    Err(io::ErrorKind::Unsupported.into())
}

fn text(path: &[u8]) -> io::Result<&str> {
    core::str::from_utf8(path).map_err(|_| io::ErrorKind::InvalidData.into())
}

fn kind_of(kind: fs::FileType) -> FileKind {
    if kind.is_symlink() {
        FileKind::Symlink
    } else if kind.is_dir() {
        FileKind::Directory
    } else if kind.is_file() {
        FileKind::File
    } else {
        FileKind::Other
    }
}

fn timestamp(time: io::Result<SystemTime>) -> Option<Timestamp> {
    let time = time.ok()?;
    let (since, sign) = match time.duration_since(SystemTime::UNIX_EPOCH) {
        Ok(after) => (after, 1),
        Err(before) => (before.duration(), -1),
    };
    let (secs, nanos) = (i64::try_from(since.as_secs()).ok()?, since.subsec_nanos());
    if sign < 0 && nanos > 0 {
        return Some(Timestamp { secs: -secs - 1, nanos: 1_000_000_000 - nanos });
    }
    Some(Timestamp { secs: sign * secs, nanos })
}

fn metadata_of(found: &fs::Metadata) -> Metadata {
    let mode = if found.permissions().readonly() { 0o444 } else { 0o666 };
    Metadata {
        accessed: timestamp(found.accessed()),
        modified: timestamp(found.modified()),
        created: timestamp(found.created()),
        ..Metadata::new(kind_of(found.file_type()), found.len(), mode)
    }
}

fn set_readonly(mut permissions: fs::Permissions, mode: u32) -> fs::Permissions {
    permissions.set_readonly(mode & 0o222 == 0);
    permissions
}

impl Dir {
    /// A directory by the process's own idea of where it is.
    pub(super) fn ambient(path: &Path) -> io::Result<Self> {
        Ok(Self(fs::canonicalize(path)?))
    }

    fn at(&self, path: &[u8]) -> io::Result<PathBuf> {
        if path.is_empty() {
            return Err(io::ErrorKind::NotFound.into());
        }
        Ok(self.0.join(text(path)?))
    }

    pub(super) fn open_file(&self, path: &[u8], options: &OpenOptions) -> io::Result<File> {
        if options.direct || options.dsync || options.nofollow {
            return unsupported();
        }
        let mut open = fs::OpenOptions::new();
        open.read(options.read).write(options.write).append(options.append);
        open.truncate(options.truncate).create(options.create).create_new(options.create_new);
        let file = open.open(self.at(path)?)?;
        if file.metadata()?.is_dir() {
            return Err(io::ErrorKind::IsADirectory.into());
        }
        Ok(file)
    }

    pub(super) fn open_dir(&self, path: &[u8]) -> io::Result<Self> {
        let path = fs::canonicalize(self.at(path)?)?;
        if !fs::metadata(&path)?.is_dir() {
            return Err(io::ErrorKind::NotADirectory.into());
        }
        Ok(Self(path))
    }

    pub(super) fn confined(&self) -> io::Result<Self> {
        unsupported()
    }

    pub(super) fn entries(&self) -> io::Result<Entries> {
        Ok(Entries(fs::read_dir(&self.0)?))
    }

    pub(super) fn create_dir(&self, path: &[u8], _mode: u32) -> io::Result<()> {
        fs::create_dir(self.at(path)?)
    }

    pub(super) fn remove_file(&self, path: &[u8]) -> io::Result<()> {
        fs::remove_file(self.at(path)?)
    }

    pub(super) fn remove_dir(&self, path: &[u8]) -> io::Result<()> {
        fs::remove_dir(self.at(path)?)
    }

    pub(super) fn rename(&self, path: &[u8], to: &Self, to_path: &[u8]) -> io::Result<()> {
        fs::rename(self.at(path)?, to.at(to_path)?)
    }

    pub(super) fn hard_link(&self, path: &[u8], to: &Self, to_path: &[u8]) -> io::Result<()> {
        fs::hard_link(self.at(path)?, to.at(to_path)?)
    }

    #[cfg(windows)]
    pub(super) fn symlink(&self, target: &[u8], path: &[u8]) -> io::Result<()> {
        let (target, path) = (text(target)?, self.at(path)?);
        // Links to directories are a kind of their own here, chosen when they are made.
        let beside = path.parent().map(|parent| parent.join(target));
        if beside.is_some_and(|target| target.is_dir()) {
            return std::os::windows::fs::symlink_dir(target, path);
        }
        std::os::windows::fs::symlink_file(target, path)
    }

    #[cfg(not(windows))]
    pub(super) fn symlink(&self, _target: &[u8], _path: &[u8]) -> io::Result<()> {
        unsupported()
    }

    pub(super) fn read_link(&self, path: &[u8]) -> io::Result<Vec<u8>> {
        let target = fs::read_link(self.at(path)?)?;
        let target = target.to_str().ok_or(io::ErrorKind::InvalidData)?;
        Ok(target.to_string().into_bytes())
    }

    pub(super) fn metadata(&self, path: &[u8], follow: Follow) -> io::Result<Metadata> {
        let path = self.at(path)?;
        let found = match follow {
            Follow::Yes => fs::metadata(path)?,
            Follow::No => fs::symlink_metadata(path)?,
        };
        Ok(metadata_of(&found))
    }

    pub(super) fn set_mode(&self, path: &[u8], mode: u32) -> io::Result<()> {
        let path = self.at(path)?;
        let permissions = set_readonly(fs::metadata(&path)?.permissions(), mode);
        fs::set_permissions(path, permissions)
    }

    pub(super) fn set_times(&self, path: &[u8], times: Times, follow: Follow) -> io::Result<()> {
        let path = self.at(path)?;
        if follow == Follow::No && fs::symlink_metadata(&path)?.is_symlink() {
            return unsupported();
        }
        let mut new = FileTimes::new();
        if let Some(time) = times.accessed {
            new = new.set_accessed(system_time(time)?);
        }
        if let Some(time) = times.modified {
            new = new.set_modified(system_time(time)?);
        }
        fs::OpenOptions::new().write(true).open(path)?.set_times(new)
    }

    pub(super) fn sync(&self) -> io::Result<()> {
        unsupported()
    }
}

impl Entries {
    pub(super) fn next(&mut self) -> Option<io::Result<DirEntry>> {
        let named = |entry: fs::DirEntry| {
            let name = entry.file_name();
            let name = name.to_str().ok_or(io::ErrorKind::InvalidData)?;
            let kind = entry.file_type().map_or(FileKind::Unknown, kind_of);
            Ok(DirEntry { name: name.to_string().into_bytes(), kind })
        };
        Some(self.0.next()?.and_then(named))
    }
}

#[cfg(windows)]
pub(super) fn read_at(file: &File, to: &mut [u8], at: u64) -> io::Result<usize> {
    use std::os::windows::fs::FileExt;
    // The end is an error there.
    const ERROR_HANDLE_EOF: i32 = 38;
    match file.seek_read(to, at) {
        Err(error) if error.raw_os_error() == Some(ERROR_HANDLE_EOF) => Ok(0),
        read => read,
    }
}

#[cfg(windows)]
pub(super) fn write_at(file: &File, from: &[u8], at: u64) -> io::Result<usize> {
    use std::os::windows::fs::FileExt;
    file.seek_write(from, at)
}

#[cfg(not(windows))]
pub(super) fn read_at(_file: &File, _to: &mut [u8], _at: u64) -> io::Result<usize> {
    unsupported()
}

#[cfg(not(windows))]
pub(super) fn write_at(_file: &File, _from: &[u8], _at: u64) -> io::Result<usize> {
    unsupported()
}

pub(super) fn read_cached(_file: &File, _to: &mut [u8], _at: u64) -> io::Result<usize> {
    unsupported()
}

pub(super) fn file_metadata(file: &File) -> io::Result<Metadata> {
    Ok(metadata_of(&file.metadata()?))
}

pub(super) fn set_file_mode(file: &File, mode: u32) -> io::Result<()> {
    file.set_permissions(set_readonly(file.metadata()?.permissions(), mode))
}

pub(super) fn allocate(_: &File, _: u64, _: u64, _: Allocate) -> io::Result<()> {
    unsupported()
}
