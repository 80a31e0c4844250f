//! The in-memory file system against the real one: the same operations, the same results.
//!
//! Every operation comes from one number, whatever came before it, so any part of a sequence is
//! a sequence: a failure is shrunk by leaving operations out.
//!
//!   MFIO_RT_MODEL_OPS   how many operations the long runs have (default 10000)
//!   MFIO_RT_MODEL_SEED  what they are drawn from (default 1)
#![cfg(all(feature = "std", unix))]
#![allow(clippy::unwrap_used, reason = "a test may fail where it stands")]

use std::fmt::Write as _;
use std::future::Future;

use mfio_core::{IoRead, IoWrite, block_on};
use mfio_rt::portable::Portable;
use mfio_rt::virt::{VirtConfig, VirtFs};
use mfio_rt::{
    Allocate, DirHandle, DirHandleExt, Entries, Error, FileHandle, Follow, Fs, LockKind, Metadata,
    OpenOptions, SyncLevel, Times, Timestamp,
};
use proptest::prelude::*;

const DIRS: usize = 4;
const FILES: usize = 6;

/// Draws from one number.
struct Draw(u64);

impl Draw {
    fn next(&mut self) -> u64 {
        // SplitMix64.
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    fn index(&mut self, bound: usize) -> usize {
        usize::try_from(self.below(bound as u64)).unwrap()
    }

    fn one_in(&mut self, many: u64) -> bool {
        self.below(many) == 0
    }

    fn path(&mut self, confined: bool) -> Vec<u8> {
        let mut path = Vec::new();
        if confined && self.one_in(60) {
            path.push(b'/');
        }
        if self.one_in(200) {
            return path;
        }
        for number in 0..1 + self.index(3) {
            if number > 0 {
                path.extend_from_slice(if self.one_in(30) { b"//" } else { b"/" });
            }
            match self.below(if confined { 24 } else { 80 }) {
                0 => path.push(b'.'),
                1..=2 if confined => path.extend_from_slice(b".."),
                3 if self.one_in(6) => path.extend_from_slice(&[b'n'; 255]),
                3 if self.one_in(6) => path.extend_from_slice(&[b'n'; 256]),
                _ => path.push(b'a' + u8::try_from(self.below(5)).unwrap()),
            }
        }
        if self.one_in(15) {
            path.push(b'/');
        }
        path
    }

    fn at(&mut self) -> u64 {
        match self.below(40) {
            0 => (1 << 33) + self.below(5000),
            1 => (1 << 44) + self.below(1 << 40),
            2 => u64::MAX - self.below(5000),
            _ => self.below(20_000),
        }
    }

    fn len(&mut self) -> usize {
        if self.one_in(10) { 0 } else { self.index(9000) }
    }

    fn time(&mut self) -> Option<Timestamp> {
        let secs = i64::try_from(self.below(2_000_000_000)).unwrap();
        let nanos = u32::try_from(self.below(1_000_000_000)).unwrap();
        (!self.one_in(3)).then_some(Timestamp { secs, nanos })
    }

    fn options(&mut self) -> OpenOptions {
        let mode = 0o600 | u32::try_from(self.below(0o100)).unwrap();
        let options = OpenOptions::new()
            .read(!self.one_in(4))
            .write(!self.one_in(3))
            .append(self.one_in(8))
            .truncate(self.one_in(8))
            .create(self.one_in(2))
            .create_new(self.one_in(8))
            .nofollow(self.one_in(12));
        options.mode(mode)
    }

    fn follow(&mut self) -> Follow {
        if self.one_in(2) { Follow::Yes } else { Follow::No }
    }
}

/// One file system under test, with what is open in it.
struct World<F: Fs> {
    dirs: Vec<F::Dir>,
    files: Vec<Option<F::File>>,
}

fn told<T>(result: Result<T, Error>, show: impl FnOnce(T) -> String) -> String {
    match result {
        Ok(value) => show(value),
        Err(error) => format!("{:?}", error.kind()),
    }
}

fn done(result: Result<(), Error>) -> String {
    told(result, |()| "done".into())
}

fn shown(found: Metadata) -> String {
    let Metadata { kind, mode, links, .. } = found;
    let len = if found.is_dir() { 0 } else { found.len };
    format!("{kind:?} {len} {mode:o} {links:?}")
}

/// Permission bits that keep nobody from running this without being root.
fn mode_of(number: u64) -> u32 {
    0o700 | u32::try_from(number & 0o77).unwrap()
}

fn sum(bytes: &[u8]) -> u64 {
    bytes.iter().fold(7, |sum, &byte| sum.wrapping_mul(31).wrapping_add(u64::from(byte) + 1))
}

impl<F: Fs> World<F> {
    fn new(base: F::Dir) -> Self
    where
        F::Dir: Clone,
    {
        Self { dirs: vec![base; DIRS], files: (0..FILES).map(|_| None).collect() }
    }

