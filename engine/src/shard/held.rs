//! Messages of other threads whose class has no room on the shard yet.
//!
//! Data flow: mailbox → [`Held::pass`] → accepted at once, or kept in the order of its class →
//! [`Held::next`] when there is room. What is held keeps its room in the mailbox, which bounds
//! it. A flush overtakes nothing that was sent to its target before it.
//!
//! Not here: accepting (`intake`).

use std::collections::VecDeque;

use super::class::Class;
use super::core::Core;
use crate::ring::Ring;
use crate::route::{Mail, Message};

const CLASSES: [Class; 3] = [Class::Log, Class::Foreground, Class::Background];

/// The queues of the classes, and that of flushes; each message with its number.
#[derive(Debug, Default)]
pub(super) struct Held {
    queues: [VecDeque<(u64, Message)>; 3],
    flushes: VecDeque<(u64, Message)>,
    taken: u64,
}

impl Held {
    fn is_empty(&self) -> bool {
        self.flushes.is_empty() && self.queues.iter().all(VecDeque::is_empty)
    }

    /// Whether something that is held could be accepted.
    pub(super) fn can_go_on<R: Ring>(&self, core: &Core<R>) -> bool {
        let mut lanes = CLASSES.iter().zip(&self.queues);
        lanes.any(|(&class, queue)| !queue.is_empty() && core.has_room_in(class))
    }

    /// Gives `message` back where it can be accepted now, and keeps it where not.
    pub(super) fn pass<R: Ring>(&mut self, message: Message, core: &Core<R>) -> Option<Message> {
        self.taken += 1;
        let queue = match message.class() {
            Some(class) => {
                let queue = &mut self.queues[class as usize];
                if queue.is_empty() && core.has_room_in(class) {
                    return Some(message);
                }
                queue
            }
            None if self.is_empty() || !self.precedes(u64::MAX, message.target()) => {
                return Some(message);
            }
            None => &mut self.flushes,
        };
        queue.push_back((self.taken, message));
        None
    }

    /// Whether something for `target` that was sent before message `number` is held.
    fn precedes(&self, number: u64, target: u32) -> bool {
        let earlier =
            |(held, message): &(u64, Message)| *held < number && message.target() == target;
        self.queues.iter().any(|queue| queue.iter().any(earlier))
    }

    /// The next message that can be accepted, log first.
    pub(super) fn next<R: Ring>(&mut self, core: &Core<R>) -> Option<Message> {
        let freed = |(number, message): &(u64, Message)| !self.precedes(*number, message.target());
        if let Some(at) = self.flushes.iter().position(freed) {
            return self.flushes.remove(at).map(|(_, message)| message);
        }
        let lanes = CLASSES.iter().zip(&mut self.queues);
        let mut ready = lanes.filter(|(class, _)| core.has_room_in(**class));
        ready.find_map(|(_, queue)| queue.pop_front()).map(|(_, message)| message)
    }

    /// No shard will accept them.
    pub(super) fn refuse(self) {
        let flushes = self.flushes.into_iter();
        self.queues.into_iter().flatten().chain(flushes).for_each(|(_, message)| message.refuse());
    }
}
