//! Which request an answer belongs to: the oldest, for a server answers in order (RFC 9112, 9.3.2). Where messages
//! passed unseen it may be another's.
//!
//! A client that does not pipeline has had the answer to a request when it sends the next: if a newer request waits
//! than what was lost of the answers, the older ones are over without one. If only older ones wait, the next answer is
//! that to a request of which nothing was seen, if segments were missed after the oldest; else it is given to the
//! oldest, without latency if several wait, or if a snap length cut what followed it. So it is if one was sent after
//! others of which some may be lost: while others wait, or if the server sent nothing since.

use super::half::{Half, Upgrade};
use super::{End, Http1, HttpSlice, Request};

/// Most requests that wait for their answers.
pub(super) const MAX_WAITING: usize = 64;

/// What an answer must be told of its request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Asked {
    Head,
    Connect,
    Other,
}

#[derive(Debug)]
pub(super) struct Waiting {
    pub(super) request: Request,
    asked: Asked,
    upgrade: Upgrade,
    /// Requests between it and those that waited before it may be lost.
    doubtful: bool,
}

/// Whether an answer is that to the oldest request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Match {
    Sure,
    /// When it was asked last before the answer is not known.
    Likely,
    /// Others may have been asked since, and answered.
    None,
}

impl Http1 {
    /// The head of a request is complete.
    pub(super) fn ask(&mut self, end: End, slice: &mut HttpSlice) {
        let answerer = self.half(end.other());
        // What was missed may have been the answer to what was lost.
        let answered = answerer.missed.max(Some(answerer.last));
        let half = &mut self.halves[end.index()];
        let names = std::mem::take(&mut half.head.names);
        let mut request = slice.begin(end, half.began, names);
        request.bytes = half.known_bytes();
        half.uploading = Some(request.serial());
        let (asked, upgrade) = (half.head.asked(), half.head.upgrade);
        let (began, alone) = (half.began, self.waiting.is_empty());
        let unanswered = half.missed > answered;
        half.lost = half.lost.filter(|lost| !alone || unanswered || *lost >= began);
        let doubtful = half.lost.is_some() && (!alone || unanswered);
        if self.waiting.len() == MAX_WAITING && self.unplaced == 0 && self.has_missed_answers(end.other()) {
            self.forgo(1, slice);
        }
        if self.waiting.len() == MAX_WAITING || self.unplaced > 0 {
            self.unplaced = self.unplaced.saturating_add(1);
        } else {
            self.waiting.push_back(Waiting { request, asked, upgrade, doubtful });
        }
    }

    /// Whether answers from this end passed unseen, or none could be seen so far.
    fn has_missed_answers(&self, end: End) -> bool {
        let half = &self.halves[end.index()];
        half.missed.is_some() || (self.one_sided && half.last == 0)
    }

    /// Finishes the oldest requests without an answer.
    pub(super) fn forgo(&mut self, count: usize, slice: &mut HttpSlice) {
        for Waiting { request, .. } in self.waiting.drain(..count) {
            let last = request.end.unwrap_or(request.start);
            slice.finish(Self::NAME, request, last);
        }
    }

    /// Finishes what was answered while this direction was lost; how sure it is that the next answer is that to the
    /// oldest request.
    fn forgo_lost(&mut self, end: End, slice: &mut HttpSlice) -> Match {
        let Half { lost, missed, .. } = *self.half(end);
        if missed.is_some() && self.unplaced > 0 {
            // The newest have no place: of none it is known that it was asked after what was lost.
            self.unplaced = 0;
            self.forgo(self.waiting.len(), slice);
        }
        let is_older = |waiting: &&Waiting| lost.is_some_and(|lost| waiting.request.start < lost);
        let older = self.waiting.iter().take_while(is_older).count();
        if older > 0 && older == self.waiting.len() {
            let front = self.waiting.front().map(|waiting| waiting.request.start);
            let asker = self.half(end.other());
            return if asker.missed > front {
                Match::None
            } else if older == 1 && asker.lost <= front {
                Match::Sure
            } else {
                Match::Likely
            };
        }
        let half = self.half(end);
        (half.lost, half.missed) = (None, None);
        if older > 0 {
            self.forgo(older, slice);
            return Match::Sure;
        }
        let doubtful = self.waiting.front().is_some_and(|waiting| waiting.doubtful);
        if doubtful { Match::Likely } else { Match::Sure }
    }

    /// Matches a final answer with its request.
    pub(super) fn answer(&mut self, end: End, status: u16, slice: &mut HttpSlice) -> (Asked, Upgrade) {
        let matched = self.forgo_lost(end, slice);
        let began = self.half(end).began;
        let oldest = if matched == Match::None { None } else { self.waiting.pop_front() };
        let Some(Waiting { mut request, asked, upgrade, .. }) = oldest else {
            self.unplaced = self.unplaced.saturating_sub(1);
            let request = slice.answer_unasked(end.other(), status, began);
            let half = self.half(end);
            half.answering = Some(Box::new(request));
            // It may answer a HEAD.
            half.doubtful = true;
            return (Asked::Other, Upgrade::None);
        };
        let asker = self.half(end.other());
        // A client that waited for leave to send a body does not send it after a final answer.
        asker.doubtful =
            asker.head.expects && asker.uploading == Some(request.serial()) && asker.bytes == asker.head_bytes;
        if asker.doubtful {
            request.end = Some(asker.last);
        }
        if matched == Match::Likely {
            request.end = None;
        }
        slice.answer(&mut request, status, began);
        let half = self.half(end);
        half.answering = Some(Box::new(request));
        half.doubtful = matched == Match::Likely;
        (asked, upgrade)
    }
}
