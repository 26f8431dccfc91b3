//! How far a connection came, as Zeek's `conn_state` tells it.

use super::TcpFlow;
use crate::flow::end::TcpEnd;
use crate::flow::key::End;
use crate::record::{EndReason, TcpState};

impl TcpFlow {
    pub(super) fn closed_by_fins(&self) -> bool {
        self.ends.iter().all(TcpEnd::finished)
    }

    /// Whether and how the connection is over.
    #[inline]
    pub(in crate::flow) fn closed(&self) -> Option<EndReason> {
        match self.roles.reset_by {
            Some(_) => Some(EndReason::Rst),
            None if self.closed_by_fins() => Some(EndReason::Fin),
            None => None,
        }
    }

    /// Whether the opener sent nothing but SYNs: nobody answered, or it did not care for the answer.
    #[inline]
    pub(in crate::flow) fn is_half_open(&self) -> bool {
        self.roles.opener.is_some_and(|opener| !self.end(opener).spoke())
    }

    /// Whether nothing is left to repeat: reset, or both FINs were acknowledged.
    pub(in crate::flow) fn is_close_acknowledged(&self) -> bool {
        let acknowledged = |end: &TcpEnd, other: &TcpEnd| {
            end.is_seen() && other.acknowledged().is_some_and(|ack| ack.wrapping_sub(end.span.next) < 1 << 31)
        };
        let [low, high] = &self.ends;
        self.roles.reset_by.is_some() || (acknowledged(low, high) && acknowledged(high, low))
    }

    /// Zeek's `conn_state`; a connection of which both ends were heard midstream counts as established once closed.
    pub(in crate::flow) fn state(&self, client: End) -> TcpState {
        let server = client.other();
        let opened = self.roles.opener == Some(client);
        let answered = self.roles.answerer == Some(server) || self.end(server).isn().is_some();
        let talked = self.ends.iter().all(TcpEnd::spoke);
        let established = (opened && answered) || talked;
        match self.roles.reset_by {
            Some(by) if by == server => match (opened, answered) {
                (true, false) if !talked => return TcpState::Rej,
                (false, true) if !self.end(client).is_seen() => return TcpState::Rstrh,
                (true | false, true | false) => {
                    return if established || answered { TcpState::Rstr } else { TcpState::Oth };
                }
            },
            Some(_) => match (opened, answered) {
                (true, false) if !talked => return TcpState::Rstos0,
                (true | false, true | false) => {
                    return if established || answered { TcpState::Rsto } else { TcpState::Oth };
                }
            },
            None => {}
        }
        match (self.end(client).finished(), self.end(server).finished()) {
            (true, true) => TcpState::Sf,
            (true, false) if established => TcpState::S2,
            (true, false) if opened => TcpState::Sh,
            (false, true) if answered && !opened && !self.end(client).is_seen() => TcpState::Shr,
            (false, true) if established => TcpState::S3,
            (false, false) if opened && established => TcpState::S1,
            (false, false) if opened && !self.end(server).is_seen() => TcpState::S0,
            (true | false, true | false) => TcpState::Oth,
        }
    }
}
