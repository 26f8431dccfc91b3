//! `wiretag fields`: the vocabulary of a table.

use serde_json::{Map, Value};
use wiretag_capture::{FlowRecord, Kind, Transaction};
use wiretag_enrich::Record;
use wiretag_enrich::tagged::{AnyColumn, all_columns};

use crate::cli::FieldsArguments;
use crate::output;

pub(crate) fn run(arguments: &FieldsArguments) -> anyhow::Result<()> {
    if arguments.transactions { print::<Transaction>(arguments.json) } else { print::<FlowRecord>(arguments.json) }
}

fn print<R: Record>(json: bool) -> anyhow::Result<()> {
    if json {
        let rows: Vec<output::Row> = all_columns::<R>()
            .map(|column| {
                Map::from_iter([
                    ("name".to_owned(), Value::from(column.name())),
                    ("kind".to_owned(), Value::from(kind_name(column.kind()))),
                    ("doc".to_owned(), Value::from(column.doc())),
                ])
            })
            .collect();
        return output::json_lines(&rows);
    }
    let row = |column: AnyColumn<R>| {
        vec![column.name().to_owned(), kind_name(column.kind()).to_owned(), column.doc().to_owned()]
    };
    output::table(&["name", "kind", "definition"], all_columns().map(row).collect(), None)
}

fn kind_name(kind: Kind) -> &'static str {
    match kind {
        Kind::Bool => "bool",
        Kind::Number => "number",
        Kind::Size => "size",
        Kind::Duration => "duration",
        Kind::Time => "time",
        Kind::Ip => "ip",
        Kind::Mac => "mac",
        Kind::Text => "text",
        Kind::Word => "word",
        Kind::Map => "map",
    }
}
