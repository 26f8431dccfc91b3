//! Open files and their footers. Footers are kept, as long as they fit: reading one again costs more than many a search.

use std::collections::{HashMap, VecDeque};
use std::fs::File;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use datafusion::arrow::array::{Array, ArrayRef, new_null_array};
use datafusion::arrow::compute::concat;
use datafusion::arrow::datatypes::{DataType, Field, Schema};
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::{
    ArrowReaderMetadata, ArrowReaderOptions, ParquetRecordBatchReaderBuilder, RowSelection, RowSelectionPolicy,
};
use parquet::errors::ParquetError;
use parquet::file::metadata::{ColumnChunkMetaData, PageIndexPolicy, RowGroupMetaData};
use parquet::file::reader::{ChunkReader, Length};

use super::super::columns::UNIQUE;
use super::super::encode::read_at;
use super::super::error::TableError;
use super::super::observed::Observed;

/// Memory for footers, bytes.
const MEMORY: usize = 96 << 20;
/// Bytes that are read to save a second read.
const GAP: u64 = 1 << 15;

/// An open file of which the footer is known.
#[derive(Clone)]
pub(in super::super) struct OpenFile {
    file: Arc<File>,
    footer: Arc<Footer>,
    observed: Option<Arc<Observed>>,
}

/// What a footer says, and how columns are read.
struct Footer {
    reader: ArrowReaderMetadata,
    /// Column chunks by name of the column: first and number.
    leaves: HashMap<String, (usize, usize)>,
    bytes: usize,
}

/// A file is known again by this.
type Id = (u64, u64, i64, i64);

/// Footers that were read.
#[derive(Default)]
pub(in super::super) struct Footers {
    known: Mutex<Known>,
}

#[derive(Default)]
struct Known {
    footers: HashMap<PathBuf, (Id, Arc<Footer>)>,
    order: VecDeque<PathBuf>,
    bytes: usize,
}

impl Footers {
    /// Opens a file.
    pub(in super::super) fn open(&self, path: &Path, observed: Option<Arc<Observed>>) -> Result<OpenFile, TableError> {
        let file = File::open(path).map_err(TableError::io("open", path))?;
        let about = file.metadata().map_err(TableError::io("read", path))?;
        let id = (about.ino(), about.size(), about.mtime(), about.mtime_nsec());
        if let Some((_, footer)) = self.lock().footers.get(path).filter(|(known, _)| *known == id) {
            return Ok(OpenFile { file: Arc::new(file), footer: footer.clone(), observed });
        }
        let footer = Arc::new(Footer::read(&file)?);
        self.keep(path, id, &footer);
        Ok(OpenFile { file: Arc::new(file), footer, observed })
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn keep(&self, path: &Path, id: Id, footer: &Arc<Footer>) {
        let mut known = self.lock();
        known.bytes += footer.bytes;
        if let Some((_, old)) = known.footers.insert(path.to_owned(), (id, footer.clone())) {
            known.bytes = known.bytes.saturating_sub(old.bytes);
        } else {
            known.order.push_back(path.to_owned());
        }
        while known.bytes > MEMORY
            && let Some(oldest) = known.order.pop_front()
        {
            if let Some((_, old)) = known.footers.remove(&oldest) {
                known.bytes = known.bytes.saturating_sub(old.bytes);
            }
        }
    }
}

impl Footer {
    fn read(file: &File) -> Result<Self, ParquetError> {
        let options = ArrowReaderOptions::new().with_page_index_policy(PageIndexPolicy::Skip);
        let plain = ArrowReaderMetadata::load(file, options.clone())?;
        // Texts are read as they are stored, each once, if they come again.
        let field = |field: &Arc<Field>| match field.data_type() {
            DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => {
                let unique = UNIQUE.contains(&field.name().as_str());
                let words = || DataType::Dictionary(DataType::Int32.into(), DataType::Utf8.into());
                let kind = if unique { DataType::Utf8 } else { words() };
                Arc::new(Field::new(field.name(), kind, field.is_nullable()))
            }
            _ => field.clone(),
        };
        let fields: Vec<_> = plain.schema().fields().iter().map(field).collect();
        let metadata = plain.metadata().clone();
        let reader = ArrowReaderMetadata::try_new(metadata, options.with_schema(Arc::new(Schema::new(fields))))?;
        let mut leaves: HashMap<String, (usize, usize)> = HashMap::new();
        for (leaf, column) in reader.parquet_schema().columns().iter().enumerate() {
            let name = column.path().parts().first().cloned().unwrap_or_default();
            leaves.entry(name).or_insert((leaf, 0)).1 += 1;
        }
        let bytes = reader.metadata().memory_size() + leaves.len() * 256;
        Ok(Self { reader, leaves, bytes })
    }
}

impl OpenFile {
    pub(in super::super) fn file(&self) -> &File {
        &self.file
    }

    pub(in super::super) fn groups(&self) -> &[RowGroupMetaData] {
        self.footer.reader.metadata().row_groups()
    }

