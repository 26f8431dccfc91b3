//! Open files and what is known of them: the outline of each, and the footers of those that were read. Both are kept as long
//! as they fit: reading a footer costs more than many a search.

use std::collections::hash_map::RandomState;
use std::collections::{HashMap, VecDeque};
use std::fs::File;
use std::hash::BuildHasher;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use datafusion::arrow::array::{ArrayRef, new_null_array};
use datafusion::arrow::buffer::BooleanBuffer;
use datafusion::arrow::datatypes::{DataType, Field, Schema};
use datafusion::arrow::error::ArrowError;
use parquet::arrow::arrow_reader::{
    ArrowReaderMetadata, ArrowReaderOptions, ParquetRecordBatchReader, RowSelection, RowSelector,
};
use parquet::arrow::{FieldLevels, ProjectionMask, parquet_to_arrow_field_levels};
use parquet::errors::ParquetError;
use parquet::file::metadata::{
    ColumnChunkMetaData, KeyValue, PageIndexPolicy, ParquetMetaData, ParquetMetaDataBuilder, ParquetMetaDataOptions,
    ParquetMetaDataReader, ParquetStatisticsPolicy, RowGroupMetaData,
};
use parquet::file::page_index::offset_index::OffsetIndexMetaData;
use parquet::schema::types::TypePtr;

use super::super::columns::UNIQUE;
use super::super::encode::PAGE;
use super::super::error::TableError;
use super::super::files::{self, Id};
use super::super::observed::Observed;
use super::super::sums::{self, Index, Sums};
use super::chunks::{Chunks, Positioned};
use super::flat::{self, Asks};
use super::outline::{Chunk, Group, Outline};
use super::pages::OneGroup;
use super::parts::{self, PART, Parts, joined};
use crate::limits::Held;

/// Memory for footers, bytes.
const FOOTERS: usize = 64 << 20;
/// Memory for outlines, bytes: some 5,000 files of the flows.
const OUTLINES: usize = 64 << 20;
/// Of so many rows one is wanted at most: then only their values are made, and not arrays of all rows.
pub(super) const FEW: usize = 8;
/// Layouts that are kept: those of the tables, in some releases.
const LAYOUTS: usize = 8;

/// An open file of which the outline is known.
#[derive(Clone)]
pub(in super::super) struct OpenFile {
    opened: Arc<Opened>,
    observed: Option<Arc<Observed>>,
}

struct Opened {
    file: File,
    path: PathBuf,
    id: Id,
    outline: Arc<Outline>,
    /// Read when a column is, by one thread for all.
    footer: Mutex<Option<Arc<Footer>>>,
    footers: Arc<Footers>,
}

/// What a footer says, and how columns are read.
struct Footer {
    metadata: Arc<ParquetMetaData>,
    layout: Arc<Layout>,
}

impl Footer {
    fn group(&self, number: usize) -> Result<&RowGroupMetaData, ParquetError> {
        self.metadata.row_groups().get(number).ok_or_else(|| ParquetError::EOF("a row group is missing".into()))
    }

    /// Where the pages of the columns of a row group are, if the file says so of all of them, and rightly.
    fn pages(&self, bytes: &Positioned<'_>, group: usize, sums: &Sums) -> Option<Vec<OffsetIndexMetaData>> {
        // Of this row group alone.
        let whole = self.metadata.row_groups().get(group)?;
        if !sums.index_holds(bytes, whole, group, Index::Offsets) {
            return None;
        }
        let metadata =
            ParquetMetaDataBuilder::new(self.metadata.file_metadata().clone()).add_row_group(whole.clone()).build();
        let mut reader = ParquetMetaDataReader::new_with_metadata(metadata)
            .with_column_index_policy(PageIndexPolicy::Skip)
            .with_offset_index_policy(PageIndexPolicy::Optional);
        reader.read_page_indexes(bytes).ok()?;
        let known = reader.finish().ok()?;
        known.offset_index()?.first().cloned()
    }
}

