//! The table `segments`: files of packets.

use std::sync::Arc;

use datafusion::arrow::array::{
    ArrayRef, BooleanArray, RecordBatch, StringArray, TimestampNanosecondArray, UInt64Array,
};
use datafusion::datasource::MemTable;

use crate::packets::Segment;
use crate::tables::TableError;

/// All segments as a table.
pub(super) fn table(segments: &[Segment]) -> Result<MemTable, TableError> {
    let times = |time: fn(&Segment) -> i64| {
        let times = TimestampNanosecondArray::from_iter_values(segments.iter().map(time));
        Arc::new(times.with_timezone("UTC")) as ArrayRef
    };
    let numbers =
        |number: fn(&Segment) -> u64| Arc::new(UInt64Array::from_iter_values(segments.iter().map(number))) as ArrayRef;
    let texts =
        |text: fn(&Segment) -> &str| Arc::new(StringArray::from_iter_values(segments.iter().map(text))) as ArrayRef;
    let sealed: BooleanArray = segments.iter().map(|segment| Some(segment.sealed)).collect();
    let import: UInt64Array =
        segments.iter().map(|segment| segment.origin.import.and_then(|n| u64::try_from(n).ok())).collect();
    let batch = RecordBatch::try_from_iter([
        ("path", texts(|segment| &segment.path)),
        ("node", texts(|segment| &segment.node)),
        ("start", times(|segment| segment.start)),
        ("end", times(|segment| segment.end)),
        ("packets", numbers(|segment| segment.packets)),
        ("bytes", numbers(|segment| segment.bytes)),
        ("sealed", Arc::new(sealed) as ArrayRef),
        ("import", Arc::new(import) as ArrayRef),
    ])?;
    Ok(MemTable::try_new(batch.schema(), vec![vec![batch]])?)
}
