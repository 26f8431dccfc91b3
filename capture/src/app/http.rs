//! What HTTP/1 and HTTP/2 have in common: requests that wait for their answers, the HTTP fields of a slice, and the
//! exchanges that are over.
//!
//! The fields of a slice show the first request that began in it and that request's final answer. A first request that
//! still waits when its slice ends carries on into the next slice, where its answer is shown (and counted in `errors`
//! if it is one), unless another request begins there before. `requests` counts each request once.

use std::sync::Arc;

use super::exchange::{End, Finished, micros};
use crate::memory;
use crate::record::Http;
use crate::transaction::Exchange;

/// Names in a request.
#[derive(Debug, Clone, Default)]
pub(crate) struct Names {
    pub(crate) method: Option<Arc<str>>,
    pub(crate) host: Option<Arc<str>>,
    pub(crate) path: Option<Arc<str>>,
}

impl Names {
    /// Bytes of memory owned beside the structure itself.
    pub(super) fn owned_bytes(&self) -> usize {
        [&self.method, &self.host, &self.path].iter().map(|text| memory::of_text(text.as_ref())).sum()
    }
}

/// A request and what is known of its answer.
#[derive(Debug)]
pub(crate) struct Request {
    serial: u32,
    asker: End,
    pub(crate) start: i64,
    /// When its last byte was seen.
    pub(crate) end: Option<i64>,
    pub(crate) bytes: u64,
    pub(crate) status: Option<u16>,
    pub(crate) grpc_status: Option<u16>,
    latency_us: Option<u64>,
    pub(crate) response_bytes: u64,
    /// The final answer did not come, or not to its end.
    pub(crate) cut: bool,
    /// Kept only where a transaction will be made of them.
    names: Option<Box<Names>>,
}

impl Request {
    /// Tells it from others of its connection.
    pub(crate) fn serial(&self) -> u32 {
        self.serial
    }

    /// Bytes of memory owned beside the structure itself.
    pub(super) fn owned_bytes(&self) -> usize {
        self.names.as_ref().map_or(0, |names| memory::of_box::<Names>() + names.owned_bytes())
    }

    /// Of too many that wait, only the names go.
    pub(crate) fn forget_names(&mut self) {
        self.names = None;
    }

    /// Whether the final answer began.
    pub(crate) fn is_answered(&self) -> bool {
        self.status.is_some_and(|status| status >= 200)
    }
}

/// HTTP fields of the slice; see the module documentation.
#[derive(Debug, Default)]
pub(crate) struct HttpSlice {
    fields: Http,
    /// The request that the fields show.
    first: Option<u32>,
    /// It may give way: it began in an earlier slice, or only its answer was seen.
    weak: bool,
    serial: u32,
    transactions: bool,
    pub(crate) finished: Vec<Finished>,
}

impl HttpSlice {
    pub(crate) fn new(transactions: bool) -> Self {
        Self { transactions, ..Self::default() }
    }

    /// Bytes of memory owned beside the structure itself.
    pub(super) fn owned_bytes(&self) -> usize {
        let Http { method, host, path, .. } = &self.fields;
        let texts = [method, host, path].iter().map(|text| memory::of_text(text.as_ref())).sum::<usize>();
        // Those that are finished are taken before the next packet.
        texts + memory::of_vec(&self.finished)
    }

    /// Whether the names of the next request will be used.
    pub(crate) fn wants_names(&self) -> bool {
        self.transactions || self.is_free()
    }

    /// Whether the next request is the one to show.
    fn is_free(&self) -> bool {
        self.first.is_none() || self.weak
    }

    fn is_final(&self) -> bool {
        self.fields.status.is_some()
    }

    /// A request began at `start`.
    pub(crate) fn begin(&mut self, asker: End, start: i64, names: Names) -> Request {
        self.fields.requests += 1;
        let mut request = self.request(asker, start);
        if self.is_free() {
            self.show(&request, names.clone());
        }
        request.names = self.transactions.then(|| Box::new(names));
        request
    }

    /// A request that the server makes in the client's name (RFC 9113, 8.4): it is not counted, and not shown.
    pub(crate) fn promise(&mut self, asker: End, start: i64, names: Names) -> Request {
        let mut request = self.request(asker, start);
        request.names = self.transactions.then(|| Box::new(names));
        request
    }

    fn request(&mut self, asker: End, start: i64) -> Request {
        self.serial = self.serial.wrapping_add(1);
        Request {
            serial: self.serial,
            asker,
            start,
            end: None,
            bytes: 0,
            status: None,
            grpc_status: None,
            latency_us: None,
            response_bytes: 0,
            cut: false,
            names: None,
        }
    }

    fn show(&mut self, request: &Request, names: Names) {
        let Names { method, host, path } = names;
        self.first = Some(request.serial);
        self.weak = false;
        self.fields = Http {
            method,
            host,
            path,
            status: None,
            latency_us: None,
            requests: self.fields.requests,
            errors: self.fields.errors,
        };
    }

    /// The answer's status line began at `time`.
    pub(crate) fn answer(&mut self, request: &mut Request, status: u16, time: i64) {
        request.status = Some(status);
        request.latency_us = request.end.and_then(|end| micros(end, time));
        if status >= 400 {
            self.fields.errors += 1;
        }
        if self.first == Some(request.serial) {
            self.fields.status = Some(status);
            self.fields.latency_us = request.latency_us;
            self.weak = false;
        }
    }

    /// An answer at `time` whose request from `asker` was not seen.
    pub(crate) fn answer_unasked(&mut self, asker: End, status: u16, time: i64) -> Request {
        let mut request = self.request(asker, time);
        let shown = self.first.is_none();
        if shown {
            self.first = Some(request.serial);
        }
        self.answer(&mut request, status, time);
        self.weak |= shown;
        request
    }

    /// An error beside the status.
    pub(crate) fn count_error(&mut self) {
        self.fields.errors += 1;
    }

    /// The exchange is over; its last byte was seen at `end`.
    pub(crate) fn finish(&mut self, app: &'static str, request: Request, end: i64) {
        if !self.transactions {
            return;
        }
        let names = request.names.map(|names| *names).unwrap_or_default();
        let exchange = Exchange {
            end,
            method: names.method,
            host: names.host,
            path: names.path,
            status: request.status,
            grpc_status: request.grpc_status,
            latency_us: request.latency_us,
            request_bytes: Some(request.bytes).filter(|bytes| *bytes > 0),
            response_bytes: Some(request.response_bytes).filter(|bytes| *bytes > 0),
            complete: request.status.is_some() && !request.cut,
            ..Exchange::new(app, request.start)
        };
        self.finished.push(Finished { asker: request.asker, exchange });
    }

    /// The fields for a record.
    pub(crate) fn fields(&mut self) -> Option<&mut Http> {
        (self.first.is_some() || self.fields != Http::default()).then_some(&mut self.fields)
    }

    /// Begins the next slice.
    pub(crate) fn next_slice(&mut self) {
        if self.first.is_some() && !self.is_final() {
            self.weak = true;
            (self.fields.requests, self.fields.errors) = (0, 0);
        } else {
            self.first = None;
            self.weak = false;
            self.fields = Http::default();
        }
    }
}
