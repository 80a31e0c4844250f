//! Which cores a thread may use that works beside a shard's.
//!
//! Data flow: the one core that a new thread inherits → those that the process may use, without
//! that one, as far as they are near the same memory → the new thread's. Where a thread runs that
//! touches pages first, there they lie: on another node, every op of the shard would go there.
//!
//! Not here: binding a shard's thread (`engine::thread`).

use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::unistd::Pid;

/// Where the kernel tells which cores a node has.
const NODES: &str = "/sys/devices/system/node";

/// Moves the calling thread off the one core that the thread which has started it is bound to.
/// It stays where it is if that one may use several, or the process has no other on the node.
pub(super) fn leave_creators_core() {
    let inherited = usable(Pid::from_raw(0));
    // The process's number is that of its main thread.
    let found = beside(&inherited, &usable(Pid::this()), node_of);
    let mut set = CpuSet::new();
    if !found.is_empty() && found.iter().all(|&core| set.set(core).is_ok()) {
        // Refused, as where a core has just gone: the work is done where the creator is, later.
        let _stays = sched_setaffinity(Pid::from_raw(0), &set);
    }
}

/// The cores that a thread may use; none where that is not told.
fn usable(thread: Pid) -> Vec<usize> {
    let Ok(set) = sched_getaffinity(thread) else { return Vec::new() };
    (0..CpuSet::count()).filter(|&core| set.is_set(core) == Ok(true)).collect()
}

/// Those of the `process` that a thread which has `inherited` its cores is to use instead; none
/// where it is to stay. `node_of` tells all cores of the node of one.
fn beside(
    inherited: &[usize],
    process: &[usize],
    node_of: impl FnOnce(usize) -> Option<Vec<usize>>,
) -> Vec<usize> {
    let &[bound] = inherited else { return Vec::new() };
    let others = process.iter().copied().filter(|&core| core != bound);
    match node_of(bound) {
        Some(near) => others.filter(|core| near.contains(core)).collect(),
        None => others.collect(),
    }
}

/// All cores of the node that `core` is on; `None` where the kernel tells of no nodes.
fn node_of(core: usize) -> Option<Vec<usize>> {
    let nodes = std::fs::read_dir(NODES).ok()?.flatten();
    let lists = nodes.filter_map(|node| std::fs::read_to_string(node.path().join("cpulist")).ok());
    lists.map(|list| cores_of(&list)).find(|cores| cores.contains(&core))
}

/// The numbers of a list like `0-3,8`; what is none in it is left out.
fn cores_of(list: &str) -> Vec<usize> {
    let ranges = list.trim().split(',').filter_map(|range| {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        Some(first.parse().ok()?..=last.parse().ok()?)
    });
    ranges.flatten().take(CpuSet::count()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_of_cores_are_read() {
        assert_eq!(cores_of("0-3,8,10-11\n"), [0, 1, 2, 3, 8, 10, 11]);
        assert_eq!(cores_of("\n"), [0_usize; 0]);
        assert_eq!(cores_of("x,5,7-y,3-2"), [5]);
        assert_eq!(cores_of("0-18446744073709551615").len(), CpuSet::count());
    }

    #[test]
    fn thread_of_a_bound_one_gets_the_other_cores_of_the_node() {
        let node = |_| Some(vec![0, 1, 2, 3]);
        assert_eq!(beside(&[1], &[0, 1, 3, 4, 5], node), [0, 3]);
        assert_eq!(beside(&[1], &[0, 1, 3, 4, 5], |_| None), [0, 3, 4, 5]);
        let none = [0_usize; 0];
        assert_eq!(beside(&[1], &[1, 4, 5], node), none, "none is left on the node");
        assert_eq!(beside(&[1], &[1], |_| None), none);
        assert_eq!(beside(&[0, 1], &[0, 1, 2], node), none, "it is not bound to one");
        assert_eq!(beside(&[], &[0, 1], node), none);
    }

    #[test]
    fn thread_leaves_the_core_of_its_creator_if_there_is_another() {
        let process = usable(Pid::this());
        let core = process[0];
        let creator = move || {
            let mut set = CpuSet::new();
            set.set(core).unwrap();
            sched_setaffinity(Pid::from_raw(0), &set).unwrap();
            let work = || {
                leave_creators_core();
                usable(Pid::from_raw(0))
            };
            std::thread::spawn(work).join().unwrap()
        };
        let moved = std::thread::spawn(creator).join().unwrap();
        let others = beside(&[core], &process, node_of);
        assert_eq!(moved, if others.is_empty() { vec![core] } else { others });
    }
}
