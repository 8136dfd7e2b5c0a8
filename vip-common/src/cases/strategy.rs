//! Frames for property tests.

use alloc::vec::Vec;

use proptest::{collection::vec, prelude::*, sample::select};

use super::{
    Case, Expect, Stage,
    mutate::{Mutation, mutate},
    table,
};

/// Bytes that mean something somewhere.
const TELLING: [u8; 9] = [0, 1, 2, 58, 60, 134, 135, 136, 255];

/// How a node may stand, mostly as an owner.
pub fn any_stage() -> impl Strategy<Value = Stage> {
    prop_oneof![
        4 => Just(Stage::Owner),
        2 => Just(Stage::Router),
        1 => Just(Stage::Follower),
        1 => Just(Stage::Vacant),
        1 => Just(Stage::Expired),
    ]
}

/// A frame of the table and spoilt, a question before all, or one of random bytes. They are shorter than
/// `longest`.
pub fn any_frame(longest: usize) -> impl Strategy<Value = Vec<u8>> {
    let (questions, others): (Vec<_>, Vec<_>) = table()
        .into_iter()
        .partition(|case| case.expect == Expect::Answered);
    let of = |cases: Vec<Case>| {
        let frames: Vec<Vec<u8>> = cases.into_iter().map(|case| case.frame).collect();
        (select(frames), vec(mutation(longest), 0..4)).prop_map(move |(frame, mutations)| {
            let mut frame = mutate(&frame, &mutations);
            frame.truncate(longest - 1);
            frame
        })
    };
    prop_oneof![
        10 => of(questions),
        10 => of(others),
        1 => vec(any::<u8>(), 0..longest),
    ]
}

fn mutation(longest: usize) -> impl Strategy<Value = Mutation> {
    let near = 0..120_u16;
    prop_oneof![
        3 => (near.clone(), prop_oneof![any::<u8>(), select(&TELLING[..])])
            .prop_map(|(at, byte)| Mutation::Put(at, byte)),
        3 => (near.clone(), 0..8_u8).prop_map(|(at, bit)| Mutation::Flip(at, bit)),
        1 => near.prop_map(Mutation::Truncate),
        1 => prop_oneof![9 => vec(any::<u8>(), 0..64), 1 => vec(any::<u8>(), 0..longest)]
            .prop_map(Mutation::Extend),
        1 => select(&[0, 5, 0xe000][..]).prop_map(Mutation::Tag),
        4 => Just(Mutation::Resum),
    ]
}
