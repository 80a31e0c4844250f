//! Rules for names: directories, links, moves, removals, limits.
//!
//! Data flow: see [`conformance`](super).
//!
//! Not here: bytes (`files`).

use alloc::collections::BTreeSet;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec;
use alloc::vec::Vec;

use mfio_core::{IoRead as _, IoWrite as _};

use super::{EMPTY_DIRS, bytes_of, fixtures, get, listed, populate, put, refused};
use crate::error::{ErrorKind, Op};
use crate::fs::{DirHandle, Entries, FileHandle, Fs};
use crate::metadata::{FileKind, Times, Timestamp};
use crate::options::{Follow, OpenOptions};
use crate::tree::DirHandleExt;

const READ: OpenOptions = OpenOptions::new().read(true);
const BOTH: OpenOptions = OpenOptions::new().read(true).write(true).create(true);

/// Whether links can be made here; if not, rules about them do not apply.
async fn has_links<F: Fs>(fs: &F) -> bool {
    match fs.current_dir().symlink("nowhere", "probe").await {
        Ok(()) => {
            fs.current_dir().remove_file("probe").await.expect("a link is removed");
            true
        }
        Err(error) => {
            assert_eq!(error.kind(), ErrorKind::Unsupported, "{error}");
            false
        }
    }
}

/// Every directory of the fixtures, `.` included.
fn all_dirs() -> BTreeSet<String> {
    let mut dirs: BTreeSet<String> = EMPTY_DIRS.iter().map(ToString::to_string).collect();
    dirs.extend(["dir0", "dir1", "dir2", "nested", "nested/deeper", "."].map(String::from));
    dirs
}

/// Every directory lists what is in it, no more and no less.
pub async fn dirs_equal<F: Fs>(fs: &F) {
    populate(fs).await;
    let files = fixtures().into_iter().map(|(path, _)| path);
    let paths: Vec<String> = files.chain(all_dirs()).filter(|path| path != ".").collect();
    for dir in all_dirs() {
        let inside = |path: &String| {
            let (parent, name) = path.rsplit_once('/').unwrap_or((".", path));
            (parent == dir).then(|| name.to_string())
        };
        let mut expected: Vec<_> = paths.iter().filter_map(inside).collect();
        expected.sort();
        let handle = fs.current_dir().open_dir(&dir).await.expect("it was made");
        assert_eq!(listed(&handle).await, expected, "in {dir}");
    }
    let mut entries = fs.current_dir().read_dir().await.expect("it is listed");
    while let Some(entry) = entries.next().await {
        let entry = entry.expect("a listing goes to its end");
        let is_file = entry.name.starts_with(b"long");
        let expected = if is_file { FileKind::File } else { FileKind::Directory };
        assert!([expected, FileKind::Unknown].contains(&entry.kind), "{entry:?}");
    }
}

/// From every directory every other is reached by the way between their names.
pub async fn walk_dirs<F: Fs>(fs: &F) {
    populate(fs).await;
    for from in all_dirs() {
        let start = fs.current_dir().open_dir(&from).await.expect("it was made");
        for to in all_dirs() {
            let ups = if from == "." { 0 } else { from.split('/').count() };
            let way = format!("./{}{to}", "../".repeat(ups));
            let reached = start.open_dir(&way).await.expect("there is a way");
            let direct = fs.current_dir().open_dir(&to).await.expect("it was made");
            let facts = reached.metadata(".", Follow::Yes).await.expect("facts");
            let expected = direct.metadata(".", Follow::Yes).await.expect("facts");
            assert_eq!(facts.id, expected.id, "{way} from {from} is {to}");
            assert_eq!(listed(&reached).await, listed(&direct).await, "{way} from {from}");
        }
    }
}

/// No size of a listing is special (N1).
pub async fn directories_of_every_size_are_listed_whole<F: Fs>(fs: &F) {
    let dir = fs.current_dir();
    let mut made = 0;
    for size in [0, 1, 127, 128, 129, 255, 256, 257, 1000] {
        for number in made..size {
            put(dir, format!("{number:04}"), Vec::new()).await;
        }
        made = size;
        let expected: Vec<_> = (0..size).map(|number| format!("{number:04}")).collect();
        assert_eq!(listed(dir).await, expected, "{size} names");
    }
    // What is there all the time is listed once, whatever comes and goes.
    let mut entries = dir.read_dir().await.expect("it is listed");
    let (mut seen, mut count) = (BTreeSet::new(), 0);
    while let Some(entry) = entries.next().await {
        let entry = entry.expect("a listing goes to its end");
        if !entry.name.starts_with(b"new") {
            count += 1;
            assert!(seen.insert(entry.name), "listed twice");
        }
        if count % 100 == 0 {
            put(dir, format!("new{count}"), Vec::new()).await;
        }
    }
    assert_eq!(seen.len(), 1000);
}

