//! `wiretag top`: the groups that have the most of something.

use wiretag_capture::{FlowRecord, Transaction};
use wiretag_store::{Store, Table, query};

use super::aggregate::{self, Route, Way};
use super::search::{Has, Search};
use crate::cli::TopArguments;
use crate::commands::WrongUsage;

pub(crate) async fn run(arguments: &TopArguments) -> anyhow::Result<()> {
    if arguments.transactions { of::<Transaction>(arguments).await } else { of::<FlowRecord>(arguments).await }
}

async fn of<R: Table>(arguments: &TopArguments) -> anyhow::Result<()>
where
    Store: Has<R>,
{
    let (field, by) = (arguments.field.clone(), arguments.by.clone().unwrap_or_default());
    let aggregate = query::top::<R>(&field, &by, arguments.limit as usize);
    let aggregate = aggregate.map_err(|error| WrongUsage(error.to_string()))?;
    let search = Search::of_groups(&arguments.search, &aggregate, arguments.compare)?;
    let route = Route::Top { field, by, limit: arguments.limit };
    let way = Way { compare: arguments.compare, format: arguments.format };
    aggregate::run(&search, aggregate, route, way, &arguments.search.data.data).await
}
