//! Both roles of one ring do what a naive queue does, wherever the indices begin.

use std::{collections::VecDeque, sync::atomic::Ordering};

use demux_user::xsk::ring::Descriptor;

use super::{
    board::{Board, Numbered},
    chance::{Random, cases},
};

#[test]
fn a_ring_of_addresses_is_a_queue() {
    is_a_queue::<u64>();
}

#[test]
fn a_ring_of_descriptors_is_a_queue() {
    is_a_queue::<Descriptor>();
}

fn is_a_queue<T: Numbered>() {
    let mut random = Random::new();
    for _ in 0..cases(300) {
        let size = 1 << random.below(7);
        let start = match random.below(3) {
            0 => 0,
            1 => random.next() as u32,
            // Before the indices wrap.
            _ => u32::MAX - random.below(2 * size as usize) as u32,
        };
        compare::<T>(&mut random, size, start);
    }
}

fn compare<T: Numbered>(random: &mut Random, size: u32, start: u32) {
    let board = Board::new(size, start);
    let mut producer = board.ring::<T>().producer();
    let mut consumer = board.ring::<T>().consumer();
    // What was pushed and not submitted; what can be popped; how many were popped and not released.
    let (mut hidden, mut shown, mut popped) = (VecDeque::new(), VecDeque::new(), 0);
    let mut next = 0;
    for _ in 0..500 {
        match random.below(6) {
            0 | 1 => {
                let has_room = hidden.len() + shown.len() + popped < size as usize;
                assert_eq!(producer.push(T::of(next)), has_room);
                if has_room {
                    hidden.push_back(next);
                    next += 1;
                }
            }
            2 => {
                producer.submit();
                shown.extend(hidden.drain(..));
            }
            3 | 4 => {
                let expected = shown.pop_front().map(T::of);
                popped += usize::from(expected.is_some());
                assert_eq!(consumer.pop(), expected);
            }
            _ => {
                consumer.release();
                popped = 0;
            }
        }
        let outstanding = (hidden.len() + shown.len() + popped) as u32;
        assert_eq!(producer.outstanding(), outstanding);
        assert_eq!(producer.free(), size - outstanding);
        assert_eq!(consumer.available_now(), shown.len() as u32);
    }
    assert!(!producer.is_broken() && !consumer.is_broken());
}

#[test]
fn what_is_cached_is_not_asked_again() {
    let board = Board::new(4, u32::MAX);
    let mut producer = board.ring::<u64>().producer();
    let mut consumer = board.ring::<u64>().consumer();
    for number in 0..2 {
        assert!(producer.push(number));
    }
    producer.submit();
    assert_eq!(consumer.available(), 2);
    assert!(producer.push(2));
    producer.submit();
    assert_eq!(consumer.available(), 2, "there was something to go on with");
    assert_eq!(consumer.available_now(), 3);
}

#[test]
fn a_sleeper_is_woken_once() {
    let board = Board::new(4, 0);
    let producer = board.ring::<u64>().producer();
    let consumer = board.ring::<u64>().consumer();
    assert!(!producer.needs_wakeup() && !producer.take_wakeup());
    consumer.set_needs_wakeup(true);
    assert_eq!(
        board.flags().load(Ordering::Relaxed),
        1,
        "XDP_RING_NEED_WAKEUP"
    );
    assert!(consumer.awaits_wakeup() && producer.needs_wakeup());
    assert!(producer.take_wakeup());
    assert!(!producer.take_wakeup() && !consumer.awaits_wakeup());
    consumer.set_needs_wakeup(true);
    consumer.set_needs_wakeup(false);
    assert!(!producer.needs_wakeup());
}
