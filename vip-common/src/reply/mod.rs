//! Frames rewritten in place: questions into their answers, or into probes.

mod arp;
mod neighbour;

pub use arp::anonymise_arp;

use crate::{
    frame::Mac,
    reader::Writer,
    verdict::{Protocol, Question},
};

/// How long the frame must be when it is handed to [`answer`]; `None`: as it is.
#[inline(always)]
pub fn answer_len(question: Question) -> Option<usize> {
    match question.protocol {
        Protocol::Arp => None,
        Protocol::Solicitation => Some(neighbour::advertisement_len(question.layout)),
    }
}

/// Turns a question into the answer that says `mac`. `None` if the frame is too short.
#[inline(always)]
#[must_use = "a frame that was not written whole must not be sent"]
pub fn answer(
    frame: &mut (impl Writer + ?Sized),
    question: Question,
    mac: Mac,
    is_router: bool,
) -> Option<()> {
    let Question {
        protocol,
        layout,
        to,
    } = question;
    match protocol {
        Protocol::Arp => arp::answer_arp(frame, layout, mac),
        Protocol::Solicitation => neighbour::answer_solicitation(frame, layout, mac, to, is_router),
    }
}
