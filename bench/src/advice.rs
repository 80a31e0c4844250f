//! What to do about a file that the system does not let us have.
//!
//! Data flow: errno -> the system's words, and a remedy where one is known.
//!
//! Not here: files that the engine opens (`mfio_engine::target` has its own), devices that are in
//! use (`device`).

use std::io;

use nix::errno::Errno;

/// The system's words, without Rust's `(os error N)`, and what to do.
pub(crate) fn with_remedy(error: &io::Error) -> String {
    error.raw_os_error().map_or_else(|| error.to_string(), |errno| told(Errno::from_raw(errno)))
}

/// As [`with_remedy`], of an errno.
pub(crate) fn told(errno: Errno) -> String {
    match remedy(errno) {
        Some(remedy) => format!("{}; {remedy}", errno.desc()),
        None => errno.desc().to_owned(),
    }
}

const fn remedy(errno: Errno) -> Option<&'static str> {
    Some(match errno {
        Errno::EACCES => {
            "grant this user access to it and to its directories (of a device, by its group: \
             ls -l), or name another file"
        }
        Errno::EPERM => {
            "it may be immutable or append-only (lsattr; chattr -i -a), or a device that this \
             container may not use: allow that, or name another file"
        }
        Errno::EROFS => "mount its file system for writing, or name a file elsewhere",
        Errno::ENOENT => "correct the path, or make its directory first",
        Errno::ENOTDIR => "a part of the path is not a directory: correct it",
        Errno::ELOOP => "its symbolic links lead in a circle: correct them",
        Errno::ENAMETOOLONG => "shorten the name",
        Errno::ETXTBSY => "a program runs from it: stop it, or name another file",
        Errno::EBUSY => "it is in use (lsof, lsblk): free it, or name another",
        Errno::ENXIO | Errno::ENODEV => "the device is gone: attach it",
        Errno::ENOMEDIUM => "put a medium into the device",
        Errno::EMFILE => "lower openfiles or numjobs, or raise the limit (ulimit -n)",
        Errno::ENFILE => "raise the sysctl fs.file-max",
        Errno::ENOSPC | Errno::EDQUOT => "make room on its file system, or set a smaller size",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_operator_can_mend_has_a_remedy_and_the_rest_its_own_words() {
        let told = |errno: i32| with_remedy(&io::Error::from_raw_os_error(errno));
        assert!(told(Errno::EPERM as i32).starts_with("Operation not permitted; it may be immu"));
        assert!(told(Errno::EACCES as i32).starts_with("Permission denied; grant this user"));
        assert_eq!(told(Errno::EIO as i32), Errno::EIO.desc());
        assert_eq!(with_remedy(&io::Error::other("why")), "why");
    }
}