/// A handle means its directory, wherever that is moved and whatever else has its name (R9).
pub async fn operations_are_relative_to_the_handle<F: Fs>(fs: &F) {
    let top = fs.current_dir();
    top.create_dir("one", 0o755).await.expect("a directory is made");
    let one = top.open_dir("one").await.expect("it was made");
    one.create_dir("x", 0o755).await.expect("made in the handle");
    assert!(top.exists("one/x").await.expect("asked"), "in the handle's directory");
    assert!(!top.exists("x").await.expect("asked"), "and nowhere else");
    if cfg!(unix) {
        top.rename("one", top, "two").await.expect("moved");
        top.create_dir("one", 0o755).await.expect("another of the old name");
        put(&one, "file", vec![1]).await;
        assert!(top.exists("two/file").await.expect("asked"), "it has moved along");
        assert!(!top.exists("one/file").await.expect("asked"));
        one.rename("file", top, "moved").await.expect("out of the handle");
        assert_eq!(get(top, "moved").await, [1]);
    }
}

/// Lengths and times follow writes at once (R19).
pub async fn metadata_follows_what_happens<F: Fs>(fs: &F) {
    let file = fs.open("file", &BOTH).await.expect("a file is made");
    let dir = fs.current_dir();
    // Before whatever a clock that counts from the start may say.
    let long_ago = Timestamp { secs: -1_000_000, nanos: 0 };
    let times = Times { accessed: Some(long_ago), modified: Some(long_ago) };
    file.set_times(times).await.expect("times are set");
    assert_eq!(file.write_exact(0, vec![1; 100]).await.0, Ok(()));
    let by_name = dir.metadata("file", Follow::Yes).await.expect("it exists");
    let by_handle = file.metadata().await.expect("it is open");
    assert_eq!((by_name.len, by_handle.len, by_name.kind), (100, 100, FileKind::File));
    assert_eq!(by_name.id, by_handle.id);
    assert!(by_name.modified > Some(long_ago), "{:?}", by_name.modified);
    assert!(dir.metadata(".", Follow::Yes).await.expect("it exists").is_dir());
    refused(dir.metadata("file/", Follow::Yes).await, ErrorKind::NotADirectory, "a slash");
    refused(dir.metadata("", Follow::Yes).await, ErrorKind::NotFound, "no path");
    refused(dir.metadata("file/x", Follow::Yes).await, ErrorKind::NotADirectory, "on the way");
}

/// A name goes, and the file stays for who has it open.
pub async fn removed_files_live_on_in_handles<F: Fs>(fs: &F) {
    if !cfg!(unix) {
        return;
    }
    let dir = fs.current_dir();
    put(dir, "file", vec![1; 100]).await;
    let file = fs.open("file", &BOTH).await.expect("it opens");
    dir.remove_file("file").await.expect("it is removed");
    refused(fs.open("file", &READ).await, ErrorKind::NotFound, "its name is gone");
    put(dir, "file", vec![2; 50]).await;
    assert_eq!(file.write_exact(100, vec![3; 10]).await.0, Ok(()));
    assert_eq!(file.read_exact(95, vec![0; 10]).await.1, [1, 1, 1, 1, 1, 3, 3, 3, 3, 3]);
    assert_eq!(file.metadata().await.expect("it is open").links, Some(0));
    assert_eq!(get(dir, "file").await, [2; 50], "another file of that name");
}

/// Files are removed as files, directories as directories, and only empty ones.
pub async fn removing_tells_files_from_directories<F: Fs>(fs: &F) {
    let dir = fs.current_dir();
    dir.create_dir("dir", 0o755).await.expect("a directory is made");
    put(dir, "dir/file", vec![1]).await;
    refused(dir.remove_dir("dir").await, ErrorKind::NotEmpty, "something is in it");
    refused(dir.remove_dir("dir/file").await, ErrorKind::NotADirectory, "it is a file");
    assert!(dir.remove_file("dir").await.is_err(), "it is a directory");
    refused(dir.remove_file("nothing").await, ErrorKind::NotFound, "nothing is there");
    refused(dir.create_dir("dir", 0o755).await, ErrorKind::AlreadyExists, "it is there");
    refused(dir.create_dir("no/dir", 0o755).await, ErrorKind::NotFound, "nothing to hold it");
    dir.remove_file("dir/file").await.expect("a file is removed");
    dir.remove_dir("dir").await.expect("an empty directory is removed");
    assert!(listed(dir).await.is_empty());
}

