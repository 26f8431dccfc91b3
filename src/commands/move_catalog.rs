//! `wiretag move-catalog`: from SQLite to the database that the configuration names.

use std::io::Write;

use wiretag_store::Catalog;

use super::WrongUsage;
use crate::cli::MoveCatalogArguments;

pub(super) async fn run(arguments: &MoveCatalogArguments) -> anyhow::Result<()> {
    let Some(server) = crate::config::catalog_of(&arguments.config)? else {
        let text =
            format!("`{}` names no database; hint: `[catalog] url = \"postgres://…\"`", arguments.config.display());
        return Err(WrongUsage(text).into());
    };
    let moved = Catalog::move_in(&arguments.data.data, &server).await?;
    let mut out = crate::output::stdout();
    for (table, rows) in moved.rows.iter().filter(|(_, rows)| *rows > 0) {
        writeln!(out, "{rows:>12} {table}")?;
    }
    writeln!(out, "the catalog is in `{}`; nothing reads `{}` any more", moved.place.display(), moved.file.display())?;
    Ok(out.flush()?)
}