    /// The chunk of a column that is no map; none if the file has no such column.
    pub(in super::super) fn chunk(&self, group: usize, column: &str) -> Option<&ColumnChunkMetaData> {
        let (leaf, _) = self.footer.leaves.get(column)?;
        self.groups().get(group)?.columns().get(*leaf)
    }

    /// One column of a row group: its rows in `selection`, or all. A column that the file does not have is null.
    pub(in super::super) fn column(
        &self,
        group: usize,
        field: &Field,
        selection: Option<&RowSelection>,
    ) -> Result<ArrayRef, TableError> {
        let columns = self.columns(group, &[field], selection)?;
        columns.into_iter().next().ok_or_else(|| ParquetError::General("no column was read".into()).into())
    }

    /// Columns of a row group, in this order.
    pub(in super::super) fn columns(
        &self,
        group: usize,
        fields: &[&Field],
        selection: Option<&RowSelection>,
    ) -> Result<Vec<ArrayRef>, TableError> {
        let Some(meta) = self.groups().get(group) else {
            return Err(ParquetError::EOF("a row group is missing".into()).into());
        };
        let rows = selection.map_or(meta.num_rows() as usize, RowSelection::row_count);
        let leaves: Vec<usize> = fields
            .iter()
            .filter_map(|field| self.footer.leaves.get(field.name()))
            .flat_map(|(first, number)| *first..first + number)
            .collect();
        let found = if leaves.is_empty() || rows == 0 {
            None
        } else {
            let chunks = Chunks::read(&self.file, meta, &leaves)?;
            if let Some(observed) = &self.observed {
                observed.read(chunks.parts.iter().map(|(_, bytes)| bytes.len() as u64).sum());
            }
            let mask = ProjectionMask::leaves(self.footer.reader.parquet_schema(), leaves);
            let mut builder = ParquetRecordBatchReaderBuilder::new_with_metadata(chunks, self.footer.reader.clone())
                .with_row_groups(vec![group])
                .with_projection(mask)
                .with_row_selection_policy(RowSelectionPolicy::Selectors)
                .with_batch_size(rows);
            if let Some(selection) = selection {
                builder = builder.with_row_selection(selection.clone());
            }
            Some(builder.build()?.collect::<Result<Vec<_>, _>>()?)
        };
        let column = |field: &&Field| -> Result<ArrayRef, TableError> {
            let parts: Vec<&ArrayRef> =
                found.iter().flatten().filter_map(|batch| batch.column_by_name(field.name())).collect();
            Ok(match parts.as_slice() {
                [] => new_null_array(field.data_type(), rows),
                [one] => (*one).clone(),
                many => concat(&many.iter().map(|array| array.as_ref() as &dyn Array).collect::<Vec<_>>())?,
            })
        };
        fields.iter().map(column).collect()
    }
}

/// The bytes of some column chunks.
struct Chunks {
    parts: Vec<(u64, Bytes)>,
    length: u64,
}

impl Chunks {
    /// Reads chunks; those that lie together with one call.
    fn read(file: &File, group: &RowGroupMetaData, leaves: &[usize]) -> Result<Self, ParquetError> {
        let mut ranges: Vec<(u64, u64)> = leaves
            .iter()
            .filter_map(|leaf| group.columns().get(*leaf))
            .map(ColumnChunkMetaData::byte_range)
            .map(|(first, length)| (first, first.saturating_add(length)))
            .collect();
        ranges.sort_unstable();
        let mut joined: Vec<(u64, u64)> = Vec::new();
        for (first, end) in ranges {
            match joined.last_mut() {
                Some(last) if first <= last.1.saturating_add(GAP) => last.1 = last.1.max(end),
                Some(_) | None => joined.push((first, end)),
            }
        }
        let length = file.metadata()?.len();
        let mut parts = Vec::with_capacity(joined.len());
        for (first, end) in joined {
            if end > length {
                return Err(ParquetError::EOF("a column ends behind its file".into()));
            }
            parts.push((first, read_at(file, first, end - first)?));
        }
        Ok(Self { parts, length })
    }

    fn from(&self, start: u64) -> Result<Bytes, ParquetError> {
        let at = self.parts.partition_point(|(first, _)| *first <= start);
        let part = at.checked_sub(1).and_then(|at| self.parts.get(at));
        let found = part.and_then(|(first, bytes)| {
            let skip = (start - first) as usize;
            (skip <= bytes.len()).then(|| bytes.slice(skip..))
        });
        found.ok_or_else(|| ParquetError::EOF("a page lies outside of its column".into()))
    }
}

impl Length for Chunks {
    fn len(&self) -> u64 {
        self.length
    }
}

impl ChunkReader for Chunks {
    type T = std::io::Cursor<Bytes>;

    fn get_read(&self, start: u64) -> Result<Self::T, ParquetError> {
        Ok(std::io::Cursor::new(self.from(start)?))
    }

    fn get_bytes(&self, start: u64, length: usize) -> Result<Bytes, ParquetError> {
        let bytes = self.from(start)?;
        if bytes.len() < length {
            return Err(ParquetError::EOF("a page ends behind its column".into()));
        }
        Ok(bytes.slice(..length))
    }
}