/// A rename replaces a file by a file, an empty directory by a directory (R19).
pub async fn renaming_replaces_like_by_like<F: Fs>(fs: &F) {
    let dir = fs.current_dir();
    put(dir, "a", vec![1]).await;
    put(dir, "b", vec![2]).await;
    dir.rename("a", dir, "b").await.expect("a file by a file, in the same directory");
    assert_eq!((get(dir, "b").await, listed(dir).await), (vec![1], vec!["b".into()]));
    dir.create_dir_all("d/e", 0o755).await.expect("directories are made");
    dir.rename("b", dir, "d/e/b").await.expect("down");
    dir.rename("d/e/b", dir, "b").await.expect("up");
    refused(dir.rename("none", dir, "x").await, ErrorKind::NotFound, "nothing to move");
    if cfg!(unix) {
        refused(dir.rename("b", dir, "d").await, ErrorKind::IsADirectory, "a file onto it");
        refused(dir.rename("d", dir, "b").await, ErrorKind::NotADirectory, "it onto a file");
        dir.create_dir("empty", 0o755).await.expect("a directory is made");
        dir.rename("d", dir, "empty").await.expect("onto an empty directory");
        assert_eq!(listed(dir).await, ["b", "empty"]);
        dir.create_dir("d", 0o755).await.expect("a directory is made");
        refused(dir.rename("d", dir, "empty").await, ErrorKind::NotEmpty, "onto a full one");
    }
}

/// A tree that was moved into itself would be lost (R19).
pub async fn a_directory_does_not_move_into_itself<F: Fs>(fs: &F) {
    let dir = fs.current_dir();
    dir.create_dir_all("a/b/c", 0o755).await.expect("directories are made");
    for to in ["a/b", "a/b/c", "a/x", "a/b/x", "a/b/c/x"] {
        assert!(dir.rename("a", dir, to).await.is_err(), "into {to}");
    }
    assert!(dir.rename("a/b", dir, "a").await.is_err(), "onto what holds it");
    assert!(dir.exists("a/b/c").await.expect("asked"), "all is as it was");
    dir.rename("a", dir, "a").await.expect("onto itself");
    dir.rename("a/b/c", dir, "c").await.expect("out of it");
    dir.rename("a", dir, "c/a").await.expect("and then the other way round");
    assert!(dir.exists("c/a/b").await.expect("asked"));
}

/// Two names, one file (R19).
pub async fn names_of_one_file_share_it<F: Fs>(fs: &F) {
    let dir = fs.current_dir();
    put(dir, "one", vec![1; 10]).await;
    dir.create_dir("dir", 0o755).await.expect("a directory is made");
    let sub = dir.open_dir("dir").await.expect("it was made");
    dir.hard_link("one", &sub, "two").await.expect("a second name");
    put(&sub, "two", vec![2; 5]).await;
    assert_eq!(get(dir, "one").await, [2; 5]);
    let found = dir.metadata("one", Follow::Yes).await.expect("it exists");
    assert!([Some(2), None].contains(&found.links), "{:?}", found.links);
    refused(dir.hard_link("one", &sub, "two").await, ErrorKind::AlreadyExists, "it is there");
    assert!(dir.hard_link("dir", dir, "dir2").await.is_err(), "directories have one name");
    dir.rename("one", &sub, "two").await.expect("onto another name of it");
    dir.remove_file("dir/two").await.expect("a name is removed");
    if dir.exists("one").await.expect("asked") {
        assert_eq!(get(dir, "one").await, [2; 5], "the other name stays");
    }
}

