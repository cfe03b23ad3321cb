//! The other side writes what it likes.

use std::sync::atomic::Ordering;

use demux_user::xsk::ring::Descriptor;

use super::{
    board::Board,
    chance::{Random, cases},
};

#[test]
fn a_consumer_takes_no_more_than_the_ring_holds() {
    let mut random = Random::new();
    for _ in 0..cases(1000) {
        let size = 1 << random.below(6);
        let board = Board::new(size, random.next() as u32);
        let mut consumer = board.ring::<Descriptor>().consumer();
        for _ in 0..50 {
            let index = random.next() as u32;
            board.producer().store(index, Ordering::Relaxed);
            board
                .consumer()
                .store(random.next() as u32, Ordering::Relaxed);
            let available = consumer.available_now();
            assert!(available <= size);
            for _ in 0..available {
                assert!(consumer.pop().is_some());
            }
            consumer.release();
        }
    }
}

#[test]
fn a_producer_has_no_more_room_than_the_ring() {
    let mut random = Random::new();
    for _ in 0..cases(1000) {
        let size = 1 << random.below(6);
        let board = Board::new(size, random.next() as u32);
        let mut producer = board.ring::<Descriptor>().producer();
        for _ in 0..50 {
            board
                .consumer()
                .store(random.next() as u32, Ordering::Relaxed);
            board
                .producer()
                .store(random.next() as u32, Ordering::Relaxed);
            let free = producer.free();
            assert!(free <= size);
            for _ in 0..free {
                assert!(producer.push(Descriptor::default()));
            }
            assert!(producer.outstanding() <= size);
            producer.submit();
        }
    }
}

#[test]
fn indices_that_cannot_be_are_noticed() {
    for start in [0, 5, u32::MAX] {
        let board = Board::new(8, start);
        let mut consumer = board.ring::<u64>().consumer();
        let mut producer = board.ring::<u64>().producer();

        board
            .producer()
            .store(start.wrapping_add(8), Ordering::Relaxed);
        assert_eq!(consumer.available_now(), 8);
        assert!(!consumer.is_broken(), "a full ring is none");
        for beyond in [start.wrapping_add(9), start.wrapping_sub(1)] {
            board.producer().store(beyond, Ordering::Relaxed);
            assert_eq!(consumer.available_now(), 8);
            assert!(consumer.is_broken());
        }

        assert_eq!(producer.free(), 8);
        for number in 0..8 {
            assert!(producer.push(number));
        }
        assert!(!producer.push(8));
        for beyond in [start.wrapping_add(9), start.wrapping_sub(1)] {
            board.consumer().store(beyond, Ordering::Relaxed);
            assert!(!producer.push(8), "it did not take what was not there");
            assert!(producer.is_broken());
        }
        board
            .consumer()
            .store(start.wrapping_add(1), Ordering::Relaxed);
        assert!(producer.push(8), "and goes on once the index makes sense");
    }
}
