//! Pages as they are stored, and what the library makes of them.

use datafusion::arrow::array::{AsArray, RecordBatch, StringArray, UInt32Array};
use datafusion::arrow::compute::{cast, take};
use datafusion::arrow::datatypes::{Field, Schema};
use parquet::arrow::ArrowWriter;
use parquet::basic::{Compression, ZstdLevel};
use parquet::column::page::PageMetadata;
use parquet::errors::ParquetError;
use parquet::file::metadata::{PageIndexPolicy, ParquetMetaDataReader};
use parquet::file::properties::WriterProperties;
use proptest::prelude::*;

use super::super::pages::OneGroup;
use super::*;

/// How a column is stored.
#[derive(Debug, Clone, Copy)]
enum Stored {
    Dictionary,
    Differences,
    Plain,
}

struct Above(i64);

impl Asks for Above {
    /// Each of the four conditions that there are.
    fn flag(&self, flag: bool) -> bool {
        self.0 >> u32::from(flag) & 1 == 1
    }

    fn number(&self, number: i64) -> bool {
        number > self.0
    }

    fn text(&self, text: &str) -> bool {
        text.parse().is_ok_and(|number| self.number(number))
    }
}

/// A column with pages of this many rows.
fn file(array: &ArrayRef, stored: Stored, page: usize) -> Bytes {
    let field = Field::new("column", array.data_type().clone(), true);
    let schema = Arc::new(Schema::new(vec![field]));
    let mut properties = WriterProperties::builder()
        .set_compression(Compression::ZSTD(ZstdLevel::default()))
        .set_dictionary_enabled(matches!(stored, Stored::Dictionary))
        .set_data_page_row_count_limit(page)
        .set_write_batch_size(page);
    if matches!(stored, Stored::Differences) {
        properties = properties.set_encoding(Encoding::DELTA_BINARY_PACKED);
    }
    let mut writer = ArrowWriter::try_new(Vec::new(), schema.clone(), Some(properties.build())).unwrap();
    writer.write(&RecordBatch::try_new(schema, vec![array.clone()]).unwrap()).unwrap();
    writer.into_inner().unwrap().into()
}

/// What is read of the file, with and without knowing where pages are.
fn read<T>(bytes: &Bytes, read: impl Fn(&mut dyn PageReader, &ColumnDescriptor) -> T) -> [T; 2] {
    let mut reader = ParquetMetaDataReader::new().with_offset_index_policy(PageIndexPolicy::Required);
    reader.try_parse(bytes).unwrap();
    let metadata = reader.finish().unwrap();
    let known = metadata.offset_index().unwrap()[0].clone();
    [None, Some(known)].map(|pages| {
        let group =
            OneGroup { metadata: &metadata, group: metadata.row_group(0), bytes: Arc::new(bytes.clone()), pages };
        read(&mut group.pages_of(0).unwrap(), metadata.row_group(0).column(0).column_descr())
    })
}

/// Pages of which each has a byte changed, and another number of rows perhaps.
struct Broken<'a> {
    pages: &'a mut dyn PageReader,
    byte: prop::sample::Index,
    by: u8,
    more: u32,
}

impl Iterator for Broken<'_> {
    type Item = Result<Page, ParquetError>;

    fn next(&mut self) -> Option<Self::Item> {
        self.get_next_page().transpose()
    }
}

impl PageReader for Broken<'_> {
    fn get_next_page(&mut self) -> Result<Option<Page>, ParquetError> {
        let mut page = self.pages.get_next_page()?;
        if let Some(Page::DataPage { buf, num_values, .. } | Page::DictionaryPage { buf, num_values, .. }) = &mut page {
            let mut bytes = buf.to_vec();
            if !bytes.is_empty() {
                bytes[self.byte.index(buf.len())] ^= self.by;
            }
            (*buf, *num_values) = (bytes.into(), *num_values + self.more);
        }
        Ok(page)
    }

    fn peek_next_page(&mut self) -> Result<Option<PageMetadata>, ParquetError> {
        let mut page = self.pages.peek_next_page()?;
        if let Some(PageMetadata { num_rows, num_levels, .. }) = &mut page {
            let more = self.more as usize;
            (*num_rows, *num_levels) = (num_rows.map(|rows| rows + more), num_levels.map(|levels| levels + more));
        }
        Ok(page)
    }

    fn skip_next_page(&mut self) -> Result<(), ParquetError> {
        self.pages.skip_next_page()
    }

    fn at_record_boundary(&mut self) -> Result<bool, ParquetError> {
        self.pages.at_record_boundary()
    }
}