/// Links lead on, can be looked at, and are removed without what they point to.
pub async fn links_are_followed_and_seen<F: Fs>(fs: &F) {
    if !has_links(fs).await {
        return;
    }
    let dir = fs.current_dir();
    dir.create_dir_all("a/b", 0o755).await.expect("directories are made");
    put(dir, "a/file", vec![7; 3]).await;
    dir.symlink("../file", "a/b/link").await.expect("a link is made");
    dir.symlink("a/b", "way").await.expect("a link is made");
    assert_eq!(get(dir, "way/link").await, [7; 3], "relative to where the link is");
    assert_eq!(get(dir, "way/../file").await, [7; 3], "up from where the link leads");
    assert_eq!(dir.read_link("way/link").await.expect("a link"), b"../file");
    refused(dir.read_link("a/file").await, ErrorKind::InvalidInput, "no link");
    let (seen, followed) = (Follow::No, Follow::Yes);
    assert!(dir.metadata("way", seen).await.expect("facts").is_symlink());
    assert!(dir.metadata("way", followed).await.expect("facts").is_dir());
    let nofollow = READ.nofollow(true);
    refused(fs.open("a/b/link", &nofollow).await, ErrorKind::LinkLoop, "not followed");
    refused(dir.symlink("x", "way").await, ErrorKind::AlreadyExists, "it is there");
    dir.symlink("made", "dangling").await.expect("a link to nothing");
    let new = OpenOptions::new().write(true).create_new(true);
    refused(fs.open("dangling", &new).await, ErrorKind::AlreadyExists, "it is not new");
    put(dir, "dangling", vec![1]).await;
    assert_eq!(get(dir, "made").await, [1], "made where the link leads");
    dir.remove_file("way").await.expect("a link is removed");
    assert!(dir.exists("a/b/link").await.expect("asked"), "what it led to stays");
}

/// A walk along links ends, however they are laid.
pub async fn circles_of_links_end<F: Fs>(fs: &F) {
    if !has_links(fs).await {
        return;
    }
    let dir = fs.current_dir();
    dir.symlink("self", "self").await.expect("a link is made");
    dir.symlink("b", "a").await.expect("a link is made");
    dir.symlink("a", "b").await.expect("a link is made");
    dir.symlink("down/down/x", "down").await.expect("a link is made");
    for path in ["self", "a", "b", "self/x", "a/b/c", "down"] {
        refused(fs.open(path, &BOTH).await, ErrorKind::LinkLoop, path);
        refused(dir.open_dir(path).await, ErrorKind::LinkLoop, path);
        refused(dir.metadata(path, Follow::Yes).await, ErrorKind::LinkLoop, path);
    }
    dir.metadata("self", Follow::No).await.expect("the link itself can be seen");
}

/// Names have at most 255 bytes, any but `/` and zero.
pub async fn names_have_limits<F: Fs>(fs: &F) {
    let dir = fs.current_dir();
    let longest = "n".repeat(255);
    put(dir, &longest, vec![1]).await;
    assert_eq!(get(dir, &longest).await, [1]);
    let longer = "n".repeat(256);
    refused(fs.open(&longer, &BOTH).await, ErrorKind::NameTooLong, "one more");
    refused(dir.create_dir(&longer, 0o755).await, ErrorKind::NameTooLong, "one more");
    let path = "./".repeat(5000);
    refused(dir.metadata(&path, Follow::Yes).await, ErrorKind::NameTooLong, "a long path");
    refused(fs.open("a\0b", &BOTH).await, ErrorKind::InvalidName, "a zero byte");
    refused(dir.rename(&longest, dir, "a\0b").await, ErrorKind::InvalidName, "a zero byte");
    refused(fs.open("", &BOTH).await, ErrorKind::NotFound, "no name");
    if cfg!(target_os = "linux") {
        let odd: &[u8] = b"\xff\xfe \n\\";
        put(dir, odd, vec![2]).await;
        let mut entries = dir.read_dir().await.expect("it is listed");
        let names = entries.collect().await.expect("a listing goes to its end");
        assert!(names.iter().any(|entry| entry.name == odd), "byte for byte: {names:?}");
    }
}