    /// Does what `number` says, and tells how it ended. The same words for the same behaviour.
    async fn apply(&mut self, number: u64, confined: bool) -> String {
        let mut draw = Draw(number);
        let (dir, slot) = (draw.index(DIRS), draw.index(FILES));
        let kind = draw.below(100);
        if kind < 40 {
            return self.apply_to_file(kind, slot, &mut draw).await;
        }
        let path = draw.path(confined);
        let to_dir = draw.index(DIRS);
        // Without confinement a link that leads up could lead out.
        let other = draw.path(confined);
        let (dir, to) = (&self.dirs[dir], &self.dirs[to_dir]);
        match kind {
            40..=49 => {
                let opened = dir.open_file(&path, &draw.options()).await;
                let (file, told) = match opened {
                    Ok(file) => (Some(file), "open".into()),
                    Err(error) => (None, format!("{:?}", error.kind())),
                };
                self.files[slot] = file;
                told
            }
            50..=57 => done(dir.create_dir(&path, mode_of(number)).await),
            58..=61 => done(dir.remove_file(&path).await),
            62..=65 => done(dir.remove_dir(&path).await),
            66..=72 => done(dir.rename(&path, to, &other).await),
            73..=76 => done(dir.hard_link(&path, to, &other).await),
            77..=80 => done(dir.symlink(&other, &path).await),
            81..=82 => told(dir.read_link(&path).await, |target| format!("{target:?}")),
            83..=86 => told(dir.metadata(&path, draw.follow()).await, shown),
            87 => done(dir.set_permissions(&path, mode_of(number)).await),
            88..=89 => {
                let times = Times { accessed: draw.time(), modified: draw.time() };
                let follow = draw.follow();
                let set = done(dir.set_times(&path, times, follow).await);
                let modified = dir.metadata(&path, follow).await.map(|found| found.modified);
                match times.modified {
                    Some(_) if set == "done" => format!("{modified:?}"),
                    _ => set,
                }
            }
            90..=92 => {
                let entries = match dir.read_dir().await {
                    Ok(mut entries) => entries.collect().await,
                    Err(error) => Err(error),
                };
                told(entries, |mut entries| {
                    entries.sort();
                    format!("{entries:?}")
                })
            }
            93..=95 => {
                let opened = dir.open_dir(&path).await;
                let result = told(opened.as_ref().map_err(Clone::clone), |_| "open".into());
                // The first stays where everything began.
                if let (Ok(opened), 1..) = (opened, to_dir) {
                    self.dirs[to_dir] = opened;
                }
                result
            }
            96 => done(dir.create_dir_all(&path, 0o755).await),
            97 if draw.one_in(3) => done(dir.remove_dir_all(&path).await),
            98 => {
                let small = dir.metadata(&path, Follow::Yes).await;
                if small.is_ok_and(|found| found.len > 1 << 20) {
                    return "too long to copy".into();
                }
                told(dir.copy(&path, to, &other).await, |bytes| format!("copied {bytes}"))
            }
            _ => told(dir.exists(&path).await, |exists| exists.to_string()),
        }
    }

