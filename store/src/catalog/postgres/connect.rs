//! Where the server is, and what has to be there.

use std::path::{Path, PathBuf};
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use sqlx::migrate::{MigrateError, Migrator};
use sqlx::postgres::{PgConnectOptions, PgConnection};
use sqlx::{AssertSqlSafe, ConnectOptions as _, Connection as _, Executor as _};

use super::{CONNECT, late};
use crate::catalog::{newest, schema_fits};
use crate::error::StoreError;

/// The oldest server that has all that is asked for: `gen_random_uuid` without an extension.
const OLDEST_SERVER: i64 = 13;
/// Parameters of the URL; another one would be passed over in silence.
const PARAMETERS: [&str; 9] =
    ["sslmode", "sslrootcert", "sslcert", "sslkey", "host", "port", "user", "dbname", "application_name"];

static MIGRATIONS: Migrator = sqlx::migrate!("./migrations/postgres");

/// How PostgreSQL is reached. It never holds the password.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PostgresConfig {
    url: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    password_file: Option<PathBuf>,
}

impl PostgresConfig {
    /// A URL as libpq knows it, `postgres://user@host:port/database?sslmode=verify-full`, with no password in it: that is in a file, in
    /// the environment (`PGPASSWORD`), or in `~/.pgpass`.
    pub fn new(url: &str, password_file: Option<PathBuf>) -> Result<Self, StoreError> {
        let wrong = |reason: &str| StoreError::CatalogUrl { reason: reason.into() };
        let rest = url.strip_prefix("postgres://").or_else(|| url.strip_prefix("postgresql://"));
        let rest =
            rest.ok_or_else(|| wrong("begins with `postgres://`, as in `postgres://wiretag@db.example/wiretag`"))?;
        let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
        let parameters = rest.split_once('?').map_or("", |(_, parameters)| parameters);
        let names = || parameters.split('&').filter(|pair| !pair.is_empty()).filter_map(|pair| pair.split('=').next());
        let user = authority.rsplit_once('@').map_or("", |(user, _)| user);
        if user.contains(':') || names().any(|name| name == "password") {
            return Err(wrong(
                "holds no password: put it into a file and name that in `password_file`, or into PGPASSWORD",
            ));
        }
        if let Some(unknown) = names().find(|name| !PARAMETERS.contains(name)) {
            let known = PARAMETERS.join("`, `");
            return Err(wrong(&format!("has no parameter `{unknown}`; those known are `{known}`")));
        }
        PgConnectOptions::from_str(url).map_err(|error| wrong(&format!("cannot be read: {error}")))?;
        Ok(Self { url: url.to_owned(), password_file })
    }

    /// With the password, as it is now.
    pub(super) fn options(&self) -> Result<PgConnectOptions, StoreError> {
        let options = PgConnectOptions::from_str(&self.url)
            .map_err(|error| StoreError::CatalogUrl { reason: format!("cannot be read: {error}") })?
            .application_name("wiretag")
            .disable_statement_logging();
        let Some(path) = &self.password_file else { return Ok(options) };
        let password = std::fs::read_to_string(path).map_err(StoreError::io("read the password in", path))?;
        Ok(options.password(password.trim_end_matches(['\r', '\n'])))
    }

    /// For people.
    pub(super) fn place(options: &PgConnectOptions, schema: &str) -> PathBuf {
        let host = options.get_socket().map_or_else(|| options.get_host().into(), |socket| socket.to_string_lossy());
        let (user, port) = (options.get_username(), options.get_port());
        let database = options.get_database().unwrap_or(user);
        let schema = if schema.is_empty() { String::new() } else { format!(" ({schema})") };
        PathBuf::from(format!("postgres://{user}@{host}:{port}/{database}{schema}"))
    }
}

/// What each connection is told first.
pub(super) fn settings(schema: &str, read_only: bool) -> String {
    let access = if read_only { "on" } else { "off" };
    format!(
        "SET search_path TO {schema}; SET lock_timeout TO '15s'; SET statement_timeout TO '60s'; \
         SET default_transaction_read_only TO {access}"
    )
}

pub(super) async fn connect(options: &PgConnectOptions) -> Result<PgConnection, sqlx::Error> {
    tokio::time::timeout(CONNECT, options.connect()).await.unwrap_or_else(|_| Err(late("a connection")))
}

/// Makes a catalog for the data directory; gives the name of its schema.
pub(in crate::catalog) async fn create(config: &PostgresConfig, data_dir: &Path) -> Result<String, StoreError> {
    let options = config.options()?;
    let place = PostgresConfig::place(&options, "");
    let failed = |source| StoreError::Catalog { path: place.clone(), source };
    let mut connection = connect(&options).await.map_err(failed)?;
    server_fits(&mut connection, &place).await?;
    let id: String = sqlx::query_scalar("SELECT replace(gen_random_uuid()::text, '-', '')")
        .fetch_one(&mut connection)
        .await
        .map_err(failed)?;
    let schema = format!("wiretag_{id}");
    let comment = data_dir.display().to_string().replace('\'', "''").replace('\\', "/");
    let made =
        format!("CREATE SCHEMA {schema}; COMMENT ON SCHEMA {schema} IS 'catalog of the wiretag data in {comment}'");
    connection.execute(AssertSqlSafe(made)).await.map_err(failed)?;
    let upgraded = upgrade(&mut connection, &schema, &place).await;
    let _ = connection.close().await;
    if let Err(error) = upgraded {
        let _ = remove(config, &schema).await;
        return Err(error);
    }
    Ok(schema)
}

