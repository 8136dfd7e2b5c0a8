//! Frames rewritten in place: questions into their answers, or into probes.

mod arp;
mod neighbour;

pub use arp::anonymise_arp;

use crate::{frame::Mac, reader::Writer, verdict::Question};

/// How long the frame must be when it is handed to [`answer`]; `None`: as it is.
#[inline(always)]
pub fn answer_len(question: Question) -> Option<usize> {
    match question {
        Question::Arp { .. } => None,
        Question::Solicitation { layout, .. } => Some(neighbour::advertisement_len(layout)),
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
    match question {
        Question::Arp { layout } => arp::answer_arp(frame, layout, mac),
        Question::Solicitation { layout, to } => {
            neighbour::answer_solicitation(frame, layout, mac, to, is_router)
        }
    }
}