    async fn apply_to_file(&mut self, kind: u64, slot: usize, draw: &mut Draw) -> String {
        let Some(file) = &self.files[slot] else { return "not open".into() };
        match kind {
            0..=11 => {
                let (read, error, bytes) = file.read_some(draw.at(), vec![0xee; draw.len()]).await;
                let valid = &bytes[..usize::try_from(read).unwrap()];
                format!("{read} {error:?} {:x}", sum(valid))
            }
            12..=25 => {
                let (at, byte) = (draw.at(), u8::try_from(draw.below(256)).unwrap());
                let (result, _) = file.write_exact(at, vec![byte; draw.len()]).await;
                format!("{result:?}")
            }
            26..=28 => done(file.set_len(draw.at()).await),
            29..=30 => {
                let how = [Allocate::Extend, Allocate::KeepSize, Allocate::PunchHole];
                let how = how[draw.index(3)];
                done(file.allocate(draw.below(30_000), draw.len() as u64, how).await)
            }
            31..=32 => told(file.metadata().await, shown),
            33 => done(file.set_permissions(mode_of(draw.next())).await),
            34 => done(file.sync(SyncLevel::Data).await),
            35 => {
                let exclusive = draw.one_in(2);
                let kind = if exclusive { LockKind::Exclusive } else { LockKind::Shared };
                done(file.try_lock(kind).await)
            }
            36 => done(file.unlock().await),
            37 => {
                let times = Times { accessed: draw.time(), modified: draw.time() };
                done(file.set_times(times).await)
            }
            _ => {
                self.files[slot] = None;
                "closed".into()
            }
        }
    }