fn numbers() -> impl Strategy<Value = Vec<Option<u64>>> {
    let number = prop_oneof![
        3 => (0_u64..20).prop_map(Some),
        1 => Just(None),
        1 => (0_u32..64, any::<u64>()).prop_map(|(shift, number)| Some(number >> shift)),
    ];
    // Runs of one, too.
    let run = (number, prop_oneof![4 => 1_usize..3, 1 => 1_usize..100]);
    prop::collection::vec(run, 1..200)
        .prop_map(|runs| runs.into_iter().flat_map(|(number, times)| vec![number; times]).collect())
}

fn columns(numbers: &[Option<u64>]) -> Vec<(ArrayRef, Vec<Stored>)> {
    let signed = || numbers.iter().map(|number| number.map(u64::cast_signed));
    let texts = || numbers.iter().map(|number| number.map(|number| number.cast_signed().to_string()));
    let zone = |times: TimestampNanosecondArray| times.with_timezone("UTC");
    vec![
        (
            Arc::new(numbers.iter().copied().collect::<UInt64Array>()),
            vec![Stored::Dictionary, Stored::Differences, Stored::Plain],
        ),
        (Arc::new(zone(signed().collect())), vec![Stored::Differences]),
        (Arc::new(texts().collect::<StringArray>()), vec![Stored::Dictionary, Stored::Plain]),
        (
            Arc::new(numbers.iter().map(|number| number.map(|number| number % 2 == 0)).collect::<BooleanArray>()),
            vec![Stored::Plain],
        ),
    ]
}

proptest! {
    #[test]
    fn rows_have_their_values(
        numbers in numbers(),
        page in prop_oneof![Just(64_usize), 1_usize..500],
        chosen in prop::collection::vec(any::<prop::sample::Index>(), 1..30),
    ) {
        let mut rows: Vec<usize> = chosen.iter().map(|row| row.index(numbers.len())).collect();
        rows.sort_unstable();
        rows.dedup();
        let places = UInt32Array::from_iter_values(rows.iter().map(|row| *row as u32));
        for (array, all) in columns(&numbers) {
            for stored in all {
                let bytes = file(&array, stored, page);
                let wanted = take(&array, &places, None).unwrap();
                let words = DataType::Dictionary(DataType::Int32.into(), DataType::Utf8.into());
                let kind = match (array.data_type(), stored) {
                    (DataType::Utf8, Stored::Dictionary) => &words,
                    (kind, _) => kind,
                };
                for found in read(&bytes, |pages, column| some(pages, column, &rows, kind)) {
                    let found = found.unwrap();
                    prop_assert_eq!(found.data_type(), kind);
                    prop_assert_eq!(&cast(&found, array.data_type()).unwrap(), &wanted, "{:?}", stored);
                }
            }
        }
    }

    #[test]
    fn rows_pass_as_their_values_do(numbers in numbers(), page in 1_usize..500, least in -1_i64..20) {
        let asks = Above(least);
        let wanted: BooleanBuffer =
            numbers.iter().map(|number| number.is_some_and(|number| asks.number(number.cast_signed()))).collect();
        for (array, all) in columns(&numbers) {
            for stored in all {
                let bytes = file(&array, stored, page);
                for found in read(&bytes, |pages, column| passing(pages, column, numbers.len(), &asks)) {
                    match (stored, array.as_boolean_opt()) {
                        (Stored::Plain, Some(flags)) => {
                            let pass = |flag: Option<bool>| flag.is_some_and(|flag| asks.flag(flag));
                            prop_assert_eq!(found, Some(flags.iter().map(pass).collect()));
                        }
                        // The library reads these.
                        (Stored::Plain, None) if array.null_count() < array.len() => prop_assert_eq!(found, None),
                        (Stored::Plain, None) => {}
                        (Stored::Dictionary | Stored::Differences, _) => {
                            prop_assert_eq!(found.as_ref(), Some(&wanted), "{:?}", stored);
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn broken_pages_are_survived(
        numbers in numbers(),
        page in 1_usize..500,
        byte in any::<prop::sample::Index>(),
        by in any::<u8>(),
        more in prop_oneof![4 => Just(0_u32), 1 => 1_u32..10_000],
    ) {
        for (array, all) in columns(&numbers) {
            for stored in all {
                let bytes = file(&array, stored, page);
                let rows: Vec<usize> = (0..numbers.len()).step_by(3).collect();
                // Whatever is found, nothing panics.
                read(&bytes, |pages, column| {
                    let mut broken = Broken { pages, byte, by, more };
                    passing(&mut broken, column, numbers.len(), &Above(3))
                });
                read(&bytes, |pages, column| {
                    some(&mut Broken { pages, byte, by, more }, column, &rows, array.data_type())
                });
            }
        }
    }
}
