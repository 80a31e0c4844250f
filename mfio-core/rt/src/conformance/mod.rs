//! What every file system and every network must do, as functions that panic where one does not,
//! and as macros that make a test of each.
//!
//! Data flow: `make` → an empty file system → a rule, run to its end by `run` → compared with
//! what was put in.
//!
//! ```
//! # #[cfg(test)]
//! mod virt {
//!     mfio_rt::fs_suite!((mfio_rt::virt::VirtFs::new(), ()), mfio_core::block_on);
//! }
//! ```
//!
//! `make` is an expression: the file system, and whatever must be kept until the rule has ended
//! (a temporary directory). `run` is a function of the file system and a future.
//!
//! Not here: what packets of a single file must do
//! ([`mfio_core::conformance`](https://docs.rs/mfio-core)), what systems may do differently.
#![allow(clippy::missing_panics_doc, reason = "rules panic where they are broken")]

use alloc::boxed::Box;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::future::{Future, poll_fn};
use core::pin::Pin;
use core::task::Poll;

use mfio_core::IoWrite;
use mfio_core::stream::ReadToEnd;

use crate::error::{Error, ErrorKind};
use crate::fs::{DirHandle, Entries, Fs};
use crate::options::OpenOptions;
use crate::tree::DirHandleExt;

pub mod defects;
pub mod files;
pub mod names;
#[cfg(feature = "std")]
pub mod streams;

/// A test of every rule for file systems. See [`conformance`](crate::conformance).
#[macro_export]
macro_rules! fs_suite {
    ($make:expr, $run:path) => {
        $crate::rule_tests! { $make, $run, files:
            files_equal files_equal_rel writes_equal writes_equal_rel
            all_rules_run_side_by_side
            reading_past_the_end_gives_what_exists empty_packets_succeed
            handles_refuse_what_they_were_not_opened_for options_must_go_together
            created_emptied_and_appended_as_asked holes_read_as_zeros_and_lengths_follow
            space_is_set_aside_and_given_back locks_keep_others_out
            a_refused_change_of_a_lock_gives_it_up
            a_dropped_wait_for_a_lock_holds_nothing a_dropped_wait_for_a_lock_takes_none_back
            dropped_transfers_reach_no_other_file cancelled_packets_give_their_buffers_back
            many_transfers_are_under_way_at_once pieces_of_a_packet_land_where_they_belong
            bytes_that_are_made_up_are_written_whole what_is_read_is_never_stale
            more_than_a_thousand_files_are_open
            synced_files_and_names_are_there_for_others
        }
        $crate::rule_tests! { $make, $run, names:
            dirs_equal walk_dirs directories_of_every_size_are_listed_whole
            operations_are_relative_to_the_handle
            metadata_follows_what_happens removed_files_live_on_in_handles
            removing_tells_files_from_directories renaming_replaces_like_by_like
            a_directory_does_not_move_into_itself names_of_one_file_share_it
            links_are_followed_and_seen circles_of_links_end names_have_limits
            permissions_and_times_are_kept trees_are_removed_without_following_links
            deep_trees_are_made_and_removed copies_are_equal
            errors_name_operation_and_path
        }
        $crate::rule_tests! { $make, $run, defects:
            work_goes_on_after_everything_was_cancelled nothing_of_an_earlier_packet_is_written
            what_is_read_at_once_is_what_is_there
        }
    };
}

/// A test of every rule for networks. See [`conformance`](crate::conformance).
#[cfg(feature = "std")]
#[macro_export]
macro_rules! tcp_suite {
    ($make:expr, $run:path) => {
        $crate::rule_tests! { $make, $run, streams:
            tcp_connect tcp_listen tcp_receive_seq tcp_receive_con tcp_send_seq tcp_send_con
            tcp_echo_client_seq tcp_echo_client_con tcp_echo_server_seq tcp_echo_server_con
            the_end_of_a_stream_is_told_apart_from_errors empty_packets_keep_their_turn
            reads_of_a_part_and_of_the_whole_take_turns
            nobody_listens_is_an_error a_dropped_stream_fails_what_waits
            a_dropped_read_loses_no_other a_full_connection_refuses_and_recovers
            a_stuck_peer_delays_nobody a_broken_connection_fails_everything_after
            made_up_bytes_go_through_whole many_writes_keep_their_order
            settings_are_taken
        }
    };
}