    /// Everything there is, sorted.
    async fn dump(&self) -> String {
        let mut lines = Vec::new();
        let mut rest = vec![(Vec::new(), self.dirs[0].open_dir(".").await.unwrap())];
        while let Some((prefix, dir)) = rest.pop() {
            for entry in dir.read_dir().await.unwrap().collect().await.unwrap() {
                let name = [&prefix[..], &entry.name, b"/"].concat();
                let found = dir.metadata(&entry.name, Follow::No).await.unwrap();
                let mut line = format!("{} {}", String::from_utf8_lossy(&name), shown(found));
                if found.is_dir() {
                    let below = dir.open_dir(&entry.name).await.unwrap();
                    rest.push((name, below));
                } else if found.is_symlink() {
                    write!(line, " {:?}", dir.read_link(&entry.name).await.unwrap()).unwrap();
                } else {
                    let options = OpenOptions::new().read(true);
                    let file = dir.open_file(&entry.name, &options).await.unwrap();
                    let (_, _, head) = file.read_some(0, vec![0; 30_000]).await;
                    write!(line, " {:x}", sum(&head)).unwrap();
                }
                lines.push(line);
            }
        }
        lines.sort();
        lines.join("\n")
    }
}

/// Why a sequence failed: at which operation, and what each side said.
type Difference = (usize, String);

fn run(numbers: &[u64], confined: bool) -> Result<(), Difference> {
    let temp = tempfile::tempdir().unwrap();
    let real = Portable::at(temp.path()).unwrap();
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let umask = status.lines().find_map(|line| line.strip_prefix("Umask:"));
    let umask = umask.map_or(0o022, |umask| u32::from_str_radix(umask.trim(), 8).unwrap());
    let mut config = VirtConfig::default();
    config.umask = umask;
    let model = VirtFs::with_config(&config);
    let mut worlds = (
        World::<Portable>::new(now(&real, base(&real, confined))),
        World::<VirtFs>::new(now(&model, base(&model, confined))),
    );
    for (step, &number) in numbers.iter().enumerate() {
        let expected = now(&real, worlds.0.apply(number, confined));
        let found = now(&model, worlds.1.apply(number, confined));
        if expected != found {
            let told = format!("{}\n  real: {expected}\n  virt: {found}", described(number));
            return Err((step, told));
        }
        if step % 5000 == 4999 || step + 1 == numbers.len() {
            let (expected, found) = (now(&real, worlds.0.dump()), now(&model, worlds.1.dump()));
            if expected != found {
                return Err((step, format!("the trees\n  real:\n{expected}\n  virt:\n{found}")));
            }
        }
    }
    Ok(())
}

async fn base<F: Fs>(fs: &F, confined: bool) -> F::Dir {
    fs.current_dir().create_dir("base", 0o755).await.unwrap();
    let base = fs.current_dir().open_dir("base").await.unwrap();
    if confined { base.confined().await.unwrap() } else { base }
}

fn now<T>(fs: &impl Fs, future: impl Future<Output = T>) -> T {
    block_on(fs, future).unwrap()
}

/// What a number stands for, as far as it can be said without running it.
fn described(number: u64) -> String {
    let mut draw = Draw(number);
    let (dir, slot, kind) = (draw.index(DIRS), draw.index(FILES), draw.below(100));
    if kind < 40 {
        return format!("op {kind} of file {slot} ({number:#x})");
    }
    let mut other = Draw(draw.0);
    let show = |path: Vec<u8>| String::from_utf8_lossy(&path[..path.len().min(20)]).into_owned();
    let [plain, plain_to] = [draw.path(false), (draw.index(DIRS), draw.path(false)).1].map(show);
    let [beneath, to] = [other.path(true), (other.index(DIRS), other.path(true)).1].map(show);
    format!(
        "op {kind} in dir {dir}, file {slot}: {plain:?} and {plain_to:?}, or confined \
         {beneath:?} and {to:?} ({number:#x})"
    )
}

/// Leaves out what is not needed for a difference.
fn shrink(numbers: &[u64], confined: bool, mut at: usize) -> Vec<u64> {
    let mut kept = numbers[..=at].to_vec();
    let mut chunk = kept.len() / 2;
    while chunk > 0 {
        let mut start = 0;
        while start < kept.len() {
            let mut tried = kept.clone();
            tried.drain(start..(start + chunk).min(kept.len()));
            match run(&tried, confined) {
                Err((step, _)) => {
                    at = step;
                    kept = tried;
                    kept.truncate(at + 1);
                }
                Ok(()) => start += chunk,
            }
        }
        chunk /= 2;
    }
    kept
}

fn long_run(confined: bool) {
    let number = |name: &str, default: u64| {
        std::env::var(name).map_or(default, |value| value.parse().unwrap())
    };
    let mut draw = Draw(number("MFIO_RT_MODEL_SEED", 1));
    let count = number("MFIO_RT_MODEL_OPS", 10_000);
    let numbers: Vec<u64> = (0..count).map(|_| draw.next()).collect();
    let Err((step, told)) = run(&numbers, confined) else { return };
    let short = shrink(&numbers, confined, step);
    let told = run(&short, confined).err().map_or(told, |(_, told)| told);
    let ops: Vec<_> = short.iter().map(|&number| described(number)).collect();
    panic!("after {} of {step} operations:\n{}\n{told}", short.len(), ops.join("\n"));
}

#[test]
fn a_long_sequence_has_the_same_results_as_on_the_real_file_system() {
    long_run(false);
}

#[test]
fn a_long_confined_sequence_has_the_same_results_as_on_the_real_file_system() {
    if !cfg!(target_os = "linux") {
        return;
    }
    long_run(true);
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 24, failure_persistence: None, ..Default::default()
    })]

    #[test]
    fn any_sequence_has_the_same_results_as_on_the_real_file_system(
        numbers in proptest::collection::vec(any::<u64>(), 1..250),
        confined in any::<bool>(),
    ) {
        let confined = confined && cfg!(target_os = "linux");
        prop_assert_eq!(run(&numbers, confined), Ok(()));
    }
}
