//! Open files and their footers. Footers are kept, as long as they fit: reading one again costs more than many a search.

use std::collections::{HashMap, VecDeque};
use std::fs::File;
use std::ops::Range;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use datafusion::arrow::array::{Array, ArrayRef, RecordBatch, new_null_array};
use datafusion::arrow::compute::concat;
use datafusion::arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use parquet::arrow::arrow_reader::{ArrowReaderMetadata, ArrowReaderOptions, ParquetRecordBatchReader, RowSelection};
use parquet::arrow::{FieldLevels, ProjectionMask, parquet_to_arrow_field_levels};
use parquet::errors::ParquetError;
use parquet::file::metadata::{ColumnChunkMetaData, PageIndexPolicy, ParquetMetaData, RowGroupMetaData};
use parquet::schema::types::TypePtr;

use super::super::columns::UNIQUE;
use super::super::error::TableError;
use super::super::observed::Observed;
use super::chunks::Chunks;
use super::pages::OneGroup;

/// Memory for footers, bytes.
const MEMORY: usize = 96 << 20;
/// Layouts that are kept: those of the tables, in some releases.
const LAYOUTS: usize = 8;

/// An open file of which the footer is known.
#[derive(Clone)]
pub(in super::super) struct OpenFile {
    file: Arc<File>,
    footer: Arc<Footer>,
    observed: Option<Arc<Observed>>,
}

/// What a footer says, and how columns are read.
struct Footer {
    metadata: Arc<ParquetMetaData>,
    layout: Arc<Layout>,
    bytes: usize,
}

/// The columns of files: the same for all files of a release.
struct Layout {
    schema: SchemaRef,
    stored: TypePtr,
    columns: HashMap<String, Column>,
}

/// How a column is read.
struct Column {
    /// Its column chunks in a row group: a map has two.
    leaves: Range<usize>,
    levels: FieldLevels,
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
    layouts: VecDeque<Arc<Layout>>,
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
        let footer = Arc::new(self.read(&file)?);
        self.keep(path, id, &footer);
        Ok(OpenFile { file: Arc::new(file), footer, observed })
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn read(&self, file: &File) -> Result<Footer, ParquetError> {
        let options = ArrowReaderOptions::new().with_page_index_policy(PageIndexPolicy::Skip);
        let read = ArrowReaderMetadata::load(file, options)?;
        let metadata = read.metadata().clone();
        let known = self.lock().layouts.iter().find(|layout| layout.is_of(&read)).cloned();
        let layout = if let Some(layout) = known {
            layout
        } else {
            let layout = Arc::new(Layout::new(&read)?);
            let layouts = &mut self.lock().layouts;
            layouts.push_front(layout.clone());
            layouts.truncate(LAYOUTS);
            layout
        };
        Ok(Footer { bytes: metadata.memory_size(), metadata, layout })
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

impl Layout {
    fn new(read: &ArrowReaderMetadata) -> Result<Self, ParquetError> {
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
        let fields: Vec<_> = read.schema().fields().iter().map(field).collect();
        let wanted = Arc::new(Schema::new(fields));
        // Says whether columns can be read so.
        let options = ArrowReaderOptions::new().with_schema(wanted.clone());
        let stored = ArrowReaderMetadata::try_new(read.metadata().clone(), options)?;
        let stored = stored.parquet_schema();
        let mut leaves: HashMap<String, Range<usize>> = HashMap::new();
        for (leaf, column) in stored.columns().iter().enumerate() {
            let name = column.path().parts().first().cloned().unwrap_or_default();
            leaves.entry(name).or_insert(leaf..leaf).end = leaf + 1;
        }
        let column = |(name, leaves): (String, Range<usize>)| {
            let mask = ProjectionMask::leaves(stored, leaves.clone());
            let levels = parquet_to_arrow_field_levels(stored, mask, Some(wanted.fields()))?;
            Ok((name, Column { leaves, levels }))
        };
        let columns = leaves.into_iter().map(column).collect::<Result<_, ParquetError>>()?;
        Ok(Self { schema: read.schema().clone(), stored: stored.root_schema_ptr(), columns })
    }

    fn is_of(&self, read: &ArrowReaderMetadata) -> bool {
        self.schema == *read.schema() && *self.stored == *read.parquet_schema().root_schema()
    }
}

impl OpenFile {
    pub(in super::super) fn file(&self) -> &File {
        &self.file
    }

    pub(in super::super) fn groups(&self) -> &[RowGroupMetaData] {
        self.footer.metadata.row_groups()
    }

    /// The chunk of a column that is no map; none if the file has no such column.
    pub(in super::super) fn chunk(&self, group: usize, column: &str) -> Option<&ColumnChunkMetaData> {
        let column = self.footer.layout.columns.get(column)?;
        self.groups().get(group)?.columns().get(column.leaves.start)
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
        let stored: Vec<Option<&Column>> = match rows {
            0 => vec![None; fields.len()],
            _ => fields.iter().map(|field| self.footer.layout.columns.get(field.name())).collect(),
        };
        let leaves = stored.iter().flatten().flat_map(|column| column.leaves.clone());
        let bytes = Arc::new(Chunks::read(&self.file, meta, leaves)?);
        if let Some(observed) = &self.observed {
            observed.read(bytes.len_read());
        }
        let group = OneGroup { metadata: &self.footer.metadata, group: meta, bytes };
        let column = |(field, stored): (&&Field, Option<&Column>)| {
            let Some(stored) = stored else { return Ok(new_null_array(field.data_type(), rows)) };
            let reader =
                ParquetRecordBatchReader::try_new_with_row_groups(&stored.levels, &group, rows, selection.cloned())?;
            let parts = reader.collect::<Result<Vec<_>, _>>()?;
            let parts: Vec<&ArrayRef> = parts.iter().flat_map(RecordBatch::columns).collect();
            Ok(match parts.as_slice() {
                [] => new_null_array(field.data_type(), rows),
                [one] => (*one).clone(),
                many => concat(&many.iter().map(|array| array.as_ref() as &dyn Array).collect::<Vec<_>>())?,
            })
        };
        fields.iter().zip(stored).map(column).collect()
    }
}