/// The columns of files: the same for all files of a release.
pub(super) struct Layout {
    stored: TypePtr,
    said: Option<Vec<KeyValue>>,
    columns: HashMap<String, Column>,
}

/// How a column is read.
struct Column {
    /// Its column chunks in a row group: a map has two.
    leaves: Range<usize>,
    levels: FieldLevels,
    kind: DataType,
}

/// Outlines and footers that were read.
#[derive(Default)]
pub(in super::super) struct Footers {
    outlines: Mutex<Kept<Arc<Outline>>>,
    whole: Mutex<Kept<Arc<Footer>>>,
    layouts: Mutex<VecDeque<Arc<Layout>>>,
}

/// What is known of files, as far as it fits. What goes is drawn by lot: searches go through all files in the same order again and
/// again, and of more than fit the oldest would always be gone just before it is wanted.
struct Kept<T> {
    known: HashMap<PathBuf, (Id, usize, T)>,
    paths: Vec<PathBuf>,
    bytes: usize,
    lots: RandomState,
}

impl<T> Default for Kept<T> {
    fn default() -> Self {
        Self { known: HashMap::new(), paths: Vec::new(), bytes: 0, lots: RandomState::default() }
    }
}

impl<T: Clone> Kept<T> {
    fn get(&self, path: &Path, id: Id) -> Option<T> {
        self.known.get(path).filter(|(known, ..)| *known == id).map(|(.., kept)| kept.clone())
    }

    /// Keeps something of so many bytes; some other goes when all takes more than `most`.
    fn keep(&mut self, path: &Path, id: Id, bytes: usize, kept: T, most: usize) {
        self.bytes += bytes;
        if let Some((_, old, _)) = self.known.insert(path.to_owned(), (id, bytes, kept)) {
            self.bytes = self.bytes.saturating_sub(old);
        } else {
            self.paths.push(path.to_owned());
        }
        while self.bytes > most && !self.paths.is_empty() {
            let lot = self.lots.hash_one((path, self.bytes)) as usize % self.paths.len();
            if let Some((_, old, _)) = self.known.remove(&self.paths.swap_remove(lot)) {
                self.bytes = self.bytes.saturating_sub(old);
            }
        }
    }
}

fn lock<T>(of: &Mutex<T>) -> MutexGuard<'_, T> {
    of.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Reads of a file: what is wrong with its bytes is told with its name.
fn reading<T>(path: &Path, read: impl FnOnce() -> Result<T, TableError>) -> Result<T, TableError> {
    // Of some broken headers of pages the library panics.
    let caught = catch_unwind(AssertUnwindSafe(read));
    let broken = |source| TableError::Read { path: path.to_owned(), source };
    match caught.unwrap_or_else(|_| Err(ParquetError::General("a page is broken".into()).into())) {
        Err(TableError::Encode(source)) => Err(broken(source)),
        // Too much for one array is no matter of the bytes.
        Err(TableError::Columns(source)) if !matches!(source, ArrowError::OffsetOverflowError(_)) => {
            Err(broken(source.into()))
        }
        read => read,
    }
}

impl Footers {
    /// Opens a file.
    pub(in super::super) fn open(
        self: &Arc<Self>,
        path: &Path,
        observed: Option<Arc<Observed>>,
    ) -> Result<OpenFile, TableError> {
        reading(path, || self.opened(path, observed))
    }

    fn opened(self: &Arc<Self>, path: &Path, observed: Option<Arc<Observed>>) -> Result<OpenFile, TableError> {
        let file = File::open(path).map_err(TableError::io("open", path))?;
        let about = file.metadata().map_err(TableError::io("read", path))?;
        let id = files::id_of(&about);
        let known = lock(&self.outlines).get(path, id);
        let mut footer = None;
        let outline = if let Some(known) = known {
            known
        } else {
            let (read, sums) = self.read(&Positioned { file: &file, observed: observed.as_deref() }, path, id)?;
            let outline = Arc::new(Outline::new(&read.metadata, read.layout.clone(), sums));
            lock(&self.outlines).keep(path, id, outline.bytes(), outline.clone(), OUTLINES);
            footer = Some(read);
            outline
        };
        let footer = Mutex::new(footer);
        let opened = Opened { file, path: path.to_owned(), id, outline, footer, footers: self.clone() };
        Ok(OpenFile { opened: Arc::new(opened), observed })
    }

