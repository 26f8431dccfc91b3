//! What others ask of the store of a table, compiled once, in this crate. What is generic or async is compiled by each crate that
//! calls it, with all that it calls, which here is much of the query engine: minutes each time. A method of a concrete type that
//! gives a boxed future is compiled where it is.

use std::io::BufWriter;

use futures_util::future::BoxFuture;
use tokio::sync::mpsc::Sender;
use wiretag_capture::{FlowRecord, Transaction};
use wiretag_enrich::Tagged;
use wiretag_enrich::tagger::Again;
use wiretag_enrich::timeline::late::LateRows;

use super::aggregate::{AggregateAnswer, AggregateRequest};
use super::explain::{ExplainRequest, Explanation};
use super::export::ExportOptions;
use super::retag::Retagging;
use super::search::{Page, SearchOptions};
use super::{Range, Table, TableStore};
use crate::error::StoreError;
use crate::export::ChannelWriter;
use crate::limits::DEFAULT_MEMORY;
use crate::query::Query;

/// Bytes that are handed on at once, about.
const CHUNK: usize = 64 << 10;

type Answer<'a, T> = BoxFuture<'a, Result<T, StoreError>>;

/// See the module.
#[allow(missing_docs, reason = "they are the methods of `TableStore` of the same names")]
pub trait Entries: Sized + 'static {
    fn append(table: &TableStore<Self>, rows: Vec<Tagged<Self>>) -> Answer<'_, ()>;
    fn flush(table: &TableStore<Self>) -> Answer<'_, u64>;
    fn search<'a>(
        table: &'a TableStore<Self>,
        query: &'a Query<Self>,
        range: Range,
        options: SearchOptions,
        memory: usize,
    ) -> Answer<'a, Page>;
    fn aggregate<'a>(table: &'a TableStore<Self>, request: &'a AggregateRequest<Self>) -> Answer<'a, AggregateAnswer>;
    fn explain<'a>(table: &'a TableStore<Self>, request: &'a ExplainRequest<Self>) -> Answer<'a, Explanation>;
    fn export_to<'a>(
        table: &'a TableStore<Self>,
        query: &'a Query<Self>,
        options: ExportOptions,
        chunks: Sender<Vec<u8>>,
    ) -> Answer<'a, u64>;
    fn retag_next<'a>(
        table: &'a TableStore<Self>,
        late: &'a LateRows,
        again: (&'a Again, &'a mut Retagging),
        now: i64,
    ) -> Answer<'a, Option<u64>>;
}

macro_rules! entries {
    ($($record:ty),*) => {$(
        impl Entries for $record {
            fn append(table: &TableStore<Self>, rows: Vec<Tagged<Self>>) -> Answer<'_, ()> {
                Box::pin(table.appended(rows))
            }

            fn flush(table: &TableStore<Self>) -> Answer<'_, u64> {
                Box::pin(table.flushed())
            }

            fn search<'a>(
                table: &'a TableStore<Self>,
                query: &'a Query<Self>,
                range: Range,
                options: SearchOptions,
                memory: usize,
            ) -> Answer<'a, Page> {
                Box::pin(table.page(query, range, options, memory))
            }

            fn aggregate<'a>(
                table: &'a TableStore<Self>,
                request: &'a AggregateRequest<Self>,
            ) -> Answer<'a, AggregateAnswer> {
                Box::pin(table.aggregate_observed(request, None))
            }

            fn explain<'a>(
                table: &'a TableStore<Self>,
                request: &'a ExplainRequest<Self>,
            ) -> Answer<'a, Explanation> {
                Box::pin(table.explained(request))
            }

            fn export_to<'a>(
                table: &'a TableStore<Self>,
                query: &'a Query<Self>,
                options: ExportOptions,
                chunks: Sender<Vec<u8>>,
            ) -> Answer<'a, u64> {
                let out = BufWriter::with_capacity(CHUNK, ChannelWriter(chunks));
                Box::pin(async move { table.export(query, options, out).await.map(|(rows, _)| rows) })
            }

            fn retag_next<'a>(
                table: &'a TableStore<Self>,
                late: &'a LateRows,
                again: (&'a Again, &'a mut Retagging),
                now: i64,
            ) -> Answer<'a, Option<u64>> {
                Box::pin(table.named_next(late, again, now))
            }
        }
    )*};
}

entries!(FlowRecord, Transaction);

impl<R: Table> TableStore<R> {
    /// Takes rows; searches see them at once. When memory is full, files are written first. Rows are dropped and counted,
    /// which is an error, only if that fails.
    pub fn append(&self, rows: Vec<Tagged<R>>) -> Answer<'_, ()> {
        R::append(self, rows)
    }

    /// Moves the rows in memory to files, one for each hour; on failure they stay. Returns the rows moved.
    pub fn flush(&self) -> Answer<'_, u64> {
        R::flush(self)
    }

    /// A page of rows that pass, newest start first, then by flow id and number.
    pub fn search<'a>(&'a self, query: &'a Query<R>, range: Range, options: SearchOptions) -> Answer<'a, Page> {
        self.search_within(query, range, options, DEFAULT_MEMORY)
    }

    /// [`Self::search`], with so much memory for the rows, bytes: of wide rows a page has fewer.
    pub fn search_within<'a>(
        &'a self,
        query: &'a Query<R>,
        range: Range,
        options: SearchOptions,
        memory: usize,
    ) -> Answer<'a, Page> {
        R::search(self, query, range, options, memory)
    }

    /// Groups of the rows that pass and start in the range, with their figures.
    pub fn aggregate<'a>(&'a self, request: &'a AggregateRequest<R>) -> Answer<'a, AggregateAnswer> {
        R::aggregate(self, request)
    }

    /// Answers a query, and tells how.
    pub fn explain<'a>(&'a self, request: &'a ExplainRequest<R>) -> Answer<'a, Explanation> {
        R::explain(self, request)
    }

    /// As [`Self::export`], in chunks; gives the number of rows.
    pub fn export_to<'a>(
        &'a self,
        query: &'a Query<R>,
        options: ExportOptions,
        chunks: Sender<Vec<u8>>,
    ) -> Answer<'a, u64> {
        R::export_to(self, query, options, chunks)
    }

    /// Looks at the next file of those that may have these rows. Gives the number of rows that were named, `None` if there is no
    /// further file.
    pub fn retag_next<'a>(
        &'a self,
        late: &'a LateRows,
        again: (&'a Again, &'a mut Retagging),
        now: i64,
    ) -> Answer<'a, Option<u64>> {
        R::retag_next(self, late, again, now)
    }
}
