//! Rows of files as they are asked for: a piece of a row group is read when the one before was taken, so no thread waits for
//! whoever asks. Many can be open at the same time, and be read in any order.

use std::sync::Arc;

use datafusion::arrow::array::RecordBatch;
use datafusion::arrow::datatypes::SchemaRef;

use super::super::engine::Condition;
use super::super::error::TableError;
use super::super::{Table, files};
use super::Scanner;
use super::group::{Pieces, Target, Wanted};
use crate::catalog::FlowFile;

/// See the module documentation.
pub(in super::super) struct Pull<R: 'static> {
    files: std::vec::IntoIter<FlowFile>,
    targets: Vec<Target>,
    /// Of the row group that is being read.
    pieces: Option<Pieces>,
    wanted: Arc<Wanted<R>>,
    schema: SchemaRef,
}

impl<R: Table> Pull<R> {
    /// The rows of `files` that pass `condition`, in the columns of `schema`.
    pub(in super::super) fn new(files: Vec<FlowFile>, condition: &Condition<R>, schema: SchemaRef) -> Self {
        let (files, wanted) = (files.into_iter(), Arc::new(Wanted::new(condition)));
        Self { files, targets: Vec::new(), pieces: None, wanted, schema }
    }

    /// Some more of them.
    pub(in super::super) async fn next(&mut self, scanner: &Scanner) -> Result<Option<RecordBatch>, TableError> {
        loop {
            if let Some(mut pieces) = self.pieces.take() {
                let work = std::iter::once(move || Ok((pieces.next().transpose()?, pieces)));
                if let Some((Some(piece), pieces)) = scanner.streams.all(work).await?.into_iter().next() {
                    self.pieces = Some(pieces);
                    return Ok(Some(piece.batch));
                }
            } else if let Some(target) = self.targets.pop() {
                let (wanted, schema) = (self.wanted.clone(), self.schema.clone());
                let work = std::iter::once(move || target.alone(&wanted, &schema));
                self.pieces = scanner.streams.all(work).await?.into_iter().flatten().next();
            } else if let Some(file) = self.files.next() {
                let open = scanner.open(&[&file]).await?;
                self.targets.extend(open.iter().flat_map(|open| Target::of(open, files::latest_start(&file))));
            } else {
                return Ok(None);
            }
        }
    }
}