    /// The footer of a file, as it is known or read now.
    fn footer(&self, bytes: &Positioned<'_>, path: &Path, id: Id) -> Result<Arc<Footer>, ParquetError> {
        let known = lock(&self.whole).get(path, id);
        known.map_or_else(|| Ok(self.read(bytes, path, id)?.0), Ok)
    }

    fn read(&self, bytes: &Positioned<'_>, path: &Path, id: Id) -> Result<(Arc<Footer>, Sums), ParquetError> {
        let options = ParquetMetaDataOptions::new()
            .with_encoding_stats_policy(ParquetStatisticsPolicy::SkipAll)
            .with_size_stats_policy(ParquetStatisticsPolicy::SkipAll);
        let (metadata, sums) = sums::read(bytes, Some(&options))?;
        let metadata = Arc::new(metadata);
        let footer = Arc::new(Footer { layout: self.layout(&metadata)?, metadata: metadata.clone() });
        lock(&self.whole).keep(path, id, metadata.memory_size(), footer.clone(), FOOTERS);
        Ok((footer, sums))
    }

    fn layout(&self, metadata: &Arc<ParquetMetaData>) -> Result<Arc<Layout>, ParquetError> {
        let known = lock(&self.layouts).iter().find(|layout| layout.is_of(metadata)).cloned();
        if let Some(layout) = known {
            return Ok(layout);
        }
        let layout = Arc::new(Layout::new(metadata)?);
        let mut layouts = lock(&self.layouts);
        layouts.push_front(layout.clone());
        layouts.truncate(LAYOUTS);
        Ok(layout)
    }
}

impl Layout {
    fn new(metadata: &Arc<ParquetMetaData>) -> Result<Self, ParquetError> {
        let read = ArrowReaderMetadata::try_new(metadata.clone(), ArrowReaderOptions::new())?;
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
        let stored = ArrowReaderMetadata::try_new(metadata.clone(), options)?;
        let stored = stored.parquet_schema();
        let mut leaves: HashMap<String, Range<usize>> = HashMap::new();
        for (leaf, column) in stored.columns().iter().enumerate() {
            let name = column.path().parts().first().cloned().unwrap_or_default();
            leaves.entry(name).or_insert(leaf..leaf).end = leaf + 1;
        }
        let column = |(name, leaves): (String, Range<usize>)| {
            let mask = ProjectionMask::leaves(stored, leaves.clone());
            let levels = parquet_to_arrow_field_levels(stored, mask, Some(wanted.fields()))?;
            let kind = wanted.field_with_name(&name)?.data_type().clone();
            Ok((name, Column { leaves, levels, kind }))
        };
        let columns = leaves.into_iter().map(column).collect::<Result<_, ParquetError>>()?;
        let said = metadata.file_metadata().key_value_metadata().cloned();
        Ok(Self { stored: stored.root_schema_ptr(), said, columns })
    }

    fn is_of(&self, metadata: &ParquetMetaData) -> bool {
        let about = metadata.file_metadata();
        self.said.as_ref() == about.key_value_metadata() && *self.stored == *about.schema_descr().root_schema()
    }

    /// The first column chunk of a column in a row group.
    pub(super) fn leaf(&self, column: &str) -> Option<usize> {
        Some(self.columns.get(column)?.leaves.start)
    }
}

impl OpenFile {
    pub(in super::super) fn file(&self) -> &File {
        &self.opened.file
    }

    pub(in super::super) fn groups(&self) -> &[Group] {
        self.opened.outline.groups()
    }

    /// The chunk of a column that is no map; none if the file has no such column.
    pub(in super::super) fn chunk(&self, group: usize, column: &str) -> Option<&Chunk> {
        self.opened.outline.chunk(group, column)
    }