/// Takes a schema that was made for a catalog back.
pub(in crate::catalog) async fn remove(config: &PostgresConfig, schema: &str) -> Result<(), StoreError> {
    let options = config.options()?;
    let place = PostgresConfig::place(&options, schema);
    let failed = |source| StoreError::Catalog { path: place.clone(), source };
    let mut connection = connect(&options).await.map_err(failed)?;
    connection.execute(AssertSqlSafe(format!("DROP SCHEMA {schema} CASCADE"))).await.map_err(failed)?;
    let _ = connection.close().await;
    Ok(())
}

/// Whether the catalog can be used: a sentence about the server.
pub(in crate::catalog) async fn check(config: &PostgresConfig) -> Result<String, StoreError> {
    let options = config.options()?;
    let place = PostgresConfig::place(&options, "");
    let failed = |source| StoreError::Catalog { path: place.clone(), source };
    let mut connection = connect(&options).await.map_err(failed)?;
    server_fits(&mut connection, &place).await?;
    let (version, may_create, encrypted): (String, bool, bool) = sqlx::query_as(
        "SELECT current_setting('server_version'), has_database_privilege(current_database(), 'CREATE'), \
         coalesce((SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()), false)",
    )
    .fetch_one(&mut connection)
    .await
    .map_err(failed)?;
    let _ = connection.close().await;
    if !may_create {
        return Err(StoreError::CatalogRights { path: place });
    }
    let encrypted = if encrypted { ", encrypted" } else { "" };
    Ok(format!("PostgreSQL {version} at `{}`{encrypted}", place.display()))
}

/// Looks whether the schema is there and fits, and upgrades it; gives this process a name if it writes.
pub(super) async fn prepare(
    options: &PgConnectOptions,
    (schema, place): (&str, &Path),
    read_only: bool,
) -> Result<Option<String>, StoreError> {
    let failed = |source| StoreError::Catalog { path: place.to_path_buf(), source };
    let mut connection = connect(options).await.map_err(failed)?;
    server_fits(&mut connection, place).await?;
    let is_there: bool = sqlx::query_scalar("SELECT EXISTS (SELECT 1 FROM pg_namespace WHERE nspname = $1)")
        .bind(schema)
        .fetch_one(&mut connection)
        .await
        .map_err(failed)?;
    if !is_there {
        return Err(StoreError::CatalogGone { path: place.to_path_buf() });
    }
    connection.execute(AssertSqlSafe(settings(schema, read_only))).await.map_err(failed)?;
    let id = if read_only {
        schema_fits(place, found(&mut connection).await.map_err(failed)?, newest(&MIGRATIONS))?;
        None
    } else {
        upgrade(&mut connection, schema, place).await?;
        connection.execute("DELETE FROM writers WHERE at < now() - interval '30 days'").await.map_err(failed)?;
        let id = sqlx::query_scalar("SELECT gen_random_uuid()::text").fetch_one(&mut connection).await;
        Some(id.map_err(failed)?)
    };
    let _ = connection.close().await;
    Ok(id)
}

async fn server_fits(connection: &mut PgConnection, place: &Path) -> Result<(), StoreError> {
    let asked = "SELECT current_setting('server_version_num')::bigint / 10000";
    let version: i64 = sqlx::query_scalar(asked)
        .fetch_one(connection)
        .await
        .map_err(|source| StoreError::Catalog { path: place.to_path_buf(), source })?;
    if version < OLDEST_SERVER {
        return Err(StoreError::OldServer { path: place.to_path_buf(), version, needed: OLDEST_SERVER });
    }
    Ok(())
}

async fn found(connection: &mut PgConnection) -> Result<i64, sqlx::Error> {
    let version: Option<i64> =
        sqlx::query_scalar("SELECT max(version) FROM _sqlx_migrations WHERE success").fetch_one(connection).await?;
    Ok(version.unwrap_or(0))
}

async fn upgrade(connection: &mut PgConnection, schema: &str, place: &Path) -> Result<(), StoreError> {
    let path = place.to_path_buf();
    // As long as it takes.
    let settings = format!("SET search_path TO {schema}; SET statement_timeout TO 0; SET lock_timeout TO '60s'");
    if let Err(source) = connection.execute(AssertSqlSafe(settings)).await {
        return Err(StoreError::Catalog { path, source });
    }
    match MIGRATIONS.run_direct(None, connection, false).await {
        Ok(()) => Ok(()),
        Err(MigrateError::VersionMissing(version)) => {
            let found = found(connection).await.unwrap_or(version);
            Err(StoreError::NewerSchema { path, found, known: newest(&MIGRATIONS) })
        }
        Err(MigrateError::Execute(source)) => Err(StoreError::Catalog { path, source }),
        Err(source) => Err(StoreError::Migration { path, source }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_holds_no_password_and_nothing_unknown() {
        for (url, reason) in [
            ("mysql://db", "begins with `postgres://`"),
            ("postgres://me:secret@db/wiretag", "holds no password"),
            ("postgres://me@db/wiretag?password=secret", "holds no password"),
            ("postgres://me@db/wiretag?sslmod=require&x=secret", "has no parameter `sslmod`"),
            ("postgres://me@db/wiretag?sslmode=perhaps", "cannot be read"),
        ] {
            let error = PostgresConfig::new(url, None).unwrap_err().to_string();
            assert!(error.contains(reason) && !error.contains("secret"), "{error}");
        }
        PostgresConfig::new("postgres://me@db:5433/wiretag?sslmode=verify-full&sslrootcert=/etc/ca.pem", None).unwrap();
        PostgresConfig::new("postgresql:///wiretag?host=/run/postgresql", None).unwrap();
    }

    #[test]
    fn both_databases_are_at_one_schema() {
        assert_eq!(newest(&MIGRATIONS), crate::catalog::sqlite::newest_schema());
    }
}
