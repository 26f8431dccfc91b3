//! What is written by keys is what every reader finds.

use std::sync::Arc;

use datafusion::arrow::array::{Int32Array, StructArray, UInt64Array, new_null_array};
use datafusion::arrow::buffer::OffsetBuffer;
use datafusion::arrow::compute::cast;
use datafusion::arrow::datatypes::{DataType, Field, Schema};
use parquet::arrow::arrow_reader::{ArrowReaderOptions, ParquetRecordBatchReaderBuilder, RowSelection, RowSelector};
use parquet::file::metadata::PageIndexPolicy;
use parquet::file::statistics::Statistics;
use proptest::prelude::*;

use super::super::encode::{Encoder, Holds};
use super::super::schema::{entry, entry_fields};
use super::*;

/// A file of one column in row groups, with what the reader finds in its footer.
fn written(groups: &[ArrayRef]) -> ParquetRecordBatchReaderBuilder<std::fs::File> {
    let plain = match groups[0].data_type() {
        DataType::Dictionary(_, texts) => texts.as_ref().clone(),
        DataType::Map(..) => DataType::Map(entry(), false),
        own => own.clone(),
    };
    let schema = Arc::new(Schema::new(vec![Field::new("column", plain, true)]));
    let file = tempfile::tempfile().unwrap();
    let mut encoder = Encoder::new(file.try_clone().unwrap(), &schema, Holds::Rows).unwrap();
    for group in groups {
        encoder.row_group([Ok(group.clone())].into_iter()).unwrap();
    }
    encoder.finish().unwrap();
    let options = ArrowReaderOptions::new().with_page_index_policy(PageIndexPolicy::Required);
    ParquetRecordBatchReaderBuilder::try_new_with_options(file, options).unwrap()
}

fn read(file: ParquetRecordBatchReaderBuilder<std::fs::File>) -> ArrayRef {
    let whole: Vec<ArrayRef> = file.build().unwrap().map(|batch| batch.unwrap().column(0).clone()).collect();
    let whole: Vec<&dyn Array> = whole.iter().map(AsRef::as_ref).collect();
    datafusion::arrow::compute::concat(&whole).unwrap()
}

/// What is written is read again, as a whole and in parts that pages are skipped for.
fn check(array: &ArrayRef) {
    assert!(Keyed::of(array).is_some(), "it is left to the library");
    let file = written(&[array.clone(), array.clone()]);
    let metadata = file.metadata().clone();
    let plain = read(file);
    let expected = cast(array, plain.data_type()).unwrap();
    assert_eq!(plain.len(), 2 * array.len());
    for (group, leaf) in
        [0, 1].into_iter().flat_map(|group| (0..metadata.row_group(0).num_columns()).map(move |leaf| (group, leaf)))
    {
        assert_eq!(&plain.slice(group * array.len(), array.len()), &expected);
        let chunk = metadata.row_group(group).column(leaf);
        let pairs = array.as_map_opt().map(|maps| (0..maps.len()).map(|row| maps.value_length(row).max(1)));
        assert_eq!(chunk.num_values(), pairs.map_or(array.len() as i64, |pairs| pairs.map(i64::from).sum()));
        let pages = metadata.offset_index().unwrap()[group][leaf].page_locations();
        assert_eq!(pages.len(), array.len().div_ceil(PAGE));
        let starts: Vec<i64> = pages.iter().map(|page| page.first_row_index).collect();
        assert_eq!(starts, (0..array.len() as i64).step_by(PAGE).collect::<Vec<_>>());
        let end = pages.last().map(|page| page.offset as u64 + page.compressed_page_size as u64).unwrap();
        let (start, length) = chunk.byte_range();
        assert_eq!(end, start + length, "the last page ends the chunk");
    }
    let (skipped, taken) = (array.len() * 2 / 3, array.len().div_ceil(2));
    let selection = RowSelection::from(vec![RowSelector::skip(skipped), RowSelector::select(taken)]);
    let part = read(written(&[array.clone(), array.clone()]).with_row_selection(selection));
    assert_eq!(&part, &plain.slice(skipped, taken));
}

fn words(keys: Vec<Option<i32>>, texts: &[&str]) -> ArrayRef {
    let texts = Arc::new(StringArray::from(texts.to_vec()));
    Arc::new(DictionaryArray::<Int32Type>::new(Int32Array::from(keys), texts))
}

/// Maps of so many pairs, or null.
fn maps(lengths: impl IntoIterator<Item = Option<usize>>) -> ArrayRef {
    let lengths: Vec<Option<usize>> = lengths.into_iter().collect();
    let pairs: usize = lengths.iter().flatten().sum();
    let keys = words((0..pairs as i32).map(|pair| Some(pair % 5)).collect(), &["app", "tier", "", "zone", "größe"]);
    let values = words((0..pairs as i32).map(|pair| (pair % 11 > 0).then_some(pair % 2)).collect(), &["a", "b"]);
    let columns = vec![keys, values];
    let fields: Vec<Field> = entry_fields()
        .iter()
        .zip(&columns)
        .map(|(field, column)| field.as_ref().clone().with_data_type(column.data_type().clone()))
        .collect();
    let pairs = StructArray::new(fields.into(), columns, None);
    let field = Field::new("key_value", pairs.data_type().clone(), false);
    let nulls = lengths.iter().map(Option::is_some).collect();
    let offsets = OffsetBuffer::from_lengths(lengths.iter().map(|length| length.unwrap_or_default()));
    Arc::new(MapArray::new(field.into(), offsets, pairs, Some(nulls), false))
}