    /// False if no row has exactly this text in the column of this chunk.
    pub(super) fn may_hold(&self, chunk: &Chunk, text: &str) -> bool {
        self.opened.outline.may_hold((self.file(), &self.opened.path), chunk, text)
    }

    /// Reads of the file: what is wrong with its bytes is told with its name.
    pub(in super::super) fn reading<T>(&self, read: impl FnOnce() -> Result<T, TableError>) -> Result<T, TableError> {
        reading(&self.opened.path, read)
    }

    fn positioned(&self) -> Positioned<'_> {
        Positioned { file: self.file(), observed: self.observed.as_deref() }
    }

    fn footer(&self) -> Result<Arc<Footer>, ParquetError> {
        let opened = &self.opened;
        let mut known = lock(&opened.footer);
        if let Some(known) = &*known {
            return Ok(known.clone());
        }
        let read = opened.footers.footer(&self.positioned(), &opened.path, opened.id)?;
        Ok(known.insert(read).clone())
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

    /// The rows of a row group whose value in a column passes; `None`: its pages do not tell, or the file has no such column.
    pub(super) fn passing(
        &self,
        group: usize,
        column: &str,
        asks: &impl Asks,
    ) -> Result<Option<BooleanBuffer>, TableError> {
        let footer = self.footer()?;
        let leaf = footer.layout.columns.get(column).filter(|column| column.leaves.len() == 1);
        let meta = footer.metadata.row_groups().get(group);
        let Some((leaf, meta)) = leaf.map(|column| column.leaves.start).zip(meta) else { return Ok(None) };
        let Some(chunk) = meta.columns().get(leaf) else { return Ok(None) };
        let bytes = Chunks::whole(self.file(), std::iter::once(chunk))?;
        if let Some(observed) = &self.observed {
            observed.read(bytes.len_read());
        }
        let group = OneGroup { metadata: &footer.metadata, group: meta, bytes: Arc::new(bytes), pages: None };
        let rows = meta.num_rows() as usize;
        Ok(flat::passing(&mut group.pages_of(leaf)?, chunk.column_descr(), rows, asks))
    }

    /// Columns of a row group, in this order. Of those that are known to be null nothing is read.
    pub(in super::super) fn columns(
        &self,
        group: usize,
        fields: &[&Field],
        selection: Option<&RowSelection>,
    ) -> Result<Vec<ArrayRef>, TableError> {
        self.counted(group, fields, selection, None)
    }

    /// [`Self::columns`]; what they take is held as they are read.
    pub(super) fn counted(
        &self,
        group: usize,
        fields: &[&Field],
        selection: Option<&RowSelection>,
        mut held: Option<&mut Held>,
    ) -> Result<Vec<ArrayRef>, TableError> {
        let footer = self.footer()?;
        let meta = footer.group(group)?;
        let rows = selection.map_or(meta.num_rows() as usize, RowSelection::row_count);
        let stored = |field: &&Field| self.stored(&footer, group, field).filter(|_| rows > 0);
        let stored: Vec<Option<&Column>> = fields.iter().map(stored).collect();
        let leaves = stored.iter().flatten().flat_map(|column| column.leaves.clone());
        let group = self.fetched(&footer, group, leaves, selection)?;
        let some = selection.filter(|_| rows.saturating_mul(FEW) <= meta.num_rows() as usize).map(numbers);
        let column = |(field, stored): (&&Field, Option<&Column>)| {
            let Some(stored) = stored else { return Ok(new_null_array(field.data_type(), rows)) };
            let leaf = stored.leaves.start;
            if let (Some(some), 1) = (&some, stored.leaves.len())
                && let Some(described) = meta.columns().get(leaf).map(ColumnChunkMetaData::column_descr)
                && let Some(array) = flat::some(&mut group.pages_of(leaf)?, described, some, &stored.kind)
            {
                if let Some(held) = &mut held {
                    held.take(parts::memory(&array))?;
                }
                return Ok(array);
            }
            // A map has its texts as often as they come: a little of it can be much.
            let step = if stored.leaves.len() > 1 { rows.min(PART) } else { rows };
            let reader =
                ParquetRecordBatchReader::try_new_with_row_groups(&stored.levels, &group, step, selection.cloned())?;
            let array = joined(reader, held.as_deref_mut())?;
            Ok(array.unwrap_or_else(|| new_null_array(field.data_type(), rows)))
        };
        fields.iter().zip(stored).map(column).collect()
    }

    /// Labels of a row group, some rows at a time: of all rows, or of those that are `wanted`. None: the file has none there.
    pub(super) fn parts(
        &self,
        group: usize,
        field: &Field,
        wanted: Option<&BooleanBuffer>,
    ) -> Result<Option<Parts>, TableError> {
        let footer = self.footer()?;
        let all = footer.group(group)?.num_rows() as usize;
        let Some(stored) = self.stored(&footer, group, field).filter(|_| all > 0) else { return Ok(None) };
        let (selection, wanted) = wanted.map(parts::stretches).unzip();
        let rows = selection.as_ref().map_or(all, RowSelection::row_count);
        let group = self.fetched(&footer, group, stored.leaves.clone(), selection.as_ref())?;
        let reader = ParquetRecordBatchReader::try_new_with_row_groups(&stored.levels, &group, PART, selection)?;
        Ok(Some(Parts::new(reader, rows, wanted)))
    }

    /// How a column is read, if there is anything in it.
    fn stored<'a>(&self, footer: &'a Footer, group: usize, field: &Field) -> Option<&'a Column> {
        let is_empty = self.chunk(group, field.name()).is_some_and(Chunk::is_empty);
        footer.layout.columns.get(field.name()).filter(|_| !is_empty)
    }

    /// The bytes of these column chunks, of which few rows need few pages.
    fn fetched<'a>(
        &self,
        footer: &'a Footer,
        number: usize,
        leaves: impl Iterator<Item = usize>,
        selection: Option<&RowSelection>,
    ) -> Result<OneGroup<'a, Chunks>, TableError> {
        let group = footer.group(number)?;
        let is_few = |wanted: &&RowSelection| wanted.row_count().saturating_mul(2 * PAGE) <= group.num_rows() as usize;
        let few = selection.filter(is_few);
        let pages = few.and_then(|_| footer.pages(&self.positioned(), number, self.opened.outline.sums()));
        let bytes = match (few, &pages) {
            (Some(selection), Some(pages)) => {
                let column =
                    |leaf: usize| Some((group.columns().get(leaf)?, pages.get(leaf)?.page_locations().as_slice()));
                Chunks::pages(self.file(), leaves.filter_map(column), selection)?
            }
            (None, _) | (_, None) => Chunks::whole(self.file(), leaves.filter_map(|leaf| group.columns().get(leaf)))?,
        };
        if let Some(observed) = &self.observed {
            observed.read(bytes.len_read());
        }
        Ok(OneGroup { metadata: &footer.metadata, group, bytes: Arc::new(bytes), pages })
    }
}

/// The numbers of the rows of a selection.
fn numbers(selection: &RowSelection) -> Vec<usize> {
    let mut next = 0;
    let rows = |selector: &RowSelector| {
        let first = next;
        next += selector.row_count;
        if selector.skip { first..first } else { first..next }
    };
    selection.iter().flat_map(rows).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_more_files_than_fit_some_are_still_known_when_they_come_again() {
        let mut kept = Kept::default();
        let path = |number: u64| PathBuf::from(format!("{number}.parquet"));
        let id = |number: u64| (number, 0, 0, 0);
        let mut met = [0; 3];
        for met in &mut met {
            for number in 0..1_000 {
                match kept.get(&path(number), id(number)) {
                    Some(known) => {
                        assert_eq!(known, number);
                        *met += 1;
                    }
                    None => kept.keep(&path(number), id(number), 10, number, 8_000),
                }
                assert!(kept.bytes <= 8_000 && kept.bytes == 10 * kept.known.len());
            }
        }
        assert_eq!(met[0], 0);
        assert!(met[1] > 400 && met[2] > 400, "{met:?}");
        assert_eq!(kept.get(&path(999), id(1_000)), None, "another file with the same name");
    }
}