/// Permission bits and times are given back as they were set, and what is no time is refused:
/// some systems have meanings of their own for such numbers.
pub async fn permissions_and_times_are_kept<F: Fs>(fs: &F) {
    let dir = fs.current_dir();
    let file = fs.open("file", &BOTH.mode(0o600)).await.expect("a file is made");
    if cfg!(unix) {
        assert_eq!(file.metadata().await.expect("facts").mode, 0o600);
        dir.set_permissions("file", 0o640).await.expect("set by name");
        assert_eq!(file.metadata().await.expect("facts").mode, 0o640);
        file.set_permissions(0o604).await.expect("set by handle");
        let found = dir.metadata("file", Follow::Yes).await.expect("facts");
        assert_eq!(found.mode, 0o604);
    }
    let (accessed, modified) = (
        Timestamp { secs: 1_234_567_890, nanos: 123_456_700 },
        Timestamp { secs: 987_654_321, nanos: 987_654_300 },
    );
    let times = Times { accessed: Some(accessed), modified: Some(modified) };
    dir.set_times("file", times, Follow::Yes).await.expect("times are set");
    let found = file.metadata().await.expect("facts");
    assert_eq!((found.accessed, found.modified), (Some(accessed), Some(modified)));
    for nanos in [1_000_000_000, (1 << 30) - 2, (1 << 30) - 1, u32::MAX] {
        let never = Some(Timestamp { secs: 0, nanos });
        for (accessed, modified) in [(never, None), (None, never)] {
            let times = Times { accessed, modified };
            refused(file.set_times(times).await, ErrorKind::InvalidInput, "by handle");
            for follow in [Follow::Yes, Follow::No] {
                let set = dir.set_times("file", times, follow).await;
                refused(set, ErrorKind::InvalidInput, "by name");
            }
        }
    }
    let found = file.metadata().await.expect("facts");
    assert_eq!((found.accessed, found.modified), (Some(accessed), Some(modified)));
    let times = Times { accessed: None, modified: Some(accessed) };
    file.set_times(times).await.expect("one of them is set");
    let found = file.metadata().await.expect("facts");
    assert_eq!((found.accessed, found.modified), (Some(accessed), Some(accessed)));
}

/// Removing a tree removes links, not what they point to.
pub async fn trees_are_removed_without_following_links<F: Fs>(fs: &F) {
    populate(fs).await;
    let dir = fs.current_dir();
    if has_links(fs).await {
        dir.symlink("../dir0", "nested/link").await.expect("a link is made");
        refused(
            dir.remove_dir_all("nested/link").await,
            ErrorKind::NotADirectory,
            "a link is no tree",
        );
    }
    dir.remove_dir_all("nested").await.expect("a tree is removed");
    assert!(!dir.exists("nested").await.expect("asked"));
    assert!(!listed(&dir.open_dir("dir0").await.expect("it stays")).await.is_empty());
    refused(dir.remove_dir_all("nested").await, ErrorKind::NotFound, "it is gone");
    refused(dir.remove_dir_all("long8").await, ErrorKind::NotADirectory, "a file is no tree");
}

/// Depth is limited by space, not by a stack.
pub async fn deep_trees_are_made_and_removed<F: Fs>(fs: &F) {
    let dir = fs.current_dir();
    dir.create_dir("top", 0o755).await.expect("a directory is made");
    let mut at = dir.open_dir("top").await.expect("it was made");
    for _ in 0..300 {
        at.create_dir("d", 0o755).await.expect("one deeper");
        at = at.open_dir("d").await.expect("it was made");
    }
    put(&at, "bottom", vec![1]).await;
    drop(at);
    dir.remove_dir_all("top").await.expect("the whole tree goes");
    assert!(listed(dir).await.is_empty());
}

/// A copy has the same bytes, and replaces what was there.
pub async fn copies_are_equal<F: Fs>(fs: &F) {
    let dir = fs.current_dir();
    dir.create_dir("to", 0o755).await.expect("a directory is made");
    let to = dir.open_dir("to").await.expect("it was made");
    for len in [0, 1, 4096, 3_000_000] {
        put(dir, "file", bytes_of(4, len)).await;
        let copied = dir.copy("file", &to, "copy").await.expect("it is copied");
        assert_eq!(copied, len as u64);
        assert!(get(&to, "copy").await == bytes_of(4, len), "{len} bytes");
    }
    put(dir, "file", vec![1; 10]).await;
    if dir.metadata("file", Follow::Yes).await.expect("facts").id.is_some() {
        refused(dir.copy("file", dir, "file").await, ErrorKind::InvalidInput, "onto itself");
        assert_eq!(get(dir, "file").await, [1; 10], "nothing is lost");
    }
}

/// An error says what was tried, on what.
pub async fn errors_name_operation_and_path<F: Fs>(fs: &F) {
    let error = fs.open("no/such/file", &READ).await.map(|_| ()).expect_err("nothing there");
    assert_eq!((error.op(), error.kind()), (Op::Open, ErrorKind::NotFound));
    assert_eq!(error.path(), Some(&b"no/such/file"[..]));
    let error = fs.current_dir().remove_dir("none").await.expect_err("nothing there");
    assert_eq!((error.op(), error.path()), (Op::RemoveDir, Some(&b"none"[..])));
    assert!(format!("{error}").contains("none"), "{error}");
}
