//! Tests of the store, in one program: queries, tables and catalog are generic, and each program would compile its own.

mod aggregate;
mod catalog;
mod damage;
mod erase;
mod erase_packets;
mod erase_rollups;
mod export;
mod journal;
mod language;
mod many;
mod packets;
mod packets_model;
mod query;
mod query_docs;
mod recovery;
mod retag;
mod retention;
mod rollup_limits;
mod rollups;
mod rows;
mod schemas;
mod sql;
mod sql_limits;
mod tables;
mod tables_model;
mod totals;
#[path = "../../../enrich/tests/wait/mod.rs"]
mod wait;
mod wide;