fn numbers(numbers: impl IntoIterator<Item = Option<u64>>) -> ArrayRef {
    Arc::new(numbers.into_iter().collect::<UInt64Array>())
}

#[test]
fn what_is_written_is_read_again() {
    check(&numbers((0..10_000).map(|row| Some(row / 100))));
    check(&numbers((0..10_000).map(|row| (row % 3 > 0).then_some(row * 7_919 % 1_000))));
    check(&numbers((0..10_000).map(|row| (row < 5_000).then_some(u64::MAX - row))));
    check(&numbers([None, Some(0), None]));
    check(&numbers([Some(u64::MAX)]));
    check(&numbers(vec![None; 5_000]));
    check(&words((0..9_000).map(|row| (row % 5 > 0).then_some(row % 2)).collect(), &["", "mäuse"]));
    check(&words(vec![Some(0); 4_097], &["one"]));
    check(&words(vec![None; 4_096], &["nobody"]));
    check(&words(vec![None; 7], &[]));
    check(&new_null_array(&DataType::Utf8, 9_000));
    check(&numbers((0..20_000).map(|row| (row % 7 > 0).then_some(row / 9))).slice(13, 9_001));
    check(&numbers((0..9_000).map(|row| Some(SMALL as u64 - 50 + row % 100))));
}

#[test]
fn maps_are_read_again() {
    check(&maps((0..10_000).map(|row| (row % 3 > 0).then_some(row % 4))));
    check(&maps((0..5_000).map(|_| Some(2))));
    check(&maps((0..5_000).map(|row| Some(usize::from(row == 4_999)))));
    check(&maps([Some(1_000), Some(0), None, Some(33)]));
    check(&maps(vec![None; 5_000]));
    check(&maps(vec![Some(0); 7]));
}

/// Where a part of other maps is taken.
#[test]
fn maps_with_pairs_that_no_row_has_are_left_to_the_library() {
    let array = maps((0..100).map(Some)).slice(7, 20);
    assert!(Keyed::of(&array).is_none());
    let plain = read(written(std::slice::from_ref(&array)));
    assert_eq!(&plain, &cast(&array, plain.data_type()).unwrap());
}

/// Nothing of it is read then.
#[test]
fn a_column_without_values_says_so() {
    let nulls = |array: ArrayRef| {
        let file = written(&[array]);
        file.metadata().row_group(0).column(0).statistics().and_then(Statistics::null_count_opt)
    };
    assert_eq!(nulls(new_null_array(&DataType::Utf8, 9_000)), Some(9_000));
    assert_eq!(nulls(words(vec![None; 7], &[])), Some(7));
    assert_eq!(nulls(numbers(vec![None; 7])), Some(7));
    assert_eq!(nulls(words(vec![None, Some(0)], &["a"])), None, "who has some is not counted");
}

#[test]
fn a_text_that_is_there_twice_is_written_once_and_one_that_no_row_has_is_not() {
    let array = words(vec![Some(2), Some(1), None, Some(4), Some(2)], &["nowhere", "a", "b", "elsewhere", "a"]);
    check(&array);
    let [keyed] = &Keyed::of(&array).unwrap()[..] else { panic!("one column") };
    assert_eq!((keyed.keys.as_slice(), keyed.distinct), ([0, 1, 1, 0].as_slice(), 2));
    assert_eq!(keyed.values, b"\x01\0\0\0b\x01\0\0\0a");
}

#[test]
fn what_is_no_dictionary_or_a_large_one_is_left_to_the_library() {
    let large: Vec<String> = (0..100_000).map(|row| format!("{row:08}")).collect();
    let texts: ArrayRef = Arc::new(StringArray::from(large.clone()));
    assert!(Keyed::of(&texts).is_none());
    let large: Vec<&str> = large.iter().map(String::as_str).collect();
    let array = words((0..100_000).map(Some).collect(), &large);
    assert!(Keyed::of(&array).is_none());
    assert_eq!(&read(written(&[array])), &texts);
}

proptest! {
    #[test]
    fn any_numbers_are_read_again(
        runs in prop::collection::vec((prop::option::of(0_u64..40), 1_usize..30), 1..400),
        spread in prop::sample::select(vec![1_u64, 1 << 20, u64::MAX / 40]),
        from in 0_usize..9,
    ) {
        let all = runs.iter().flat_map(|(number, times)| std::iter::repeat_n(number.map(|it| it * spread), *times));
        let array = numbers(all.chain([Some(1); 9]));
        check(&array.slice(from, array.len() - from));
    }

    #[test]
    fn any_maps_are_read_again(
        runs in prop::collection::vec((prop::option::of(0_usize..70), 1_usize..90), 1..150),
    ) {
        check(&maps(runs.iter().flat_map(|(length, times)| std::iter::repeat_n(*length, *times))));
    }
}