/// Used by the suites.
#[doc(hidden)]
#[macro_export]
macro_rules! rule_tests {
    ($make:expr, $run:path, $module:ident: $($rule:ident)*) => {
        $(
            #[test]
            fn $rule() {
                let (made, kept) = $make;
                // Some run functions return what can go wrong with the host, some nothing.
                let _ended = $run(&made, $crate::conformance::$module::$rule(&made));
                drop(kept);
            }
        )*
    };
}

/// A future of no particular type.
type Boxed<'a, T> = Pin<Box<dyn Future<Output = T> + 'a>>;

/// All of `futures` at the same time, and their results in the same order.
pub async fn all<T>(futures: Vec<Boxed<'_, T>>) -> Vec<T> {
    let mut waiting: Vec<_> = futures.into_iter().map(|future| (Some(future), None)).collect();
    poll_fn(|cx| {
        for (future, result) in &mut waiting {
            if let Some(running) = future
                && let Poll::Ready(value) = running.as_mut().poll(cx)
            {
                (*future, *result) = (None, Some(value));
            }
        }
        let over = waiting.iter().all(|(future, _)| future.is_none());
        if over { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
    waiting.into_iter().filter_map(|(_, result)| result).collect()
}

/// `len` bytes that only `seed` decides.
#[must_use]
pub fn bytes_of(seed: u64, len: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()[3]
    };
    (0..len).map(|_| next()).collect()
}

/// The files that rules expect: eight small, two of some length.
fn fixtures() -> Vec<(String, Vec<u8>)> {
    let small = (0..8_u64).map(|number| {
        let len = [0, 1, 13, 511, 512, 513, 4096, 10_000][usize::try_from(number).unwrap_or(0)];
        (format!("dir{}/file{number}", number % 3), bytes_of(number, len))
    });
    let long = (8..10).map(|number| (format!("long{number}"), bytes_of(number, 1 << 20)));
    small.chain(long).collect()
}

const EMPTY_DIRS: [&str; 3] = ["empty", "nested/empty", "nested/deeper/empty"];

/// Fills an empty file system with the fixtures.
async fn populate<F: Fs>(fs: &F) {
    let dir = fs.current_dir();
    for path in EMPTY_DIRS.into_iter().chain(["dir0", "dir1", "dir2"]) {
        dir.create_dir_all(path, 0o755).await.expect("a directory is made");
    }
    for (path, bytes) in fixtures() {
        put(dir, &path, bytes).await;
    }
}

/// Creates a file of `bytes`.
pub async fn put<D: DirHandle>(dir: &D, path: impl AsRef<[u8]>, bytes: Vec<u8>) {
    let options = OpenOptions::new().write(true).create(true).truncate(true);
    let file = dir.open_file(path, &options).await.expect("a file is made");
    let (written, _) = file.write_exact(0, bytes).await;
    written.expect("what was made can be written");
}

/// All bytes of a file.
pub async fn get<D: DirHandle>(dir: &D, path: impl AsRef<[u8]>) -> Vec<u8> {
    let file = dir.open_file(path, &OpenOptions::new().read(true)).await;
    let (read, bytes) = file.expect("what was made can be opened").read_to_end(0).await;
    assert_eq!(read, Ok(bytes.len() as u64), "what was opened can be read");
    bytes
}

/// The names in a directory, sorted.
pub async fn listed<D: DirHandle>(dir: &D) -> Vec<String> {
    let mut entries = dir.read_dir().await.expect("a directory is listed");
    let entries = entries.collect().await.expect("a listing goes to its end");
    let mut names: Vec<_> = entries.iter().map(crate::DirEntry::name_lossy).collect();
    names.sort();
    names
}

/// Checks that an operation was refused, and why.
fn refused<T>(result: Result<T, Error>, kind: ErrorKind, what: &str) {
    let found = result.map(|_| ()).map_err(|error| error.kind());
    assert_eq!(found, Err(kind), "{what}");
}
